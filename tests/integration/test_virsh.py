"""Our virsh: stock's command line, through the gateway, with the incremental mirror."""

import os
import pty
import re
import signal
import socket
import subprocess
import time

from lib import paths
from lib.domain import MIB, VM
from lib.host import wait_for
from lib.images import expect_content
from lib.runner import Skip

FAKE_STOCK = '''#!/bin/sh
[ "$1" = help ] && { printf '    blockcopy <domain>\\n\\n    --xml x\\n\\n'; exit 0; }
{ for word in "$0" "$@"; do echo "$word"; done
  echo "default=$VIRSH_DEFAULT_CONNECT_URI"
  [ -t 0 ] && [ -t 2 ] && echo tty
} > "$FAKE_LOG"
case $* in *die*) kill -TERM $$ ;; *out*) cat; echo said >&2 ;; esac
exit 7
'''

# A virsh from elsewhere has no daemon beside it.
ENV = dict(os.environ)
if 'VIRT_CHECKPOINT_VIRSH' in ENV:
    ENV.setdefault('VIRT_CHECKPOINTD', paths.DAEMON)


def script(path, text):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, 'w') as out:
        out.write(text)
    os.chmod(path, 0o755)
    return path


def run(*args, env=None, stdin=None, program=paths.VIRSH):
    """Runs our virsh as a user does: nothing but its defaults."""
    full = dict(ENV, LC_ALL='C.UTF-8', **(env or {}))
    return subprocess.run([program, *args], env=full, input=stdin, capture_output=True,
                          text=True, check=False, timeout=120,
                          stdin=subprocess.DEVNULL if stdin is None else None)


class Fake:
    """A folder with a fake stock virsh, first in PATH."""

    def __init__(self, host):
        self.folder = os.path.join(host.work, 'fake')
        self.log = os.path.join(host.work, 'fake.log')
        script(os.path.join(self.folder, 'virsh'), FAKE_STOCK)
        if os.path.exists(self.log):
            os.unlink(self.log)
        self.env = {'FAKE_LOG': self.log,
                    'PATH': self.folder + ':' + os.environ.get('PATH', '/usr/bin:/bin')}

    def words(self):
        with open(self.log) as log:
            return log.read().splitlines()


def accepts(path):
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(path) == 0


def expect(done, status, out=None, err=None):
    got = (done.returncode, done.stdout, done.stderr)
    assert done.returncode == status, got
    assert out is None or done.stdout == out, got
    assert err is None or done.stderr == err, got


def test_stock_gets_the_arguments_and_its_status_is_ours(host):
    """What is not ours: same words, standard streams, exit status, death by signal."""
    fake = Fake(host)
    stock = os.path.join(fake.folder, 'virsh')
    words = ['-c', 'test:///default', '-q', 'echo', '', 'a b', '--', "it's"]
    expect(run(*words, env=fake.env), 7, '', '')
    assert fake.words() == [stock, *words, 'default='], fake.words()
    expect(run('echo', 'out', env=fake.env, stdin='fed'), 7, 'fed', 'said\n')
    expect(run('echo', 'die', env=fake.env), -signal.SIGTERM)
    expect(run('--nosuch', 'blockcopy', '--bitmap', 'x', env=fake.env), 7)
    assert fake.words() == [stock, '--nosuch', 'blockcopy', '--bitmap', 'x', 'default=']


def test_stock_gets_the_terminal(host):
    """On a terminal stock has the terminal, in our process."""
    fake = Fake(host)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(paths.VIRSH, ['virsh', 'echo'], dict(ENV, **fake.env))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
    os.close(terminal)
    assert fake.words()[-1] == 'tty'


