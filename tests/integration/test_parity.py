"""A client cannot tell that it talks to us: the same calls, played against libvirt and
through us on twin guests, give the same outputs, orders and errors, but for what
docs/differences.md lists."""

import os

import libvirt

from lib import parity
from lib.domain import MIB, VM, qemu_img
from lib.runner import limit

REDEFINE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE
VALIDATE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_REDEFINE_VALIDATE
QUIESCE = libvirt.VIR_DOMAIN_CHECKPOINT_CREATE_QUIESCE
NO_DOMAIN = libvirt.VIR_DOMAIN_CHECKPOINT_XML_NO_DOMAIN
SECURE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SECURE
SIZE = libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE
TOPOLOGICAL = libvirt.VIR_DOMAIN_CHECKPOINT_LIST_TOPOLOGICAL

# What a guest may have beside its disks: a read-only one, an empty drive, a password.
DEVICES = '''<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>
  <source file='{ro}'/><target dev='vdy' bus='virtio'/><readonly/></disk>
  <disk type='file' device='cdrom'><target dev='sda' bus='sata'/><readonly/></disk>
  <graphics type='vnc' autoport='yes' listen='127.0.0.1' passwd='secret'
            passwdValidTo='2034-01-02T03:04:05'/>'''
AGENT = '''<channel type='unix'><source mode='bind' path='{path}'/>
  <target type='virtio' name='org.qemu.guest_agent.0'/></channel>'''


def xml(name, disks='', more=''):
    inner = f'<disks>{disks}</disks>' if disks else ''
    return f'<domaincheckpoint><name>{name}</name>{more}{inner}</domaincheckpoint>'


def twins(host, play, disks=None, devices='', start=True):
    """Plays the script on two guests of their own; compares."""
    host.start_daemon()
    players = []
    for name, ours in (('twin0', False), ('twin1', True)):
        ro = os.path.join(host.images, f'{name}-ro.qcow2')
        raw = os.path.join(host.images, f'{name}-raw.img')
        old = os.path.join(host.images, f'{name}-old.qcow2')
        qemu_img('create', '-q', '-f', 'qcow2', ro, '1M')
        qemu_img('create', '-q', '-f', 'raw', raw, '1M')
        qemu_img('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', old, '1M')
        vm = VM(host, name=name, disks=disks or {'vda': 4 * MIB, 'vdb': MIB}, start=start,
                memory=16, extra_devices=devices.format(
                    ro=ro, raw=raw, old=old, path=os.path.join(host.work, name + '.ga')))
        players.append(parity.Player(host, vm, ours, other='twin0' if ours else 'twin1'))
    for player in players:
        play(player)
    count = parity.compare(*players)
    print(f'#   {count} calls compared', flush=True)


