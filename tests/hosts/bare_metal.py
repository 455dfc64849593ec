"""Machines with NICs of their own, one function each."""

from kernel_tree import (
    cpu_list,
    default_route,
    ethtool,
    governors,
    interface,
    interrupts,
    irqbalance,
    mask,
    napi,
    netdev,
    sysctls,
    topology,
    virtual,
)

# Two NUMA nodes with 12 cores of two SMT threads: CPU c shares its core with c + 24.
NODES_48 = ([*range(12), *range(24, 36)], [*range(12, 24), *range(36, 48)])


def smt_48(cpu):
    return [cpu % 24, cpu % 24 + 24]


NODES_8 = ([0, 1, 4, 5], [2, 3, 6, 7])


def i40e_48cpu(tree):
    """i40e with 48 queues on node 1, kernel 6.1: the chip column of /proc/interrupts names no PCI function, `fdir-TxRx-0`
    looks like queue 0, affinities and XPS as the driver leaves them. irqbalance runs and leaves IRQ 24 alone."""
    bdf, first = "0000:af:00.0", 120  # first: vector 0 is the misc vector, queue q has vector q + 1
    hwirq = 0xAF00 << 11  # pci_msi_domain_calc_hwirq(): vector | bus and devfn << 11
    names = [f"i40e-{bdf}:misc", *(f"i40e-eth0-TxRx-{queue}" for queue in range(48)), f"i40e-{bdf}:fdir-TxRx-0"]
    vectors = range(first, first + len(names))
    topology(tree, NODES_48, smt_48)
    interrupts(
        tree,
        48,
        [
            (irq, f"IR-PCI-MSI {hwirq + vector}-edge", name, "0-47", vector * 7 % 48)
            for vector, (irq, name) in enumerate(zip(vectors, names))
        ],
        node=1,
    )
    xps = [mask([queue], 48) for queue in range(48)]  # i40e_config_xps_tx_ring(): queue q to CPU q
    queues = [(mask([], 48), 0, xps[queue]) for queue in range(48)]
    interface(tree, "eth0", f"pci0000:ae/0000:ae:00.0/{bdf}", "i40e", 1, vectors, queues)
    adaptive = {"adaptive_rx": 1, "adaptive_tx": 1, "rx_usecs": 50, "tx_usecs": 50}
    ethtool(tree, "eth0", (48, 48), (512, 4096), 512, adaptive, (True, False))
    napi(tree, f"pci0000:ae/0000:ae:00.0/{bdf}", "eth0", gro_flush_timeout=0, napi_defer_hard_irqs=0, threaded=0)
    governors(tree, range(48), "powersave", "performance powersave ")
    default_route(tree, "eth0")
    irqbalance(tree, [24])
    sysctls(tree)


def mlx5_48cpu(tree):
    """mlx5 with 48 queues on node 0, kernel 6.12, and a second function of the card whose vectors have the same numbers,
    on lower and on higher interrupts: neither the first nor the last match by name is right. RPS and RFS were switched on
    by hand, some sysctls are above the profile."""
    bridge, chip = "pci0000:3a/0000:3a:00.0", "IR-PCI-MSIX"
    rows = []
    ours = range(100, 149)
    # irqbalance has moved the vectors of the first function among the CPUs of its node.
    for vector, irq in enumerate(ours):
        name = f"mlx5_comp{vector - 1}@pci:0000:3b:00.0" if vector else "mlx5_async0@pci:0000:3b:00.0"
        cpu = NODES_48[0][vector * 5 % 24]
        rows.append((irq, f"{chip}-0000:3b:00.0 {vector:>4}-edge", name, str(cpu), cpu))
    theirs = [90, 91, 92, 93, 94, 160, 161, 162, 163]
    for vector, irq in enumerate(theirs):
        name = f"mlx5_comp{vector - 1}@pci:0000:3b:00.1" if vector else "mlx5_async0@pci:0000:3b:00.1"
        cpu = NODES_48[0][vector]
        rows.append((irq, f"{chip}-0000:3b:00.1 {vector:>4}-edge", name, "0-47", cpu))
    topology(tree, NODES_48, smt_48)
    interrupts(tree, 48, rows, node=0)
    everywhere, nowhere = mask(range(48), 48), mask([], 48)
    queues = [(everywhere, 2048, nowhere) for _ in range(48)]
    interface(tree, "enp59s0f0np0", f"{bridge}/0000:3b:00.0", "mlx5_core", 0, ours, queues)
    adaptive = {"adaptive_rx": 1, "adaptive_tx": 1, "rx_usecs": 8, "rx_frames": 128, "tx_usecs": 8, "tx_frames": 128}
    ethtool(tree, "enp59s0f0np0", (48, 48), (1024, 8192), 256, adaptive, (False, False))
    queues = [(nowhere, 0, nowhere) for _ in range(8)]
    interface(tree, "enp59s0f1np1", f"{bridge}/0000:3b:00.1", "mlx5_core", 0, theirs, queues)
    default_route(tree, "enp59s0f0np0")
    irqbalance(tree)
    sysctls(
        tree,
        core__somaxconn="65535",
        core__rps_sock_flow_entries="98304",
        ipv4__tcp_migrate_req="1",
        ipv4__tcp_rmem="4096\t131072\t33554432",
        ipv4__tcp_wmem="4096\t65536\t4194304",
    )


