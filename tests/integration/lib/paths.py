"""Where things are: the tree, the build, and programs outside a user's PATH."""

import os
import shutil

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__)))))
BUILD = os.environ.get('VIRT_CHECKPOINT_BUILD') or os.path.join(TOP, 'build')
# Our programs may come from another build than what is shared (run.py --build).
TESTED = os.environ.get('VIRT_CHECKPOINT_TESTED') or BUILD
DAEMON = os.environ.get('VIRT_CHECKPOINT_DAEMON') or os.path.join(
    TESTED, 'src', 'remote', 'virtcheckpointd')
VIRSH = os.environ.get('VIRT_CHECKPOINT_VIRSH') or os.path.join(
    TESTED, 'tools', 'virsh', 'virsh')
# What a run leaves for the next one (guest, capabilities) and for people (logs).
SHARED = os.path.join(BUILD, 'integration')


def program(name):
    """The path of an installed program, sbin folders included; None if missing."""
    return shutil.which(name, path=os.environ.get('PATH', '') +
                        ':/usr/sbin:/usr/bin:/sbin:/bin')


def stock_virsh():
    """The installed virsh, never the one of this tree."""
    return shutil.which('virsh', path='/usr/local/bin:/usr/bin:/bin')


def cache(*parts):
    """A folder under the shared one, made."""
    path = os.path.join(SHARED, *parts)
    os.makedirs(path, exist_ok=True)
    return path
