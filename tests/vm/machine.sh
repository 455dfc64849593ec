#!/bin/bash
# machine.sh - run a command as root in a throw-away many-CPU virtual machine with a multi-queue NIC.
#
#   machine.sh [options] DIR COMMAND...
#
# DIR's content is /payload in the guest; COMMAND (a shell line) runs there. Its output is printed, what it leaves in
# /out comes back into OUTDIR, its exit status is returned; 124 = time limit reached, 125 = the machine itself failed.
#
#   -c CPUS    virtual CPUs (8)                 -n NODES  NUMA nodes, one socket each (2)
#   -q QUEUES  queue pairs of eth0 (CPUS)       -d NIC    virtio | virtio-rss | igb | vmxnet3 | e1000e (virtio)
#   -m MIB     memory (2048 + 64 per CPU)       -t SECS   time limit, boot included (120)
#   -o OUTDIR  receives the guest's /out        -a ARGS   more kernel arguments
#   -v         show the guest's console (to stderr)
#   -I         no interrupt remapping: a changed affinity then takes effect only at the queue's next interrupt
#   -H CMD     also run CMD on the host, in the VM's private network namespace (10.0.0.9), from the moment the guest is up
#   -U         no host network at all: the NICs meet in qemu's hub. Implied when not root. Multi-queue with igb only.
#   -k DIR     an unpacked Debian kernel package (default $VM_HOME/kernel; see setup.sh)
#
# Guest: eth0 10.0.0.1/24 is the NIC under test, on NUMA node 0. The network namespace "client" has its own NIC cli0,
# 10.0.0.2/24. Both are emulated PCI NICs, joined by a bridge in a private host namespace, so what
# `ip netns exec client ...` sends to 10.0.0.1 passes eth0's queues and interrupts. Nothing leaves the machine.
# virtio: the host's tap picks a flow's RX queue by hash, then follows the TX queue the guest used for it (as Intel
# ATR does). virtio-rss, igb (8 queues at most): fixed Toeplitz RSS, ethtool -x/-X. vmxnet3: all RX on queue 0.
# virtio-rss and igb need a newer qemu than 7.2. One thread emulates all CPUs: good for behaviour, not for speed.
#
# Needs root (or -U) and: qemu-system-x86 busybox-static cpio xz-utils iproute2 ethtool bash coreutils util-linux.
# Environment: VM_HOME (~/.cache/corelocal-vm), VM_QEMU, VM_PROGRAMS (more host programs for the guest, e.g. "perf
# bpftrace"), VM_MODULES (more kernel modules, dependencies first), VM_ACCEL, VM_CPU.
set -u
die() { echo "machine.sh: $*" >&2; exit 125; }
CPUS=8 NODES=2 QUEUES='' NIC=virtio MEM='' LIMIT=120 OUTDIR='' APPEND='' VERBOSE='' HOSTCMD='' REMAP=1 HUB=''
VM_HOME=${VM_HOME:-$HOME/.cache/corelocal-vm} KERNEL=$VM_HOME/kernel
while getopts c:n:q:d:m:t:o:a:vIUH:k: f; do case $f in
  c) CPUS=$OPTARG ;; n) NODES=$OPTARG ;; q) QUEUES=$OPTARG ;; d) NIC=$OPTARG ;; m) MEM=$OPTARG ;; t) LIMIT=$OPTARG ;;
  o) OUTDIR=$OPTARG ;; a) APPEND=$OPTARG ;; v) VERBOSE=1 ;; I) REMAP='' ;; U) HUB=1 ;; H) HOSTCMD=$OPTARG ;; k) KERNEL=$OPTARG ;;
  *) die "see the head of $0" ;;
