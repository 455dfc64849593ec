#!/bin/bash
# setup.sh [DIR] - fetches what machine.sh uses into DIR (default $VM_HOME, ~/.cache/corelocal-vm): a kernel of Debian, and where
# the host's qemu is older than 8 (no igb, no virtio-rss that works) a newer one. About 260 MB; the system's apt configuration
# is not touched.
#
# VM_KERNEL_SUITE: trixie-backports (default), bookworm-backports (6.12), bookworm (6.1). VM_KERNEL, such as 7.2.12: this
# release instead of the suite's newest; the suites keep some of the earlier ones.
# Before it: apt-get install qemu-system-x86 busybox-static cpio xz-utils ethtool iproute2
set -eu
home=${1:-${VM_HOME:-$HOME/.cache/corelocal-vm}}
suite=${VM_KERNEL_SUITE:-trixie-backports}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
if [ ! -e "$keyring" ]; then
    echo "setup.sh: $keyring is missing; install debian-archive-keyring" >&2
    exit 1
fi
mirror=$(sed -n 's/^URIs: *//p;s/^deb .*\(http[^ ]*debian\/*\) .*/\1/p' \
    /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n1)
mkdir -p "$home"/apt/{lists,cache/archives}/partial "$home"/apt/none "$home/debs"
cd "$home/debs"
for name in bookworm-backports "$suite"; do
    echo "deb [signed-by=$keyring] ${mirror:-http://deb.debian.org/debian} $name main"
done | sort -u >"$home/apt/list"
apt() { # a program of apt, and its arguments, with nothing of the system's configuration
    local program=$1
    shift
    "$program" -qq -o Dir::Etc::SourceList="$home/apt/list" -o Dir::Etc::SourceParts="$home/apt/none" \
        -o Dir::State::Lists="$home/apt/lists" -o Dir::Cache="$home/apt/cache" -o APT::Sandbox::User=root "$@"
}
apt apt-get update

if [ -n "${VM_KERNEL:-}" ]; then
    depends=$(apt apt-cache pkgnames "linux-image-$VM_KERNEL+" | sed -n 's/^linux-image-\([^-]*-amd64\)$/\1/p' | head -n1)
    if [ -z "$depends" ]; then
        echo "setup.sh: no kernel $VM_KERNEL in $suite; apt-cache pkgnames linux-image- with its lists names those there are" >&2
        exit 1
    fi
else
    image=$(apt apt-cache madison linux-image-amd64 | awk -v suite="$suite/main" '$0 ~ suite {print $3; exit}')
    depends=$(apt apt-cache show "linux-image-amd64=$image" | sed -n 's/^Depends:.*linux-image-\([^ ]*\) .*/\1/p' | head -n1)
fi
rm -f -- *.deb
rm -rf "$home/kernel"
mkdir -p "$home/kernel"
apt apt-get download "linux-image-$depends" # before 7.0 this is the kernel; from then on it is split in two
apt apt-get download "linux-binary-$depends" "linux-modules-$depends" 2>/dev/null || :
for file in linux-*.deb; do
    dpkg-deb -x "$file" "$home/kernel"
done

installed=$(qemu-system-x86_64 --version 2>/dev/null | sed -n 's/.*version \([0-9]*\)\..*/\1/p')
if [ "${installed:-0}" -lt 8 ]; then
    rm -rf "$home/qemu"
    mkdir -p "$home/qemu"
    version=$(apt apt-cache madison qemu-system-x86 | awk '/bookworm-backports\/main/ {print $3; exit}')
    apt apt-get download "qemu-system-x86=$version" "qemu-system-common=$version" "qemu-system-data=$version"
    for file in qemu-*.deb; do
        dpkg-deb -x "$file" "$home/qemu"
    done
    "$home/qemu/usr/bin/qemu-system-x86_64" --version | head -n1
fi
rm -rf "$home/debs"
find "$home/kernel" -name 'vmlinuz*'
