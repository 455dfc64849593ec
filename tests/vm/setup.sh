#!/bin/bash
# setup.sh [DIR] - fetch what machine.sh uses into DIR (default ~/.cache/corelocal-vm): a kernel (7.2 from trixie-backports) and qemu 10
# (from bookworm-backports, for the NICs igb and virtio-rss). The system's apt configuration is not touched.
# Before it: apt-get install qemu-system-x86 busybox-static cpio xz-utils ethtool iproute2
set -eu
D=${1:-${VM_HOME:-$HOME/.cache/corelocal-vm}}; K=${VM_KERNEL_SUITE:-trixie-backports}
MIRROR=$(sed -n 's/^URIs: *//p;s/^deb .*\(http[^ ]*debian\/*\) .*/\1/p' /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources 2>/dev/null | head -n1)
[ -n "$MIRROR" ] || { echo "setup.sh: no Debian source configured" >&2; exit 1; }
mkdir -p "$D"/apt/{lists,cache/archives}/partial "$D"/apt/none "$D/debs"; cd "$D/debs"
for s in bookworm-backports "$K"; do
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $MIRROR $s main"
done | sort -u >"$D/apt/list"
apt() { t=$1; shift; "$t" -qq -o Dir::Etc::SourceList="$D/apt/list" -o Dir::Etc::SourceParts="$D/apt/none" -o Dir::State::Lists="$D/apt/lists" \
  -o Dir::Cache="$D/apt/cache" -o APT::Sandbox::User=root "$@"; }
apt apt-get update
image=$(apt apt-cache madison linux-image-amd64 | awk -v s="$K/main" '$0 ~ s {print $3; exit}')
base=$(apt apt-cache show "linux-image-amd64=$image" | sed -n 's/^Depends:.*linux-image-\([^ ]*\) .*/\1/p' | head -n1)
rm -f -- *.deb; rm -rf "$D/kernel" "$D/qemu"; mkdir -p "$D/kernel" "$D/qemu"
apt apt-get download "linux-image-$base" # before 7.0 this is the kernel; from then on it is split in two
apt apt-get download "linux-binary-$base" "linux-modules-$base" 2>/dev/null || :
for f in linux-*.deb; do dpkg-deb -x "$f" "$D/kernel"; done
q=$(apt apt-cache madison qemu-system-x86 | awk '/bookworm-backports\/main/ {print $3; exit}')
apt apt-get download "qemu-system-x86=$q" "qemu-system-common=$q" "qemu-system-data=$q"
for f in qemu-*.deb; do dpkg-deb -x "$f" "$D/qemu"; done
rm -rf "$D/debs"
find "$D/kernel" -name 'vmlinuz*'; "$D/qemu/usr/bin/qemu-system-x86_64" --version | head -n1