def test_stock_is_never_ourselves(host):
    """Links to us and a script that runs us are passed over; without a stock virsh the
    error says so."""
    fake = Fake(host)
    folders = [os.path.join(host.work, name) for name in ('link', 'script')]
    os.mkdir(folders[0])
    os.symlink(paths.VIRSH, os.path.join(folders[0], 'virsh'))
    script(os.path.join(folders[1], 'virsh'), f'#!/bin/sh\nexec {paths.VIRSH} "$@"\n')
    env = dict(fake.env, PATH=':'.join(folders + [fake.env['PATH']]))
    expect(run('echo', 'a', env=env), 7)
    assert fake.words()[0] == os.path.join(fake.folder, 'virsh')
    expect(run('echo', 'a', env=env, program=os.path.join(folders[1], 'virsh')), 7)
    env['PATH'] = ':'.join(folders[:1])
    done = run('echo', 'a', env=env)
    expect(done, 1, '')
    assert done.stderr.startswith('error: no virsh of libvirt'), done.stderr


def test_the_uri_leads_through_the_gateway(host):
    """The value of -c, or else the default, gets the socket; read-only the other one."""
    fake = Fake(host)
    host.start_daemon()
    kind = 'system' if host.system else 'session'
    uri = f'qemu:///{kind}?socket={host.front}'
    expect(run('list', env=fake.env), 7)
    assert fake.words()[1:] == ['list', f'default={uri}'], fake.words()
    expect(run(env=fake.env), 7)
    assert fake.words()[1:] == [f'default={uri}'], fake.words()
    expect(run('-r', f'-cqemu:///{kind}', 'list', env=fake.env), 7)
    assert fake.words()[1:] == ['-r', f'-c{uri}-ro', 'list', 'default='], fake.words()
    expect(run('-c', 'qemu:///system?socket=/other', 'list', env=fake.env), 7)
    assert fake.words()[2] == 'qemu:///system?socket=/other', fake.words()
    moved = dict(fake.env, VIRT_CHECKPOINT_SOCKET=host.front,
                 VIRSH_DEFAULT_CONNECT_URI='qemu:///system')
    expect(run('list', env=moved), 7)
    assert fake.words()[-1] == f'default=qemu:///system?socket={host.front}'


def test_a_virsh_session_is_as_without_us(host):
    """One line, a string of commands and the interactive mode print what stock prints."""
    VM(host)
    host.start_daemon()
    for args, stdin in ((('list', '--all'), None), (('dumpxml', 'vm'), None),
                        (('list; domstate vm; domblklist vm',), None),
                        (('domstate', 'nosuch'), None), (('-r', 'destroy', 'vm'), None),
                        (('-t', 'nosuch'), None), (('list', '--nosuch'), None),
                        (('--help',), None), (('help', 'list'), None), (('uri',), None),
                        ((), 'list\ndomstate vm\nnosuch\nquit\n')):
        ours = run(*args, stdin=stdin)
        stock = run(*args, stdin=stdin, program=paths.stock_virsh())
        expect(ours, stock.returncode, stock.stdout, stock.stderr)
    assert host.daemon_running()


def test_the_daemon_is_started_on_demand(host):
    """Nobody on the socket: the daemon comes up, detached, and serves the next, too."""
    assert not accepts(host.front)
    env = {'VIRT_CHECKPOINT_BACKEND': host.backend, 'VIRT_CHECKPOINT_STATE': host.state}
    parties = [subprocess.Popen([paths.VIRSH, 'list'], stdout=subprocess.DEVNULL,
                                env=dict(ENV, **env)) for _ in range(4)]
    assert [party.wait(60) for party in parties] == [0] * 4
    assert accepts(host.front) and accepts(host.front + '-ro')
    expect(run('list'), 0, None, '')


def test_a_daemon_in_front_of_libvirt_is_found(host):
    """Under the name of virtqemud's socket the daemon is used, not started again; a
    libvirt daemon there is not taken for it."""
    fake = Fake(host)
    usual, host.front = host.front, os.path.join(host.run, 'virtqemud-sock')
    kind = 'system' if host.system else 'session'
    host.start_daemon()
    for options, suffix in ((), ''), (('-r',), '-ro'):
        expect(run(*options, 'checkpoint-list', 'vm', env=fake.env), 7)
        want = f'default=qemu:///{kind}?socket={host.front}{suffix}'
        assert fake.words()[-1] == want, fake.words()
    assert not accepts(usual)
    host.stop_daemon()
    os.symlink(host.backend, host.front)
    expect(run('checkpoint-list', 'vm', env=fake.env), 7)
    assert fake.words()[-1] == f'default=qemu:///{kind}?socket={usual}', fake.words()