def create_calls(p):
    """Creating, in every way that is allowed, and some that are not."""
    create = p.dom.checkpointCreateXML
    p.api('create/plain', create, xml('a'), 0)
    p.api('create/again', create, xml('a'), 0)
    p.api('create/no name', create, '<domaincheckpoint/>', 0)
    unnamed = [c for c in p.dom.listAllCheckpoints() if c.getName() != 'a'][0]
    p.note('create/generated name is a time', unnamed.getName())
    p.api('create/generated name, disks', unnamed.getXMLDesc, NO_DOMAIN)
    unnamed.delete()
    p.api('create/description', create, xml('b', more='<description>x &lt; &quot;y&quot; '
                                            '&#228;&#10;z</description>'), 0)
    p.api('create/empty description', create, xml('b2', more='<description/>'), 0)
    p.api('create/one disk', create, xml('c', "<disk name='vda'/>"), 0)
    p.api('create/a disk left out', create, xml(
        'd', "<disk name='vda' checkpoint='no'/><disk name='vdb' checkpoint='bitmap'/>"), 0)
    p.api('create/by path', create, xml(
        'e', f"<disk name='{p.vm.disks['vdb'].path}'/>"), 0)
    p.api('create/no disk at all', create, xml('f', "<disk name='vda' checkpoint='no'/>"
                                               "<disk name='vdb' checkpoint='no'/>"), 0)
    p.api('create/own bitmap name', create, xml(
        'g', "<disk name='vda' bitmap='mine'/>"), 0)
    p.api('create/bitmap as the name', create, xml(
        'h', "<disk name='vda' bitmap='h'/>"), 0)
    p.api('create/empty bitmap name', create, xml('h2', "<disk name='vda' bitmap=''/>"), 0)
    p.api('create/with what is ignored', create, xml(
        'i', more='<parent><name>a</name></parent><creationTime>5</creationTime>'), 0)
    p.api('create/size is ignored', create, xml('j', "<disk name='vda' size='5'/>"), 0)
    p.api('create/comments', create, '<?xml version="1.0"?><!-- a --><domaincheckpoint>'
          '<!-- b --><?c d?><name>k</name></domaincheckpoint>', 0)
    p.api('create/read-only disk', create, xml('l', "<disk name='vdy'/>"), 0)
    p.api('create/empty drive', create, xml('l', "<disk name='sda'/>"), 0)
    p.api('create/read-only disk left out', create, xml(
        'm', "<disk name='vdy' checkpoint='no'/><disk name='vda'/>"), 0)
    for flags in range(1, 9):
        if flags != QUIESCE:
            p.api(f'create/bad XML with flags {flags}', create, '<x/>', flags)
    p.api('create/flag nobody knows', create, xml('n'), 1 << 20)
    for name in ('a', 'b', 'b2', 'c', 'd', 'e', 'f', 'h', 'i', 'j', 'k', 'm'):
        checkpoint = p.lookup(name)
        if checkpoint:
            p.api(f'create/XML of {name}', checkpoint.getXMLDesc, NO_DOMAIN)
            p.api(f'create/parent of {name}', checkpoint.getParent)
        else:
            p.note(f'create/{name} is not there', '')
    for flags in (0, SECURE, SIZE, SIZE | NO_DOMAIN, SECURE | SIZE, 8, 1 << 20):
        p.api(f'xml/flags {flags}', p.lookup('a').getXMLDesc, flags)
    p.api('xml/size of a partial one', p.lookup('e').getXMLDesc, SIZE | NO_DOMAIN)
    p.vm.write(0, 65536, 7)
    p.api('xml/size after a write', p.lookup('d').getXMLDesc, SIZE | NO_DOMAIN)
    p.api('xml/size after a write, newest', p.lookup('m').getXMLDesc, SIZE | NO_DOMAIN)


@limit(180)
def test_creating_and_dumping(host):
    """create and getXMLDesc: every flag, every way to name disks."""
    twins(host, create_calls, devices=DEVICES)


