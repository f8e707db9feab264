#!/bin/sh
# check-format.sh: all C files are as clang-format leaves them
#
# Copyright (C) 2026 The libvirt-checkpoint authors
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Usage: scripts/check-format.sh [SOURCE-ROOT]
# To repair: clang-format -i FILE...
set -eu

cd "${1:-.}"
for tool in clang-format-14 clang-format; do
    command -v $tool >/dev/null && break
    tool=
done
# Other versions lay out some things in another way.
case $(${tool:-false} --version 2>/dev/null) in
*" 14."*) ;;
*)
    echo "no clang-format 14 here"
    exit 77
    ;;
esac
find include src tests tools -name '*.[ch]' -print0 |
    xargs -0 $tool --dry-run -Werror
