#!/bin/sh
# check-symbols.sh: our libraries and libvirt's define no common name
#
# Copyright (C) 2026 The libvirt-checkpoint authors
# SPDX-License-Identifier: LGPL-2.1-or-later
#
# Usage: scripts/check-symbols.sh LIBRARY.a...
#
# libvirt.so exports thousands of private functions.  A program that defines one of
# those names has its own called by libvirt: not only the public ones count.
set -eu

for tool in nm comm sort; do
    command -v $tool >/dev/null || {
        echo "no $tool here"
        exit 77
    }
done

# The path of shared library $1, as the dynamic linker finds it.
find_library()
{
    dir=$(pkg-config --variable=libdir libvirt 2>/dev/null || true)
    if [ -n "$dir" ] && [ -e "$dir/$1" ]; then
        echo "$dir/$1"
    else
        PATH=$PATH:/sbin:/usr/sbin ldconfig -p |
            awk -v name="$1" '$1 == name { print $NF; exit }'
    fi
}

tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

for name in libvirt.so.0 libvirt-qemu.so.0; do
    path=$(find_library $name)
    if [ -z "$path" ]; then
        echo "$name not found"
        exit 77
    fi
    # Versions come behind '@'; the symbols of type A are the versions themselves.
    nm -D --defined-only "$path" | awk '$2 != "A" { print $NF }' | sed 's/@.*//'
done | sort -u >"$tmp/theirs"

nm -g --defined-only "$@" | awk 'NF == 3 { print $3 }' | sort -u >"$tmp/ours"

# An empty list would pass whatever is wrong.
for list in theirs ours; do
    if [ ! -s "$tmp/$list" ]; then
        echo "no symbols found ($list)"
        exit 1
    fi
done
comm -12 "$tmp/theirs" "$tmp/ours" >"$tmp/common"
echo "$(wc -l <"$tmp/ours") names of ours, $(wc -l <"$tmp/theirs") of libvirt's," \
    "$(wc -l <"$tmp/common") common"
cat "$tmp/common"
test ! -s "$tmp/common"
