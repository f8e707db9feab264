"""Programs built with a sanitizer: what it found while a test ran fails that test.

run.py --build FOLDER takes our programs from another build, such as build/asan.  Each
of them writes what its sanitizer found to a file of its own, for most of them are
started by somebody else, who would swallow it.
"""

import ctypes
import glob
import os

SHOWN = 60  # lines of a report
ADDR_NO_RANDOMIZE = 0x0040000  # sys/personality.h


def prepare(logs):
    """From now on programs that this process starts report into folder logs."""
    path = os.path.join(logs, 'sanitizer')
    os.environ.update({
        'ASAN_OPTIONS': f'log_path={path}:detect_leaks=1:detect_stack_use_after_return=1',
        'UBSAN_OPTIONS': f'log_path={path}:halt_on_error=1:print_stacktrace=1',
        'TSAN_OPTIONS': f'log_path={path}',
    })


def fixed_addresses():
    """Programs that this process starts have the same addresses each time.

    ThreadSanitizer needs certain ranges to be free; where the kernel randomizes more
    bits than it was made for, a program may land in one and end at once ("unexpected
    memory mapping").  Where that is not allowed (some containers) they just try.
    """
    libc = ctypes.CDLL(None)
    libc.personality.argtypes = [ctypes.c_ulong]
    libc.personality(libc.personality(0xffffffff) | ADDR_NO_RANDOMIZE)


def is_tsan(program):
    """Whether program was built with ThreadSanitizer."""
    with open(program, 'rb') as image:
        return b'__tsan_init' in image.read()


def findings(logs):
    """The reports in folder logs, as text; '' if there is none."""
    found = []
    for path in sorted(glob.glob(os.path.join(logs, 'sanitizer.*'))):
        with open(path, errors='replace') as report:
            lines = report.read().splitlines()
        if lines:
            found += [f'{os.path.basename(path)}:'] + lines[:SHOWN]
    return '\n'.join(found)
