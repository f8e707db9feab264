"""Pivots: several in a row, and onto targets that keep no bitmaps."""

import libvirt

from lib import images, jobs, paths
from lib.domain import CLUSTER, MIB, qemu_img
from lib.host import Failure
from lib.scene import Scene

PIVOT = libvirt.VIR_DOMAIN_BLOCK_JOB_ABORT_PIVOT


def targets(scene):
    """Images that cannot hold a bitmap: path and format."""
    raw = scene.path('target.raw', fmt='raw')
    old = scene.path('target.qcow2')
    qemu_img('create', '-q', '-f', 'qcow2', '-o', 'compat=0.10', old,
             str(scene.vm.disks['vda'].size))
    return {'raw': (raw, 'raw'), 'old': (old, 'qcow2')}


def refused(code, call, *args, **params):
    try:
        call(*args, **params)
    except libvirt.libvirtError as error:
        if error.get_error_code() != code:
            raise
        return str(error)
    raise Failure(f'not refused: {args} {params}')


def test_several_pivots_keep_every_checkpoint(host):
    """Back and forth between two images: from each checkpoint on, all changes are known."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm = scene.vm
    images_of = [vm.disks['vda'].path, scene.path('second.qcow2')]
    replicas = {}

    def mark(name):
        replicas[name] = scene.path(f'{name}.qcow2')
        scene.copy(replicas[name], checkpoint=name)

    vm.write(0, 4 * MIB, 0x61)
    mark('c0')
    scene.copy(images_of[1], checkpoint='base')
    for turn in range(3):
        vm.write((turn + 1) * MIB, MIB, 0x70 + turn)
        target = images_of[(turn + 1) % 2]
        jobs.start_copy(scene.dom, 'vda', target, bitmap='base', pivot=True,
                        checkpoint=f'p{turn}')
        jobs.wait_ready(scene.events, 'vda')
        vm.write(30 * MIB + turn * 512, 512, 0x80 + turn)
        scene.dom.blockJobAbort('vda', PIVOT)
        jobs.wait_end(scene.events, scene.dom, 'vda')
        vm.disks['vda'].path = target
        scene.settled()
        if turn == 0:
            mark('c1')
        vm.write(20 * MIB + turn * 512, 512, 0x90 + turn)
    vm.restart()
    vm.write(25 * MIB, CLUSTER, 0xa0)
    for name, path in replicas.items():
        scene.copy(path, bitmap=name)
        images.expect_content(path, vm.disks['vda'].model, f'since {name}')
    vm.verify()
    scene.settled()


def test_targets_that_keep_no_bitmap(host):
    """Refused at the pivot, the job staying ready; at the start if a pivot is announced."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm = scene.vm
    vm.write(0, 4 * MIB, 0x61)
    scene.copy(scene.path('replica.qcow2'), checkpoint='c1')
    kinds = targets(scene)
    for path, fmt in kinds.values():
        scene.copy(path, checkpoint='t', fmt=fmt)
        scene.dom.checkpointLookupByName('t').delete()
        text = refused(libvirt.VIR_ERR_OPERATION_INVALID, jobs.start_copy, scene.dom,
                       'vda', path, bitmap='c1', fmt=fmt, pivot=True)
        if 'end-checkpoints' not in text:
            raise Failure(f'no remedy: {text}')
        done = host.virsh('blockcopy', vm.name, 'vda', path, '--reuse-external', '--bitmap',
                          'c1', '--pivot', ours=True, program=paths.VIRSH, check=False)
        if done.returncode == 0 or 'cannot hold a bitmap' not in done.stderr:
            raise Failure(f'virsh did not refuse: {done}')
        scene.settled()
    path, fmt = kinds[host.random.choice(sorted(kinds))]
    jobs.start_copy(scene.dom, 'vda', path, bitmap='c1', fmt=fmt)
    jobs.wait_ready(scene.events, 'vda')
    for _ in range(2):
        refused(libvirt.VIR_ERR_OPERATION_INVALID, scene.dom.blockJobAbort, 'vda', PIVOT)
    vm.write(5 * MIB, MIB, 0x62)
    info = scene.dom.blockJobInfo('vda', 0)
    if not info or info['cur'] != info['end']:
        raise Failure(f'the job did not stay ready: {info}')
    scene.dom.blockJobAbort('vda', 0)
    scene.events.wait('vda', 'canceled')
    images.expect_content(path, vm.disks['vda'].model, fmt=fmt)
    scene.settled()


def test_checkpoints_may_end_at_a_pivot(host):
    """The caller says so: the guest moves, the checkpoints say that they cannot be used."""
    scene = Scene(host, disks={'vda': 32 * MIB})
    vm, replica = scene.vm, scene.path('replica.qcow2')
    vm.write(0, 4 * MIB, 0x61)
    first = vm.disks['vda'].path
    scene.copy(replica, checkpoint='c1')
    kinds = targets(scene)
    path, fmt = kinds[host.random.choice(sorted(kinds))]
    scene.copy(path, checkpoint='c2', fmt=fmt)
    refused(libvirt.VIR_ERR_INVALID_ARG, jobs.start_copy, scene.dom, 'vda', path,
            bitmap='c2', checkpoint='c3', fmt=fmt, **{'end-checkpoints': True})
    vm.write(5 * MIB, MIB, 0x62)
    host.virsh('blockcopy', vm.name, 'vda', path, '--reuse-external', '--bitmap', 'c2',
               '--format', fmt, '--pivot', '--end-checkpoints', ours=True,
               program=paths.VIRSH)
    vm.disks['vda'].path = path
    vm.disks['vda'].alias = ''
    vm.verify()
    vm.write(6 * MIB, MIB, 0x63)
    if vm.source() != path or vm.source(inactive=True) != path:
        raise Failure('the definition does not name the target')
    if vm.stray() or scene.job_files():
        raise Failure(f'left: {vm.stray()}, {scene.job_files()}')
    if [c.getName() for c in scene.dom.listAllCheckpoints()] != ['c1', 'c2']:
        raise Failure('the checkpoints went')
    scene.events.close()
    scene.connect()
    back = scene.path('back.qcow2')
    refused(libvirt.VIR_ERR_CONFIG_UNSUPPORTED, jobs.start_copy, scene.dom, 'vda', replica,
            bitmap='c1', finish=True)
    refused(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT,
            scene.dom.checkpointLookupByName('c1').getXMLDesc,
            libvirt.VIR_DOMAIN_CHECKPOINT_XML_SIZE)
    check = host.virsh('checkpoint-check', vm.name, ours=True, program=paths.VIRSH,
                       check=False)
    if check.returncode != 2 or 'c1' not in check.stdout:
        raise Failure(f'checkpoint-check says {check}')
    # The way back is a full copy by libvirt.
    xml = jobs.target_xml(back)
    scene.dom.blockCopy('vda', xml, {}, libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT |
                        libvirt.VIR_DOMAIN_BLOCK_COPY_TRANSIENT_JOB)
    jobs.wait_ready(scene.events, 'vda')
    scene.dom.blockJobAbort('vda', PIVOT)
    jobs.wait_end(scene.events, scene.dom, 'vda')
    vm.disks['vda'].path = back
    vm.disks['vda'].alias = ''
    vm.verify()
    refused(libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT, jobs.start_copy, scene.dom, 'vda',
            replica, bitmap='c1', finish=True)
    scene.copy(first, checkpoint='c4')
    vm.write(7 * MIB, MIB, 0x64)
    scene.copy(first, bitmap='c4')
    images.expect_content(first, vm.disks['vda'].model, 'tracked again')
