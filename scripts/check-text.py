#!/usr/bin/python3
# check-text.py: house rules that can be read off the text
#
# Copyright (C) 2026 The libvirt-checkpoint authors
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Usage: scripts/check-text.py [SOURCE-ROOT]
"""Checks C files: licence line, no goto, nothing left undone, short functions."""

import pathlib
import re
import sys

FOLDERS = ("include", "src", "tests", "tools")
MAX_COLUMNS = 88
MAX_FUNCTION_LINES = 80
# Spelled in two parts, so that this file does not find itself.
UNDONE = re.compile("TO" "DO|FIX" "ME|not imple" "mented")
GOTO = re.compile(r"^[ \t]*goto\b")


def functions(lines):
    """Yields (first line, length) of each function: formatted code has its braces at
    the start of a line and its name just before the opening one."""
    begin = None
    for number, line in enumerate(lines, 1):
        if line == "{":
            begin = number
        elif line == "}" and begin is not None:
            yield begin, number - begin + 1
            begin = None


def check_file(path, root):
    problems = []
    lines = path.read_text(encoding="utf-8").split("\n")
    name = path.relative_to(root)
    comment = lines[: lines.index(" */")] if " */" in lines else []
    if " * SPDX-License-Identifier: LGPL-2.1-or-later" not in comment:
        problems.append(f"{name}:1: no SPDX line in the first comment")
    if not re.match(rf" \* {re.escape(path.name)}: ", lines[1] if len(lines) > 1 else ""):
        problems.append(f"{name}:2: the first line of the comment is not 'FILE: what'")
    for number, line in enumerate(lines, 1):
        if len(line) > MAX_COLUMNS:
            problems.append(f"{name}:{number}: {len(line)} columns")
        if UNDONE.search(line):
            problems.append(f"{name}:{number}: something is left undone")
        if GOTO.match(line):
            problems.append(f"{name}:{number}: goto")
    return problems


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    problems = []
    longest = []
    paths = []
    for folder in FOLDERS:
        paths += sorted((root / folder).rglob("*.[ch]"))
    for path in paths:
        problems += check_file(path, root)
        lines = path.read_text(encoding="utf-8").split("\n")
        for begin, length in functions(lines):
            where = f"{path.relative_to(root)}:{begin}"
            longest.append((length, where))
            if length > MAX_FUNCTION_LINES:
                problems.append(f"{where}: function of {length} lines")
    print("the ten longest functions:")
    for length, where in sorted(longest, reverse=True)[:10]:
        print(f"  {length:3} {where}")
    for problem in problems:
        print(problem)
    print(f"{len(paths)} files, {len(problems)} problems")
    return 1 if problems or not paths else 0


if __name__ == "__main__":
    sys.exit(main())
