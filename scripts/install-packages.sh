#!/bin/sh
# Installs what building and testing need, only what is missing, from whatever package
# sources the machine has.  An ordinary user is told what root has to install.
set -u

# What "apt-get install" is to get, one line for each purpose.
PACKAGES="
    gcc libc6-dev meson ninja-build pkg-config rpcsvc-proto
    libglib2.0-dev libxml2-dev libyajl-dev libvirt-dev libtirpc-dev libnbd-dev
    libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients
    qemu-system-x86 qemu-utils
    python3 python3-libvirt e2fsprogs util-linux mount openssl
    dbus polkitd virtnbdbackup nbdkit
    clang-format clang-tidy libxml2-utils
"
PATH=$PATH:/usr/sbin:/sbin
export PATH

installed() {
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null | head -n 1)" = installed ]
}

# A name may be provided by a package of another name, or not exist in this release.
known() {
    apt-cache show --no-all-versions "$1" 2>/dev/null | grep -q '^Package:'
}

provided() {
    case $1 in
    pkg-config) command -v pkg-config >/dev/null ;;
    libglib2.0-dev) pkg-config --exists glib-2.0 gio-unix-2.0 2>/dev/null ;;
    polkitd) installed policykit-1 ;;
    *) false ;;
    esac
}

list_missing() {
    for package in $PACKAGES; do
        installed "$package" || provided "$package" || printf '%s ' "$package"
    done
}

if ! command -v apt-get >/dev/null; then
    echo "install-packages: no apt-get here; needed are (Debian's names):" $PACKAGES >&2
    exit 0
fi
missing=$(list_missing)
kernel=linux-image-cloud-$(dpkg --print-architecture)
if [ "$(id -u)" != 0 ]; then
    [ -z "$missing" ] && exit 0
    echo "install-packages: missing; as root: apt-get install --no-install-recommends" \
        "$missing" >&2
    exit 1
fi
# The guest's kernel is only downloaded, later; its package has to be known.
[ -z "$missing" ] && known "$kernel" && exit 0
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update || echo "install-packages: package lists not updated" >&2
[ -z "$missing" ] && exit 0
echo "install-packages: installing $missing"
# shellcheck disable=SC2086  # a list of words
apt-get -qq -y install --no-install-recommends $missing </dev/null || exit 1
missing=$(list_missing)
[ -z "$missing" ] && exit 0
echo "install-packages: still missing: $missing" >&2
exit 1
