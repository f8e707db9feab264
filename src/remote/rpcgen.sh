#!/bin/sh
# rpcgen.sh -h|-c IN.x OUT: rpcgen writes its include by the path of its input and
# refuses to overwrite files, so it runs on a copy and its output is moved into place.
set -e
mode=$1
in=$(realpath "$2")
out=$(realpath -m "$3")
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cp "$in" "$dir"
cd "$dir"
rpcgen "$mode" -o result "$(basename "$in")"
mv result "$out"