def test_the_daemon_gets_its_options(host):
    """VIRT_CHECKPOINTD, _SOCKET, _BACKEND and _STATE say what is started and how."""
    fake = Fake(host)
    front = os.path.join(host.work, 'f', 'sock')
    log = os.path.join(host.work, 'daemon.log')
    daemon = script(os.path.join(host.work, 'daemon'), f'''#!/bin/sh
{{ echo "$@"; ps -o pid= -o sid= -o tty= -p $$; }} > {log}.tmp; mv {log}.tmp {log}
''' + f'''exec /usr/bin/python3 -c 'import socket, time
s = socket.socket(socket.AF_UNIX)
time.sleep(0.3)
s.bind("{front}"); s.listen(); s.accept(); s.accept()'
''')
    expect(run('list', env=dict(fake.env, VIRT_CHECKPOINTD=daemon,
                                VIRT_CHECKPOINT_SOCKET=front, VIRT_CHECKPOINT_STATE='/s',
                                VIRT_CHECKPOINT_BACKEND='/b')), 7)
    assert fake.words()[-1].endswith('?socket=' + front), fake.words()
    with open(log) as text:
        words, process = text.read().splitlines()
    assert words == f'--timeout 120 --socket {front} --backend /b --state-dir /s', words
    pid, session, tty = process.split()
    assert pid == session and tty == '?', process


def test_without_a_daemon_only_ours_fail(host):
    """What needs the daemon says how to start it; the rest goes to stock as it is."""
    fake = Fake(host)
    env = dict(fake.env, VIRT_CHECKPOINTD=script(
        os.path.join(host.work, 'daemon'), '#!/bin/sh\necho broken >&2\nexit 1\n'))
    expect(run('list', env=env), 7, '', '')
    assert fake.words()[1:] == ['list', 'default='], fake.words()
    os.unlink(fake.log)
    for words in (('checkpoint-list', 'vm'), ('list; checkpoint-list vm',),
                  ('blockcopy', 'vm', 'vda', '/x', '--checkpoint', 'c')):
        start = time.monotonic()
        expect(run(*words, env=env), 1, '',
               f"error: checkpoints need virtcheckpointd, which does not answer on "
               f"'{host.front}': '{env['VIRT_CHECKPOINTD']}' was started and does not "
               f"answer: broken\n"
               f"error: start it with: virtcheckpointd --socket '{host.front}'\n")
        assert time.monotonic() - start < 5
    assert not os.path.exists(fake.log)


def test_help_shows_the_new_options(host):
    """help blockcopy is stock's text with ours in it; so is blockcopy --help."""
    stock = run('help', 'blockcopy', program=paths.stock_virsh()).stdout
    for words in (('help', 'blockcopy'), ('blockcopy', '--help'),
                  ('blockcopy', 'a', '--bitmap', 'b', '--help'), ('help blockcopy',)):
        done = run(*words)
        expect(done, 0, None, '')
        added = ' [--bitmap <string>] [--checkpoint <string>] [--verify]' \
            ' [--end-checkpoints]'
        assert f'[--print-xml]{added}\n' in done.stdout
        ours = [line for line in done.stdout.splitlines() if not line.startswith(
            ('    --bitmap <', '    --checkpoint <', '    --verify  ',
             '    --end-checkpoints'))]
        merged = '\n'.join(ours).replace(added, '')
        assert merged + '\n' == stock, done.stdout


def test_our_options_in_a_string_are_refused(host):
    """A command string with --bitmap fails as a whole, before anything of it runs."""
    fake = Fake(host)
    done = run('list; blockcopy vm vda /x --bitmap c', env=fake.env)
    expect(done, 1, '')
    assert done.stderr.startswith('error: blockcopy with --bitmap or --checkpoint'), done
    assert 'do not work in a command string' in done.stderr, done
    assert not os.path.exists(fake.log)