def ixgbe_48cpu(tree):
    """82599 with a queue for each of 48 CPUs, which its flow director uses, and RSS over 16 of them: the others get no new
    connection. Kernel 6.1."""
    bridge, bdf, first = "pci0000:17/0000:17:00.0", "0000:18:00.0", 70
    names = [*(f"eth0-TxRx-{queue}" for queue in range(48)), "eth0"]
    rows = [
        (first + vector, f"IR-PCI-MSI {0x1800 << 11 | vector}-edge", name, "0-47", vector % 48)
        for vector, name in enumerate(names)
    ]
    topology(tree, NODES_48, smt_48)
    interrupts(tree, 48, rows, node=0)
    queues = [(mask([], 48), 0, mask([queue], 48)) for queue in range(48)]
    interface(tree, "eth0", f"{bridge}/{bdf}", "ixgbe", 0, range(first, first + len(names)), queues)
    ethtool(tree, "eth0", (48, 63), (512, 4096), 128, {"rx_usecs": 1, "tx_usecs": 0}, (False, False), spread=16)
    default_route(tree, "eth0")
    irqbalance(tree, [])
    sysctls(tree)


def ice_16cpu(tree):
    """ice with 8 queues of at most 16 on node 1, kernel 6.18: netlink tells the interrupts, and can set the RSS table, of
    which somebody has taken queues 6 and 7 out. Two nodes of 8 CPUs."""
    bridge, bdf, first = "pci0000:80/0000:80:02.0", "0000:81:00.0", 60
    names = [f"ice-{bdf}:misc", *(f"ice-eth0-TxRx-{queue}" for queue in range(8)), f"ice-{bdf}:ll_ts"]
    rows = [
        (first + vector, f"IR-PCI-MSIX-{bdf} {vector:>4}-edge", name, "8-15", 8 + vector % 8)
        for vector, name in enumerate(names)
    ]
    topology(tree, (range(8), range(8, 16)), lambda cpu: [cpu])
    interrupts(tree, 16, rows, node=1)
    queues = [(mask([], 16), 0, mask([queue], 16)) for queue in range(8)]
    interface(tree, "eth0", f"{bridge}/{bdf}", "ice", 1, range(first, first + len(names)), queues)
    coalesce = {"adaptive_rx": 1, "adaptive_tx": 1, "rx_usecs": 50, "tx_usecs": 50}
    ethtool(tree, "eth0", (8, 16), (2048, 8160), 2048, coalesce, (True, False), spread=6)
    told = [(kind, queue, 8193 + queue) for kind in ("rx", "tx") for queue in range(8)]
    netdev(tree, {"eth0": (told, [(8193 + queue, first + 1 + queue, None) for queue in range(8)])})
    default_route(tree, "eth0")
    irqbalance(tree, [])
    sysctls(tree)


