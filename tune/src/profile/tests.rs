use proptest::prelude::*;

use super::*;

fn error(text: &str) -> String {
    Profile::parse(text, "p.toml").unwrap_err().to_string()
}

#[test]
fn every_key() {
    let text = r#"
        interface = "enp1s0"
        cpus = "0-47"
        [queues]
        placement = { pack = "4-5" }
        rps_default = "workers"
        irq = "keep"
        xps = "off"
        rps = "queue-cpu"
        rps_flow_cnt = 0x400
        [sysctl]
        "net.ipv4.tcp_rmem" = "4096 131072 16777216"
        "net.core.somaxconn" = 4096
        "net.ipv4.tcp_migrate_req" = { exact = 1 }
        "net.ipv4.tcp_congestion_control" = { exact = "bbr" }
    "#;
    let profile = Profile::parse(text, "p.toml").unwrap();
    assert_eq!(profile.interface, InterfaceChoice::Named("enp1s0".parse().unwrap()));
    assert_eq!(profile.cpus, CpuChoice::List("0-47".parse().unwrap()));
    let queues = profile.queues;
    assert_eq!(queues.placement, Placement::Pack("4-5".parse().unwrap()));
    assert_eq!(queues.rps_default, RpsDefault::Workers);
    assert_eq!(
        (queues.irq, queues.xps, queues.rps, queues.rps_flow_cnt),
        (IrqPolicy::Keep, XpsPolicy::Off, RpsPolicy::QueueCpu, Some(1024))
    );
    let wishes: Vec<(String, String, bool)> = profile
        .sysctls
        .iter()
        .map(|wish| (wish.name.to_string(), wish.value.to_string(), wish.exact))
        .collect();
    let wish = |name: &str, value: &str, exact| (name.to_owned(), value.to_owned(), exact);
    assert_eq!(
        wishes,
        [
            wish("net.ipv4.tcp_rmem", "4096 131072 16777216", false),
            wish("net.core.somaxconn", "4096", false),
            wish("net.ipv4.tcp_migrate_req", "1", true),
            wish("net.ipv4.tcp_congestion_control", "bbr", true),
        ]
    );
}

#[test]
fn several_interfaces_are_a_list() {
    let profile = Profile::parse("interface = [\"eth0\", \"bond0\"]", "p.toml").unwrap();
    let names = ["eth0", "bond0"].map(|name| name.parse().unwrap());
    assert_eq!(profile.interface, InterfaceChoice::Several(names.into()));
    assert_eq!("eth0,bond0".parse(), Ok(profile.interface));
}

#[test]
fn the_placement_policies() {
    let placement = |text: &str| {
        Profile::parse(&format!("[queues]\nplacement = \"{text}\""), "p").unwrap().queues.placement
    };
    assert_eq!(placement("one-per-core"), Placement::OnePerCore);
    assert_eq!(placement("spread"), Placement::Spread);
    assert_eq!(placement("numa-local"), Placement::NumaLocal);
}

#[test]
fn an_unsigned_number_of_64_bits_is_one() {
    let text = "[sysctl]\n\"kernel.shmmax\" = 18446744073692774399";
    let profile = Profile::parse(text, "p.toml").unwrap();
    assert_eq!(profile.sysctls[0].value, Value::Numbers(vec![18_446_744_073_692_774_399]));
}

#[test]
fn an_empty_profile_is_the_defaults() {
    let profile = Profile::parse("", "p.toml").unwrap();
    assert_eq!((profile.interface, profile.cpus), (InterfaceChoice::Auto, CpuChoice::Online));
    assert_eq!(profile.queues, Queues::default());
}

