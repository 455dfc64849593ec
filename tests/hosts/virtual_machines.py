"""Virtual machines with the NICs of clouds, one function each."""

import os

from kernel_tree import (
    default_route,
    ethtool,
    interface,
    interrupts,
    irqbalance,
    mask,
    neighbour,
    sysctls,
    topology,
)


def virtio_8cpu(tree):
    """virtio_net with 4 pairs of queues of at most 8, an interrupt for each queue, which hang on the PCI function above; the
    driver has spread its interrupts and XPS over the CPUs, two for each pair. A second virtio device has an `input`, too."""
    bdf, other = "0000:00:03.0", "0000:00:04.0"
    names = ["virtio0-config", *(f"virtio0-{way}.{queue}" for queue in range(4) for way in ("input", "output"))]
    rows = [(24, f"PCI-MSIX-{bdf} {0:>4}-edge", names[0], "0-7", 0)]
    rows += [
        (25 + vector, f"PCI-MSIX-{bdf} {vector + 1:>4}-edge", name, f"{vector // 2},{vector // 2 + 4}", vector // 2)
        for vector, name in enumerate(names[1:])
    ]
    rows += [(40, f"PCI-MSIX-{other} {0:>4}-edge", "virtio1-input", "0-7", 0)]
    topology(tree, (range(8),), lambda cpu: [cpu])
    interrupts(tree, 8, rows, node=-1)
    device = f"/sys/devices/pci0000:00/{bdf}"
    queues = [(mask([], 8), 0, mask([queue, queue + 4], 8)) for queue in range(4)]
    interface(tree, "eth0", f"pci0000:00/{bdf}/virtio0", "virtio_net", -1, [], queues)
    for irq in range(24, 33):
        tree.write(f"{device}/msi_irqs/{irq}", "msix")
    tree.write(f"/sys/devices/pci0000:00/{other}/msi_irqs/40", "msix")
    ethtool(tree, "eth0", (4, 8), (256, 256), 0, {}, (False, True))
    default_route(tree, "eth0")
    irqbalance(tree, [])
    sysctls(tree)


def ena_8cpu(tree):
    """ena with 8 queues of 8, four cores of two threads, no NUMA node: names with hyphens, `Tx-Rx`."""
    bdf = "0000:00:05.0"
    names = [f"ena-mgmnt@pci:{bdf}", *(f"eth0-Tx-Rx-{queue}" for queue in range(8))]
    rows = [
        (27 + vector, f"PCI-MSIX-{bdf} {vector:>4}-edge", name, "0-7", vector % 8) for vector, name in enumerate(names)
    ]
    topology(tree, (range(8),), lambda cpu: [cpu % 4, cpu % 4 + 4])
    interrupts(tree, 8, rows, node=-1)
    queues = [(mask([], 8), 0, mask([], 8)) for _ in range(8)]
    interface(tree, "eth0", f"pci0000:00/{bdf}", "ena", -1, range(27, 36), queues)
    coalesce = {"adaptive_rx": 0, "rx_usecs": 0, "tx_usecs": 64}
    ethtool(tree, "eth0", (8, 8), (1024, 16384), 128, coalesce, (False, True))
    default_route(tree, "eth0")
    irqbalance(tree, [])
    sysctls(tree)


def gve_4cpu(tree):
    """gve with 4 RX and 4 TX queues of at most 8: TX queue N has block N, RX queue N block N + 8."""
    topology(tree, (range(4),), lambda cpu: [cpu])
    bdf = "0000:00:04.0"
    names = [f"gve-ntfy-blk{block}@pci:{bdf}" for block in range(16)] + [f"gve-mgmnt@pci:{bdf}"]
    rows = [
        (30 + vector, f"PCI-MSIX-{bdf} {vector:>4}-edge", name, "0-3", vector % 4) for vector, name in enumerate(names)
    ]
    interrupts(tree, 4, rows, node=-1)
    queues = [(mask([], 4), 0, mask([], 4)) for _ in range(4)]
    interface(tree, "eth0", f"pci0000:00/{bdf}", "gvnic", -1, range(30, 47), queues)
    default_route(tree, "eth0")
    sysctls(tree)


MANA = "LNXSYSTM:00/VMBUS:00/pci7870:00/7870:00:00.0"
NETVSC = "LNXSYSTM:00/LNXSYBUS:00/ACPI0004:00/VMBUS:00/000d3a6b-1c5e-000d-3a6b-1c5e000d3a6b"


def mana(tree, name, first):
    """`name` on the first function of a mana card with 4 queues; its interrupts, from `first` on."""
    bdf, hwirq = MANA.rsplit("/", 1)[1], 4138200989696
    names = [f"mana_hwc@pci:{bdf}", *(f"mana_q{queue}@pci:{bdf}" for queue in range(4))]
    rows = [
        (first + vector, f"Hyper-V PCIe MSI {hwirq + vector}-edge", text, "0-3", vector % 4)
        for vector, text in enumerate(names)
    ]
    queues = [(mask([], 4), 0, mask([], 4)) for _ in range(4)]
    # One more was allocated and no handler asked for: it has no /proc/irq entry.
    vectors = range(first, first + len(rows) + 1)
    interface(tree, name, MANA, "mana", 0, vectors, queues)
    return rows


def netvsc(tree, name):
    """`name` on 4 channels of VMBus."""
    interface(tree, name, NETVSC, "hv_netvsc", 0, [], [(mask([], 4), 0, mask([], 4)) for _ in range(4)])
    ethtool(tree, name, (4, 4), (10486, 18811), 128, {}, (False, True))


ACPI = (24, "IO-APIC    9-fasteoi", "acpi", "0-3", 0)


def mana_4cpu(tree):
    """mana, whose chip column has spaces: "Hyper-V PCIe MSI 4138200989697-edge"; msi_irqs also lists a vector that has no
    /proc/irq entry."""
    topology(tree, (range(4),), lambda cpu: [cpu])
    interrupts(tree, 4, mana(tree, "eth0", 50), node=0)
    default_route(tree, "eth0")
    sysctls(tree)


def netvsc_4cpu(tree):
    """hv_netvsc with 4 queues on VMBus channels: no interrupt of its own, msi_irqs or PCI function."""
    topology(tree, (range(4),), lambda cpu: [cpu])
    interrupts(tree, 4, [ACPI], node=0)
    netvsc(tree, "eth0")
    default_route(tree, "eth0")
    sysctls(tree)


def azure_4cpu(tree):
    """Azure's accelerated networking: eth0 of hv_netvsc stands on the virtual function enP30832s1 of mana, which carries most of
    its packets (netvsc_vf_join() links the two)."""
    topology(tree, (range(4),), lambda cpu: [cpu])
    vf = "enP30832s1"
    interrupts(tree, 4, [ACPI, *mana(tree, vf, 50)], node=0)
    netvsc(tree, "eth0")
    neighbour(tree, f"/sys/devices/{NETVSC}/net/eth0", "lower", vf)
    neighbour(tree, f"/sys/devices/{MANA}/net/{vf}", "upper", "eth0")
    default_route(tree, "eth0")
    sysctls(tree)


def managed_4cpu(tree):
    """virtio_net with 4 pairs of queues whose interrupts the kernel manages and has spread over the CPUs (seen on Oracle's
    cloud, seastar#3003): since Linux 6.12 their files are read-only. git does not keep that, so the tests generate it."""
    bdf = "0000:00:03.0"
    names = ["virtio0-config", *(f"virtio0-{way}.{queue}" for queue in range(4) for way in ("input", "output"))]
    rows = [
        (24 + vector, f"PCI-MSIX-{bdf} {vector:>4}-edge", name, str((vector + 3) % 4), (vector + 3) % 4)
        for vector, name in enumerate(names)
    ]
    topology(tree, (range(4),), lambda cpu: [cpu])
    interrupts(tree, 4, rows, node=-1)
    for irq in range(25, 33):
        os.chmod(f"{tree.root}/proc/irq/{irq}/smp_affinity_list", 0o444)
    queues = [(mask([], 4), 0, mask([queue], 4)) for queue in range(4)]
    interface(tree, "eth0", f"pci0000:00/{bdf}/virtio0", "virtio_net", -1, [], queues)
    for irq in range(24, 33):
        tree.write(f"/sys/devices/pci0000:00/{bdf}/msi_irqs/{irq}", "msix")
    ethtool(tree, "eth0", (4, 4), (256, 256), 0, {}, (False, True))
    default_route(tree, "eth0")
    sysctls(tree)