def test_blockcopy_checks_as_stock_does(host):
    """The same mistake with and without one of our options gives the same lines."""
    VM(host)
    host.start_daemon()
    missing = os.path.join(host.work, 'missing.xml')
    for words in (('vm', 'vda'), ('vm',), ('vm', 'vda', '/x', '--xml', 'y'),
                  ('nosuch', 'vda', '/x'), ('vm', 'vda', '--xml', missing),
                  ('vm', 'vda', '/x', '--async'), ('vm', 'vda', '/x', '--pivot', '--finish'),
                  ('vm', 'vda', '/x', '--bandwidth', '2.5'), ('vm', 'vda', ''),
                  ('vm', 'vda', '/x', '--granularity', '-1'), ('vm', 'vda', '/x', '--wai'),
                  ('vm', 'vda', '/x', '--wait=1'), ('vm', 'vda', '/x', '--timeout', '0'),
                  ('vm', 'vda', "/x'", '--print-xml', '--blockdev', '--raw'),
                  ('1', 'vda', '/x', '--print-xml'), ('99', 'vda', '/x', '--print-xml')):
        for options in ((), ('-q',)):
            stock = run(*options, 'blockcopy', *words, program=paths.stock_virsh())
            ours = run(*options, 'blockcopy', *words, '--checkpoint', 'c')
            expect(ours, stock.returncode, stock.stdout, stock.stderr)
    done = run('-r', 'blockcopy', 'vm', 'vda', '/x', '--checkpoint', 'c')
    expect(done, 1, '\n', 'error: operation forbidden: read only access prevents '
                          'virDomainBlockCopy\n')
    past = run('-c', host.uri(), 'blockcopy', 'vm', 'vda', '/x', '--checkpoint', 'c')
    expect(past, 1, '\n', "error: argument unsupported: parameter 'checkpoint' not supported"
                          '\nerror: --bitmap and --checkpoint need a connection through '
                          'virtcheckpointd\n')
    assert host.daemon_running()


def test_checkpoint_commands_print_what_stock_prints(host):
    """create-as, list --tree, dumpxml --size and delete, through a daemon on demand."""
    vm = VM(host)
    for name in ('c1', 'c2', 'c3'):
        expect(run('checkpoint-create-as', 'vm', name), 0,
               f'Domain checkpoint {name} created\n', '')
        vm.write(0, MIB, 1)
    expect(run('checkpoint-list', 'vm', '--tree'), 0,
           'c1\n  |\n  +- c2\n      |\n      +- c3\n        \n\n', '')
    done = run('checkpoint-dumpxml', 'vm', 'c2', '--size', '--no-domain')
    expect(done, 0, None, '')
    assert f"size='{MIB}'/>" in done.stdout, done.stdout
    expect(run('checkpoint-delete', 'vm', 'c1'), 0, 'Domain checkpoint c1 deleted\n\n', '')
    expect(run('-q', 'checkpoint-list', 'vm', '--name'), 0, 'c2\nc3\n', '')

FAKE_NC = '''#!/usr/bin/python3
import os, socket, sys, threading
if '-q' in sys.argv:
    sys.exit(1)
sock = socket.socket(socket.AF_UNIX)
sock.connect(sys.argv[-1])
def feed():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=feed, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
'''


