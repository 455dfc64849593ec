#!/bin/bash
# init.sh - the first process of the guest that machine.sh boots: mounts, modules, names and addresses; then the command.
/bin/busybox --install -s /bin 2>/dev/null
export PATH=/sbin:/bin HOME=/root TERM=dumb
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t bpf bpf /sys/fs/bpf
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for module in /modules/*.ko; do
    insmod "$module"
done

for nic in /sys/class/net/*; do # by MAC address: the order in which NICs are found is not ours
    case $(cat "$nic/address") in
        52:54:00:00:00:01) ip link set "${nic##*/}" name dut ;;
        52:54:00:00:00:02) ip link set "${nic##*/}" name cli0 ;;
    esac
done
ip link set dut name eth0
echo 1 >/proc/sys/net/ipv6/conf/eth0/disable_ipv6
echo 1 >/proc/sys/net/ipv6/conf/cli0/disable_ipv6
ethtool -L eth0 combined "$(sed -n 's/.*vm_queues=\([0-9]*\).*/\1/p' /proc/cmdline)" 2>/dev/null
ip link set lo up
ip addr add 10.0.0.1/24 dev eth0
ip link set eth0 up
ip netns add client
ip link set cli0 netns client
ip -n client link set lo up
ip -n client addr add 10.0.0.2/24 dev cli0
ip -n client link set cli0 up
ip route add default via 10.0.0.2 # the interface "auto" of tune is that of the default route
for _ in 1 2 3 4 5 6 7 8 9 10; do
    ip netns exec client ping -c1 -W1 10.0.0.1 >/dev/null && break
done

channel() {
    for port in /sys/class/virtio-ports/*; do
        if [ "$(cat "$port/name")" = "$1" ]; then
            echo "/dev/${port##*/}"
        fi
    done
}
out=$(channel out)
status=$(channel status)
ulimit -l unlimited
ulimit -n 1048576
cd /payload || exit
sh /command </dev/null >"$out" 2>&1
ended=$?
echo $ended >"$status"
echo "vm: command ended with $ended"
poweroff -f
