use super::*;
use crate::host::fixture::{nic_host, veth_host};
use crate::host::{Governor, NapiFile};
use crate::irqbalance::Daemon;
use crate::plan::PlanError;

fn planned(host: &Host) -> (String, Result<plan::Desired, PlanError>) {
    let text = init(host);
    let profile = Profile::parse(&text, "init").unwrap_or_else(|error| panic!("{error}\n{text}"));
    (text, plan::plan(&profile, host))
}

#[test]
fn the_plan_accepts_it_with_few_queues_and_many_with_and_without_a_device() {
    for (cpus, queues) in [(2, 1), (2, 2), (4, 2), (4, 4), (4, 8)] {
        for mut host in [nic_host(cpus, queues), veth_host(cpus, queues)] {
            planned(&host).1.unwrap();
            host.nics[0].queue_irqs.doubt = Some("it is doubtful\nindeed".into());
            planned(&host).1.unwrap();
        }
    }
}

#[test]
fn every_key_that_it_writes_has_a_comment_above() {
    let (text, _) = planned(&nic_host(4, 4));
    let lines: Vec<&str> = text.lines().collect();
    let mut keys = Vec::new();
    for pair in lines.windows(2) {
        if let Some((key, _)) = pair[1].split_once(" = ").filter(|_| !pair[1].starts_with('#')) {
            assert!(pair[0].starts_with("# "), "{key}: {text}");
            keys.push(key);
        }
    }
    assert_eq!(
        keys,
        [
            "interface",
            "cpus",
            "irqbalance",
            "placement",
            "irq",
            "xps",
            "rps",
            "rps_flow_cnt",
            "\"net.core.somaxconn\""
        ],
        "those of the profile, and the sysctls that the host has"
    );
}

#[test]
fn what_the_kernel_keeps_back_is_no_worker() {
    let mut host = nic_host(4, 4);
    host.topology.housekeeping = "0-1".parse().unwrap();
    let (text, desired) = planned(&host);
    assert!(text.contains("cpus = \"0-1\"") && text.contains("not isolated"), "{text}");
    desired.unwrap();
}

const ETHTOOL: &str = r#"{
    "channels": { "other": { "now": 1, "max": 1 }, "combined": { "now": 4, "max": 63 } },
    "rings": { "rx": { "now": 512, "max": 4096 }, "tx": { "now": 512, "max": 1024 } },
    "rss": { "table": [0, 1, 2, 3, 0, 1, 2, 3] },
    "coalesce": { "adaptive_rx": 1, "rx_usecs": 50 },
    "features": { "rx-ntuple-filter": { "on": false, "fixed": false } }
}"#;

/// A device with everything that ethtool, cpufreq and NAPI may have.
fn rich() -> Host {
    let mut host = nic_host(8, 4);
    host.nics[0].ethtool = serde_json::from_str(ETHTOOL).unwrap();
    host.nics[0].nic.napi = NapiFile::ALL.map(|file| (file, 0)).into();
    for cpu in 0..8 {
        let available = ["performance", "powersave"].map(str::to_owned).into();
        host.governors.insert(cpu, Governor { name: "powersave".into(), available });
    }
    host.irqbalance = Irqbalance::Running(vec![Daemon { pid: 812, banned_irqs: [].into() }]);
    host
}

#[test]
fn every_section_says_what_is_there_now_and_what_is_not_recommended_is_commented_out() {
    let (text, desired) = planned(&rich());
    for line in [
        "# irqbalance would move the interrupts again: \"ban\" has it leave them alone, \"coexist\" does not \
         tell it. It runs, process 812.",
        "[channels]\n# How many queues: \"workers\", one for each, or a number. Now: eth0 combined 4 of at \
         most 63. A change takes the link down for a moment.\ncount = \"workers\"",
        "# [rings]\n",
        "Now: eth0 512 of at most 4096.\n# rx = 2048\n",
        "Now: eth0 512 of at most 1024.\n# tx = 1024\n",
        "[rss]\n# The hash names every queue in use equally often. Now: eth0 8 entries, queues up to 3.\n\
         table = \"equal\"\n",
        "# [coalesce]\n",
        "Now: eth0 on.\n# adaptive_rx = false\n",
        "# [features]\n",
        "Now: eth0 off.\n# ntuple = \"on\"\n",
        "# [napi]\n",
        "# [cpu]\n",
        "Now: powersave.\n# governor = \"performance\"\n",
    ] {
        assert!(text.contains(line), "{line}\n\n{text}");
    }
    assert!(!text.contains("tx_usecs"), "the driver does not have it: {text}");
    desired.unwrap();
}

#[test]
fn what_is_commented_out_is_a_profile_as_well() {
    let is_key = |line: &str| {
        line.starts_with('[')
            || line
                .split_once(" = ")
                .is_some_and(|(key, _)| key.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()))
    };
    for host in [rich(), veth_host(2, 2), nic_host(2, 1)] {
        let text = init(&host);
        let lines =
            text.lines().map(|line| line.strip_prefix("# ").filter(|rest| is_key(rest)).unwrap_or(line));
        let all: String = lines.map(|line| format!("{line}\n")).collect();
        let profile = Profile::parse(&all, "init").unwrap_or_else(|error| panic!("{error}\n{all}"));
        plan::plan(&profile, &host).unwrap();
    }
}

#[test]
fn without_certain_interrupts_and_of_a_virtual_interface_the_channels_are_left() {
    let mut doubtful = rich();
    doubtful.nics[0].queue_irqs.doubt = Some("it is doubtful".into());
    let mut virtual_ = rich();
    virtual_.nics[0].nic.device = None;
    for host in [doubtful, virtual_] {
        let (text, desired) = planned(&host);
        assert!(text.contains("# [channels]\n") && text.contains("# count = \"workers\"\n"), "{text}");
        desired.unwrap();
    }
}