def mlx5_multi_pf(tree):
    """mlx5 Socket-Direct, kernel 6.12: one netdev with 8 queues on two PCI functions in two sockets, whose vectors are
    named alike. What serves which queue only netlink (corelocal/netdev.json) tells."""
    topology(tree, (range(4), range(4, 8)), lambda cpu: [cpu])
    functions, first, rows, irq_of = ("0000:08:00.0", "0000:88:00.0"), (40, 60), [], {}
    for function, (pci, irq) in enumerate(zip(functions, first)):
        rows.append((irq, f"IR-PCI-MSIX-{pci} {0:>4}-edge", f"mlx5_async0@pci:{pci}", "0-7", 0))
        for vector in range(4):  # channel c is on function c % 2 (multi-pf-netdev.rst)
            channel = 2 * vector + function
            irq_of[channel] = irq + vector + 1
            chip, name = f"IR-PCI-MSIX-{pci} {vector + 1:>4}-edge", f"mlx5_comp{vector}@pci:{pci}"
            rows.append((irq_of[channel], chip, name, "0-7", 4 * function + vector))
    interrupts(tree, 8, rows, node=0)
    for irq in range(60, 65):
        tree.write(f"/proc/irq/{irq}/node", 1)
    queues = [(mask([], 8), 0, mask([], 8)) for _ in range(8)]
    interface(tree, "eth0", f"pci0000:00/0000:00:01.0/{functions[0]}", "mlx5_core", 0, range(40, 45), queues)
    for vector in range(60, 65):
        tree.write(f"/sys/devices/pci0000:80/0000:80:01.0/{functions[1]}/msi_irqs/{vector}", "msix")
    tree.write("/sys/class/net/eth0/threaded", 0)
    queues = [(kind, queue, 8193 + queue) for kind in ("rx", "tx") for queue in range(8)]
    netdev(tree, {"eth0": (queues, [(8193 + queue, irq_of[queue], None) for queue in range(8)])})
    default_route(tree, "eth0")
    sysctls(tree)


def bnxt_threaded(tree):
    """bnxt with threaded NAPI, kernel 6.18: netlink tells interrupts and threads; those may run anywhere. The names are
    from before a rename, and another function of the card has the present name."""
    topology(tree, (range(4),), lambda cpu: [cpu])
    rows, bridge = [], "pci0000:16/0000:16:02.0"
    for function, name in enumerate(("eth0", "eth1")):  # eth0 is called eth1 now, and eth1 eth0
        for queue in range(4):
            irq = 90 + 10 * function + queue
            chip = f"IR-PCI-MSIX-0000:17:00.{function} {queue:>4}-edge"
            rows.append((irq, chip, f"{name}-TxRx-{queue}", "0-3", 3 - queue))
    interrupts(tree, 4, rows, node=0)
    told, threads = {}, []
    for function, name in enumerate(("eth1", "eth0")):
        first, queues = 90 + 10 * function, [(mask([], 4), 0, mask([queue], 4)) for queue in range(4)]
        interface(tree, name, f"{bridge}/0000:17:00.{function}", "bnxt_en", 0, range(first, first + 4), queues)
        tree.write(f"/sys/class/net/{name}/threaded", 1)
        napi, pid = 513 + 4 * function, 900 + 4 * function
        told[name] = (
            [(kind, queue, napi + queue) for kind in ("rx", "tx") for queue in range(4)],
            [(napi + queue, first + queue, pid + queue) for queue in range(4)],
        )
        # The thread of the last queue of eth1 has ended since.
        threads += [
            (pid + queue, f"napi/{('eth0', 'eth1')[function]}-{napi + queue}", "0-3")
            for queue in range(4 if function else 3)
        ]
    netdev(tree, told, threads)
    default_route(tree, "eth0")
    sysctls(tree)


def bond_8cpu(tree):
    """Two ixgbe ports of 4 queues on node 0 in bond0, and VLAN bond0.7 on it, which has the default route; eth0 has a
    virtual function, eth0v0. Two nodes of two cores of two threads."""
    bridge, rows = "pci0000:3a/0000:3a:00.0", []
    topology(tree, NODES_8, lambda cpu: [cpu % 4, cpu % 4 + 4])
    for first, name, pci, driver, count in (
        (40, "eth0", "0000:3b:00.0", "ixgbe", 4),
        (50, "eth1", "0000:3b:00.1", "ixgbe", 4),
        (60, "eth0v0", "0000:3b:10.0", "ixgbevf", 2),
    ):
        names = [*(f"{name}-TxRx-{queue}" for queue in range(count)), name]
        vectors = range(first, first + len(names))
        rows += [
            (irq, f"IR-PCI-MSIX-{pci} {vector:>4}-edge", text, "0-7", vector)
            for vector, (irq, text) in enumerate(zip(vectors, names))
        ]
        queues = [("00", 0, mask([queue], 8)) for queue in range(count)]
        interface(tree, name, f"{bridge}/{pci}", driver, 0, vectors, queues)
        for queue in range(count):
            net = f"/sys/devices/{bridge}/{pci}/net/{name}"
            tree.write(f"{net}/queues/tx-{queue}/xps_rxqs", mask([], count))
    tree.link(f"/sys/devices/{bridge}/0000:3b:00.0/virtfn0", "../0000:3b:10.0")
    tree.link(f"/sys/devices/{bridge}/0000:3b:10.0/physfn", "../0000:3b:00.0")
    interrupts(tree, 8, rows, node=0)
    virtual(tree, "bond0", ["eth0", "eth1"])
    virtual(tree, "bond0.7", ["bond0"])
    default_route(tree, "bond0.7")
    sysctls(tree, core__rps_default_mask="00")
    tree.write("/corelocal/cpus.json", '{"schema":1,"allowed":"0-7"}')