def bad_calls(p):
    """Input that is refused, each time with nothing changed."""
    create = p.dom.checkpointCreateXML
    p.api('bad/first', create, xml('good'), 0)
    disk = "<disk name='vda'/>"
    inputs = {
        'empty': '', 'cut': '<domaincheckpoint>', 'no XML': 'hello', 'root': '<x/>',
        'two roots': '<domaincheckpoint/><domaincheckpoint/>',
        'entity': '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/hostname">]>'
                  '<domaincheckpoint><name>x</name><description>&e;</description>'
                  '</domaincheckpoint>',
        'unknown element': xml('x', more='<surprise/>'),
        'unknown attribute': "<domaincheckpoint x='1'><name>x</name></domaincheckpoint>",
        'text': xml('x', more='text'),
        'two names': xml('x', more='<name>y</name>'),
        'two disks elements': xml('x', disk, '<disks><disk name="vdb"/></disks>'),
        'empty disks': xml('x', more='<disks/>'),
        'unknown element in disk': xml('x', "<disk name='vda'><driver/></disk>"),
        'unknown attribute of disk': xml('x', "<disk name='vda' type='file'/>"),
        'disk without name': xml('x', '<disk/>'),
        'disk with a bad name': xml('x', "<disk name='../vda'/>"),
        'disk twice': xml('x', disk + disk),
        'disk twice, path': None,
        'disk unknown': xml('x', "<disk name='vdz'/>"),
        'disk unknown, left out': xml('x', "<disk name='vdz' checkpoint='no'/>"),
        'path unknown': xml('x', "<disk name='/no/such'/>"),
        'too many disks': xml('x', disk * 9),
        'disk checkpoint odd': xml('x', "<disk name='vda' checkpoint='yes'/>"),
        'bitmap without checkpoint': xml(
            'x', "<disk name='vda' checkpoint='no' bitmap='x'/>"),
        'size no number': xml('x', "<disk name='vda' size='big'/>"),
        'time no number': xml('x', more='<creationTime>now</creationTime>'),
        'parent empty': xml('x', more='<parent/>'),
        'name empty': xml(''), 'name blank': xml(' '), 'name with blank': xml('a b'),
        'name slash': xml('a/b'), 'name dots': xml('..'), 'name dot': xml('.hidden'),
        'name up': xml('../../x'), 'name line': xml('a&#10;b'),
        'name control': xml('a&#1;b'), 'name not ASCII': xml('\u00e4'),
        'name taken': xml('good'),
    }
    inputs['disk twice, path'] = xml('x', disk + f"<disk name='{p.vm.disks['vda'].path}'/>")
    for what, text in inputs.items():
        p.api(f'bad/{what}', create, text, 0)
    for length in (200, 201, 251, 252, 1024):
        p.api(f'bad/name of {length}', create, xml('n' * length), 0)
        p.forget('n' * length)
    p.api('bad/deep', create, xml('x', more='<description>' + '<a>' * 300 + '</a>' * 300 +
                                  '</description>'), 0)
    p.api('bad/deeper', create, '<a>' * 5000, 0)
    p.api('bad/long text', create, xml('x', more='<description>' + 'y' * 3000000 +
                                       '</description>'), 0)
    p.forget('x')
    p.api('bad/oversized', create, xml('x', more='<description>' + 'y' * 5000000 +
                                       '</description>'), 0)
    p.virsh('bad/not UTF-8', 'checkpoint-create', p.vm.name, p.file(
        'latin.xml', b'<domaincheckpoint><name>\xe4</name></domaincheckpoint>'))
    p.virsh('bad/description not UTF-8', 'checkpoint-create', p.vm.name, p.file(
        'latin.xml', b'<domaincheckpoint><name>z</name><description>\xe4</description>'
        b'</domaincheckpoint>'))
    p.virsh('bad/other encoding', 'checkpoint-create', p.vm.name, p.file(
        'latin.xml', b'<?xml version="1.0" encoding="ISO-8859-1"?><domaincheckpoint>'
        b'<name>z</name><description>\xe4</description></domaincheckpoint>'))
    p.virsh('bad/dump of that', 'checkpoint-dumpxml', p.vm.name, 'z', '--no-domain')
    for name in ('', '/', '..', 'no such', 'no-such', '\u00e4', 'n' * 300):
        p.api(f'bad/look up {name[:9]!r}', p.dom.checkpointLookupByName, name, 0)
    p.api('bad/look up with flags', p.dom.checkpointLookupByName, 'good', 1)
    p.api('bad/list', p.dom.listAllCheckpoints, 0)


@limit(180)
def test_bad_input(host):
    """Bad input is refused with libvirt's code and text, and nothing is changed."""
    twins(host, bad_calls)


def disk_calls(p):
    """Disks that cannot hold a bitmap."""
    create = p.dom.checkpointCreateXML
    p.api('disks/all', create, xml('a'), 0)
    p.api('disks/raw', create, xml('b', "<disk name='vdr'/>"), 0)
    p.api('disks/raw left out', create, xml('c', "<disk name='vda'/>"), 0)
    p.api('disks/version 2', create, xml('d', "<disk name='vdo'/>"), 0)
    p.api('disks/both', create, xml('e', "<disk name='vda'/><disk name='vdo'/>"), 0)
    p.api('disks/list', p.dom.listAllCheckpoints, 0)
    p.api('disks/XML', p.lookup('c').getXMLDesc, 0)


def test_disks_that_cannot(host):
    """Raw disks and qcow2 of version 2."""
    twins(host, disk_calls, devices='''<disk type='file' device='disk'>
      <driver name='qemu' type='raw'/><source file='{raw}'/><target dev='vdr'
      bus='virtio'/></disk><disk type='file' device='disk'><driver name='qemu'
      type='qcow2'/><source file='{old}'/><target dev='vdo' bus='virtio'/></disk>''')


