//! The interfaces of the captured hosts, and those with one thing changed.

use tune::host::{Host, InterfaceChoice, Irq};
use tune::kernel_files::KernelFiles;

use super::super::fixture::{assert_one, facts, of};
use super::*;
use crate::config::{AcceptModel, Cores, Steer};
use crate::worker_plan::{self, Offer};

/// The interface of a captured host.
fn captured(name: &str) -> Host {
    let root = format!("{}/../tests/hosts/{name}", env!("CARGO_MANIFEST_DIR"));
    let names: Vec<_> = AUTO.profile().unwrap().sysctl_names();
    let table = RFS_TABLE.parse().unwrap();
    let names: Vec<_> = names.into_iter().chain([table]).collect();
    Host::read(
        &KernelFiles::open(root).unwrap(),
        &InterfaceChoice::Auto,
        &names,
        &tune::host::ToldMap::default(),
    )
    .unwrap()
}

/// The interface of a captured host after `tune apply profiles/auto.toml --cpus CPUS`.
fn tuned(name: &str, cpus: &str) -> Host {
    let mut host = captured(name);
    let mut profile = AUTO.profile().unwrap();
    profile.cpus = cpus.parse().unwrap();
    let desired = plan::plan(&profile, &host).unwrap();
    for (setting, value) in desired.settings {
        let (Setting::IrqAffinity(_) | Setting::RpsCpus(..) | Setting::XpsCpus(..)) = &setting else {
            continue;
        };
        let cpus: CpuSet = match &value {
            tune::setting::Value::List(cpus) | tune::setting::Value::Mask(cpus) => cpus.clone(),
            other => panic!("{other:?}"),
        };
        match setting {
            Setting::IrqAffinity(irq) => {
                let state = host.nics[0].irqs.get_mut(&irq).unwrap();
                (state.affinity, state.effective) = (cpus.clone(), Some(cpus));
            }
            Setting::RpsCpus(_, queue) => {
                host.nics[0].nic.rx_queues.iter_mut().find(|rx| rx.index == queue).unwrap().rps_cpus =
                    Some(cpus);
            }
            Setting::XpsCpus(_, queue) => {
                host.nics[0].nic.tx_queues.iter_mut().find(|tx| tx.index == queue).unwrap().xps_cpus =
                    Some(cpus);
            }
            _ => {}
        }
    }
    host
}

fn judged_with(config: &Config, host: Host) -> Vec<Finding> {
    let offer = Offer {
        online: host.topology.online.clone(),
        allowed: host.topology.online.clone(),
        files: 4096,
        others: worker_plan::OtherFiles::of(&Config::default()),
        memory: None,
    };
    let plan = worker_plan::plan(config, true, &offer);
    let mut facts = Facts { offer, plan, ..facts() };
    facts.nics.hosts = vec![host];
    judge(config, &facts)
}

fn on(cores: std::ops::Range<u32>) -> Config {
    Config { cores: Cores::List(cores.collect()), ..Config::default() }
}

fn judged(cores: std::ops::Range<u32>, host: Host) -> Vec<Finding> {
    judged_with(&on(cores), host)
}

#[test]
fn on_a_tuned_host_there_is_nothing_to_do() {
    for name in ["i40e-48cpu", "mlx5-48cpu"] {
        let findings = judged(0..48, tuned(name, "0-47"));
        assert_one(&findings, "nic.interrupts", Mark::Ok, &["48 receive queues"]);
        assert_one(&findings, "nic.coverage", Mark::Ok, &["48 cores"]);
        assert!(of(&findings, "nic.rps").is_empty());
        assert!(findings.iter().all(|finding| finding.mark <= Mark::Note), "{name}: {findings:#?}");
    }
}

