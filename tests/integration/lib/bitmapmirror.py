"""A bitmap mirror made of stock jobs, for interposer.py.

What it shows is the interface that two series of patches gave QEMU's blockdev-mirror:
dialect A (members bitmap and bitmap-mode, sync=bitmap and incremental) and dialect B
(member bitmap with sync=full: the job's working bitmap).  As with a real mirror, what
becomes of the target never touches the guest.  The copying:

  Pass.    P, a copy of the caller's bitmap, says what is missing.  A backup job puts that
           into a file of our own, and another one from there onto the target: that one is
           none of the guest's business.  M records what the guest writes meanwhile.
  Mirror.  Then stock's sync=none mirror takes over under the caller's job id.  What M has
           is written to the disk once more, with the guest stopped for the moment, so
           that the mirror copies it; when it has, the job is ready.  From there on all is
           QEMU's own doing.

The caller's bitmap is not touched until the end; then it becomes what the mode says.  A
mirror that succeeds is kept in PENDING for that, where the guest cannot write.

With write-blocking the rewriting waits for the target, as the guest's writes do.  A
second job is not begun while the target of another one is stuck: stopping the guest
waits for all nodes.
"""

import copy
import json
import os
import signal
import subprocess
import sys
import tempfile

PREFIX = 'qmp-interposer-'
BITMAP_MODES = ('on-success', 'never', 'always')
CLUSTER = 65536  # the least that backup copies
POLL = 0.02  # seconds between looks at a mirror that is not ready yet
IN_USE = "Bitmap '{}' is currently in use by another operation and cannot be used"


class Refused(Exception):
    """A command is answered with this error."""


def schema(entities, dialect):
    """The reply to query-qmp-schema with the members that the dialect adds."""
    if dialect == 'none':
        return entities
    entities = copy.deepcopy(entities)
    types = {entity['name']: entity for entity in entities}

    def members(command):
        return types[types[command]['arg-type']]['members']
    backup = {member['name']: member for member in members('blockdev-backup')}
    for command in ('blockdev-mirror', 'drive-mirror'):
        added = {'name': 'bitmap', 'type': backup['bitmap']['type'], 'default': None}
        if dialect == 'B':
            added['features'] = ['unstable']
            for member in members(command):
                if member['name'] == 'sync':
                    member['type'] = PREFIX + 'sync'
        else:
            members(command).append({'name': 'bitmap-mode', 'default': None,
                                     'type': backup['bitmap-mode']['type']})
        members(command).append(added)
    if dialect == 'B':
        values = ['top', 'full', 'none']
        entities.append({'name': PREFIX + 'sync', 'meta-type': 'enum', 'values': values,
                         'members': [{'name': value} for value in values]})
    return entities


class Control:
    """What a test wants to go wrong: {"fail-at": offset} makes writes there fail once."""

    def __init__(self, path):
        self.path = path

    def take(self):
        try:
            with open(self.path, encoding='ascii') as control:
                wanted = json.load(control)
        except (OSError, TypeError, ValueError):
            return {}
        os.unlink(self.path)
        return wanted


class Stage:
    """A file of ours that holds what a bitmap names, as a node; it has no name."""

    def __init__(self, own, name, size):
        self.own, self.name, self.size = own, name, size
        with tempfile.NamedTemporaryFile(prefix=PREFIX) as file:
            file.truncate(size)
            own.run('blockdev-add', **{'driver': 'file', 'node-name': name,
                                       'filename': file.name, 'discard': 'unmap'})
            self.fd = os.open(file.name, os.O_RDONLY)

    def close(self):
        self.own.run('blockdev-del', **{'node-name': self.name})
        os.close(self.fd)

    def rewriting(self, first, end):
        """The qemu-io command that writes these bytes again, and the file it reads."""
        data = os.pread(self.fd, end - first, first)
        if data.count(0) == len(data):
            return f'write -q -z {first} {len(data)}', None
        file = tempfile.NamedTemporaryFile(prefix=PREFIX)
        file.write(data)
        file.flush()
        return f'write -q -s {file.name} {first} {len(data)}', file


