#!/bin/sh
# preset.sh: sets up a build folder of a kind
#
# Usage: scripts/preset.sh {debug|asan|tsan} [meson option...]
#
# debug: build-debug, no optimisation.
# asan:  build-asan, AddressSanitizer and UndefinedBehaviorSanitizer; leaks are errors.
# tsan:  build-tsan, ThreadSanitizer, with GLib's threads wrapped (src/util/tsan).
# Then: meson test -C build-KIND
set -eu

cd "$(dirname "$0")/.."
kind=${1:-}
[ $# -gt 0 ] && shift
case $kind in
debug)
    set -- --buildtype=debug "$@"
    ;;
asan)
    # Undefined symbols: the sanitizers' are in the program, not in our libraries.
    set -- --buildtype=debug -Db_sanitize=address,undefined -Db_lundef=false "$@"
    ;;
tsan)
    set -- --buildtype=debug -Db_sanitize=thread -Db_lundef=false "$@"
    ;;
*)
    echo "usage: scripts/preset.sh {debug|asan|tsan} [meson option...]" >&2
    exit 2
    ;;
esac

if [ -d "build-$kind" ]; then
    set -- --reconfigure "$@"
fi
exec meson setup "build-$kind" "$@"
