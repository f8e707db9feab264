#!/usr/bin/python3
# check-threads.py: what we use of GLib's threads is known to the ThreadSanitizer build
#
# Copyright (C) 2026 The libvirt-checkpoint authors
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Usage: scripts/check-threads.py FUNCTIONS.TXT LIBRARY.a...
"""Checks that each function of GLib that our libraries call, and that orders threads or
changes a container, is wrapped in the ThreadSanitizer build or listed as needing none.

Without its wrapper correct code would be reported, or a race not be seen.
"""

import pathlib
import re
import subprocess
import sys

FAMILIES = """
    array async_queue atomic bit byte_array bytes child_watch cond datalist free
    hash_table hook idle list main mutex node object once pointer_bit private ptr_array
    queue rec_mutex ref_string rw_lock sequence signal slist source static string task
    thread timeout tree unix
""".split()
NAME = re.compile(r"\bU (g_(?:" + "|".join(FAMILIES) + r")(?:_\w+)?)$", re.MULTILINE)
LISTED = re.compile(r"^(?:orders|container|none) (\w+)$", re.MULTILINE)


def main():
    listed = set(LISTED.findall(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        symbols = subprocess.run(["nm", *sys.argv[2:]], capture_output=True, text=True,
                                 check=True).stdout
    except FileNotFoundError:
        print("no nm here")
        return 77
    used = set(NAME.findall(symbols))
    for name in sorted(used - listed):
        print(f"{name}: neither wrapped nor said to need no wrapper")
    print(f"{len(used)} functions used, {len(used - listed)} unknown")
    return 1 if used - listed or not used else 0


if __name__ == "__main__":
    sys.exit(main())