#[test]
fn queues_that_interrupt_other_cpus_are_named_with_the_command_that_moves_them() {
    let findings = judged(0..24, tuned("mlx5-48cpu", "0-47"));
    let command = "tune apply profiles/auto.toml --interface enp59s0f0np0 --cpus 0-23";
    let words = ["24 interrupt outside of --cores", "and 20 more", command];
    assert_one(&findings, "nic.interrupts", Mark::Warning, &words);
    assert_one(&findings, "nic.coverage", Mark::Warning, &["CPUs 24-47", "where no worker is"]);
    assert_one(
        &findings,
        "nic.tune",
        Mark::Note,
        &["interrupt affinity settings", "tune plan profiles/auto.toml"],
    );
    assert!(judged(0..24, tuned("mlx5-48cpu", "0-23")).iter().all(|finding| finding.mark <= Mark::Note));
}

#[test]
fn a_core_that_no_packet_reaches_gets_no_connection() {
    let mut host = tuned("i40e-48cpu", "0-47");
    let irq =
        host.nics[0].irqs.values_mut().find(|state| state.effective == Some("47".parse().unwrap())).unwrap();
    (irq.affinity, irq.effective) = ("3".parse().unwrap(), Some("3".parse().unwrap()));
    let findings = judged(0..48, host);
    assert_one(&findings, "nic.interrupts", Mark::Ok, &[]);
    assert_one(&findings, "nic.coverage", Mark::Warning, &["on CPU 47", "--cpus 0-47"]);
}

/// As after `tune apply` on a host without interrupt remapping, before the queue's next packet.
#[test]
fn an_affinity_that_waits_for_the_next_interrupt_counts() {
    let mut host = tuned("i40e-48cpu", "0-47");
    host.nics[0].irqs.values_mut().for_each(|state| state.effective = Some("0".parse().unwrap()));
    let findings = judged(0..48, host);
    assert_one(&findings, "nic.interrupts", Mark::Ok, &[]);
    assert_one(&findings, "nic.coverage", Mark::Ok, &[]);
}

#[test]
fn where_listeners_are_not_chosen_by_cpu_it_is_a_note() {
    let hash = Config { steer: Steer::Hash, ..on(0..24) };
    let shared = Config { accept: AcceptModel::Shared, ..on(0..24) };
    for config in [hash, shared] {
        let findings = judged_with(&config, tuned("mlx5-48cpu", "0-47"));
        assert_one(&findings, "nic.interrupts", Mark::Note, &[]);
        assert_one(&findings, "nic.coverage", Mark::Note, &[]);
    }
}

#[test]
fn rps_with_a_queue_for_each_core_takes_packets_away() {
    let mut host = tuned("i40e-48cpu", "0-47");
    host.nics[0].nic.rx_queues[5].rps_cpus = Some("0-47".parse().unwrap());
    let findings = judged(0..48, host);
    assert_one(&findings, "nic.rps", Mark::Warning, &["1 receive queue", "5 to 0-47", "tune apply"]);
}

#[test]
fn rps_with_fewer_queues_than_cores_is_a_repair() {
    let captured = judged(0..2, captured("virtio-2cpu"));
    let words =
        ["1 receive queue for 2 cores", "no connection", "tune apply profiles/auto.toml", "--cpus 0-1"];
    assert_one(&captured, "nic.coverage", Mark::Warning, &words);
    let tuned = judged(0..2, tuned("virtio-2cpu", "0-1"));
    assert_one(&tuned, "nic.coverage", Mark::Ok, &[]);
    assert_one(&tuned, "nic.rps", Mark::Ok, &["spreads them"]);
}

#[test]
fn an_interrupt_that_may_fire_anywhere_is_not_on_one_cpu() {
    let mut host = tuned("i40e-48cpu", "0-47");
    host.nics[0]
        .irqs
        .values_mut()
        .for_each(|state| (state.affinity, state.effective) = ("0-47".parse().unwrap(), None));
    assert_one(&judged(0..48, host), "nic.interrupts", Mark::Warning, &["48 may interrupt several CPUs"]);
}

#[test]
fn while_the_interface_is_down_what_is_set_counts() {
    let mut host = tuned("i40e-48cpu", "0-47");
    host.nics[0].irqs.values_mut().for_each(|state| state.effective = Some(CpuSet::new()));
    assert_one(&judged(0..48, host), "nic.interrupts", Mark::Ok, &[]);
}

