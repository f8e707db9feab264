"""The rows of the sweep's table (test_sweep.py) that copy something: both files run at
the same time."""

from lib.sweep import row_tests

globals().update(row_tests(lambda operation: operation.copies))