def test_a_host_behind_ssh(host):
    """qemu+ssh goes to the daemon there; where none is, only what needs it fails."""
    if not host.system:
        raise Skip('the remote socket is the system daemon\'s')
    ssh = script(os.path.join(host.work, 'ssh'),
                 '#!/bin/sh\nfor word; do :; done\nexec sh -c "$word"\n')
    netcat = script(os.path.join(host.work, 'netcat'), FAKE_NC)
    uri = f'qemu+ssh://there/system?command={ssh}&netcat={netcat}'
    VM(host)
    expect(run('-q', '-c', uri, 'list', '--all', '--name'), 0, 'vm\n', '')
    hint = 'error: start it there with: virtcheckpointd\n'
    for words in (('checkpoint-create-as', 'vm', 'c1'),
                  ('blockcopy', 'vm', 'vda', '/x', '--checkpoint', 'c1')):
        done = run('-c', uri, *words)
        expect(done, 1, '')
        assert done.stderr.endswith(hint), done.stderr
    assert not accepts(host.front)
    host.start_daemon()
    expect(run('-c', uri, 'checkpoint-create-as', 'vm', 'c1'), 0, None, '')
    expect(run('-q', '-c', uri, '-r', 'checkpoint-list', 'vm', '--name'), 0, 'c1\n', '')
    expect(run('-q', '-c', uri, 'list', '--all', '--name'), 0, 'vm\n', '')
    done = run('-c', uri, 'blockcopy', 'nosuch', 'vda', '/x', '--checkpoint', 'c1')
    expect(done, 1, '\n', "error: failed to get domain 'nosuch'\n")


def replica_xml(host, name='replica', fmt='qcow2'):
    """(file of the copy's XML, file of the copy)."""
    target = os.path.join(host.images, f'{name}.{fmt}')
    xml = os.path.join(host.work, f'{name}.xml')
    with open(xml, 'w') as out:
        out.write(f"<disk type='file'><source file='{target}'/><driver type='{fmt}'/>"
                  "</disk>\n")
    return xml, target


def test_the_commands_of_the_readme(host):
    """Full copy with checkpoint, incremental with finish, incremental with pivot: each
    replica is the disk at its moment, and the lines are stock's."""
    vm = VM(host)
    host.start_daemon()
    xml, target = replica_xml(host)
    vm.write(0, 8 * MIB, 1)
    expect(run('blockcopy', 'vm', 'vda', '--xml', xml, '--checkpoint', 'c1', '--wait',
               '--finish'), 0, '\nSuccessfully copied\n', '')
    expect_content(target, vm.disks['vda'].model, 'full copy')
    vm.write(4 * MIB, MIB, 2)
    vm.zero(5 * MIB + 512, 1024)
    done = run('blockcopy', 'vm', 'vda', '--xml', xml, '--reuse-external', '--bitmap', 'c1',
               '--checkpoint', 'c2', '--wait', '--verbose', '--finish')
    expect(done, 0, '\nSuccessfully copied\n')
    lines = done.stderr.split('\n')  # text mode reads '\r' as a line's end
    assert lines[0] == '' and lines[-1].startswith('Block Copy: [100 %]'), lines
    assert sum('[100 %]' in line for line in lines) == 1, lines
    size = r'[0-9.]+ (B|[KMGT]iB)'
    shown = rf'Block Copy: \[[ 0-9]{{3}} %\] {size} of {size}(, {size}/s(, [0-9:]+ left)?)? *'
    assert all(re.fullmatch(shown, line) for line in lines[1:]), lines
    expect_content(target, vm.disks['vda'].model, 'incremental copy')
    vm.write(6 * MIB, MIB, 3)
    done = run('blockcopy', 'vm', 'vda', '--xml', xml, '--reuse-external', '--bitmap', 'c2',
               '--wait', '--verbose', '--pivot')
    expect(done, 0, '\nSuccessfully pivoted\n')
    assert vm.source() == target and vm.source(inactive=True) == target
    vm.write(7 * MIB, MIB, 4)
    vm.verify()
    expect(run('checkpoint-create-as', 'vm', 'c3'), 0)
    expect(run('-q', 'checkpoint-list', 'vm', '--name'), 0, 'c1\nc2\nc3\n', '')
    vm.destroy()
    expect_content(target, vm.disks['vda'].model, 'disk after the pivot')


