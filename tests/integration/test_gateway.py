"""The gateway: a stock client through it sees what it sees without it."""

import hashlib
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import threading
import time

import libvirt
import libvirt_qemu

from lib import paths
from lib.domain import MIB, VM
from lib.host import Failure, wait_for
from lib.runner import Skip, limit

DOMAIN = '''<domain type='qemu'><name>{name}</name><memory unit='MiB'>64</memory>
<os><type arch='x86_64'>hvm</type></os></domain>'''
PING = bytes.fromhex('0000001c6b656570000000010000000100000002') + bytes(8)


def same(one, other):
    if one != other:
        raise Failure(f'not the same:\n{one!r}\n{other!r}')


def accepts(path):
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
            return True
        except OSError:
            return False


def fails(call, *args):
    """The libvirt error that call must end in: (code, message)."""
    try:
        call(*args)
    except libvirt.libvirtError as error:
        return error.get_error_code(), error.get_error_message()
    raise Failure(f'{call} did not fail')


def test_a_virsh_session(host):
    """define, start, list, dumpxml, destroy, undefine print what they print stock."""
    path = os.path.join(host.images, 'd.xml')
    with open(path, 'w') as xml:
        xml.write(DOMAIN.format(name='d'))
    seen = {}
    host.start_daemon()
    for ours in (False, True):
        seen[ours] = []
        for command in (('define', path), ('start', 'd'), ('list', '--all'),
                        ('domstate', 'd', '--reason'), ('dumpxml', 'd'), ('destroy', 'd'),
                        ('list', '--all'), ('dumpxml', 'd', '--inactive'),
                        ('undefine', 'd'), ('list', '--all'), ('capabilities',),
                        ('nodeinfo',), ('uri',), ('start', 'nobody'), ('frobnicate',)):
            done = host.virsh(*command, ours=ours, check=False)
            text = done.stdout + done.stderr
            # What differs from one start to the next, stock too.
            for what in (re.escape(host.backend), re.escape(host.front), r'<uuid>.*</uuid>',
                         r"id='\d+'", r'^ \d+ ', r'domain-\d+-d', r'/dev/pts/\d+',
                         r"mac address='.*'"):
                text = re.sub(what, '', text, flags=re.M)
            seen[ours].append((command, done.returncode, text))
    for one, other in zip(seen[False], seen[True]):
        same(one, other)


class Output:
    """The output of a program that runs on."""

    def __init__(self, command):
        self.text = ''
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self):
        for line in self.popen.stdout:
            self.text += line

    def end(self):
        self.popen.send_signal(signal.SIGINT)
        self.popen.wait(20)
        self._thread.join(20)
        return self.text


def test_events(host):
    """event --all --loop prints the same events as one beside it at the stock daemon."""
    host.start_daemon()
    vm = VM(host, start=False)
    loops = {ours: Output([paths.stock_virsh(), '-c', host.uri(ours), 'event', '--all',
                           '--loop']) for ours in (False, True)}
    time.sleep(1)  # registration has no sign of its own
    vm.start()
    vm.snapshot()
    vm.dom.suspend()
    vm.dom.resume()
    vm.destroy()
    for loop in loops.values():
        wait_for(lambda loop=loop: 'Stopped Destroyed' in loop.text,
                 lambda loop=loop: loop.text)
    texts = {ours: sorted(loop.end().splitlines()) for ours, loop in loops.items()}
    same(texts[False], texts[True])
    assert len(texts[True]) > 5, texts[True]


def test_console(host):
    """virsh console shows what the guest prints and sends what is typed."""
    host.start_daemon()
    vm = VM(host, start=False, os_xml="<bios useserial='yes'/>",
            extra_devices="<serial type='pty'/>")
    vm.dom.createWithFlags(libvirt.VIR_DOMAIN_START_PAUSED)
    ours, theirs = pty.openpty()
    virsh = subprocess.Popen([paths.stock_virsh(), '-c', host.uri(True), 'console', 'vm'],
                             stdin=theirs, stdout=theirs, stderr=theirs,
                             start_new_session=True)
    os.close(theirs)
    seen = b''

    def read(what):
        nonlocal seen
        if select.select([ours], [], [], 0.2)[0]:
            try:
                seen += os.read(ours, 65536)
            except OSError:
                pass
        return what in seen
    wait_for(lambda: read(b'Escape character'), 'virsh has connected')
    vm.dom.resume()
    wait_for(lambda: read(b'BIOS'), lambda: f'the BIOS speaks: {seen!r}', 60)
    os.write(ours, b'\x1d')
    wait_for(lambda: read(b'\n') and virsh.poll() is not None, 'virsh ends')
    os.close(ours)
    assert virsh.returncode == 0


