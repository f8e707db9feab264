"""Who may do what through the daemon: exactly who may without it."""

import os
import re
import subprocess

from lib import paths
from lib.domain import VM
from lib.host import Process, wait_for
from lib.runner import Skip

MEMBER, OUTSIDER = 54321, 54322
USERS = {'root': 0, 'member': MEMBER, 'outsider': OUTSIDER}
COMMANDS = (('list', '--all', '--name'), ('domid', 'vm'), ('suspend', 'vm'),
            ('resume', 'vm'), ('dumpxml', 'vm', '--security-info'), ('checkpoint-list', 'vm'),
            ('qemu-monitor-command', 'vm', '--hmp', 'info kvm'))


def make_users(host):
    """Two users in this mount namespace, one of them in libvirt's group."""
    if not host.system:
        raise Skip('the system daemon')
    for name, lines in (('passwd', [f'member:x:{MEMBER}:{MEMBER}::/nonexistent:/bin/sh',
                                    f'outsider:x:{OUTSIDER}:{OUTSIDER}::/nonexistent:/bin/sh']),
                        ('group', [f'member:x:{MEMBER}:', f'outsider:x:{OUTSIDER}:'])):
        with open(f'/etc/{name}') as file:
            text = file.read()
        if f':x:{MEMBER}:' in text:
            continue
        text += '\n'.join(lines) + '\n'
        if name == 'group':
            text, found = re.subn(r'^(libvirt:[^:]*:\d+:)', r'\1member,', text, flags=re.M)
            if not found:
                raise Skip('there is no group libvirt')
        copy = os.path.join(host.work, 'lib', name)
        with open(copy, 'w') as file:
            file.write(text)
        os.chmod(copy, 0o644)
        subprocess.run(['mount', '--bind', copy, f'/etc/{name}'], check=True)


def configure(host, **settings):
    """Restarts libvirtd with other settings."""
    path = os.path.join(host.config, 'libvirtd.conf')
    with open(path) as conf:
        lines = [line for line in conf if line.split(' =')[0] not in settings]
    with open(path, 'w') as conf:
        conf.writelines(lines)
        for key, value in settings.items():
            conf.write(f'{key} = "{value}"\n')
    host.restart_libvirtd()


def as_user(user, host, ours, readonly, *command):
    """(status, output) of a stock virsh run by a user."""
    uid = str(USERS[user])
    virsh = [paths.stock_virsh(), '-q', '-c', host.uri(ours)]
    if readonly:
        # As the client library does on the sockets' own names.
        virsh = [*virsh[:-1], virsh[-1] + '-ro', '-r']
    done = subprocess.run(['setpriv', '--reuid', uid, '--regid', uid, '--init-groups',
                           *virsh, *command], capture_output=True, text=True, timeout=60,
                          stdin=subprocess.DEVNULL, start_new_session=True, check=False,
                          env={'PATH': os.environ['PATH'], 'HOME': '/nonexistent',
                               'LC_ALL': 'C.UTF-8'})
    return done.returncode, done.stdout, done.stderr


def compare(host):
    """Every user, socket and command: the same through us; returns who got in."""
    VM(host)
    host.start_daemon()
    entered = {}
    for user in USERS:
        for readonly in (False, True):
            stock, ours = ([as_user(user, host, kind, readonly, *command)
                            for command in COMMANDS] for kind in (False, True))
            for command, one, other in zip(COMMANDS, stock, ours):
                assert one == other, (user, readonly, command, one, other)
            entered[user, 'ro' if readonly else 'rw'] = ours[0][0] == 0
    return entered


def test_polkit(host):
    """polkit judges root, a member of group libvirt and an outsider as without us."""
    make_users(host)
    polkitd = '/usr/lib/polkit-1/polkitd'
    if not paths.program('dbus-daemon') or not os.access(polkitd, os.X_OK):
        raise Skip('needs dbus-daemon and polkitd')
    os.makedirs('/run/dbus', exist_ok=True)
    bus = Process('dbus-daemon', os.path.join(host.logs, 'dbus.log'))
    polkit = Process('polkitd', os.path.join(host.logs, 'polkitd.log'))
    bus.start([paths.program('dbus-daemon'), '--system', '--nofork', '--nopidfile'])
    try:
        wait_for(lambda: os.path.exists('/run/dbus/system_bus_socket'), 'the bus is there')
        polkit.start([polkitd, '--no-debug'])
        names = ['dbus-send', '--system', '--print-reply', '--dest=org.freedesktop.DBus',
                 '/', 'org.freedesktop.DBus.ListNames']
        wait_for(lambda: b'PolicyKit1' in subprocess.run(names, capture_output=True,
                                                         check=False).stdout,
                 'polkit is there')
        configure(host, auth_unix_rw='polkit', auth_unix_ro='polkit')
        entered = compare(host)
        assert entered == {('root', 'rw'): True, ('root', 'ro'): True,
                           ('member', 'rw'): True, ('member', 'ro'): True,
                           ('outsider', 'rw'): False, ('outsider', 'ro'): True}, entered
    finally:
        host.stop_daemon()
        polkit.end(15)
        bus.end(15)


def test_socket_modes(host):
    """Without polkit the mode and group of libvirt's socket decide, as without us."""
    make_users(host)
    configure(host, unix_sock_group='libvirt', unix_sock_rw_perms='0770',
              unix_sock_ro_perms='0777')
    entered = compare(host)
    assert entered == {('root', 'rw'): True, ('root', 'ro'): True,
                       ('member', 'rw'): True, ('member', 'ro'): True,
                       ('outsider', 'rw'): False, ('outsider', 'ro'): True}, entered


def test_roots_socket(host):
    """A socket of root's own group is closed to everybody else: no group of ours leaks."""
    make_users(host)
    configure(host, unix_sock_group='root', unix_sock_rw_perms='0770',
              unix_sock_ro_perms='0700')
    entered = compare(host)
    assert all(inside == (who[0] == 'root') for who, inside in entered.items()), entered
