#!/usr/bin/python3
# check-includes.py: a folder includes itself and what lies to its right
#
# Copyright (C) 2026 The libvirt-checkpoint authors
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Usage: scripts/check-includes.py [SOURCE-ROOT]
"""Checks the direction of includes: src/remote -> src/qemu -> src/conf -> src/util."""

import pathlib
import re
import sys

# A folder and whose headers it may include, besides its own and include/.
LAYERS = {
    "src/util": [],
    "src/conf": ["src/util"],
    "src/qemu": ["src/conf", "src/util"],
    "src/remote": ["src/qemu", "src/conf", "src/util"],
    "tools/virsh": ["src/util"],
}
# Made by the build, no folder's own.
GENERATED = {"config.h"}
# util and conf know libvirt's error numbers and nothing else of it.
VIRTERROR_ONLY = {"src/util", "src/conf"}

INCLUDE = re.compile(r'^[ \t]*#[ \t]*include[ \t]*(["<])([^">]+)[">]', re.MULTILINE)


def headers(root, folder):
    return {path.name for path in (root / folder).glob("*.h")}


def rpc_headers(root, folder):
    """rpcgen makes NAME.h of NAME.x."""
    return {path.stem + ".h" for path in (root / folder).glob("*.x")}


def owner(name, owners):
    """The folder whose header is called name, or None."""
    for folder, names in owners.items():
        if name in names:
            return folder
    return None


def check_file(path, folder, owners):
    problems = []
    text = path.read_text(encoding="utf-8")
    for match in INCLUDE.finditer(text):
        line = text.count("\n", 0, match.start()) + 1
        quote, name = match.groups()
        where = f"{path}:{line}: "
        if quote == "<":
            if name.startswith("libvirt/") and folder in VIRTERROR_ONLY:
                if name != "libvirt/virterror.h":
                    problems.append(f"{where}{folder} must not know <{name}>")
            continue
        if "/" in name:
            problems.append(f'{where}include "{name}" without a folder')
            continue
        home = owner(name, owners)
        if name in GENERATED or home in ("include", folder):
            continue
        if home is None:
            problems.append(f'{where}"{name}" is in no folder of ours')
        elif home not in LAYERS[folder]:
            problems.append(f'{where}{folder} must not include {home} ("{name}")')
    return problems


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    owners = {"include": headers(root, "include")}
    for folder in LAYERS:
        owners[folder] = headers(root, folder) | rpc_headers(root, folder)

    problems = []
    count = 0
    for folder in LAYERS:
        for path in sorted((root / folder).glob("*.[ch]")):
            problems += check_file(path, folder, owners)
            count += 1
    for problem in problems:
        print(problem)
    print(f"{count} files, {len(problems)} problems")
    return 1 if problems or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