def ambiguous_4cpu(tree):
    """No msi_irqs and two sets of interrupts called eth0-TxRx-N (the eth0 of another network namespace is on the same
    host): which belong to this eth0 cannot be known."""
    topology(tree, (range(4),), lambda cpu: [cpu])
    rows = [
        (irq, f"PCI-MSI {1572864 + irq}-edge", f"eth0-TxRx-{irq % 10}", "0-3", irq % 10)
        for irq in (*range(40, 44), *range(50, 54))
    ]
    interrupts(tree, 4, rows, node=0)
    queues = [(mask([], 4), 0, mask([queue], 4)) for queue in range(4)]
    interface(tree, "eth0", "pci0000:00/0000:00:05.0", "ixgbevf", -1, [], queues)
    default_route(tree, "eth0")
    sysctls(tree)


def isolated_8cpu(tree):
    """CPUs 0-7 of 12 possible are online, 6 and 7 isolated and nohz_full, and a cgroup allows 0-4 and 8-11 only; a kernel
    without CONFIG_NUMA, a NIC with 4 queues."""
    topology(tree, (range(8),), lambda cpu: [cpu], numa=False)
    tree.write("/sys/devices/system/cpu/possible", "0-11")
    tree.write("/sys/devices/system/cpu/isolated", "6-7")
    tree.write("/sys/devices/system/cpu/nohz_full", "6-7")
    tree.write("/corelocal/cpus.json", '{"schema":1,"allowed":"0-4,8-11"}')
    vectors = range(30, 35)
    names = [*(f"eth0-TxRx-{queue}" for queue in range(4)), "eth0"]
    rows = [
        (irq, f"PCI-MSIX-0000:00:05.0 {vector:>4}-edge", name, "0-5", vector)
        for vector, (irq, name) in enumerate(zip(vectors, names))
    ]
    interrupts(tree, 8, rows, node=-1)
    queues = [(mask([], 12), 0, mask([], 12)) for _ in range(4)]
    interface(tree, "eth0", "pci0000:00/0000:00:05.0", "ixgbe", None, vectors, queues)
    default_route(tree, "eth0")
    sysctls(tree, core__rps_default_mask=mask([], 12))


def offline_8cpu(tree):
    """CPUs 3 and 5 of 8 are offline, one of them the whole of its core with its sibling still there: igb with 6 queues, made
    before that, of which some have their interrupts where the kernel moved them."""
    online, bdf, first = [0, 1, 2, 4, 6, 7], "0000:04:00.0", 40
    topology(tree, ([0, 1, 4], [2, 6, 7]), lambda cpu: [c for c in (cpu % 4, cpu % 4 + 4) if c in online])
    tree.write("/sys/devices/system/cpu/possible", "0-7")
    names = ["eth0", *(f"eth0-TxRx-{queue}" for queue in range(6))]
    rows = [
        (first + vector, f"PCI-MSIX-{bdf} {vector:>4}-edge", name, "0-7", online[vector % 6])
        for vector, name in enumerate(names)
    ]
    interrupts(tree, online, rows, node=0)
    queues = [(mask([], 8), 0, mask([queue], 8)) for queue in range(6)]
    interface(tree, "eth0", f"pci0000:00/{bdf}", "igb", 0, range(first, first + len(names)), queues)
    ethtool(tree, "eth0", (6, 8), (256, 4096), 128, {"rx_usecs": 3, "tx_usecs": 0}, (False, False))
    default_route(tree, "eth0")
    sysctls(tree)


