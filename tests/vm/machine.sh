#!/bin/bash
# machine.sh - runs a command as root in a throw-away virtual machine with many CPUs and a multi-queue NIC.
#
#   machine.sh [options] DIR COMMAND...
#
# DIR's content is /payload in the guest; COMMAND (a shell line) runs there. Its output is printed and its exit status
# returned; 124: time limit reached, 125: the machine itself failed.
#
#   -c CPUS    virtual CPUs (8), on two NUMA nodes of one socket each
#   -q QUEUES  queue pairs of eth0 (CPUS)
#   -d NIC     virtio-rss | igb (virtio-rss)
#   -m MIB     memory (2048, and 64 for each CPU)
#   -t SECS    time limit, boot included (120)
#   -k DIR     an unpacked Debian kernel package ($VM_HOME/kernel; see setup.sh)
#   -v         show the guest's console, on stderr
#
# Guest: eth0 10.0.0.1/24 is the NIC under test, on NUMA node 0. The network namespace "client" has its own NIC cli0,
# 10.0.0.2/24. Both are emulated PCI NICs, joined by a bridge in a private namespace of the host, so that what
# `ip netns exec client ...` sends to 10.0.0.1 passes eth0's queues and interrupts. Nothing leaves the machine.
# virtio-rss and igb (8 queues at most) have fixed Toeplitz RSS, and obey ethtool -X. Interrupts are remapped, as on servers: a
# changed affinity takes effect at once. One thread emulates all CPUs: good for what happens where, not for how fast.
#
# Needs root and: qemu-system-x86 busybox-static cpio xz-utils iproute2 ethtool bash coreutils util-linux.
# Environment: VM_HOME (~/.cache/corelocal-vm), VM_PROGRAMS (more programs of the host for the guest).
set -u

die() {
    echo "machine.sh: $*" >&2
    exit 125
}

cpus=8 queues='' nic=virtio-rss memory='' limit=120 console=''
home=${VM_HOME:-$HOME/.cache/corelocal-vm}
kernel=$home/kernel
while getopts c:q:d:m:t:k:v option; do
    case $option in
        c) cpus=$OPTARG ;;
        q) queues=$OPTARG ;;
        d) nic=$OPTARG ;;
        m) memory=$OPTARG ;;
        t) limit=$OPTARG ;;
        k) kernel=$OPTARG ;;
        v) console=1 ;;
        *) die "see the head of $0" ;;
    esac
done
shift $((OPTIND - 1))
if [ $# -lt 2 ] || [ ! -d "$1" ]; then
    die "usage: machine.sh [options] DIR COMMAND..."
fi
payload=$1
shift
: "${queues:=$cpus}"
: "${memory:=$((2048 + 64 * cpus))}"
[ $((cpus % 2)) = 0 ] || die "-c $cpus is odd"
[ "$(id -u)" = 0 ] || die "needs root, for the network of the machine"

qemu=(qemu-system-x86_64)
if [ -x "$home/qemu/usr/bin/qemu-system-x86_64" ]; then # a newer one that setup.sh unpacked
    share=$home/qemu/usr/share/qemu
    qemu=("$home/qemu/usr/bin/qemu-system-x86_64" -L "$share" -L /usr/share/seabios -L /usr/share/qemu)
    export QEMU_MODULE_DIR=$home/qemu/usr/lib/x86_64-linux-gnu/qemu
fi
for program in "${qemu[0]}" busybox cpio xz ip ethtool; do
    command -v "$program" >/dev/null || die "missing program: $program"
done
vmlinuz=$(find "$kernel" -type f -name 'vmlinuz*' 2>/dev/null | head -n1)
modules=$(find "$kernel" -type d -path '*/modules/*/kernel' 2>/dev/null | head -n1)
if [ -z "$vmlinuz" ] || [ -z "$modules" ]; then
    die "no kernel in $kernel (run setup.sh)"
fi
case $nic in
    virtio-rss) driver='' ;;
    igb) driver='i2c-algo-bit dca igb' ;;
    *) die "unknown NIC: $nic" ;;
esac

work=$(mktemp -d) namespace=corelocal-vm$$ qemu_pid=''
# shellcheck disable=SC2317 # called by the trap
cleanup() {
    if [ -n "$qemu_pid" ]; then
        kill "$qemu_pid" 2>/dev/null
        wait "$qemu_pid" 2>/dev/null
    fi
    ip netns del "$namespace" 2>/dev/null
    rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 143' INT TERM HUP

# --- initramfs: busybox; real programs where its shell would run an applet instead; kernel modules; the payload; libraries
root=$work/root
mkdir -p "$root"/{bin,sbin,lib64,usr/lib,proc,sys,dev,run/netns,var,tmp,payload,etc,root,modules}
ln -s ../bin "$root/usr/bin"
ln -s ../sbin "$root/usr/sbin"
ln -s ../run "$root/var/run"
cp -a "$payload/." "$root/payload/" || die "cannot copy $payload"
cp "$(command -v busybox)" "$root/bin/"
for program in bash ip ethtool timeout env taskset xargs setsid nohup ${VM_PROGRAMS:-}; do
    cp -L "$(command -v "$program")" "$root/sbin/" || die "cannot copy $program"
done
ln -s ../sbin/bash "$root/bin/bash"
ln -s ../sbin/bash "$root/bin/sh"
find "$root/payload" "$root/sbin" -type f -exec ldd {} \; 2>/dev/null | grep -o '/[^ ]* (0x' | cut -d' ' -f1 | sort -u |
    while read -r library; do
        mkdir -p "$root${library%/*}"
        cp -L "$library" "$root$library"
    done
printf '%s\n' 'root:x:0:0::/root:/bin/sh' 'nobody:x:65534:65534::/:/bin/sh' >"$root/etc/passwd"
printf '%s\n' 'root:x:0:' 'nogroup:x:65534:' >"$root/etc/group"
echo '127.0.0.1 localhost' >"$root/etc/hosts"
number=10 # load order; what a kernel has built in is not found, and skipped
for module in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console \
    failover net_failover virtio_net $driver tun veth; do
    file=$(find "$modules" -name "$module.ko*" | head -n1)
    case $file in
        *.xz) xz -dc "$file" >"$root/modules/$number-$module.ko" ;;
        *.ko) cp "$file" "$root/modules/$number-$module.ko" ;;
    esac
    number=$((number + 1))