def list_calls(p):
    """Lists in all combinations of flags, then deletes."""
    for name in ('a', 'b', 'c', 'd', 'e'):
        p.api(f'list/create {name}', p.dom.checkpointCreateXML, xml(name), 0)
    for flags in list(range(16)) + [16, 32, 1 << 20]:
        p.api(f'list/flags {flags}', p.dom.listAllCheckpoints, flags)
    for name in ('a', 'c', 'e'):
        for flags in list(range(16)) + [32]:
            p.api(f'children/of {name} flags {flags}', p.lookup(name).listAllChildren,
                  flags)
    p.order('list/in order', p.dom.listAllCheckpoints, TOPOLOGICAL)
    p.order('list/descendants in order', p.lookup('b').listAllChildren, 1 | TOPOLOGICAL)
    guest = p.vm.name
    for what in ('', '--roots', '--leaves', '--no-leaves', '--tree', '--name', '--parent',
                 '--topological', '--name --tree', '--roots --tree', '--roots --leaves',
                 '--leaves --no-leaves', '--parent --roots', '--parent --tree',
                 '--from b', '--from b --descendants', '--from b --tree',
                 '--from b --parent', '--from b --roots', '--descendants', '--from nobody',
                 '--from b --descendants --name --topological', '--from b --leaves',
                 '--from b --descendants --leaves --name', '--surprise'):
        p.virsh(f'virsh/list {what}', 'checkpoint-list', guest, *what.split())
    for what in ('checkpoint-parent {} c', 'checkpoint-parent {} a', 'checkpoint-parent {}',
                 'checkpoint-parent {} nobody', 'checkpoint-info {} a',
                 'checkpoint-info {} c', 'checkpoint-info {} e', 'checkpoint-info {} zz',
                 'checkpoint-dumpxml {} c', 'checkpoint-dumpxml {} c --no-domain',
                 'checkpoint-dumpxml {} c --size --no-domain',
                 'checkpoint-dumpxml {} c --security-info',
                 'checkpoint-dumpxml {} c --xpath //disk',
                 'checkpoint-dumpxml {} nobody', 'checkpoint-dumpxml nobody c',
                 'checkpoint-delete {} nobody', 'checkpoint-delete {}',
                 'checkpoint-delete {} c --children --children-only',
                 'list --name --with-checkpoint', 'list --name --without-checkpoint',
                 'checkpoint-delete {} e --children-only', 'checkpoint-delete {} c',
                 'checkpoint-list {} --tree', 'checkpoint-delete {} b --children-only',
                 'checkpoint-list {}', 'checkpoint-delete {} b --metadata',
                 'checkpoint-list {}  --name', 'checkpoint-delete {} a --children',
                 'checkpoint-list {}  ', 'list --name --with-checkpoint --all'):
        p.virsh(f'virsh/{what}', *what.format(guest).split())


@limit(180)
def test_listing_and_deleting(host):
    """Lists and children in all combinations, virsh's tables and trees, deletes."""
    twins(host, list_calls)


def delete_calls(p):
    """Deletes by the API, with every flag, running and not."""
    def fresh(*names):
        for name in names:
            p.dom.checkpointCreateXML(xml(name))
    fresh('a', 'b', 'c', 'd')
    for flags in (5, 7, 8, 16, 1 << 20):
        p.api(f'delete/flags {flags}', p.lookup('b').delete, flags)
    p.api('delete/children only', p.lookup('b').delete, 4)
    p.api('delete/left 1', p.dom.listAllCheckpoints, 0)
    fresh('e', 'f')
    p.api('delete/middle', p.lookup('e').delete, 0)
    p.api('delete/moved up', p.lookup('f').getParent)
    p.api('delete/metadata', p.lookup('f').delete, 2)
    p.api('delete/left 2', p.dom.listAllCheckpoints, 0)
    p.api('delete/name again', p.dom.checkpointCreateXML, xml('f'), 0)
    p.forget('f')
    fresh('g', 'h')
    gone = p.lookup('g')
    p.api('delete/children', gone.delete, 1)
    for what in ('delete', 'getXMLDesc', 'getParent', 'listAllChildren'):
        p.api(f'delete/of a deleted one, {what}', getattr(gone, what), 0)
    fresh('i', 'k')
    p.api('delete/children only, metadata', p.lookup('i').delete, 6)
    p.api('delete/oldest', p.lookup('a').delete, 0)
    p.api('delete/left 3', p.dom.listAllCheckpoints, 0)
    p.api('delete/no parent', p.lookup('b').getParent)
    p.api('delete/parent with flags', p.lookup('b').getParent, 1)
    p.vm.destroy()
    p.api('off/list', p.dom.listAllCheckpoints, 0)
    p.api('off/XML', p.lookup('b').getXMLDesc, NO_DOMAIN)
    p.api('off/XML with size', p.lookup('b').getXMLDesc, SIZE)
    p.api('off/parent', p.lookup('i').getParent)
    p.api('off/create', p.dom.checkpointCreateXML, xml('o'), 0)
    p.api('off/delete', p.lookup('b').delete, 0)
    p.api('off/delete metadata', p.lookup('i').delete, 2)
    p.vm.start()


