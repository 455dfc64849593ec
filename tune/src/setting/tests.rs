use proptest::prelude::*;

use super::*;
use crate::host::ethtool::{CoalesceField, FlowType};

fn setting() -> impl Strategy<Value = Setting> {
    let interface = || "[a-z][a-z0-9.]{0,10}".prop_map(|name: String| name.parse().unwrap());
    let queue = || (0u32..5000).prop_map(QueueIndex);
    let knob = prop::sample::select(Knob::all().collect::<Vec<_>>());
    prop_oneof![
        (interface(), knob).prop_map(|(i, knob)| Setting::Ethtool(i, knob)),
        Just(Setting::IrqbalanceBan),
        (0u32..5000).prop_map(Setting::Governor),
        (interface(), prop::sample::select(NapiFile::ALL.to_vec())).prop_map(|(i, f)| Setting::Napi(i, f)),
        (0u32..100_000).prop_map(|irq| Setting::IrqAffinity(Irq(irq))),
        (interface(), queue()).prop_map(|(i, q)| Setting::NapiThread(i, NapiId(q.0))),
        (interface(), queue()).prop_map(|(i, q)| Setting::XpsCpus(i, q)),
        (interface(), queue()).prop_map(|(i, q)| Setting::XpsRxqs(i, q)),
        Just(Setting::RpsDefaultMask),
        (interface(), queue()).prop_map(|(i, q)| Setting::RpsCpus(i, q)),
        (interface(), queue()).prop_map(|(i, q)| Setting::RpsFlowCount(i, q)),
        "(net|kernel)\\.[a-z_]{1,12}(\\.[a-z_]{1,8})?".prop_map(|n| Setting::Sysctl(n.parse().unwrap())),
    ]
}

proptest! {
    #[test]
    fn a_path_names_its_setting(setting in setting()) {
        prop_assert_eq!(Setting::from_path(&setting.path()), Some(setting));
    }

    #[test]
    fn a_value_is_read_back_from_its_own_text(
        setting in setting(),
        cpus in prop::collection::btree_set(0..2000u32, 0..50),
        numbers in prop::collection::vec(i128::from(i64::MIN)..=i128::from(u64::MAX), 1..4),
    ) {
        let cpus: CpuSet = cpus.into_iter().collect();
        let value = match &setting {
            Setting::Ethtool(_, Knob::Channels | Knob::Rings) => Value::Words("rx 2 tx 3".into()),
            Setting::Ethtool(_, Knob::Rss) => Value::Words("table 3*2 1*4".into()),
            Setting::Ethtool(_, Knob::Hash(_)) => Value::Words("sdfn".into()),
            Setting::Ethtool(_, Knob::Coalesce(field)) if !field.is_switch() => Value::Numbers(vec![8]),
            Setting::Ethtool(..) => Value::Words("on".into()),
            Setting::IrqAffinity(_) | Setting::NapiThread(..) => Value::List(cpus),
            Setting::XpsCpus(..) | Setting::RpsCpus(..) | Setting::RpsDefaultMask => Value::Mask(cpus),
            Setting::XpsRxqs(..) => Value::Queues(cpus),
            Setting::IrqbalanceBan => Value::Numbers(cpus.iter().map(i128::from).collect()),
            Setting::Governor(_) => Value::Words("powersave".to_owned()),
            Setting::Napi(..) | Setting::RpsFlowCount(..) | Setting::Sysctl(_) => Value::Numbers(numbers),
        };
        prop_assert_eq!(setting.parse(&value.to_string()).unwrap(), value);
    }

    #[test]
    fn no_path_makes_from_path_panic(path in "(ethtool/|/proc/irq/|/sys/class/net/|/proc/sys/)?[a-z0-9/._-]{0,40}") {
        let _ = Setting::from_path(&path);
    }
}