def digest(path):
    with open(path, 'rb') as file:
        return hashlib.sha256(file.read()).hexdigest()


def make_pool(host):
    folder = os.path.join(host.images, 'pool')
    os.makedirs(folder)
    host.virsh('pool-create-as', 'p', 'dir', '--target', folder, ours=True)
    host.virsh('vol-create-as', 'p', 'v', '100M', '--format', 'raw', ours=True)
    return folder


def test_volume_streams(host):
    """100 MiB up and down, plain and sparse, with identical checksums."""
    host.start_daemon()
    source = os.path.join(host.images, 'source')
    with open(source, 'wb') as file:
        block = os.urandom(MIB)
        for i in range(100):
            file.write(bytes(MIB) if i % 10 > 6 else block[i:] + block[:i])
    folder = make_pool(host)
    for option in ((), ('--sparse',)):
        back = os.path.join(host.images, 'back')
        host.virsh('vol-upload', 'v', source, '--pool', 'p', *option, ours=True)
        same(digest(source), digest(os.path.join(folder, 'v')))
        host.virsh('vol-download', 'v', back, '--pool', 'p', *option, ours=True)
        same(digest(source), digest(back))
        os.unlink(back)


def resident(host):
    """KiB of memory the daemon has; 0 where a sanitizer's shadow is counted, too."""
    with open(f'/proc/{host.daemon_pid()}/maps') as maps:
        if 'libasan' in maps.read():
            return 0
    with open(f'/proc/{host.daemon_pid()}/status') as status:
        return int(re.search(r'VmRSS:\s+(\d+)', status.read()).group(1))


def test_a_stuck_client_blocks_nobody(host):
    """Clients that stop reading, or in mid-packet, take bounded memory and no time."""
    host.start_daemon()
    make_pool(host)
    fifo = os.path.join(host.images, 'fifo')
    os.mkfifo(fifo)
    holder = os.open(fifo, os.O_RDWR)
    before = resident(host)
    stuck = subprocess.Popen([paths.stock_virsh(), '-c', host.uri(True), 'vol-download',
                              'v', fifo, '--pool', 'p'], stdout=subprocess.DEVNULL,
                             stderr=subprocess.DEVNULL)
    half = socket.socket(socket.AF_UNIX)
    half.connect(host.front)
    half.sendall(struct.pack('>I', 33554436) + bytes(100))
    wait_for(lambda: select.select([holder], [], [], 0)[0], 'the download runs')
    time.sleep(0.5)
    stuck.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    for _ in range(5):
        assert 'QEMU' in host.virsh('version', ours=True)
    assert time.monotonic() - started < 5
    assert resident(host) - before < 40 * 1024, (before, resident(host))
    stuck.kill()
    stuck.wait()
    half.close()
    os.close(holder)


def test_monitor_commands_and_events(host):
    """qemu-monitor-command and qemu-monitor-event: the second program of the protocol."""
    host.start_daemon()
    vm = VM(host)
    text = host.virsh('qemu-monitor-command', 'vm', '--pretty',
                      '{"execute":"query-status"}', ours=True)
    assert '"running"' in text, text
    loop = Output([paths.stock_virsh(), '-c', host.uri(True), 'qemu-monitor-event', '--loop'])
    time.sleep(0.5)
    vm.dom.suspend()
    wait_for(lambda: 'event STOP' in loop.text, lambda: loop.text)
    loop.end()


