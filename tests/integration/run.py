#!/usr/bin/python3
"""The integration tests: see HACKING.md, and lib/runner.py for how a test is written."""

import argparse
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
sys.dont_write_bytecode = True

from lib import runner  # noqa: E402


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('files', nargs='*', metavar='FILE')
    parser.add_argument('--all', action='store_true', help='the slow tests, too')
    parser.add_argument('--seed', type=int, help='of the random sequences')
    parser.add_argument('--only', metavar='PATTERN', help='tests whose name contains it')
    # Tests wait for much that takes no processor.
    parser.add_argument('--jobs', type=int, default=3, help='files at a time')
    parser.add_argument('--hours', type=float, default=0, help='of test_killed_for_hours, '
                        'with --all')
    parser.add_argument('--sample', action='store_true', help='the tests marked @sample')
    parser.add_argument('--build', metavar='FOLDER', help='our programs come from this '
                        'build; what its sanitizers find fails the test')
    parser.add_argument('--worker', metavar='FILE', help=argparse.SUPPRESS)
    parser.add_argument('--last', action='store_true', help=argparse.SUPPRESS)
    parser.add_argument('--names', default='', help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = runner.Options(args.all, args.seed, args.only, args.jobs, args.sample,
                             args.hours, args.last)
    if args.worker:
        runner.worker(args.worker, args.names.split(','), options)
    if args.build:
        os.environ['VIRT_CHECKPOINT_TESTED'] = os.path.abspath(args.build)
    # A signal ends the run through the code that closes the places.
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda number, _: sys.exit(128 + number))
    sys.exit(runner.main(args.files, options))


if __name__ == '__main__':
    main()