esac; done
shift $((OPTIND - 1))
[ $# -ge 2 ] && [ -d "$1" ] || die "usage: machine.sh [options] DIR COMMAND..."
[ "$(id -u)" = 0 ] || HUB=1
DIR=$1; shift
: "${QUEUES:=$CPUS}" "${MEM:=$((2048 + 64 * CPUS))}"
[ $((CPUS % NODES)) = 0 ] || die "-c $CPUS is not a multiple of -n $NODES"
QEMU=(qemu-system-x86_64)
if [ -n "${VM_QEMU:-}" ]; then QEMU=($VM_QEMU)
elif [ -x "$VM_HOME/qemu/usr/bin/qemu-system-x86_64" ]; then # an unpacked newer package
  QEMU=("$VM_HOME/qemu/usr/bin/qemu-system-x86_64" -L "$VM_HOME/qemu/usr/share/qemu" -L /usr/share/seabios -L /usr/share/qemu)
  export QEMU_MODULE_DIR=$VM_HOME/qemu/usr/lib/x86_64-linux-gnu/qemu
fi
for p in "${QEMU[0]}" busybox cpio xz ip ethtool; do command -v "$p" >/dev/null || die "missing program: $p"; done
VMLINUZ=$(find "$KERNEL" -type f -name 'vmlinuz*' 2>/dev/null | head -n1)
MODS=$(find "$KERNEL" -type d -path '*/modules/*/kernel' 2>/dev/null | head -n1)
[ -n "$VMLINUZ" ] && [ -n "$MODS" ] || die "no kernel in $KERNEL (run setup.sh)"

T=$(mktemp -d) NS=vm$$ QPID='' HPID=''
cleanup() {
  [ -n "$HPID" ] && kill "$HPID" 2>/dev/null
  [ -n "$QPID" ] && kill "$QPID" 2>/dev/null && wait "$QPID" 2>/dev/null
  [ -n "$HUB" ] || ip netns del $NS 2>/dev/null; rm -rf "$T"
}
trap cleanup EXIT; trap 'exit 143' INT TERM HUP

# --- initramfs: busybox; real programs where its shell would run an applet instead; kernel modules; DIR; libraries
R=$T/root
mkdir -p "$R"/{bin,sbin,lib64,usr/lib,proc,sys,dev,run/netns,var,tmp,out,payload,etc,root,modules}
ln -s ../bin "$R/usr/bin"; ln -s ../sbin "$R/usr/sbin"; ln -s ../run "$R/var/run"
cp -a "$DIR/." "$R/payload/" || die "cannot copy $DIR"
cp "$(command -v busybox)" "$R/bin/"
for p in bash ip ethtool timeout env taskset xargs setsid nohup ${VM_PROGRAMS:-}; do
  cp -L "$(command -v "$p")" "$R/sbin/" || die "cannot copy $p"
done
ln -s ../sbin/bash "$R/bin/bash"; ln -s ../sbin/bash "$R/bin/sh"
find "$R/payload" "$R/sbin" -type f -exec ldd {} \; 2>/dev/null | grep -o '/[^ ]* (0x' | cut -d' ' -f1 | sort -u |
  while read -r lib; do mkdir -p "$R${lib%/*}"; cp -L "$lib" "$R$lib"; done
echo 'root:x:0:0::/root:/bin/sh' >"$R/etc/passwd"; echo 'root:x:0:' >"$R/etc/group"; echo '127.0.0.1 localhost' >"$R/etc/hosts"
case $NIC in
virtio | virtio-rss) DRIVER='' ;; igb) DRIVER='i2c-algo-bit dca igb' ;; vmxnet3 | e1000e) DRIVER=$NIC ;; *) die "unknown NIC: $NIC" ;;
esac
n=10 # load order; what a kernel has built in is not found, and skipped
for m in virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_console \
  failover net_failover virtio_net $DRIVER tun veth ${VM_MODULES:-}; do
  f=$(find "$MODS" -name "$m.ko*" | head -n1)
  case $f in *.xz) xz -dc "$f" >"$R/modules/$n-$m.ko" ;; *.ko) cp "$f" "$R/modules/$n-$m.ko" ;; esac; n=$((n + 1))
done
printf '%s\n' "$*" >"$R/command"
cat >"$R/init" <<'EOI'
#!/bin/bash
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/sbin:/bin HOME=/root TERM=dumb
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev; mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts; mount -t tmpfs tmpfs /dev/shm; mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug; mount -t tracefs tracefs /sys/kernel/tracing; mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for m in /modules/*.ko; do insmod "$m"; done
for n in /sys/class/net/*; do # by MAC address: the order in which NICs are found is not ours
  case $(cat "$n/address") in 52:54:00:00:00:01) ip link set "${n##*/}" name dut ;; 52:54:00:00:00:02) ip link set "${n##*/}" name cli0 ;; esac
done
ip link set dut name eth0
echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6; echo 1 >/proc/sys/net/ipv6/conf/cli0/disable_ipv6
queues=$(sed -n 's/.*vm_queues=\([0-9]*\).*/\1/p' /proc/cmdline)
ethtool -L eth0 combined "$queues" 2>/dev/null
ip link set lo up; ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up
ip netns add client; ip link set cli0 netns client; ip -n client link set lo up
ip -n client addr add 10.0.0.2/24 dev cli0; ip -n client link set cli0 up
ip route add default via 10.0.0.2 # tune's interface = "auto" is that of the default route
for i in 1 2 3 4 5 6 7 8 9 10; do ip netns exec client ping -c1 -W1 10.0.0.1 >/dev/null && break; done
port() { for p in /sys/class/virtio-ports/*; do [ "$(cat "$p/name")" = "$1" ] && echo "/dev/${p##*/}"; done; }
out=$(port out) files=$(port files) status=$(port status)
ulimit -l unlimited; ulimit -n 1048576; cd /payload
echo "vm: up after $(cut -d' ' -f1 /proc/uptime) s"
sh /command </dev/null >"$out" 2>&1; s=$?
tar -C /out -cf - . >"$files"; echo $s >"$status"
echo "vm: command ended with $s"; poweroff -f
EOI
chmod +x "$R/init"
(cd "$R" && find . | cpio -o -H newc -R 0:0 --quiet) >"$T/initrd" || die "cpio failed"

# --- the network: a private host namespace with a bridge and one tap per NIC, or qemu's own hub
DEV=$NIC BACK='' MULTI='' ENTER=()
case $NIC in virtio*)
  DEV=virtio-net-pci
  [ "$QUEUES" -gt 1 ] && [ -z "$HUB" ] && DEV=$DEV,mq=on,vectors=$((2 * QUEUES + 2)) BACK=,queues=$QUEUES MULTI=multi_queue
  [ "$NIC" = virtio-rss ] && DEV=$DEV,rss=on ;;