def mlx5_130cpu(tree):
    """130 CPUs without SMT on two nodes, whose masks have five groups and a short first one; mlx5 with 64 queues of at most
    64 on node 1, and a VLAN on it that has the default route."""
    bdf, first = "0000:c1:00.0", 300
    rows = [(first, f"IR-PCI-MSIX-{bdf}    0-edge", f"mlx5_async0@pci:{bdf}", "0-129", 65)]
    rows += [
        (first + 1 + vector, f"IR-PCI-MSIX-{bdf} {vector + 1:>4}-edge", f"mlx5_comp{vector}@pci:{bdf}", "65-129", 65 + vector)
        for vector in range(64)
    ]
    topology(tree, (range(65), range(65, 130)), lambda cpu: [cpu])
    interrupts(tree, 130, rows, node=1)
    queues = [(mask([], 130), 0, mask([65 + queue], 130)) for queue in range(64)]
    interface(tree, "ens1np0", f"pci0000:c0/0000:c0:01.1/{bdf}", "mlx5_core", 1, range(first, first + 65), queues)
    adaptive = {"adaptive_rx": 1, "adaptive_tx": 1, "rx_usecs": 8, "rx_frames": 128, "tx_usecs": 8, "tx_frames": 128}
    ethtool(tree, "ens1np0", (64, 64), (1024, 8192), 256, adaptive, (False, False))
    virtual(tree, "ens1np0.100", ["ens1np0"])
    default_route(tree, "ens1np0.100")
    irqbalance(tree, [])
    sysctls(tree)


# `queues`: of each port; `table`: entries of the RSS table, `spread` over so many queues. i40e: over 64 at most, however many it
# has; mlx5: two entries for each queue, 256 at least, and 256 queues since 6.7.
LARGE = {
    "large-128": dict(cpus=128, nodes=2, driver="mlx5_core", mbits=100_000, ports=1, queues=128, table=256, spread=128),
    "large-256": dict(cpus=256, nodes=2, driver="mlx5_core", mbits=100_000, ports=2, queues=128, table=256, spread=128),
    "large-400g": dict(cpus=256, nodes=2, driver="mlx5_core", mbits=400_000, ports=1, queues=256, table=512, spread=256),
    "large": dict(cpus=1152, nodes=8, driver="i40e", mbits=40_000, ports=4, queues=94, table=512, spread=64),
}


def large(tree, host):
    """One of LARGE: cores of two threads, ports spread over the nodes; the counts of /proc/interrupts are of all CPUs."""
    this = LARGE[host]
    cpus, node_count, driver, ports, queue_count = (this[key] for key in ("cpus", "nodes", "driver", "ports", "queues"))
    cores, rows = cpus // 2, []
    per_node = cores // node_count
    first_threads = [list(range(node * per_node, (node + 1) * per_node)) for node in range(node_count)]
    nodes = [[*first, *(cpu + cores for cpu in first)] for first in first_threads]
    topology(tree, nodes, lambda cpu: [cpu % cores, cpu % cores + cores])
    for port in range(ports):
        node = port * node_count // ports
        name, bdf, first = f"enp{port}s0", f"0000:{16 * port + 1:02x}:00.0", 200 + (queue_count + 6) * port
        if driver == "i40e":
            names = [f"i40e-{bdf}:misc", *(f"i40e-{name}-TxRx-{queue}" for queue in range(queue_count))]
        else:
            names = [f"mlx5_async0@pci:{bdf}", *(f"mlx5_comp{queue}@pci:{bdf}" for queue in range(queue_count))]
        for vector, handler in enumerate(names):
            cpu = node * per_node + vector % per_node
            chip = f"IR-PCI-MSIX-{bdf} {vector:>4}-edge"
            rows.append((first + vector, chip, handler, cpu_list(range(cpus)), cpu))
        queues = [(mask([], cpus), 0, mask([queue], cpus)) for queue in range(queue_count)]
        bridge = f"pci0000:{16 * port:02x}/0000:{16 * port:02x}:00.0"
        vectors = range(first, first + queue_count + 1)
        interface(tree, name, f"{bridge}/{bdf}", driver, node, vectors, queues, speed=this["mbits"])
        adaptive = {"adaptive_rx": 1, "adaptive_tx": 1, "rx_usecs": 50, "tx_usecs": 50}
        channels, table, spread = (queue_count, queue_count), this["table"], this["spread"]
        ethtool(tree, name, channels, (512, 4096), table, adaptive, (True, False), spread=spread)
    interrupts(tree, cpus, rows, node=0)
    default_route(tree, "enp0s0")
    sysctls(tree)