@limit(180)
def test_deleting(host):
    """Deletes with every flag, of what is gone, and of domains that are off."""
    twins(host, delete_calls)


def virsh_calls(p):
    """The commands that create, by virsh."""
    guest = p.vm.name
    for what in ('{} a', '{} --name b --description d', '{}  a', '{}   c --print-xml',
                 '{} d --print-xml --description x --diskspec vda '
                 '--diskspec vdb,checkpoint=no --diskspec vdc,checkpoint=bitmap,bitmap=q',
                 '{} e --diskspec vda', '{} f --diskspec vda,checkpoint=no '
                 '--diskspec vdb,checkpoint=bitmap', '{} g vda', '{} h --diskspec vdz',
                 '{} i --diskspec vda,checkpoint=maybe', '{} i --diskspec vda,surprise=1',
                 '{} i --diskspec vda,bitmap=other', '{} i --diskspec ,',
                 '{} a/b', '{} i --surprise', 'nobody i',
                 '{} n --diskspec vda --diskspec vda'):
        p.virsh(f'virsh/create-as {what}', 'checkpoint-create-as',
                *what.format(guest).split())
    for what, text in (('plain', xml('p')), ('malformed', '<domaincheckpoint>'),
                       ('unknown', xml('q', more='<q/>')), ('twice', xml('p')),
                       ('disks', xml('r', "<disk name='vda'/>"))):
        p.virsh(f'virsh/create {what}', 'checkpoint-create', guest,
                p.file('c.xml', text))
    p.virsh('virsh/create of no file', 'checkpoint-create', guest, '/no/such/file')
    p.virsh('virsh/create no domain', 'checkpoint-create', 'nobody', p.file('c.xml', ''))
    p.virsh('virsh/redefine-validate alone', 'checkpoint-create', guest,
            p.file('c.xml', xml('p')), '--redefine-validate')
    p.virsh('virsh/redefine without time', 'checkpoint-create', guest,
            p.file('c.xml', xml('p')), '--redefine')
    p.virsh('virsh/no file', 'checkpoint-create', guest)
    p.virsh('virsh/names', 'checkpoint-list', guest, '--name', '--topological')
    p.virsh('virsh/edit nothing', 'checkpoint-edit', guest, 'a', env={'EDITOR': 'true'})
    p.virsh('virsh/edit', 'checkpoint-edit', guest, 'b',
            env={'EDITOR': "sed -i 's,<description>d<,<description>changed<,'"})
    p.virsh('virsh/edited', 'checkpoint-dumpxml', guest, 'b', '--no-domain')
    p.virsh('virsh/edit name', 'checkpoint-edit', guest, 'b',
            env={'EDITOR': "sed -i 's,<name>b<,<name>b9<,'"})
    p.virsh('virsh/edit nobody', 'checkpoint-edit', guest, 'nobody',
            env={'EDITOR': 'true'})
    p.virsh('virsh/edit badly', 'checkpoint-edit', guest, 'a',
            env={'EDITOR': "sed -i 's,<disks>,<x/><disks>,'"})
    p.virsh('virsh/in the end', 'checkpoint-list', guest, '--parent')


@limit(180)
def test_virsh_commands(host):
    """The commands of virsh that create and edit, with all their options."""
    twins(host, virsh_calls)