def test_descriptors_both_ways(host):
    """openGraphicsFD returns a descriptor, openGraphics and FD groups send one."""
    host.start_daemon()
    VM(host, extra_devices="<graphics type='vnc'><listen type='none'/></graphics>"
       "<video><model type='vga'/></video>")
    dom = host.connect(ours=True).lookupByName('vm')
    with socket.socket(fileno=dom.openGraphicsFD(0)) as vnc:
        vnc.settimeout(20)
        same(vnc.recv(12), b'RFB 003.008\n')
    near, far = socket.socketpair()
    dom.openGraphics(0, far.fileno(), libvirt.VIR_DOMAIN_OPEN_GRAPHICS_SKIPAUTH)
    far.close()
    near.settimeout(20)
    same(near.recv(12), b'RFB 003.008\n')
    near.close()
    if hasattr(dom, 'FDAssociate'):
        with open(os.devnull) as one, open(os.devnull) as two:
            dom.FDAssociate('group', [one.fileno(), two.fileno()], 0)
    if hasattr(libvirt_qemu, 'qemuMonitorCommandWithFiles'):
        with open(os.devnull) as one:
            text, _ = libvirt_qemu.qemuMonitorCommandWithFiles(
                dom, '{"execute":"add-fd"}', [one.fileno()], 0)
            assert 'fdset-id' in text, text


