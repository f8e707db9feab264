"""Copies that are compared with the disk before they end well."""

import json
import os
import subprocess

import libvirt
import libvirt_qemu

from lib import images, jobs, paths
from lib.domain import CLUSTER, MIB
from lib.host import Failure, wait_for
from lib.scene import Scene


def why(dom, disk='vda'):
    """What our daemon says of the last copy of a disk that failed."""
    command = json.dumps({'execute': 'virtcheckpoint-job-error',
                          'arguments': {'disk': disk}})
    return json.loads(libvirt_qemu.qemuMonitorCommand(dom, command, 0))['return']


def spoil(path, offset, fmt='qcow2'):
    subprocess.run(['qemu-io', '-f', fmt, '-c', f'write -P 0x77 {offset} 512', path],
                   check=True, stdout=subprocess.DEVNULL)


def differs(scene, path, offset, **params):
    """The copy fails and says where; nothing of it is left; the guest runs."""
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', checkpoint='c9', finish=True,
                    verify=True, **params)
    scene.events.wait('vda', 'failed')
    said = why(scene.dom)
    if f'offset {offset}' not in said.get('message', '') or \
            said['code'] != libvirt.VIR_ERR_OPERATION_FAILED:
        raise Failure(f'not the difference at {offset}: {said}')
    if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c1']:
        raise Failure('the checkpoint of a copy that differs stayed')
    scene.settled()


def test_a_target_that_differs(host):
    """Full copies and increments are compared whole; a difference is told by its offset."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm = scene.vm
    vm.write(0, 4 * MIB, 0x11)
    path, raw = scene.path('replica.qcow2'), scene.path('replica.raw', fmt='raw')
    scene.copy(path, checkpoint='c1', verify=True)
    scene.copy(raw, bitmap='c1', fmt='raw', verify=False)
    if why(scene.dom):
        raise Failure(f'nothing failed, but: {why(scene.dom)}')
    vm.write(MIB, CLUSTER, 0x12)
    # Where nothing is copied any more; the guest's own writes cannot hide it.
    spoil(path, 3 * MIB + 512)
    differs(scene, path, 3 * MIB + 512)
    spoil(raw, 20 * MIB, 'raw')
    spoil(raw, 0, 'raw')
    differs(scene, raw, 0, fmt='raw')
    vm.verify()
    scene.copy(path, checkpoint='c2', verify=True)
    if why(scene.dom):
        raise Failure(f'told of an older copy: {why(scene.dom)}')
    vm.write(2 * MIB, CLUSTER, 0x13)
    vm.destroy()
    scene.copy(path, bitmap='c2', verify=True)
    images.expect_content(path, vm.disks['vda'].model, 'of a guest that is off')
    spoil(path, 5 * MIB)
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c2', finish=True, verify=True)
    scene.events.wait('vda', 'failed')
    if f'offset {5 * MIB}' not in why(scene.dom)['message']:
        raise Failure(f'{why(scene.dom)}')


def test_the_guest_writes_while_it_is_compared(host):
    """Compared is the moment of the copy; the guest runs, and an abort ends the compare."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm, path = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0x11)
    # A compare that lasts: qemu-img is slowed down by a wrapper of its name.
    folder = os.path.join(host.work, 'bin')
    os.makedirs(folder)
    real = subprocess.run(['which', 'qemu-img'], capture_output=True, text=True,
                          check=True).stdout.strip()
    with open(os.path.join(folder, 'qemu-img'), 'w', encoding='ascii') as wrapper:
        wrapper.write(f'#!/bin/sh\nif [ "$1" = compare ]; then touch {host.work}/begun; '
                      f'while ! [ -e {host.work}/go ]; do sleep 0.05; done; fi\n'
                      f'exec {real} "$@"\n')
    os.chmod(wrapper.name, 0o755)
    scene.events.close()
    host.restart_daemon(env={'PATH': folder + ':' + os.environ['PATH']})
    scene.connect()
    for end in ('abort', 'daemon', 'go on'):
        for name in ('begun', 'go'):
            if os.path.exists(f'{host.work}/{name}'):
                os.unlink(f'{host.work}/{name}')
        params = {'bitmap': 'c1'} if end == 'go on' else {}
        name = 'c2' if end == 'go on' else 'c1'
        jobs.start_copy(scene.dom, 'vda', path, checkpoint=name, finish=True, verify=True,
                        **params)
        moment = vm.disks['vda'].model.copy()
        wait_for(lambda: os.path.exists(f'{host.work}/begun'), 'the compare runs')
        vm.write(2 * MIB, MIB, 0x12)
        vm.write(9 * MIB, MIB, 0x13)
        info = scene.dom.blockJobInfo('vda', 0)
        if not info or info['cur'] == info['end']:
            raise Failure(f'over before it was compared: {info}')
        if end == 'abort':
            scene.dom.blockJobAbort('vda', 0)
            scene.events.wait('vda', 'canceled')
            scene.settled()
            continue
        if end == 'daemon':
            scene.events.close()
            host.kill_daemon()
            host.start_daemon()
            scene.connect()
        with open(f'{host.work}/go', 'w', encoding='ascii'):
            pass
        wait_for(lambda: not scene.dom.blockJobInfo('vda', 0), 'the job ends')
        images.expect_content(path, moment, 'the moment of the copy')
        scene.await_settled()
        vm.verify()
        if end == 'daemon':
            scene.events.close()
            host.restart_daemon(env={'PATH': folder + ':' + os.environ['PATH']})
            scene.connect()


def test_virsh_says_what_differs(host):
    """blockcopy --verify ends with the difference as its error."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    path = scene.path('replica.qcow2')
    scene.vm.write(0, 4 * MIB, 0x11)
    command = ['blockcopy', scene.vm.name, 'vda', path, '--reuse-external', '--finish',
               '--verify']
    done = host.virsh(*command, '--checkpoint', 'c1', ours=True, program=paths.VIRSH)
    spoil(path, 2 * MIB)
    done = host.virsh(*command, '--bitmap', 'c1', ours=True, program=paths.VIRSH,
                      check=False)
    if done.returncode == 0 or f'first difference is at offset {2 * MIB}' not in done.stderr:
        raise Failure(f'virsh said {done}')
    scene.await_settled()