#[test]
fn other_files_are_no_settings() {
    for path in [
        "/etc/passwd",
        "/sys/devices/system/cpu/cpu03/cpufreq/scaling_governor",
        "/sys/devices/system/cpu/cpu3/online",
        "/sys/class/net/eth0/x/threaded",
        "/proc/irq/../sys/kernel/panic/smp_affinity_list",
        "/proc/irq/007/smp_affinity_list",
        "/sys/class/net/../../x/queues/rx-0/rps_cpus",
        "/sys/class/net/eth0/queues/rx-0/../rps_cpus",
        "/proc/sys/../irq/1",
        "/proc/sys/net//core",
        "ethtool/eth0/",
        "ethtool/../channels",
        "ethtool/a/b/channels",
        "ethtool/eth0/coalesce",
        "/ethtool/eth0/channels",
        "/proc/sys/",
    ] {
        assert_eq!(Setting::from_path(path), None, "{path}");
    }
}

#[test]
fn padding_and_white_space_are_no_difference() {
    let rps = Setting::RpsCpus("eth0".parse().unwrap(), QueueIndex(0));
    assert_eq!(rps.parse("0000,00000003").unwrap(), rps.parse("3").unwrap());
    let rmem = Setting::Sysctl("net.ipv4.tcp_rmem".parse().unwrap());
    assert_eq!(rmem.parse("4096\t131072\t6291456").unwrap().to_string(), "4096 131072 6291456");
    assert_eq!(rmem.parse("cubic").unwrap(), Value::Words("cubic".into()));
}

#[test]
fn what_is_not_of_a_network_namespace_is_of_the_whole_host() {
    for (path, host_wide) in [
        ("irqbalance/banned_irqs", true),
        ("/sys/devices/system/cpu/cpu3/cpufreq/scaling_governor", true),
        ("/sys/class/net/eth0/threaded", false),
        ("/proc/irq/40/smp_affinity_list", true),
        ("/proc/sys/kernel/numa_balancing", true),
        ("/proc/sys/net/core/somaxconn", false),
        ("/sys/class/net/eth0/queues/rx-0/rps_cpus", false),
        ("ethtool/eth0/channels", false),
    ] {
        assert_eq!(Setting::from_path(path).unwrap().is_host_wide(), host_wide, "{path}");
    }
}

#[test]
fn ethtool_and_interrupts_are_written_first_and_sysctls_last() {
    let eth0: InterfaceName = "eth0".parse().unwrap();
    let mut settings = [
        Setting::Sysctl("net.core.somaxconn".parse().unwrap()),
        Setting::RpsCpus(eth0.clone(), QueueIndex(1)),
        Setting::XpsCpus(eth0.clone(), QueueIndex(10)),
        Setting::XpsCpus(eth0.clone(), QueueIndex(2)),
        Setting::RpsFlowCount(eth0.clone(), QueueIndex(0)),
        Setting::IrqAffinity(Irq(40)),
        Setting::Ethtool(eth0.clone(), Knob::Ntuple),
        Setting::Ethtool(eth0.clone(), Knob::Coalesce(CoalesceField::RxUsecs)),
        Setting::Ethtool(eth0.clone(), Knob::Coalesce(CoalesceField::AdaptiveRx)),
        Setting::Ethtool(eth0.clone(), Knob::Hash(FlowType::Udp4)),
        Setting::Ethtool(eth0.clone(), Knob::Rss),
        Setting::Ethtool(eth0.clone(), Knob::Rings),
        Setting::Ethtool(eth0, Knob::Channels),
    ];
    settings.sort();
    let paths: Vec<String> = settings.iter().map(Setting::path).collect();
    assert_eq!(
        paths,
        [
            "ethtool/eth0/channels",
            "ethtool/eth0/rings",
            "ethtool/eth0/rss",
            "ethtool/eth0/rss/udp4",
            "ethtool/eth0/coalesce/adaptive_rx",
            "ethtool/eth0/coalesce/rx_usecs",
            "ethtool/eth0/ntuple",
            "/proc/irq/40/smp_affinity_list",
            "/sys/class/net/eth0/queues/tx-2/xps_cpus",
            "/sys/class/net/eth0/queues/tx-10/xps_cpus",
            "/sys/class/net/eth0/queues/rx-1/rps_cpus",
            "/sys/class/net/eth0/queues/rx-0/rps_flow_cnt",
            "/proc/sys/net/core/somaxconn",
        ]
    );
}