def test_many_clients(host):
    """200 clients at once, each with calls in flight."""
    host.start_daemon()
    VM(host)
    barrier = threading.Barrier(200)
    problems = []

    def client():
        try:
            conn = libvirt.open(host.uri(True))
            barrier.wait(60)
            for _ in range(5):
                assert conn.lookupByName('vm').isActive()
            conn.close()
        except Exception as problem:
            problems.append(problem)
            barrier.abort()
    threads = [threading.Thread(target=client) for _ in range(200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems, problems[:3]


def test_read_only(host):
    """virsh -r, and the read-only socket, may read and not write, as stock."""
    host.start_daemon()
    VM(host)
    seen = {}
    for ours in (False, True):
        suffix = '-ro' if ours or host.system else ''
        one = libvirt.openReadOnly(host.uri(ours) + suffix)
        # A read-write open of that socket is read-only all the same.
        two = libvirt.open(host.uri(ours) + suffix) if suffix else one
        three = libvirt.openReadOnly(host.uri(ours))
        seen[ours] = []
        for conn in (one, two, three):
            dom = conn.lookupByName('vm')
            seen[ours] += [dom.info()[0], fails(dom.suspend),
                           fails(dom.XMLDesc, libvirt.VIR_DOMAIN_XML_SECURE)]
            seen[ours].append(fails(libvirt_qemu.qemuMonitorCommand, dom, 'info kvm', 1))
        for conn in {one, two, three}:
            conn.close()
        done = subprocess.run([paths.stock_virsh(), '-r', '-c', host.uri(ours), 'suspend',
                               'vm'], capture_output=True, text=True, check=False)
        seen[ours].append((done.returncode, done.stderr))
    same(seen[False], seen[True])


def test_keepalive(host):
    """Pings of either side reach the other: idle connections live on."""
    host.start_daemon()
    VM(host)
    conn = host.connect(ours=True)
    conn.setKeepAlive(1, 2)
    idle = socket.socket(socket.AF_UNIX)
    idle.connect(host.front)
    idle.sendall(PING)
    idle.settimeout(10)
    same(idle.recv(28)[11:16], b'\x01\0\0\0\x02')
    idle.close()
    time.sleep(4.5)
    assert conn.isAlive() and conn.lookupByName('vm').isActive()


def test_backend_dies(host):
    """libvirtd killed: clients hear of it at once; back again: new ones are served."""
    host.start_daemon()
    conn = host.connect(ours=True)
    closed = threading.Event()
    conn.registerCloseCallback(lambda *_: closed.set(), None)
    host.kill_libvirtd()
    assert closed.wait(5)
    code, text = fails(libvirt.open, host.uri(True))
    stock = fails(libvirt.open, host.uri(False))
    same((code, text), stock)
    host.start_libvirtd()
    assert host.connect(ours=True).listAllDomains() == []


def test_timeout(host):
    """--timeout: leaves when idle, not while there is a client."""
    host.start_daemon('--timeout', '2')
    conn = host.connect(ours=True)
    time.sleep(3.5)
    assert host.daemon_running() and conn.isAlive()
    conn.close()
    same(host.wait_daemon(), 0)
    assert not os.path.exists(host.front) and not os.path.exists(host.front + '-ro')


def run_daemon(host, *options):
    return subprocess.run([paths.DAEMON, *options], capture_output=True, text=True,
                          timeout=20, check=False)


def test_second_instance_and_wrong_options(host):
    """A second daemon, our own socket as backend, wrong options: clear refusals."""
    host.start_daemon()
    second = run_daemon(host, '--socket', host.front, '--backend', host.backend)
    assert second.returncode != 0 and 'already running' in second.stderr, second
    assert host.connect(ours=True).isAlive()
    # Another socket, but the same host on the same store; its sockets do not stay.
    for option in ((), ('--supervise',)):
        same_store = run_daemon(host, '--socket', host.front + '2', '--backend',
                                host.backend, '--state-dir', host.state, *option)
        assert same_store.returncode == 10 and host.state in same_store.stderr, same_store
        assert not os.path.exists(host.front + '2')
        assert not os.path.exists(host.front + '2-ro')
    for own, backend in ((host.backend, host.backend), (host.front, host.front + '-ro')):
        itself = run_daemon(host, '--socket', own, '--backend', backend)
        assert itself.returncode != 0 and 'backend' in itself.stderr, itself
    taken = run_daemon(host, '--socket', host.backend, '--backend', host.front)
    assert taken.returncode != 0 and 'already running' in taken.stderr, taken
    assert host.connect().isAlive()
    for wrong in (('--frobnicate',), ('--timeout', 'x'), ('--timeout', '0'), ('more',)):
        done = run_daemon(host, *wrong)
        assert done.returncode == 1 and done.stderr, done
    assert 'Usage' in run_daemon(host, '--help').stdout
    assert 'virtcheckpointd (libvirt-checkpoint)' in run_daemon(host, '--version').stdout


def test_stop_and_stale_sockets(host):
    """SIGTERM: status 0, sockets gone.  SIGKILL: the next start replaces them."""
    host.start_daemon()
    conn = host.connect(ours=True)
    same(host.stop_daemon(), 0)
    assert not os.path.exists(host.front) and not os.path.exists(host.front + '-ro')
    wait_for(lambda: not conn.isAlive(), 'the client has noticed')
    host.start_daemon()
    host.kill_daemon()
    assert os.path.exists(host.front)
    host.start_daemon()
    assert host.connect(ours=True).isAlive()


def test_finds_its_backend(host):
    """Without --backend: libvirtd, not what is left of a daemon that was in front of it."""
    stale = os.path.join(host.run, 'virtqemud-sock')
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(stale)
    sock = host.front + '3'
    daemon = subprocess.Popen([paths.DAEMON, '--socket', sock, '--state-dir', host.state])
    wait_for(lambda: accepts(sock), 'it listens')
    kind = 'system' if host.system else 'session'
    libvirt.open(f'qemu:///{kind}?socket={sock}').close()
    daemon.send_signal(signal.SIGTERM)
    same(daemon.wait(20), 0)
    assert os.path.exists(stale)


def worker_of(pid):
    with open(f'/proc/{pid}/task/{pid}/children') as children:
        found = children.read().split()
    return int(found[0]) if found else None


def test_in_front_and_killed(host):
    """Under virtqemud's name qemu:///system is ours; killed, the next client waits less
    than a second."""
    if not host.system:
        raise Skip('the system daemon')
    host.front = os.path.join(host.run, 'virtqemud-sock')
    host.start_daemon('--supervise')
    VM(host)
    worker = wait_for(lambda: worker_of(host.daemon_pid()), 'the worker runs')

    def client():
        conn = libvirt.open('qemu:///system')
        assert conn.lookupByName('vm').isActive()
        clients = host.daemon_log().count(' read-write')
        conn.close()
        return clients
    before = client()
    assert before > 0, 'the client went past us'
    for _ in range(4):
        os.kill(worker, signal.SIGKILL)
        started = time.monotonic()
        client()
        assert time.monotonic() - started < 1, time.monotonic() - started
        assert worker_of(host.daemon_pid()) != worker
        worker = worker_of(host.daemon_pid())
    same(host.stop_daemon(), 0)
    assert not os.path.exists(host.front)
    # Gone, so the client goes to libvirtd.
    libvirt.open('qemu:///system').close()


def test_supervisor_killed(host):
    """Without its supervisor the worker serves on, and removes the sockets at its end."""
    host.start_daemon('--supervise')
    worker = wait_for(lambda: worker_of(host.daemon_pid()), 'the worker runs')
    host.connect(ours=True)
    host.kill_daemon()
    assert host.connect(ours=True).isAlive()
    os.kill(worker, signal.SIGTERM)
    wait_for(lambda: not os.path.exists(host.front), 'the sockets are gone')
    assert not os.path.exists(host.front + '-ro')


def test_supervised_timeout(host):
    """A worker that leaves when idle takes its supervisor along."""
    host.start_daemon('--supervise', '--timeout', '1')
    same(host.wait_daemon(), 0)
    assert not os.path.exists(host.front)


def test_systemd_sockets(host):
    """Sockets passed by systemd are served, told apart by name or path, and left alone."""
    for names in (None, 'ro:rw'):
        fds = []
        for suffix in (('', '-ro') if names is None else ('-one', '-two')):
            fd = socket.socket(socket.AF_UNIX)
            fd.bind(host.front + suffix)
            fd.listen(5)
            fds.append(fd)
        if names is None:
            readwrite, readonly = host.front, host.front + '-ro'
        else:
            readonly, readwrite = host.front + '-one', host.front + '-two'
        script = 'LISTEN_PID=$$; export LISTEN_PID; exec "$@"'
        env = dict(os.environ, LISTEN_FDS='2', **({'LISTEN_FDNAMES': names} if names else {}))

        def place():
            first, second = (os.dup(fd.fileno()) for fd in fds)
            high = [os.dup2(first, 60), os.dup2(second, 61)]
            for at, fd in enumerate(high):
                os.dup2(fd, 3 + at)
        daemon = subprocess.Popen(['sh', '-c', script, 'sh', paths.DAEMON, '--backend',
                                   host.backend, '--state-dir', host.state], env=env,
                                  close_fds=False, preexec_fn=place)
        kind = 'system' if host.system else 'session'
        conn = libvirt.open(f'qemu:///{kind}?socket={readwrite}')
        dom = conn.defineXML(DOMAIN.format(name='d'))
        other = libvirt.open(f'qemu:///{kind}?socket={readonly}')
        code, _ = fails(other.lookupByName('d').undefine)
        same(code, libvirt.VIR_ERR_OPERATION_DENIED)
        dom.undefine()
        conn.close()
        other.close()
        daemon.send_signal(signal.SIGTERM)
        same(daemon.wait(20), 0)
        assert os.path.exists(readwrite) and os.path.exists(readonly)
        for fd in fds:
            os.unlink(fd.getsockname())
            fd.close()


@limit(180)
def test_session_of_a_user(host):
    """As an ordinary user's daemon it finds, or starts, that user's libvirtd."""
    if not host.system:
        raise Skip('root makes the user')
    home = os.path.join(host.images, 'home')
    os.makedirs(home)
    os.chown(home, 65534, 65534)
    os.chmod(home, 0o700)
    env = {'PATH': os.environ['PATH'] + ':/usr/sbin', 'HOME': home}
    for name in ('RUNTIME_DIR', 'CONFIG_HOME', 'CACHE_HOME', 'DATA_HOME'):
        env['XDG_' + name] = os.path.join(home, name)
        os.makedirs(env['XDG_' + name])
        os.chown(env['XDG_' + name], 65534, 65534)
        os.chmod(env['XDG_' + name], 0o700)
    as_user = ['setpriv', '--reuid', '65534', '--regid', '65534', '--clear-groups']
    sock = os.path.join(env['XDG_RUNTIME_DIR'], 'libvirt', 'virtcheckpointd-sock')
    daemon = subprocess.Popen([*as_user, paths.DAEMON], env=env)
    wait_for(lambda: accepts(sock), 'it listens')
    virsh = subprocess.run([*as_user, paths.stock_virsh(), '-c',
                            f'qemu:///session?socket={sock}', 'list', '--all'], env=env,
                           capture_output=True, text=True, timeout=100, check=False)
    assert virsh.returncode == 0, virsh.stderr
    # Another user (here by way of a 0711 folder) is not served: to libvirtd every
    # client of this daemon is its user.
    for folder in (home, env['XDG_RUNTIME_DIR'], os.path.dirname(sock)):
        os.chmod(folder, 0o711)
    os.chmod(sock, 0o777)
    other = subprocess.run(['setpriv', '--reuid', '65533', '--regid', '65533',
                            '--clear-groups', paths.stock_virsh(), '-c',
                            f'qemu:///session?socket={sock}', 'list'],
                           env=dict(env, HOME='/nonexistent', XDG_CACHE_HOME='/tmp',
                                    XDG_CONFIG_HOME='/nonexistent'),
                           capture_output=True, text=True, timeout=100, check=False)
    assert other.returncode != 0, other.stdout
    daemon.send_signal(signal.SIGTERM)
    same(daemon.wait(20), 0)