esac
if [ -n "$HUB" ]; then
  [ -z "$HOSTCMD" ] || die "-H needs root, and no -U"
  BACK0=hubport,id=n0,hubid=0 BACK1=hubport,id=n1,hubid=0 CLIENT=virtio-net-pci
else
  BACK0=tap,id=n0,ifname=t0,script=no,downscript=no$BACK BACK1=tap,id=n1,ifname=t1,script=no,downscript=no,queues=2
  CLIENT=virtio-net-pci,mq=on,vectors=6 ENTER=(ip netns exec $NS)
  ip netns add $NS && ip -n $NS link add br0 type bridge && ip -n $NS addr add 10.0.0.9/24 dev br0 || die "no network namespace"
  "${ENTER[@]}" sh -c 'for f in all default; do echo 1 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; done'
  ip -n $NS link set br0 up; ip -n $NS link set lo up
  for t in "t0 $MULTI" "t1 multi_queue"; do
    "${ENTER[@]}" ip tuntap add mode tap vnet_hdr name $t && ip -n $NS link set ${t% *} master br0 up || die "no tap device"
  done
fi

# --- the machine
PER=$((CPUS / NODES)) NUMA=()
for ((i = 0; i < NODES; i++)); do
  NUMA+=(-object "memory-backend-ram,id=m$i,size=$((MEM / NODES))M"
    -numa "node,nodeid=$i,cpus=$((i * PER))-$((i * PER + PER - 1)),memdev=m$i")
done
# lpj: no delay-loop calibration (46 s with 48 CPUs); tsc=reliable: no TSC checks, which emulated CPUs can fail;
# thread=single: with a thread per CPU (MTTCG) the kernel's code patching (static keys) crashes the guest now and then
: >"$T/console"; : >"$T/out"
"${ENTER[@]}" timeout -k 5 "$LIMIT" "${QEMU[@]}" -nodefaults -display none -no-reboot -machine q35 \
  ${REMAP:+-device intel-iommu,intremap=on} \
  -accel "${VM_ACCEL:-tcg,thread=single}" -cpu "${VM_CPU:-max}" \
  -smp "$CPUS,sockets=$NODES,cores=$PER,threads=1" -m $((MEM / NODES * NODES))M "${NUMA[@]}" \
  -chardev "file,id=console,path=$T/console" -serial chardev:console -device virtio-serial-pci,bus=pcie.0,addr=7 \
  -chardev "file,id=out,path=$T/out" -device virtserialport,chardev=out,name=out \
  -chardev "file,id=files,path=$T/files" -device virtserialport,chardev=files,name=files \
  -chardev "file,id=status,path=$T/status" -device virtserialport,chardev=status,name=status \
  -device pxb-pcie,id=pxb,bus_nr=64,numa_node=0,bus=pcie.0,addr=5 -device pcie-root-port,id=rp,bus=pxb,chassis=1 \
  -netdev "$BACK0" -device "$DEV,netdev=n0,bus=rp,mac=52:54:00:00:00:01,romfile=" \
  -netdev "$BACK1" -device "$CLIENT,netdev=n1,bus=pcie.0,addr=6,mac=52:54:00:00:00:02,romfile=" \
  -kernel "$VMLINUZ" -initrd "$T/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off nokaslr \
tsc=reliable lpj=4000000 nowatchdog rcupdate.rcu_cpu_stall_suppress=1 intel_iommu=off vm_queues=$QUEUES $APPEND" \
  </dev/null >"$T/qemu" 2>&1 &
QPID=$!
[ -n "$VERBOSE" ] && tail -n +1 -s 0.2 --pid=$QPID -f "$T/console" >&2 &
if [ -n "$HOSTCMD" ]; then
  { until grep -q 'vm: up' "$T/console"; do sleep 0.2; done; exec "${ENTER[@]}" sh -c "$HOSTCMD"; } &
  HPID=$!
fi
tail -n +1 -s 0.2 --pid=$QPID -f "$T/out" &
TPID=$!
wait $QPID 2>/dev/null; rc=$?; QPID=''; wait $TPID
[ -n "$OUTDIR" ] && [ -s "$T/files" ] && mkdir -p "$OUTDIR" && tar -C "$OUTDIR" -xf "$T/files"
[ -s "$T/status" ] && exit "$(cat "$T/status")"
grep -v 'terminating on signal' "$T/qemu" >&2; [ -n "$VERBOSE" ] || tail -n 25 "$T/console" >&2
[ $rc = 124 ] || [ $rc = 137 ] && { echo "machine.sh: time limit of $LIMIT s reached" >&2; exit 124; }
die "the guest ended without an exit status (qemu: $rc)"