def test_without_wait_and_to_the_mirroring_phase(host):
    """--bitmap alone starts; --wait ends at READY; blockjob sees and ends the job."""
    vm = VM(host)
    host.start_daemon()
    xml, target = replica_xml(host)
    vm.write(0, MIB, 1)
    expect(run('blockcopy', 'vm', 'vda', '--xml', xml, '--checkpoint', 'c1', '--finish'), 0)
    vm.write(MIB, MIB, 2)
    words = ('blockcopy', 'vm', 'vda', '--xml', xml, '--reuse-external', '--bitmap', 'c1')
    expect(run(*words), 0, 'Block Copy started\n', '')
    wait_for(lambda: 'Block Copy: [100 %]' in run('blockjob', 'vm', 'vda').stdout +
             run('blockjob', 'vm', 'vda').stderr, 'the job is ready')
    again = run(*words)
    expect(again, 1, '\n')
    assert again.stderr.startswith('error: '), again.stderr
    expect(run('blockjob', 'vm', 'vda', '--abort'), 0)
    expect_content(target, vm.disks['vda'].model, 'after the abort')
    vm.write(2 * MIB, MIB, 3)
    expect(run(*words, '--wait'), 0, '\nNow in mirroring phase\n', '')
    vm.write(3 * MIB, MIB, 4)
    expect(run('blockjob', 'vm', 'vda', '--pivot'), 0)
    assert vm.source() == target
    vm.verify()


def test_ctrl_c_and_timeout_stop_the_job(host):
    """The job is aborted, the last line says so, the status is 1, the disk is whole."""
    vm = VM(host)
    host.start_daemon()
    xml, target = replica_xml(host)
    vm.write(0, 32 * MIB, 1)
    words = ('blockcopy', 'vm', 'vda', '--xml', xml, '--checkpoint', 'c1', '--bandwidth',
             '1', '--finish')
    expect(run(*words, '--timeout', '1'), 1, '\nCopy aborted\n', '')
    if os.path.exists(target):
        os.unlink(target)
    waiting = subprocess.Popen([paths.VIRSH, *words], stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE, env=ENV)
    wait_for(lambda: vm.dom.isActive() and run('blockjob', 'vm', 'vda').stderr, 'a job')
    waiting.send_signal(signal.SIGINT)
    out, err = waiting.communicate(timeout=60)
    assert (waiting.returncode, out, err) == (1, '\nCopy aborted\n', ''), (out, err)
    wait_for(lambda: vm.source() == vm.disks['vda'].path, 'the overlay is gone')
    vm.verify()
    assert run('-q', 'checkpoint-list', 'vm', '--name').stdout == ''


def test_the_commands_on_a_guest_that_is_off(host):
    """The same commands while the guest is off: checkpoints, sizes, a copy with --wait."""
    vm = VM(host)
    host.start_daemon()
    xml, target = replica_xml(host)
    vm.write(0, 8 * MIB, 1)
    vm.destroy()
    expect(run('blockcopy', 'vm', 'vda', '--xml', xml, '--checkpoint', 'c1', '--wait',
               '--finish'), 0, '\nSuccessfully copied\n', '')
    expect_content(target, vm.disks['vda'].model, 'full copy')
    expect(run('checkpoint-create-as', 'vm', 'c2'), 0)
    vm.start()
    vm.write(4 * MIB, MIB, 2)
    vm.destroy()
    assert f"size='{MIB}'" in run('checkpoint-dumpxml', 'vm', 'c2', '--size',
                                  '--no-domain').stdout
    expect(run('blockcopy', 'vm', 'vda', '--xml', xml, '--reuse-external', '--bitmap', 'c1',
               '--wait', '--verbose', '--finish'), 0, '\nSuccessfully copied\n')
    expect_content(target, vm.disks['vda'].model, 'incremental copy')
    again = os.path.join(host.work, 'c2.xml')
    with open(again, 'w', encoding='utf-8') as xml_of:
        xml_of.write(run('checkpoint-dumpxml', 'vm', 'c2').stdout)
    expect(run('checkpoint-create', 'vm', again, '--redefine', '--redefine-validate'), 0)
    expect(run('checkpoint-delete', 'vm', 'c1'), 0)
    expect(run('-q', 'checkpoint-list', 'vm', '--name'), 0, 'c2\n', '')