def redefine_calls(p):
    """Redefining, as clients do before each backup, and wrongly."""
    create = p.dom.checkpointCreateXML
    for name in ('a', 'b', 'c'):
        create(xml(name))
    text = {name: p.lookup(name).getXMLDesc() for name in ('a', 'b', 'c')}
    bare = {name: p.lookup(name).getXMLDesc(NO_DOMAIN) for name in ('a', 'b', 'c')}
    for name, description in text.items():
        p.api(f'redefine/again {name}', create, description, REDEFINE)
        p.api(f'redefine/validated {name}', create, description, REDEFINE | VALIDATE)
        p.api(f'redefine/bare {name}', create, bare[name], REDEFINE)
        p.api(f'redefine/XML {name}', p.lookup(name).getXMLDesc, NO_DOMAIN)
    p.order('redefine/order', p.dom.listAllCheckpoints, TOPOLOGICAL)
    p.api('redefine/parents', lambda: [p.lookup(n).getParent().getName() for n in 'bc'])
    p.api('redefine/described', create, text['b'].replace(
        '<name>b</name>', '<name>b</name><description>new</description>'), REDEFINE)
    p.api('redefine/described XML', p.lookup('b').getXMLDesc, NO_DOMAIN)
    p.api('redefine/no name', create, text['b'].replace('<name>b</name>', '', 1), REDEFINE)
    p.api('redefine/no time', create, xml('b'), REDEFINE)
    p.api('redefine/own parent', create, text['b'].replace(
        '<parent>\n    <name>a<', '<parent>\n    <name>b<'), REDEFINE)
    p.api('redefine/circle', create, text['b'].replace(
        '<parent>\n    <name>a<', '<parent>\n    <name>c<'), REDEFINE)
    p.api('redefine/no such parent', create, text['b'].replace(
        '<parent>\n    <name>a<', '<parent>\n    <name>zz<'), REDEFINE)
    p.api('redefine/other domain', create, text['b'].replace(
        p.vm.uuid, '00000000-1111-4222-8333-444444444444'), REDEFINE)
    p.api('redefine/unknown disk', create, bare['b'].replace("name='vda'", "name='vdz'"),
          REDEFINE)
    p.api('redefine/disk twice', create, bare['b'].replace("name='vdb'", "name='vda'"),
          REDEFINE)
    p.api('redefine/unknown disk, in full', create, text['b'].replace(
        "name='vda' checkpoint", "name='vdz' checkpoint"), REDEFINE)
    p.api('redefine/disk twice, in full', create, text['b'].replace(
        "name='vdb' checkpoint", "name='vda' checkpoint"), REDEFINE)
    p.api('redefine/XML in full', p.lookup('c').getXMLDesc, 0)
    p.api('redefine/in full', create, text['c'], REDEFINE)
    p.api('redefine/XML of that', p.lookup('c').getXMLDesc, 0)
    new = bare['c'].replace('<name>c</name>', '<name>n</name>', 1).replace(
        '<name>b</name>', '<name>c</name>')
    p.api('redefine/new, validated', create, new.replace("bitmap='c'", "bitmap='n'"),
          REDEFINE | VALIDATE)
    p.api('redefine/new, time only', create, xml(
        'n', more='<creationTime>1600000000</creationTime>'), REDEFINE)
    p.api('redefine/new, XML', p.lookup('n').getXMLDesc, NO_DOMAIN)
    p.api('redefine/new, taken', create, xml('n'), 0)
    p.api('redefine/new, gone', p.lookup('n').delete, 2)
    p.api('redefine/malformed', create, '<domaincheckpoint>', REDEFINE)
    p.api('redefine/quiesce', create, '<x/>', REDEFINE | QUIESCE)
    p.api('redefine/left', p.lookup('b').delete, 2)
    p.api('redefine/left, again', create, text['b'], REDEFINE | VALIDATE)
    p.api('redefine/left, list', p.dom.listAllCheckpoints)
    p.api('redefine/left, parent', lambda: p.lookup('b').getParent().getName())
    p.api('redefine/left, XML', p.lookup('b').getXMLDesc, SIZE | NO_DOMAIN)
    p.lookup('b').delete()
    now = p.lookup('c').getXMLDesc()
    p.vm.destroy()
    p.api('redefine/off', create, now, REDEFINE)
    p.api('redefine/off, validated', create, now, REDEFINE | VALIDATE)
    p.api('redefine/undefine refused', p.dom.undefine)
    p.api('redefine/undefine', p.dom.undefineFlags,
          libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA)
    uuid = p.vm.uuid
    p.dom = p.vm.conn.defineXML(p.vm.xml().replace('</name>', f'</name><uuid>{uuid}</uuid>',
                                                   1))
    p.vm.dom = p.dom
    p.connect()
    create = p.dom.checkpointCreateXML
    p.vm.start()
    for name, description in text.items():
        p.api(f'redefine/defined anew {name}', create, description, REDEFINE)
    p.order('redefine/defined anew, order', p.dom.listAllCheckpoints, TOPOLOGICAL)
    p.api('redefine/defined anew, validated', create, text['c'], REDEFINE | VALIDATE)
    p.api('redefine/defined anew, next', create, xml('d'), 0)