#[test]
fn refusals_are_one_line_with_place_and_key() {
    for (text, message) in [
        ("[queues]\nirqs = \"keep\"", "p.toml:2:1: queues.irqs: unknown key; known here: placement, irq, "),
        (
            "core = \"0\"",
            "p.toml:1:1: core: unknown key; known here: interface, cpus, irqbalance, queues, cpu, napi, \
             sysctl",
        ),
        ("[cpu]\ngovernor = \"a b\"", "p.toml:2:12: cpu.governor: \"a b\" is no name of a governor"),
        ("[cpu]\ngovernor = \"../online\"", "is no name of a governor, such as performance"),
        ("[cpu]\ngovernor = 1", "p.toml:2:12: cpu.governor: must be a string in quotes"),
        ("[cpu]\nrequire = 1", "p.toml:2:11: cpu.require: must be true or false"),
        ("[napi]\nthreaded = \"yes\"", "p.toml:2:12: napi.threaded: must be true, false or \"keep\""),
        ("[napi]\ngro_flush_timeout = -1", "napi.gro_flush_timeout: must be an integer from 0 to 1000000000"),
        ("[napi]\nnapi_defer_hard_irqs = 1001", "must be an integer from 0 to 1000"),
        (
            "[napi]\ngro_flush_timeout = 0\nnapi_defer_hard_irqs = 2",
            "p.toml:3:24: napi.napi_defer_hard_irqs: has no effect with gro_flush_timeout = 0",
        ),
        ("irqbalance = \"stop\"", "p.toml:1:14: irqbalance: \"stop\" is not one of: coexist, ban"),
        (
            "irqbalance = { ban = true }",
            "p.toml:1:16: irqbalance.ban: unknown key; known here: policy, require",
        ),
        ("irqbalance = { policy = \"ban\", require = 1 }", "irqbalance.require: must be true or false"),
        (
            "[queues]\nplacement = \"one\"",
            "queues.placement: \"one\" is not one of: one-per-core, spread, numa-local, {",
        ),
        ("[queues]\nplacement = {}", "queues.placement: must be one of: one-per-core, spread"),
        ("[queues]\nplacement = { pack = \"\" }", "queues.placement.pack: \"\" names no CPU"),
        ("[queues]\nplacement = { pak = \"0\" }", "queues.placement.pak: unknown key; known here: pack"),
        ("[queues]\nxps = \"rx\"", "queues.xps: \"rx\" is not one of: queue-cpu, rx-queue, off, keep"),
        ("[queues]\nrps_default = \"on\"", "queues.rps_default: \"on\" is not one of: keep, workers, off"),
        ("interface = []", "p.toml:1:13: interface: names no interface"),
        ("interface = [\"eth0\", \"auto\"]", "interface: \"auto\" stands alone, not in a list"),
        ("interface = [\"eth0\", \"a b\"]", "p.toml:1:22: interface: \"a b\" is not an interface name"),
        ("interface = [1]", "interface: must be a string in quotes"),
        ("cpu = \"0\"", "p.toml:1:7: cpu: must be a table: write [cpu]"),
        ("\ncpus = \"5-2\"", "p.toml:2:8: cpus: range 5-2 in \"5-2\" runs backwards; write 2-5"),
        ("cpus = \"0-99999999\"", "p.toml:1:8: cpus: CPU 99999999 in"),
        ("cpus = \"\"", "p.toml:1:8: cpus: \"\" names no CPU"),
        ("cpus = 4", "p.toml:1:8: cpus: must be a string"),
        ("interface = \"../lo\"", "interface: \"../lo\" is not an interface name: it contains '/'"),
        ("queues = 1", "p.toml:1:10: queues: must be a table: write [queues]"),
        ("[queues]\nrps = \"on\"", "queues.rps: \"on\" is not one of: auto, queue-cpu, off, keep"),
        ("[queues]\nrps_flow_cnt = -1", "queues.rps_flow_cnt: must be an integer from 0 to 1048576"),
        ("[queues]\nrps_flow_cnt = 1.5", "queues.rps_flow_cnt: must be an integer"),
        ("[sysctl]\nnet.core.somaxconn = 1", "put a name with dots in quotes"),
        ("[sysctl]\n\"net/../x\" = 1", "sysctl.\"net/../x\": \"net/../x\" is not a sysctl name"),
        ("[sysctl]\n\"net.core.x\" = true", "sysctl.\"net.core.x\": write a number"),
        ("[sysctl]\n\"net.core.x\" = \"bbr\"", "write { exact = \"bbr\" }"),
        ("[sysctl]\n\"net.core.x\" = { exact = 1, min = 2 }", "unknown key; known here: exact"),
        ("[sysctl]\n\"net.core.x\" = 99999999999999999999", "is not a 64-bit number"),
        ("[sysctl]\n\"net.core.x\" = -1", "cannot be raised to; write { exact = -1 }"),
        ("[sysctl]\n\"net.core.x\" = \"1 -1\"", "cannot be raised to; write { exact = \"1 -1\" }"),
        ("[sysctl]\n\"net.core.flow_limit_cpu_bitmap\" = { exact = \"3\" }", "is a CPU mask"),
        ("[sysctl]\n\"net.ipv4.ping_group_range\" = \"0 10\"", "write { exact = \"0 10\" }"),
        ("interface = \"a\"\ninterface = \"b\"", "p.toml:2:1: not TOML: duplicate key"),
        ("{\"json\": true}", "p.toml:1:1: not TOML: "),
        ("#!/bin/sh\necho \"hello\nworld\n", "p.toml:2:"),
    ] {
        let error = error(text);
        assert!(error.contains(message), "{text:?}: {error}");
        assert!(error.starts_with("p.toml:") && !error.contains('\n'), "{error}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic(text in "(\\[(queues|sysctl)\\]\n\
                                               )?([a-z\"._]{0,12} ?= ?[-\"0-9a-z{}= ]{0,12}\n\
                                               ){0,4}\\PC{0,8}") {
        if let Err(error) = Profile::parse(&text, "p.toml") {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
