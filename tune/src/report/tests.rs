use super::*;
use crate::host::fixture::{nic_host, veth_host};

fn text(report: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    report(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn applied() -> Applied {
    let host = nic_host(2, 1);
    let before = crate::setting::Value::List("0-1".parse().unwrap());
    let after = crate::setting::Value::List("0".parse().unwrap());
    let setting = crate::setting::Setting::IrqAffinity(crate::host::Irq(40));
    let (affinity, effective) = ("0".parse().unwrap(), "1".parse().unwrap());
    Applied {
        interfaces: host.interfaces(),
        changes: vec![Change { setting, before, after }],
        pending: vec![PendingMove { irq: crate::host::Irq(40), affinity, effective }],
        skipped: Vec::new(),
        notes: Vec::new(),
        kept: vec![Kept {
            name: "net.ipv4.tcp_rmem".parse().unwrap(),
            value: crate::setting::Value::from_sysctl("4096 131072 33554432"),
            asked: crate::setting::Value::from_sysctl("4096 131072 16777216"),
        }],
        replaced_journal: false,
        failed: Vec::new(),
    }
}

#[test]
fn what_is_kept_is_said_with_the_way_to_lower_it() {
    assert_eq!(
        text(|err| kept(err, Format::Text, &applied().kept)),
        "tune: kept /proc/sys/net/ipv4/tcp_rmem: 4096 131072 33554432: the profile asks for less; \
         write { exact = \"4096 131072 16777216\" } to lower it\n"
    );
    assert_eq!(text(|err| kept(err, Format::Json, &applied().kept)), "");
}

#[test]
fn apply_prints_changes_lagging_interrupts_and_the_way_back() {
    assert_eq!(
        text(|out| apply(out, Format::Text, &applied(), "tune restore")),
        "/proc/irq/40/smp_affinity_list: 0-1 -> 0\n\
         IRQ 40 is set to 0 and still fires on 1; it moves when it fires next\n\
         applied 1 change; \"tune restore\" puts back what was there\n"
    );
    assert_eq!(
        text(|out| apply(out, Format::Json, &applied(), "tune restore")),
        "{\"schema\":1,\"command\":\"apply\",\"interfaces\":[\"eth0\"],\"changes\":[{\"path\":\"/proc/irq/40/smp_affinity_list\",\
         \"before\":\"0-1\",\"after\":\"0\"}],\"kept\":[{\"path\":\"/proc/sys/net/ipv4/tcp_rmem\",\
         \"value\":\"4096 131072 33554432\",\"asked\":\"4096 131072 \
         16777216\"}],\"skipped\":[],\"notes\":[],\"pending\":[{\"irq\":40,\"affinity\":\"0\",\"effective\":\"1\"}],\"failed\":[]}\n"
    );
    let nothing = Applied { changes: Vec::new(), ..applied() };
    assert_eq!(text(|out| apply(out, Format::Text, &nothing, "tune restore")), "nothing to do\n");
}

#[test]
fn restore_says_what_it_did() {
    assert_eq!(text(|out| restore(out, Format::Text, &Restored::default())), "nothing to restore\n");
    let elsewhere = vec!["/run/a/journal.3.json".into(), "/run/a/journal.4.json".into()];
    assert_eq!(
        text(|out| restore(out, Format::Text, &Restored { elsewhere, ..Restored::default() })),
        "nothing to restore in this network namespace; of others there are /run/a/journal.3.json, \
         /run/a/journal.4.json\n"
    );
    let gone = Restored { gone: vec!["/a is gone".into()], unchanged: 2, ..Restored::default() };
    assert_eq!(
        text(|out| restore(out, Format::Text, &gone)),
        "/a is gone\nrestored 0 values, 2 had their old values already\n"
    );
    let one = Restored { unchanged: 1, ..Restored::default() };
    assert_eq!(
        text(|out| restore(out, Format::Text, &one)),
        "restored 0 values, 1 had its old value already\n"
    );
}

#[test]
fn show_has_a_row_for_each_queue() {
    let mut host = nic_host(2, 2);
    host.nics[0].nic.tx_queues[1].xps_cpus = Some("1".parse().unwrap());
    host.nics[0].queue_irqs.doubt = Some("it is doubtful".into());
    assert_eq!(
        text(|out| show(out, Format::Text, &host)),
        "eth0: ixgbe (0000:3b:00.0), NUMA node none, link speed not known, 2 RX queues, 2 TX queues, online \
         CPUs 0-1\n\
         QUEUE  IRQ  SET  EFFECTIVE  NODE  RPS  XPS  KNOWN BY  INTERRUPT\n\
         0      40   0-1  0          -     off  off  msi_irqs  eth0-TxRx-0\n\
         1      41   0-1  1          -     off  1    msi_irqs  eth0-TxRx-1\n\
         its interrupts are not set, since it is doubtful\n"
    );
}

#[test]
fn show_of_a_virtual_interface_says_so() {
    let shown = text(|out| show(out, Format::Text, &veth_host(2, 1)));
    assert!(
        shown.contains("eth0: virtual, NUMA node none, link speed not known, 1 RX queue, 1 TX queue"),
        "{shown}"
    );
    assert!(shown.contains("0      -    -    -          -     off  -    no interrupt  -"), "{shown}");
    let json: serde_json::Value =
        serde_json::from_str(&text(|out| show(out, Format::Json, &veth_host(2, 1)))).unwrap();
    assert_eq!((&json["schema"], &json["interfaces"][0]["driver"]), (&1.into(), &serde_json::Value::Null));
    assert_eq!(json["interfaces"][0]["queues"][0]["rps"], "");
}