def extents(granules, granularity, size):
    """(first byte, end) of each run of a bitmap's granules."""
    runs = []
    for granule in sorted(granules):
        if runs and runs[-1][1] == granule:
            runs[-1][1] += 1
        else:
            runs.append([granule, granule + 1])
    return [(a * granularity, min(b * granularity, size)) for a, b in runs]


class Job:
    """One bitmap mirror, from its start to its dismissal."""

    def __init__(self, jobs, arguments, bitmap, mode):
        self.jobs = jobs
        self.own = jobs.own
        self.id = arguments.get('job-id') or arguments['device']
        self.arguments = arguments
        self.node = bitmap['node']
        self.bitmap = bitmap['name']
        self.granularity = bitmap['granularity']
        self.mode = mode  # always, for dialect B
        self.target = arguments['target']
        self.speed = arguments.get('speed', 0)
        self.auto_finalize = arguments.get('auto-finalize', True)
        self.state = 'pass'  # mirror, concluded
        self.filling = 0  # bytes that the mirror copies before the job is ready
        self.too_early = []  # events of QEMU's that say so before
        self.copied = 0
        self.error = None
        self.ending = self.pending = self.settled = self.stopped = False
        serial = jobs.new_serial()
        self.inner = f'{PREFIX}{serial}'
        self.missing = f'{PREFIX}{serial}.p'
        self.written = f'{PREFIX}{serial}.m'
        self.device = None  # the guest's
        self._stage = None
        self._round = 0

    # Bitmaps

    def _transaction(self, *actions):
        return self.own.run('transaction', actions=[
            {'type': f'block-dirty-bitmap-{kind}', 'data': dict(data, node=self.node)}
            for kind, data in actions])

    def _add(self, name, disabled=False):
        return 'add', {'name': name, 'granularity': self.granularity,
                       'disabled': disabled}

    def _count(self, name):
        node = self.jobs.nodes()[self.node]
        return next(b['count'] for b in node['dirty-bitmaps'] if b.get('name') == name)

    def _turn_over(self, keep=True):
        """What was written becomes what is missing, or is forgotten."""
        self._round += 1
        old, self.written = self.written, f'{self.inner}.m{self._round}'
        merge = [('merge', {'target': self.missing, 'bitmaps': [old]})] if keep else []
        self._transaction(self._add(self.written), *merge, ('remove', {'name': old}))

    # The pass

    def start(self):
        """Raises Refused when QEMU does not take the pass."""
        self._transaction(self._add(self.written), self._add(self.missing, True),
                          ('merge', {'target': self.missing, 'bitmaps': [self.bitmap]}))
        self._wrap_target()
        self.device = next(entry['qdev'] for entry in self.own.run('query-block')
                           if entry.get('inserted', {}).get('node-name') == self.node)
        self._put_on_stage()
        reply = self._start_pass()
        if 'error' in reply:
            self._stage.close()
            self._clean()
            raise Refused(reply['error']['desc'])
        self._say_status('created')
        self._say_status('running')

    def _size(self):
        return self.jobs.nodes()[self.node]['image']['virtual-size']

    def _chunk(self):
        """What backup copies at once: all of it has to be on the stage."""
        cluster = self.jobs.nodes()[self.arguments['target']]['image'].get('cluster-size', 0)
        return max(self.granularity, CLUSTER, cluster)

    def _put_on_stage(self):
        """What is missing gets into a file of ours, and is named by a bitmap there."""
        name, bitmap = self.inner + '-s', {'name': PREFIX + 'stage',
                                           'granularity': self._chunk(), 'disabled': True}
        self._stage = Stage(self.own, name, self._size())
        for node in (self.node, name):
            self.own.run('block-dirty-bitmap-add', node=node, **bitmap)
            self.own.run('block-dirty-bitmap-merge', node=node, target=bitmap['name'],
                         bitmaps=[{'node': self.node, 'name': self.missing}])
        self.own.run('blockdev-backup', **{
            'job-id': name, 'device': self.node, 'target': name, 'sync': 'bitmap',
            'bitmap': bitmap['name'], 'bitmap-mode': 'never', 'auto-dismiss': False})
        self._await_concluded(name)
        error = self._inner_job(name).get('error')
        self.own.run('job-dismiss', id=name)
        self.own.run('block-dirty-bitmap-remove', node=self.node, name=bitmap['name'])
        if error:
            raise RuntimeError(f'a stage that fails: {error}')

    def _await_concluded(self, name):
        def is_end(event):
            return event['event'] == 'JOB_STATUS_CHANGE' and event['data'] == {
                'id': name, 'status': 'concluded'}
        while not any(map(is_end, self.own.events)):
            self.own.poll()
        self.own.events = [event for event in self.own.events if not is_end(event)]

    def _wrap_target(self):
        """Puts the fault that a test asked for in front of the target."""
        wanted = self.jobs.control.take()
        if 'fail-at' not in wanted:
            return
        name = self.inner + '-t'
        self.own.run('blockdev-add', **{
            'driver': 'blkdebug', 'node-name': name, 'image': self.target,
            'inject-error': [{'event': 'none', 'iotype': 'write', 'errno': 5,
                              'once': True, 'sector': wanted['fail-at'] // 512}]})
        self.target = name

    def _start_pass(self):
        policies = {key: self.arguments[key] for key in (
            'on-source-error', 'on-target-error') if key in self.arguments}
        return self.own.ask('blockdev-backup', **{
            'job-id': self.inner, 'device': self._stage.name, 'target': self.target,
            'sync': 'bitmap', 'bitmap': PREFIX + 'stage', 'bitmap-mode': 'always',
            'auto-dismiss': False, 'speed': self.speed,
            # One cluster after the other: what an error leaves is known.
            'x-perf': {'max-workers': 1, 'max-chunk': self._chunk()},
            **policies})

    def _inner_job(self, name=None):
        return next(job for job in self.own.run('query-jobs')
                    if job['id'] == (name or self.inner))

    def pass_ended(self):
        """What is left of it is what is missing.  Then the mirror takes over."""
        job = self._inner_job()
        self.copied += job['current-progress']
        self.own.run('job-dismiss', id=self.inner)
        self._transaction(('clear', {'name': self.missing}),
                          ('merge', {'target': self.missing, 'bitmaps': [
                              {'node': self._stage.name, 'name': PREFIX + 'stage'}]}))
        self._stage.close()
        error = job.get('error') or self._take_over()
        if error:
            self._fail(error)

    def _fail(self, error):
        """The job ends before it was ready."""
        self.error = error
        cancelled = error == os.strerror(125)  # ECANCELED
        self.settle()
        self.unwrap()
        self.state = 'concluded'
        for status in ('aborting', 'concluded'):
            self._say_status(status)
        data = {'type': 'mirror', 'device': self.id, 'len': self.copied,
                'offset': self.copied, 'speed': self.speed}
        if not cancelled:
            data['error'] = error
        self.jobs.say('BLOCK_JOB_CANCELLED' if cancelled else 'BLOCK_JOB_COMPLETED', data)
        if self.arguments.get('auto-dismiss', True):
            self.jobs.forget(self)

    def _say_status(self, status):
        self.jobs.say('JOB_STATUS_CHANGE', {'id': self.id, 'status': status})

    # The guest, for the moments that are to be exact

    def _stop_guest(self):
        if not self.stopped and self.own.run('query-status')['running']:
            self.jobs.hide('STOP')
            self.own.run('stop')
            self.stopped = 'running'
        self.stopped = self.stopped or 'paused'

    def _resume_guest(self):
        if self.stopped == 'running':
            self.jobs.hide('RESUME')
            self.own.run('cont')
        self.stopped = False

    # The mirror

    def _take_over(self):
        """Has stock's mirror go on with what was written meanwhile; an error or None."""
        with tempfile.NamedTemporaryFile(prefix=PREFIX) as peek:
            subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', peek.name,
                            str(self._size())], check=True)
            self._stop_guest()
            try:
                self._turn_over()
                left = extents(self._granules(peek.name), self.granularity, self._size())
                if not left:
                    return self._start_mirror()
                self._put_on_stage()
                error = self._start_mirror()
                if not error:
                    self._rewrite(left)
                self._stage.close()
                return error
            finally:
                self._resume_guest()

    def _granules(self, path):
        """Those of the bitmap of what is missing, by way of an image file."""
        sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
        from lib.images import bitmaps
        node = {'node': self.inner + '-p'}
        self.own.run('blockdev-add', **{
            'driver': 'qcow2', 'node-name': node['node'],
            'file': {'driver': 'file', 'filename': path}})
        self.own.run('block-dirty-bitmap-add', name='bits', persistent=True, disabled=True,
                     granularity=self.granularity, **node)
        self.own.run('block-dirty-bitmap-merge', target='bits', bitmaps=[
            {'node': self.node, 'name': self.missing}], **node)
        self.own.run('blockdev-del', **{'node-name': node['node']})
        return bitmaps(path)['bits'].granules

    def _rewrite(self, left):
        """Writes what the disk holds there to it; no bitmap but the mirror's sees it."""
        seen = [b for b in self.jobs.nodes()[self.node]['dirty-bitmaps']
                if b.get('name') and b['recording'] and not b['busy']]
        for number, bitmap in enumerate(seen):
            kept = {'name': f'{self.inner}.k{number}', 'disabled': True,
                    'granularity': bitmap['granularity']}
            self._transaction(('add', kept), ('merge', {'target': kept['name'],
                                                        'bitmaps': [bitmap['name']]}))
        for first, end in left:
            command, _file = self._stage.rewriting(first, end)
            self.own.run('human-monitor-command',
                         **{'command-line': f'qemu-io -d {self.device} "{command}"'})
        for number, bitmap in enumerate(seen):
            kept = f'{self.inner}.k{number}'
            self._transaction(('clear', {'name': bitmap['name']}),
                              ('merge', {'target': bitmap['name'], 'bitmaps': [kept]}),
                              ('remove', {'name': kept}))
        self.filling = sum(end - first for first, end in left)
        self.too_early = ['ready', 'BLOCK_JOB_READY']

    def _start_mirror(self):
        """The guest stands still; returns an error or None."""
        arguments = {key: value for key, value in self.arguments.items()
                     if key not in ('bitmap', 'bitmap-mode')}
        arguments.update({'job-id': self.id, 'device': self.node, 'sync': 'none',
                          'target': self.target, 'granularity': self.granularity,
                          'speed': self.speed, 'auto-finalize': False})
        self.state = 'mirror'
        error = self.own.ask('blockdev-mirror', **arguments).get('error')
        if error:
            self.state = 'pass'
            return error['desc']
        return None

    def poll(self):
        """Says that a mirror is ready once it has nothing to do.  QEMU said so when it
        began; its progress is what it saw when it last looked."""
        job = next((j for j in self.own.run('query-jobs') if j['id'] == self.id), None)
        if not job or job['status'] != 'ready' or \
                job['current-progress'] < self.filling or \
                job['current-progress'] != job['total-progress']:
            return
        self.filling = 0
        self._transaction(('clear', {'name': self.missing}))
        self._say_status('ready')
        done = self.copied + job['current-progress']
        self.jobs.say('BLOCK_JOB_READY', {'type': 'mirror', 'device': self.id, 'len': done,
                                          'offset': done, 'speed': self.speed})

    def _is_idle(self):
        """TRUE if the mirror has nothing to do; its progress alone is late."""
        dirty = sum(b['count'] for b in self.jobs.nodes()[self.node]['dirty-bitmaps']
                    if 'name' not in b)
        job = next(job for job in self.own.run('query-jobs') if job['id'] == self.id)
        return not dirty and job['current-progress'] == job['total-progress']

    def reached_pending(self):
        """The mirror has drained: the guest cannot write until it is finalized."""
        self.pending = True
        if self.auto_finalize:
            self.finalize()
            self.own.run('job-finalize', id=self.id)

    def finalize(self):
        if self.mode != 'never':
            self._transaction(('clear', {'name': self.bitmap}))
        self.settle(changed=True)

    def settle(self, changed=False):
        """The job is over: the bitmap gets what its mode says, once."""
        if self.settled:
            return
        self.settled = True
        self.filling = 0
        if not changed and self.mode == 'always':
            # It goes on recording: what is written meanwhile is in both.
            self._transaction(('clear', {'name': self.bitmap}),
                              ('merge', {'target': self.bitmap,
                                         'bitmaps': [self.missing, self.written]}))
        self._clean()
        self._resume_guest()

    def _clean(self):
        self._transaction(('remove', {'name': self.missing}),
                          ('remove', {'name': self.written}))

    def unwrap(self):
        """The node of a fault goes with the job."""
        if self.target != self.arguments['target']:
            self.own.run('blockdev-del', **{'node-name': self.target})
            self.target = self.arguments['target']

    # What clients ask of it

    def _cancel_forced(self):
        """Exact, as long as nobody writes between the look and the end."""
        if not self.pending:
            self._stop_guest()
        if self.pending or self._is_idle():
            self._turn_over(keep=False)

    def command(self, name, message):
        """A command on this job: its reply, or None: QEMU's own affair."""
        data = message.get('arguments', {})
        if self.state == 'pass':
            return self._command_early(name, data)
        if self.state == 'concluded':
            if name not in ('job-dismiss', 'block-job-dismiss'):
                raise Refused(f"Job '{self.id}' in state 'concluded' cannot accept "
                              f"command verb '{name}'")
            self._say_status('null')
            self.jobs.forget(self)
            return {'return': {}}
        complete = name in ('job-complete', 'block-job-complete')
        cancel = name in ('job-cancel', 'block-job-cancel')
        if self.filling and complete:
            raise Refused(f"The active block job '{self.id}' cannot be completed")
        if self.filling and cancel:
            return self.own.ask('job-cancel', id=self.id)
        forced = name == 'job-cancel' or data.get('force', False)
        if name in ('job-finalize', 'block-job-finalize') and self.pending:
            self.finalize()
        if not complete and not cancel:
            return None
        if cancel and (forced or self.pending):
            self._cancel_forced()
        reply = self.jobs.proxy.forward(message)
        self.ending = 'error' not in reply
        if not self.ending:
            self._resume_guest()
        return reply

    def _command_early(self, name, data):
        if name in ('job-cancel', 'block-job-cancel'):
            return self.own.ask('job-cancel', id=self.inner)
        if name == 'block-job-set-speed':
            self.speed = data['speed']
            return self.own.ask(name, device=self.inner, speed=self.speed)
        if name in ('job-pause', 'job-resume', 'block-job-pause', 'block-job-resume'):
            return self.own.ask('job-' + name.rpartition('-')[2], id=self.inner)
        raise Refused(f"The active block job '{self.id}' cannot be completed")

    def show(self, inner):
        """The job in query-jobs, while QEMU does not have it."""
        entry = {'id': self.id, 'type': 'mirror', 'current-progress': self.copied,
                 'total-progress': self.copied,
                 'status': 'concluded' if self.state == 'concluded' else 'running'}
        if self.error:
            entry['error'] = self.error
        if inner:
            entry['current-progress'] += inner['current-progress']
            entry['total-progress'] += inner['total-progress']
        return entry


class Checks:
    """What is refused, in the order in which the patches look."""

    def __init__(self, jobs, arguments):
        self.jobs = jobs
        self.data = arguments
        self.sync = arguments['sync']
        self.name = arguments.get('bitmap')
        self.mode = arguments.get('bitmap-mode')

    def _find(self):
        nodes = self.jobs.nodes()
        node = self.data['device']
        if node not in nodes:
            node = next((entry['inserted']['node-name']
                         for entry in self.jobs.own.run('query-block')
                         if node in (entry['device'], entry.get('qdev'))
                         and 'inserted' in entry), None)
        bitmaps = nodes[node].get('dirty-bitmaps', []) if node else []
        found = next((b for b in bitmaps if b.get('name') == self.name), None)
        if not found:
            raise Refused(f"Bitmap '{self.name}' could not be found")
        return dict(found, node=node, ro=nodes[node]['ro'] and found['persistent'])

    def _usable(self, bitmap, may_be_read_only):
        if bitmap['busy'] or self.jobs.busy(bitmap['node'], self.name):
            raise Refused(IN_USE.format(self.name))
        if bitmap.get('inconsistent'):
            raise Refused(f"Bitmap '{self.name}' is inconsistent and cannot be used")
        if bitmap['ro'] and not may_be_read_only:
            raise Refused(f"Bitmap '{self.name}' is readonly and cannot be modified")

    def dialect_a(self):
        """(bitmap, mode); the caller has seen that one of the members is there."""
        by_bitmap = self.sync in ('bitmap', 'incremental')
        if by_bitmap and not self.name:
            raise Refused(f"Must provide a valid bitmap name for '{self.sync}' sync mode")
        if self.sync == 'incremental' and self.mode not in (None, 'on-success'):
            raise Refused("Bitmap sync mode must be 'on-success' when using sync mode "
                          "'incremental'")
        if not by_bitmap:
            raise Refused(f"Sync mode '{self.sync}' not supported with bitmap" if self.name
                          else 'Cannot specify bitmap sync mode without a bitmap')
        if 'granularity' in self.data:
            raise Refused('Granularity and bitmap cannot both be set')
        if self.sync == 'bitmap' and not self.mode:
            raise Refused('Bitmap sync mode must be given when providing a bitmap')
        bitmap, mode = self._find(), self.mode or 'on-success'
        self._usable(bitmap, mode == 'never')
        return bitmap, mode

    def dead(self):
        """The packages of 8.0 show dialect A and never find the bitmap's name."""
        if self.sync in ('bitmap', 'incremental'):
            raise Refused(f"Must provide a valid bitmap name for '{self.sync}' sync mode")
        return self.dialect_a()

    def _check_clusters(self, granularity):
        target = self.jobs.nodes().get(self.data['target'])
        if not target or 'backing-filename' in target['image'] or \
                target['image']['filename'].startswith('nbd'):
            return
        cluster = target['image'].get('cluster-size')
        if not cluster:  # it divides by what it was told
            os.kill(self.jobs.proxy.qemu_pid, signal.SIGFPE)
            os.kill(self.jobs.proxy.qemu_pid, signal.SIGKILL)
            raise SystemExit
        if granularity % cluster:
            raise Refused(f'Bitmap granularity {granularity} is not a multiple of the '
                          f'target image\'s cluster size {cluster}')

    def dialect_b(self):
        if 'bitmap-mode' in self.data:
            raise Refused("Parameter 'bitmap-mode' is unexpected")
        if self.sync in ('bitmap', 'incremental'):
            raise Refused(f"Parameter 'sync' does not accept value '{self.sync}'")
        if self.sync != 'full':
            raise Refused(f"Sync mode '{self.sync}' not supported with bitmap")
        if 'granularity' in self.data:
            raise Refused('Cannot set both granularity and bitmap')
        bitmap = self._find()
        self._check_clusters(bitmap['granularity'])
        self._usable(bitmap, False)
        if not bitmap['recording']:
            raise Refused(f"Bitmap '{self.name}' is not enabled")
        return bitmap, 'always'


class Jobs:
    """All bitmap mirrors of one QEMU; what the proxy asks at each message."""

    def __init__(self, proxy):
        self.proxy = proxy
        self.own = proxy.own
        self.dialect = os.environ['QMP_INTERPOSER']
        self.control = Control(os.environ.get('QMP_INTERPOSER_CONTROL'))
        self._jobs = {}
        self._serial = 0
        self._hidden = []
        self._confined = os.environ.get('QMP_INTERPOSER_CONFINED', '').partition(':')

    def new_serial(self):
        self._serial += 1
        return self._serial

    def nodes(self):
        return {node['node-name']: node for node in
                self.own.run('query-named-block-nodes', flat=True)}

    def say(self, name, data):
        self.proxy.tell({'event': name, 'data': data,
                         'timestamp': {'seconds': 0, 'microseconds': 0}})

    def hide(self, event):
        """The next event of that name is our own doing."""
        if self.proxy.client:
            self._hidden.append(event)

    def forget(self, job):
        job.unwrap()
        self._jobs.pop(job.id, None)

    def busy(self, node, bitmap):
        return any(not job.settled and (job.node, job.bitmap) == (node, bitmap)
                   for job in self._jobs.values())

    # Commands

    def _mirror(self, message):
        arguments = message['arguments']
        if self.dialect == 'none':
            return None
        if not {'bitmap', 'bitmap-mode'} & set(arguments) and \
                arguments['sync'] not in ('bitmap', 'incremental'):
            return None
        checks = Checks(self, arguments)
        bitmap, mode = {'A': checks.dialect_a, 'B': checks.dialect_b,
                        'dead': checks.dead}[self.dialect]()
        job = Job(self, arguments, bitmap, mode)
        if job.id in self._jobs:
            raise Refused(f"Job ID '{job.id}' already in use")
        job.start()
        self._jobs[job.id] = job
        return {'return': {}}

    def _check_bitmaps(self, name, data):
        """Bitmaps that a job holds cannot be used by anything else."""
        node = data.get('node') or data.get('device') or data.get('node-name')
        used = []
        if name.startswith('block-dirty-bitmap-'):
            used = [data.get('name') or data.get('target')] + data.get('bitmaps', [])
        elif name in ('blockdev-backup', 'drive-backup', 'nbd-server-add'):
            used = [data.get('bitmap')]
        elif name == 'block-export-add':
            used = data.get('bitmaps', [])
        for bitmap in used:
            on, of = (bitmap['node'], bitmap['name']) if isinstance(bitmap, dict) else \
                (node, bitmap)
            if self.busy(on, of):
                raise Refused(IN_USE.format(of))

    def command(self, message):
        """The reply to a command of libvirt's, or None: it is for QEMU."""
        name, data = message['execute'], message.get('arguments', {})
        try:
            if name == 'blockdev-mirror':
                return self._mirror(message)
            if name == 'transaction':
                for action in data['actions']:
                    self._check_bitmaps(action['type'], action['data'])
            self._check_bitmaps(name, data)
            job = self._jobs.get(data.get('id') or data.get('device'))
            if job and (name.startswith('job-') or name.startswith('block-job-')):
                return job.command(name, message)
        except Refused as refused:
            return {'error': {'class': 'GenericError', 'desc': str(refused)}}
        return None

    def descriptors(self, message, fds):
        """What QEMU gets of the descriptors that came with a command."""
        how, _, path = self._confined
        kept = []
        for fd in fds:
            if message.get('execute') != 'add-fd' or \
                    os.readlink(f'/proc/self/fd/{fd}') != path:
                kept.append(fd)
                continue
            if how == 'read-only':
                kept.append(os.open(path, os.O_RDONLY))
            os.close(fd)
        return kept

    def holds(self):
        """A guest that is written to through the monitor would wait for itself in
        PENDING: until the job has ended nobody else is heard."""
        return any(job.ending and not job.settled and
                   (job.auto_finalize or not job.pending) for job in self._jobs.values())

    # Replies

    def _show_nodes(self, value):
        """Takes what is ours out of a reply, at any depth; the bitmaps as they would be."""
        if isinstance(value, list):
            return [self._show_nodes(entry) for entry in value
                    if not (isinstance(entry, dict) and
                            str(entry.get('node-name', '')).startswith(PREFIX))]
        if not isinstance(value, dict):
            return value
        shown = {key: self._show_nodes(part) for key, part in value.items()}
        if 'dirty-bitmaps' in value:
            shown['dirty-bitmaps'] = [
                self._show_bitmap(value.get('node-name'), b) for b in value['dirty-bitmaps']
                if not b.get('name', '').startswith(PREFIX)]
        return shown

    def _show_bitmap(self, node, bitmap):
        if not self.busy(node, bitmap.get('name')):
            return bitmap
        return dict(bitmap, busy=True, recording=bitmap['recording'] and
                    self.dialect != 'B')

    def _show_jobs(self, entries):
        inner = {entry['id']: entry for entry in entries if entry['id'].startswith(PREFIX)}
        shown = [dict(entry) for entry in entries if entry['id'] not in inner]
        for entry in shown:
            job = self._jobs.get(entry['id'])
            if job:
                entry['current-progress'] += job.copied
                entry['total-progress'] += job.copied
                if job.filling and entry['status'] == 'ready':
                    entry['status'] = 'running'
        return shown + [job.show(inner.get(job.inner)) for job in self._jobs.values()
                        if job.state != 'mirror']

    def _show_block_jobs(self, entries):
        """libvirt's view: it does not know these jobs."""
        return [entry for entry in entries if not entry['device'].startswith(PREFIX)]

    def reply(self, message, reply):
        """QEMU's reply as libvirt is to see it; None: as it is."""
        if 'return' not in reply:
            return None
        shown = {'query-named-block-nodes': self._show_nodes,
                 'query-block': self._show_nodes,
                 'query-jobs': self._show_jobs,
                 'query-block-jobs': self._show_block_jobs,
                 'query-qmp-schema': lambda found: schema(found, self.dialect),
                 'query-version': lambda found: dict(found, package=PREFIX + self.dialect)
                 }.get(message.get('execute'))
        return dict(reply, **{'return': shown(reply['return'])}) if shown else None

    # Events

    def event(self, message):
        """What libvirt is to see of an event of QEMU's."""
        name, data = message['event'], message.get('data', {})
        if name in self._hidden:
            self._hidden.remove(name)
            return []
        which = str(data.get('id') or data.get('device') or '')
        if which.startswith(PREFIX):
            return []
        job = self._jobs.get(which)
        if not job or job.state != 'mirror':
            return [message]
        status = data.get('status')
        for said in {name, status} & set(job.too_early):
            job.too_early.remove(said)
            return []
        if status in ('created', 'running') or \
                (name == 'BLOCK_JOB_PENDING' and job.auto_finalize):
            return []
        if status in ('concluded', 'null') or name in ('BLOCK_JOB_COMPLETED',
                                                       'BLOCK_JOB_CANCELLED'):
            job.settle()
        if 'offset' in data:
            data = dict(data, offset=data['offset'] + job.copied,
                        len=data['len'] + job.copied)
        return [dict(message, data=data)]

    def patience(self):
        """How long may be waited for a message: of some mirrors it has to be seen when
        they are ready."""
        return POLL if any(job.filling for job in self._jobs.values()) else None

    def poll(self):
        for job in self._jobs.values():
            if job.filling:
                job.poll()

    def progress(self):
        """Goes on where an event on our own monitor says that something has ended."""
        while self.own.events:
            event = self.own.events.pop(0)
            if event['event'] != 'JOB_STATUS_CHANGE':
                continue
            which, status = event['data']['id'], event['data']['status']
            for job in list(self._jobs.values()):
                if which == job.inner and status == 'concluded' and \
                        job.state == 'pass':
                    job.pass_ended()
                elif which == job.id and job.state == 'mirror':
                    self._mirror_event(job, status)

    def _mirror_event(self, job, status):
        if status == 'pending':
            job.reached_pending()
        elif status in ('concluded', 'null'):
            job.settle()
            if status == 'null':
                self.forget(job)
