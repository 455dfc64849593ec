"""The files of a Linux host as the kernel prints them: what the machines of this directory are put together from."""

import json
import os


class Tree:
    def __init__(self, root):
        self.root = root

    def write(self, path, text):
        path = self.root + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="ascii") as file:
            file.write(f"{text}\n")

    def link(self, path, target):
        path = self.root + path
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.symlink(target, path)


def cpu_list(cpus):
    """The kernel's list form: 0-11,24-35."""
    parts, cpus = [], sorted(cpus)
    while cpus:
        run = 1
        while run < len(cpus) and cpus[run] == cpus[0] + run:
            run += 1
        parts.append(f"{cpus[0]}-{cpus[run - 1]}" if run > 1 else f"{cpus[0]}")
        cpus = cpus[run:]
    return ",".join(parts)


def mask(cpus, nr_cpus):
    """The kernel's mask form, as it prints it: padded to nr_cpus bits, groups of 32."""
    bits = sum(1 << cpu for cpu in cpus)
    groups = []
    for group in range((nr_cpus + 31) // 32):
        width = min(32, nr_cpus - 32 * group)
        groups.append(f"{bits >> (32 * group) & 0xFFFFFFFF:0{(width + 3) // 4}x}")
    return ",".join(reversed(groups))


def topology(tree, nodes, threads, *, numa=True):
    """`nodes`: the CPUs of each NUMA node, one L3 each; `threads`: the siblings of a CPU; without `numa` the kernel is built
    without CONFIG_NUMA and has no directory of nodes."""
    online = cpu_list([cpu for cpus in nodes for cpu in cpus])
    tree.write("/sys/devices/system/cpu/online", online)
    tree.write("/sys/devices/system/cpu/possible", online)
    tree.write("/sys/devices/system/cpu/isolated", "")
    for node, cpus in enumerate(nodes):
        for cpu in cpus:
            base = f"/sys/devices/system/cpu/cpu{cpu}"
            tree.write(f"{base}/topology/thread_siblings_list", cpu_list(threads(cpu)))
            tree.write(f"{base}/cache/index3/shared_cpu_list", cpu_list(cpus))
        if not numa:
            continue
        base = f"/sys/devices/system/node/node{node}"
        tree.write(f"{base}/cpulist", cpu_list(cpus))
        tree.write(f"{base}/distance", " ".join("10" if other == node else "21" for other in range(len(nodes))))


def interrupts(tree, cpus, rows, node):
    """`cpus`: those online, or how many there are; `rows`: (irq, chip and hwirq, name, affinity, effective CPU) in any
    order."""
    cpus = range(cpus) if isinstance(cpus, int) else cpus
    lines = ["     " + "".join(f"{f'CPU{cpu}':<11}" for cpu in cpus).rstrip()]
    for irq, chip, name, affinity, effective in sorted(rows):
        counts = "".join(f"{1000 + irq if cpu == effective else 0:>10} " for cpu in cpus)
        lines.append(f"{irq:>4}: {counts}{chip}      {name}")
        tree.write(f"/proc/irq/{irq}/smp_affinity_list", affinity)
        tree.write(f"/proc/irq/{irq}/effective_affinity_list", effective)
        tree.write(f"/proc/irq/{irq}/node", node)
    for name, text in (("NMI", "Non-maskable interrupts"), ("LOC", "Local timer interrupts")):
        lines.append(f"{name:>4}: " + f"{7:>10} " * len(cpus) + f"  {text}")
    lines += [f" ERR: {0:>10}", f" MIS: {0:>10}"]
    tree.write("/proc/interrupts", "\n".join(lines))


# Mbit/s in /sys/class/net/IF/speed; -1 is not known. Of other drivers the file cannot be read, as while a link is down.
SPEED = {
    "bnxt_en": 25_000,
    "i40e": 40_000,
    "ice": 100_000,
    "igb": 1000,
    "ixgbe": 10_000,
    "mlx5_core": 100_000,
    "virtio_net": -1,
}


def interface(tree, name, pci, driver, node, vectors, queues, *, speed=None):
    """`pci`: path of the function below /sys/devices; `node`: None without CONFIG_NUMA; `queues`: (rps_cpus, rps_flow_cnt,
    xps_cpus) each; `speed`: that of SPEED unless told."""
    device = f"/sys/devices/{pci}"
    net = f"{device}/net/{name}"
    up = "../" * (pci.count("/") + 2)
    tree.link(f"/sys/class/net/{name}", f"../../devices/{pci}/net/{name}")
    tree.link(f"{device}/driver", f"{up}bus/pci/drivers/{driver}")
    tree.link(f"{net}/device", f"../../../{pci.rsplit('/', 1)[1]}")
    if node is not None:
        tree.write(f"{device}/numa_node", node)
    if speed or driver in SPEED:
        tree.write(f"{net}/speed", speed or SPEED[driver])
    for irq in vectors:
        tree.write(f"{device}/msi_irqs/{irq}", "msix")
    for queue, (rps_cpus, rps_flow_cnt, xps_cpus) in enumerate(queues):
        tree.write(f"{net}/queues/rx-{queue}/rps_cpus", rps_cpus)
        tree.write(f"{net}/queues/rx-{queue}/rps_flow_cnt", rps_flow_cnt)
        tree.write(f"{net}/queues/tx-{queue}/xps_cpus", xps_cpus)
        tree.write(f"{net}/queues/tx-{queue}/tx_timeout", 0)


def ethtool(tree, name, combined, rings, table, coalesce, ntuple, *, spread=None):
    """What ethtool says: /corelocal/ethtool/NAME.json, as tune/src/host/ethtool reads it. `combined`, `rings`:
    now and maximum; `table`: length of the RSS table, equal over `spread` queues, which are all unless told; `coalesce`: as
    far as the driver has it; `ntuple`: on and fixed."""
    limited = lambda pair: {"now": pair[0], "max": pair[1]}
    known = {
        "channels": {"other": limited((1, 1)), "combined": limited(combined)},
        "rings": {"rx": limited(rings), "tx": limited(rings)},
        "rss": {"table": [entry % (spread or combined[0]) for entry in range(table)], "function": 1},
        "hash": {"tcp4": "sdfn", "tcp6": "sdfn", "udp4": "sd", "udp6": "sd"},
        "coalesce": coalesce,
        "features": {"rx-ntuple-filter": {"on": ntuple[0], "fixed": ntuple[1]}},
    }
    if not table:
        del known["rss"], known["hash"]
    tree.write(f"/corelocal/ethtool/{name}.json", json.dumps(known))


def default_route(tree, default):
    """`default` has the default route."""
    header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"
    route = f"{default}\t00000000\t010200C0\t0003\t0\t0\t0\t00000000\t0\t0\t0"
    tree.write("/proc/net/route", f"{header:<127}\n{route:<127}")


def governors(tree, cpus, governor, available):
    """intel_pstate has a policy for each CPU."""
    for cpu in cpus:
        base = f"/sys/devices/system/cpu/cpu{cpu}/cpufreq"
        tree.write(f"{base}/scaling_governor", governor)
        tree.write(f"{base}/scaling_available_governors", available)


def napi(tree, pci, name, **values):
    """How an interface polls; a kernel without one of the files leaves it out."""
    for file, value in values.items():
        tree.write(f"/sys/devices/{pci}/net/{name}/{file}", value)


def irqbalance(tree, *banned):
    """What runs: the interrupts that each irqbalance leaves alone, in the form of tune/src/irqbalance/mod.rs."""
    daemons = [{"pid": 812 + number, "banned_irqs": irqs} for number, irqs in enumerate(banned)]
    tree.write("/corelocal/irqbalance.json", json.dumps({"daemons": daemons}, separators=(",", ":")))


def sysctls(tree, **changed):
    """The kernel's defaults, and what is set on this host. `__` stands for the slash."""
    values = {
        "core__somaxconn": "4096",
        "core__rps_sock_flow_entries": "0",
        "ipv4__tcp_migrate_req": "0",
        "ipv4__tcp_notsent_lowat": "4294967295",
        "ipv4__tcp_slow_start_after_idle": "1",
        "ipv4__tcp_rmem": "4096\t131072\t6291456",
        "ipv4__tcp_wmem": "4096\t16384\t4194304",
    }
    for name, value in (values | changed).items():
        tree.write(f"/proc/sys/net/{name.replace('__', '/')}", value)


def neighbour(tree, net, way, name):
    """The interface with the directory `net` has `name` as its `way`, lower or upper."""
    tree.link(f"{net}/{way}_{name}", "../" * (net.count("/") - 1) + f"class/net/{name}")


def virtual(tree, name, lower):
    """An interface without a device that stands on others."""
    net = f"/sys/devices/virtual/net/{name}"
    tree.link(f"/sys/class/net/{name}", f"../../devices/virtual/net/{name}")
    for below in lower:
        neighbour(tree, net, "lower", below)
    tree.write(f"{net}/queues/rx-0/rps_cpus", "00")
    tree.write(f"{net}/queues/rx-0/rps_flow_cnt", 0)
    tree.write(f"{net}/queues/tx-0/tx_timeout", 0)


def netdev(tree, interfaces, threads=()):
    """`interfaces`: for each name its queues (type, id, NAPI id) and NAPIs (id, irq, pid); `threads`: (pid, name, cpus)."""
    told = {}
    for name, (queues, napis) in interfaces.items():
        queues = [{"type": kind, "id": queue, "napi-id": napi} for kind, queue, napi in queues]
        napis = [{"id": napi, "irq": irq} | ({"pid": pid} if pid else {}) for napi, irq, pid in napis]
        told[name] = {"queues": queues, "napis": napis}
    threads = [{"pid": pid, "name": name, "cpus": cpus} for pid, name, cpus in threads]
    tree.write("/corelocal/netdev.json", json.dumps({"schema": 1, "interfaces": told, "threads": threads}, indent=2))
