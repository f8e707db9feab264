"""Programs built with a sanitizer: what it found while a test ran fails that test.

run.py --build FOLDER takes our programs from another build, such as build/asan.  Each
of them writes what its sanitizer found to a file of its own, for most of them are
started by somebody else, who would swallow it.
"""

import glob
import os

SHOWN = 60  # lines of a report


def prepare(logs):
    """From now on programs that this process starts report into folder logs."""
    path = os.path.join(logs, 'sanitizer')
    os.environ.update({
        'ASAN_OPTIONS': f'log_path={path}:detect_leaks=1:detect_stack_use_after_return=1',
        'UBSAN_OPTIONS': f'log_path={path}:halt_on_error=1:print_stacktrace=1',
    })


def findings(logs):
    """The reports in folder logs, as text; '' if there is none."""
    found = []
    for path in sorted(glob.glob(os.path.join(logs, 'sanitizer.*'))):
        with open(path, errors='replace') as report:
            lines = report.read().splitlines()
        if lines:
            found += [f'{os.path.basename(path)}:'] + lines[:SHOWN]
    return '\n'.join(found)