done
printf '%s\n' "$*" >"$root/command"
cp "$(dirname "$0")/init.sh" "$root/init"
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc -R 0:0 --quiet) >"$work/initrd" || die "cpio failed"
rm -rf "$root"

# --- the network: a private namespace with a bridge, and a tap for each NIC
inside=(ip netns exec "$namespace")
ip netns add "$namespace" || die "no network namespace"
ip -n "$namespace" link add br0 type bridge || die "no bridge"
# shellcheck disable=SC2016 # for the inner shell
"${inside[@]}" sh -c 'for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done'
ip -n "$namespace" link set br0 up
device=$nic multi_queue=''
if [ "$nic" = virtio-rss ]; then
    device=virtio-net-pci,mq=on,rss=on,vectors=$((2 * queues + 2)) multi_queue=multi_queue
fi
add_tap() { # its name, and how it has several queues
    "${inside[@]}" ip tuntap add mode tap vnet_hdr name "$@" || die "no tap device"
    ip -n "$namespace" link set "$1" master br0 up || die "no tap device"
}
add_tap t0 $multi_queue
add_tap t1 multi_queue

# --- the machine
half=$((cpus / 2)) numa=()
for node in 0 1; do
    first=$((node * half))
    numa+=(-object "memory-backend-ram,id=m$node,size=$((memory / 2))M"
        -numa "node,nodeid=$node,cpus=$first-$((first + half - 1)),memdev=m$node")
done
channels=() # what the guest writes and the host reads: the command's output, its exit status
for channel in out status; do
    channels+=(-chardev "file,id=$channel,path=$work/$channel" -device "virtserialport,chardev=$channel,name=$channel")
done
tap=tap,script=no,downscript=no
: >"$work/console"
: >"$work/out"
# lpj: no delay-loop calibration (46 s with 48 CPUs); tsc=reliable: no checks of the TSC, which emulated CPUs can fail;
# no_timer_check: the one of the timer's interrupt fails on a busy host, which with remapping is a panic;
# thread=single: with a thread for each CPU the kernel's patching of its own code crashes the guest now and then.
"${inside[@]}" timeout -k 5 "$limit" "${qemu[@]}" -nodefaults -display none -no-reboot -machine q35 \
    -device intel-iommu,intremap=on \
    -accel tcg,thread=single -cpu max -smp "$cpus,sockets=2,cores=$half,threads=1" -m $((memory / 2 * 2))M "${numa[@]}" \
    -chardev "file,id=console,path=$work/console" -serial chardev:console \
    -device virtio-serial-pci,bus=pcie.0,addr=7 "${channels[@]}" \
    -device pxb-pcie,id=pxb,bus_nr=64,numa_node=0,bus=pcie.0,addr=5 -device pcie-root-port,id=rp,bus=pxb,chassis=1 \
    -netdev "$tap,id=n0,ifname=t0${multi_queue:+,queues=$queues}" \
    -device "$device,netdev=n0,bus=rp,mac=52:54:00:00:00:01,romfile=" \
    -netdev "$tap,id=n1,ifname=t1,queues=2" \
    -device "virtio-net-pci,mq=on,vectors=6,netdev=n1,bus=pcie.0,addr=6,mac=52:54:00:00:00:02,romfile=" \
    -kernel "$vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr \
tsc=reliable lpj=4000000 no_timer_check nowatchdog rcupdate.rcu_cpu_stall_suppress=1 intel_iommu=off vm_queues=$queues" \
    </dev/null >"$work/qemu" 2>&1 &
qemu_pid=$!
[ -z "$console" ] || tail -n +1 -s 0.2 --pid="$qemu_pid" -f "$work/console" >&2 &
tail -n +1 -s 0.2 --pid="$qemu_pid" -f "$work/out" &
output=$!
wait "$qemu_pid" 2>/dev/null
ended=$?
qemu_pid=''
wait "$output"

[ ! -s "$work/status" ] || exit "$(cat "$work/status")"
grep -v 'terminating on signal' "$work/qemu" >&2
[ -n "$console" ] || tail -n 25 "$work/console" >&2
if [ $ended = 124 ] || [ $ended = 137 ]; then
    echo "machine.sh: time limit of $limit s reached" >&2
    exit 124
fi
die "the guest ended without an exit status (qemu: $ended)"
