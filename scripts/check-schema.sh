#!/bin/sh
# check-schema.sh: the schema of checkpoints takes what the parser takes
#
# Copyright (C) 2026 The libvirt-checkpoint authors
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Usage: scripts/check-schema.sh [SOURCE-ROOT]
# The unit test "def" reads the same files: tests/unit/defdata/*.xml are good, those in
# bad/ are not.
set -eu

cd "${1:-.}"
command -v xmllint >/dev/null || {
    echo "no xmllint here"
    exit 77
}
schema=docs/schemas/domaincheckpoint.rng
failed=0
for file in tests/unit/defdata/*.xml; do
    if ! xmllint --noout --nonet --relaxng $schema "$file" 2>/dev/null; then
        echo "$file: refused"
        failed=1
    fi
done
for file in tests/unit/defdata/bad/*.xml; do
    # 3: the document does not validate; anything else is a fault of its own.
    rc=0
    xmllint --noout --nonet --relaxng $schema "$file" 2>/dev/null || rc=$?
    if [ $rc -ne 3 ]; then
        echo "$file: xmllint ended with $rc"
        failed=1
    fi
done
exit $failed
