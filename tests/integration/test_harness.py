"""The harness itself: what the other tests lean on."""

import os
import subprocess

from lib import images, paths, sanitize
from lib.domain import CLUSTER, MIB, VM
from lib.guest import BLOCK, Guest, check_records, mix
from lib.host import Failure, wait_for


def expect_failure(what, call, *args):
    try:
        call(*args)
    except Failure:
        return
    raise Failure(f'{what} was not noticed')


def test_private_libvirtd_keeps_guests_over_a_kill(host):
    """A libvirtd that is killed and started again finds its guest, and only its own."""
    vm = VM(host)
    pid = host.qemu_pid('vm')
    vm.write(0, MIB, 7)
    host.kill_libvirtd()
    host.start_libvirtd()
    vm.reconnect()
    assert vm.dom.isActive() and host.qemu_pid('vm') == pid
    vm.write(MIB, MIB, 8)
    vm.verify()
    assert [d.name() for d in vm.conn.listAllDomains()] == ['vm']


def test_failed_writes_are_noticed(host):
    """A write that QEMU refuses fails the test: HMP's reply would not say so."""
    vm = VM(host)
    expect_failure('a write past the end', vm._change, 'vda',
                   f'write -P 1 {vm.disks["vda"].size} 512', vm.disks['vda'].size, 512)
    vm.disks['vda'].model.fill(0, 512, 1)
    expect_failure('a wrong model', vm.verify)


def test_oracle_finds_one_planted_cluster(host):
    """The content oracle names exactly the cluster that is wrong."""
    vm = VM(host, disks={'vda': 16 * MIB})
    disk = vm.disks['vda']
    vm.write(3 * MIB, MIB, 1)
    vm.write(5 * MIB + 512, 1024, 2)
    vm.zero(3 * MIB, 4096)
    vm.discard(3 * MIB + 100 * 512, 3 * CLUSTER)
    vm.verify()
    vm.dom.suspend()
    images.expect_content(disk.path, disk.model, force=True)
    vm.dom.resume()
    vm.destroy()
    images.expect_content(disk.path, disk.model)
    wrong = disk.model.copy()
    wrong.fill(5 * MIB + 512, 512, 3)
    assert images.differences(disk.path, wrong) == {5 * MIB // CLUSTER}
    assert disk.model.differing(wrong) == {5 * MIB // CLUSTER}
    copy = os.path.join(host.images, 'copy.qcow2')
    images.write_image(copy, wrong)
    assert images.diff(disk.path, copy) == {5 * MIB // CLUSTER}


def test_bitmaps_are_read_alive_and_at_rest(host):
    """A bitmap's granules are the same read from QEMU and from the image."""
    vm = VM(host)
    vm.transaction(('block-dirty-bitmap-add', {'node': vm.top(), 'name': 'b',
                                               'persistent': True}))
    before = vm.disks['vda'].model.copy()
    vm.write(10 * CLUSTER, 2 * CLUSTER, 1)
    vm.write(20 * CLUSTER + 512, 512, 1)
    vm.zero(1000 * CLUSTER + 4096, CLUSTER)
    want = {10, 11, 20, 1000, 1001}
    live = images.live_bitmap(vm, vm.top(), 'b')
    assert live.granules == want and not vm.stray(), vm.stray()
    assert before.differing(vm.disks['vda'].model) <= live.clusters()
    assert list(vm.bitmaps(ours=False)) == ['b']
    vm.destroy()
    rest = images.bitmaps(vm.disks['vda'].path)['b']
    assert rest.granules == want and rest.recording and not rest.in_use
    vm.start()
    vm.kill_qemu()
    assert images.bitmaps(vm.disks['vda'].path)['b'].in_use


def test_snapshot_and_commit_by_stock_calls(host):
    """An overlay on one of two disks and its commit keep content and source."""
    vm = VM(host, disks={'vda': 16 * MIB, 'vdb': 16 * MIB})
    path = vm.disks['vda'].path
    vm.write(0, MIB, 1)
    vm.write(0, MIB, 9, target='vdb')
    overlay = vm.snapshot()
    assert vm.source() == overlay and vm.source('vdb') == vm.disks['vdb'].path
    vm.write(MIB // 2, MIB, 2)
    vm.commit(base=path)
    assert vm.source() == path
    vm.verify()
    vm.verify('vdb')
    vm.destroy()
    images.expect_content(path, vm.disks['vda'].model)


def test_linux_guest_obeys(host):
    """Linux boots, and its writes, zeroes and discards are what the oracle expects."""
    guest = Guest(host, disks={'vda': 32 * MIB}, iothread=True)
    guest.write(MIB, 3 * MIB, 5)
    guest.write(512, 1536, 6)
    guest.zero(2 * MIB + 4096, 8192)
    guest.discard(3 * MIB, MIB)
    guest.verify()
    expect_failure('a write past the end', guest.command, 'write', '/dev/vda', 32 * MIB,
                   512, 1)
    guest.flush()
    guest.power_off()
    images.expect_content(guest.disks['vda'].path, guest.disks['vda'].model)


def test_records_show_the_moment(host):
    """A writer's region is judged exactly: a lost record and a torn one are found."""
    guest = Guest(host, disks={'vda': 16 * MIB}, iothread=True)
    guest.start_writer(length=4 * MIB, seed=3)
    while guest.load_status()[0] < 500:
        pass
    guest.dom.suspend()
    path = guest.disks['vda'].path
    with images.RawView(path, force=True) as raw:
        moment = check_records(raw, 0, 4 * MIB, 3)
        assert moment >= 500
        at = mix(3 + moment - 1) % (4 * MIB // BLOCK) * BLOCK
        with open(raw, 'r+b') as image:
            image.seek(at)
            image.write(bytes(BLOCK))
        expect_failure('a lost record', check_records, raw, 0, 4 * MIB, 3)
        with open(raw, 'r+b') as image:
            image.seek(at)
            image.write(b'x')
        expect_failure('a torn record', check_records, raw, 0, 4 * MIB, 3)
    guest.dom.resume()
    # The record of that moment may not have been told as done yet.
    wait_for(lambda: guest.load_status()[0] > moment, 'it goes on')
    done, flushed = guest.stop_load()
    assert done == flushed > moment
    guest.power_off()
    with images.RawView(path) as raw:
        assert check_records(raw, 0, 4 * MIB, 3) == done


def test_findings_of_a_sanitizer_fail_a_test(host):
    """What a program of ours wrote about itself is found, whoever started it."""
    for name in ('ASAN_OPTIONS', 'UBSAN_OPTIONS', 'TSAN_OPTIONS'):
        assert not sanitize.findings(host.logs)
        options = dict(part.split('=') for part in os.environ[name].split(':'))
        report = options['log_path'] + '.1'
        with open(report, 'w') as out:
            out.write(f'found by way of {name}\n')
        assert f'found by way of {name}' in sanitize.findings(host.logs)
        os.unlink(report)


def test_programs_of_tsan_have_fixed_addresses(host):
    """Where the system allows it, what is started for that build is not randomized."""
    allowed = subprocess.run(['setarch', '-R', 'true'], check=False).returncode == 0
    shown = subprocess.run(['cat', '/proc/self/personality'], capture_output=True,
                           text=True, check=True,
                           preexec_fn=sanitize.fixed_addresses).stdout
    assert bool(int(shown, 16) & sanitize.ADDR_NO_RANDOMIZE) == allowed, shown
    with open('/proc/self/personality') as own:
        fixed = bool(int(own.read(), 16) & sanitize.ADDR_NO_RANDOMIZE)
    assert fixed == (allowed and sanitize.is_tsan(paths.DAEMON))
