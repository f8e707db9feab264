"""OtherHost: a second libvirtd beside a PrivateHost's, and a virtcheckpointd in front of
it: another host as far as libvirt can tell, with folders, a name and a uuid of its own.

It takes a mount and a name space of its own, so only root can have one.
"""

import os
import shutil
import socket

from . import session
from .host import PrivateHost
from .runner import Skip

# Runs "$@" where libvirt's folders are those of $1, under the host name "other".
ENTER = '''
hostname other
for at in run:/run/libvirt lib:/var/lib/libvirt etc:/etc/libvirt log:/var/log/libvirt \\
          cache:/var/cache/libvirt; do
    mount --bind "$1/${at%%:*}" "${at#*:}" || exit 99
done
[ -z "$2" ] || mount --bind "$1/img" "$2" || exit 99
shift 2
exec "$@"
'''


class OtherHost(PrivateHost):
    """Its disks are those of host, unless apart: then files of the same names are others
    there.  share: the store is host's.

    Attributes as of PrivateHost; tcp: its libvirtd's URI for another one; images is where the files of its disks are.
    """

    def __init__(self, host, share=True, apart=False):
        if not session.is_root():
            raise Skip('a second host needs root')
        self._host = host
        self.apart = apart
        work = os.path.join(host.work, 'other')
        shutil.rmtree(work, ignore_errors=True)
        super().__init__(work)
        self.seed, self.all, self.random = host.seed, host.all, host.random
        # Kept with the host's when the test fails.
        self.libvirtd_log = os.path.join(host.logs, 'other-libvirtd-debug.log')
        self.qmp_log = os.path.join(host.logs, 'other-qmp.jsonl')
        self.calls_log = os.path.join(host.logs, 'other-calls.log')
        self._daemon.log = os.path.join(host.logs, 'other-virtcheckpointd.log')
        self._libvirtd.log = os.path.join(host.logs, 'other-libvirtd.log')
        if share:
            self.state = host.state
        self._listen()
        self.start_libvirtd()

    def _place(self):
        self.run = os.path.join(self.work, 'run')
        self.config = os.path.join(self.work, 'etc')
        self.cache = os.path.join(self.work, 'cache')
        self.domain_logs = os.path.join(self.work, 'log', 'qemu')
        self.pids = os.path.join(self.run, 'qemu')
        for name in (self.run, os.path.join(self.work, 'lib'), self.domain_logs,
                     self.images, self.logs):
            os.makedirs(name, exist_ok=True)

    def _folders(self):
        return []

    def _listen(self):
        """Libvirt goes from host to host by names of hosts only: on the loopback."""
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = probe.getsockname()[1]
        with open(os.path.join(self.config, 'libvirtd.conf'), 'a') as conf:
            conf.write('listen_tls = 0\nlisten_tcp = 1\nlisten_addr = "127.0.0.1"\n'
                       f'tcp_port = "{port}"\nauth_tcp = "none"\n')
        self.libvirtd_options = ['--listen']
        self.tcp = f'qemu+tcp://127.0.0.1:{port}/system'

    def _enter(self, command):
        where = self._host.images if self.apart else ''
        return ['unshare', '--mount', '--uts', '--propagation', 'private', 'sh', '-c',
                ENTER, 'sh', self.work, where, *command]
