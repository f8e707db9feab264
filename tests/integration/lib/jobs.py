"""Block jobs as a client sees them: started, followed by events, ended."""

import os
import threading
import time

import libvirt

from .host import Failure

TYPES = {libvirt.VIR_DOMAIN_BLOCK_JOB_COMPLETED: 'completed',
         libvirt.VIR_DOMAIN_BLOCK_JOB_FAILED: 'failed',
         libvirt.VIR_DOMAIN_BLOCK_JOB_CANCELED: 'canceled',
         libvirt.VIR_DOMAIN_BLOCK_JOB_READY: 'ready'}


class Events:
    """The events of one connection's copy jobs, in order; not those of stock commits."""

    def __init__(self, conn, kind=libvirt.VIR_DOMAIN_BLOCK_JOB_TYPE_COPY):
        self._conn = conn
        self._kind = kind
        self._seen = []
        self._change = threading.Condition()
        self._id = conn.domainEventRegisterAny(
            None, libvirt.VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, self._event, None)

    def _event(self, _conn, dom, disk, kind, status, _opaque):
        if kind != self._kind:
            return
        with self._change:
            self._seen.append((dom.name(), disk, kind, TYPES.get(status, status)))
            self._change.notify_all()

    def seen(self):
        with self._change:
            return list(self._seen)

    def forget(self):
        with self._change:
            self._seen.clear()

    def wait(self, disk, *wanted, timeout=60):
        """The first of the wanted events of disk; takes it and what was before it."""
        end = time.monotonic() + timeout
        with self._change:
            while True:
                for at, (_, target, _, status) in enumerate(self._seen):
                    if target == disk and status in wanted:
                        del self._seen[:at + 1]
                        return status
                if not self._conn.isAlive():
                    raise Failure(f'{disk}: the connection broke')
                if time.monotonic() > end:
                    raise Failure(f'{disk}: no event {wanted} in {timeout} s, '
                                  f'but {self._seen}')
                self._change.wait(0.2)

    def close(self):
        try:
            self._conn.domainEventDeregisterAny(self._id)
        except libvirt.libvirtError:
            pass


def target_xml(path, fmt='qcow2'):
    """The destination of a copy; a flat image."""
    return (f"<disk type='file' device='disk'><driver name='qemu' type='{fmt}'/>"
            f"<source file='{path}'/><backingStore/></disk>")


def start_copy(dom, disk, path, bitmap=None, checkpoint=None, finish=False, fmt='qcow2',
               flags=None, xml=None, **params):
    """virDomainBlockCopy with our parameters; reuses an existing file, and whatever xml
    describes."""
    if bitmap:
        params['bitmap'] = bitmap
    if checkpoint:
        params['checkpoint'] = checkpoint
    if finish:
        params['finish'] = True
    if flags is None:
        exists = xml or os.path.exists(path)
        flags = libvirt.VIR_DOMAIN_BLOCK_COPY_REUSE_EXT if exists else 0
    dom.blockCopy(disk, xml or target_xml(path, fmt), params, flags)


def shown(dom, disk):
    """The job as it is shown; of a guest that is off libvirt shows none, as an error."""
    try:
        return dom.blockJobInfo(disk, 0)
    except libvirt.libvirtError as error:
        if error.get_error_code() != libvirt.VIR_ERR_OPERATION_INVALID:
            raise
        return {}


def wait_end(events, dom, disk, timeout=120):
    """Waits for the end of a job; raises unless it completed."""
    status = events.wait(disk, 'completed', 'failed', 'canceled', timeout=timeout)
    end = time.monotonic() + 20
    while shown(dom, disk):
        if time.monotonic() > end:
            raise Failure(f'{disk}: {status}, but the job is still there')
        time.sleep(0.01)
    if status != 'completed':
        raise Failure(f'{disk}: the copy {status}')


def wait_ready(events, disk, timeout=120):
    status = events.wait(disk, 'ready', 'completed', 'failed', 'canceled', timeout=timeout)
    if status != 'ready':
        raise Failure(f'{disk}: the copy {status}')


class Later:
    """A call on a thread of its own; join() returns its exception, or None."""

    def __init__(self, call, *args):
        self._error = None
        self._thread = threading.Thread(target=self._run, args=(call, args), daemon=True)
        self._thread.start()

    def _run(self, call, args):
        try:
            call(*args)
        except libvirt.libvirtError as error:
            self._error = error

    def running(self):
        return self._thread.is_alive()

    def join(self, timeout=60):
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise Failure('the call does not return')
        return self._error