#[test]
fn interrupts_in_doubt_are_not_judged_and_those_unknown_are_not_taken_for_good() {
    let doubtful = judged(0..4, captured("ambiguous-4cpu"));
    assert_one(&doubtful, "nic.interrupts", Mark::Note, &["not known for certain"]);
    assert_one(&doubtful, "nic.tune", Mark::Note, &["tune can't set it up"]);
    let mut host = tuned("i40e-48cpu", "0-47");
    let first = Irq(host.nics[0].irqs.keys().next().unwrap().0);
    host.nics[0].queue_irqs.rows.retain(|row| row.irq != first);
    let findings = judged(0..48, host);
    assert_one(&findings, "nic.interrupts", Mark::Note, &["interrupts of 47 known"]);
    assert_one(&findings, "nic.coverage", Mark::Note, &["not known"]);
}

#[test]
fn rfs_counts_only_with_a_table() {
    let mut host = tuned("i40e-48cpu", "0-47");
    host.nics[0].nic.rx_queues[0].rps_flow_cnt = Some(4096);
    let name: tune::host::SysctlName = RFS_TABLE.parse().unwrap();
    host.sysctls.insert(name.clone(), name.parse_value("0"));
    assert!(of(&judged(0..48, host.clone()), "nic.rfs").is_empty());
    host.sysctls.insert(name.clone(), name.parse_value("32768"));
    assert_one(&judged(0..48, host), "nic.rfs", Mark::Note, &["1 receive queue", "rps_flow_cnt"]);
}

#[test]
fn cores_on_another_node_than_the_interface_are_worth_a_note() {
    let host = tuned("mlx5-48cpu", "0-47");
    let near: CpuSet =
        host.topology.cpus.iter().filter(|place| place.node == Some(0)).map(|place| place.cpu).collect();
    let words = ["NUMA node 0".to_owned(), format!("--cores {near}")];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_one(&judged(0..48, host.clone()), "nic.numa", Mark::Note, &words);
    let config = Config { cores: Cores::List(near.iter().collect()), ..Config::default() };
    assert!(of(&judged_with(&config, host), "nic.numa").is_empty());
}

#[test]
fn a_virtual_interface_has_no_interrupts_and_its_own_profile() {
    let mut host = captured("virtio-2cpu");
    host.nics[0].nic.device = None;
    host.nics[0].queue_irqs.rows.clear();
    host.nics[0].irqs.clear();
    let findings = judged(0..2, host.clone());
    assert_one(&findings, "nic.interrupts", Mark::Ok, &["virtual"]);
    assert_one(&findings, "nic.coverage", Mark::Note, &["not known"]);
    host.nics[0].nic.rx_queues[0].rps_cpus = Some("0".parse().unwrap());
    assert_one(&judged(0..2, host), "nic.coverage", Mark::Warning, &["CPU 1", "profiles/lab.toml"]);
}

#[test]
fn loopback_errors_and_irqbalance_are_told() {
    let mut facts = facts();
    facts.nics.loopback = vec!["127.0.0.1:1".parse().unwrap()];
    facts.nics.errors = vec!["eth9 is gone".to_owned()];
    facts.nics.irqbalance = Some(77);
    let findings = judge(&Config::default(), &facts);
    assert_one(&findings, "nic.none", Mark::Ok, &["loopback"]);
    assert_one(&findings, "nic.unknown", Mark::Note, &["eth9"]);
    assert!(of(&findings, "nic.irqbalance").is_empty(), "there are no interrupts to move");
    facts.nics.hosts = vec![captured("virtio-2cpu")];
    assert_one(
        &judge(&Config::default(), &facts),
        "nic.irqbalance",
        Mark::Warning,
        &["pid 77", "systemctl stop"],
    );
}

#[test]
fn the_shipped_profiles_are_understood() {
    assert!(AUTO.profile().is_some() && LAB.profile().is_some());
}