@limit(180)
def test_redefining(host):
    """redefine and redefine-validate: again, in order, changed, of a domain defined anew."""
    twins(host, redefine_calls)


def life_calls(p):
    """What becomes of checkpoints in the life of a domain."""
    create = p.dom.checkpointCreateXML
    for name in ('a', 'b'):
        create(xml(name))
    guest = p.vm.name
    p.virsh('life/undefine running', 'undefine', guest)
    p.virsh('life/still there', 'checkpoint-list', guest, '--name')
    p.conn.defineXML(p.dom.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    p.vm.destroy()
    p.virsh('life/after a stop', 'checkpoint-list', guest, '--name')
    p.virsh('life/with', 'list', '--all', '--name', '--with-checkpoint')
    p.virsh('life/without', 'list', '--all', '--name', '--without-checkpoint')
    p.virsh('life/both', 'list', '--all', '--name', '--with-checkpoint',
            '--without-checkpoint')
    p.virsh('life/undefine', 'undefine', guest)
    p.virsh('life/undefine with snapshots', 'undefine', guest, '--snapshots-metadata')
    p.virsh('life/rename', 'domrename', guest, guest + '-new')
    if not p.host.virsh('list', '--all', '--name', check=False).stdout.count(guest + '-new'):
        p.note('life/renamed', 'no')
    else:
        p.note('life/renamed', 'yes')
        p.dom.rename(guest)
    p.virsh('life/after the rename', 'checkpoint-list', guest, '--name')
    p.vm.start()
    p.virsh('life/after a start', 'checkpoint-list', guest, '--name')
    p.virsh('life/create', 'checkpoint-create-as', guest, 'c')
    p.virsh('life/parent', 'checkpoint-parent', guest, 'c')
    ro = p.host.connect(ours=p.ours, readonly=True).lookupByName(guest)
    p.api('ro/create', ro.checkpointCreateXML, xml('r'), 0)
    p.api('ro/list', ro.listAllCheckpoints, 0)
    p.api('ro/look up', ro.checkpointLookupByName, 'a', 0)
    checkpoint = ro.checkpointLookupByName('a')
    p.api('ro/XML', checkpoint.getXMLDesc, 0)
    p.api('ro/XML secure', checkpoint.getXMLDesc, SECURE)
    p.api('ro/XML size', checkpoint.getXMLDesc, SIZE | NO_DOMAIN)
    p.api('ro/delete', checkpoint.delete, 0)
    p.api('ro/children', checkpoint.listAllChildren, 0)
    p.api('ro/parent', checkpoint.getParent)
    p.vm.destroy()
    p.virsh('life/undefine for good', 'undefine', guest, '--checkpoints-metadata')
    p.virsh('life/gone', 'checkpoint-list', guest)


@limit(180)
def test_life_of_a_domain(host):
    """undefine, rename, stop, start, lists of domains; read-only connections."""
    twins(host, life_calls)


def quiesce_calls(p):
    """quiesce, without an agent that answers."""
    p.api('quiesce/no channel', p.dom.checkpointCreateXML, xml('a'), QUIESCE)
    p.virsh('quiesce/virsh', 'checkpoint-create-as', p.vm.name, 'b', '--quiesce')
    p.virsh('quiesce/virsh file', 'checkpoint-create', p.vm.name,
            p.file('c.xml', xml('c')), '--quiesce')
    p.virsh('quiesce/virsh print', 'checkpoint-create-as', p.vm.name, 'b', '--quiesce',
            '--print-xml')
    p.api('quiesce/with redefine', p.dom.checkpointCreateXML, xml('a'), QUIESCE | REDEFINE)
    p.api('quiesce/list', p.dom.listAllCheckpoints, 0)


def test_quiesce_without_agent(host):
    """quiesce says that there is no agent, and nothing is created."""
    twins(host, quiesce_calls)
