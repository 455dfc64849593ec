//! The threads of threaded NAPI: each runs on the CPU of its queue. Pure.

use std::collections::BTreeMap;

use super::placement::Layout;
use super::{Desired, PlanError};
use crate::cpu_set::{Cpu, CpuSet};
use crate::host::{Direction, Napi, NapiFile, NapiId, NicHost};
use crate::profile::{NapiThreadPolicy, Profile};
use crate::setting::{Setting, Value};

/// `rx` and `tx` are the layouts by position in `Nic::rx_queues` and `Nic::tx_queues`.
pub(super) fn plan(
    profile: &Profile,
    host: &NicHost,
    rx: &[Layout],
    tx: &[Layout],
    desired: &mut Desired,
) -> Result<(), PlanError> {
    let nic = &host.nic;
    // `napi.threaded` is written first: with 0 the threads end.
    let threaded = profile.napi.files.get(&NapiFile::Threaded);
    if profile.queues.napi_threads == NapiThreadPolicy::Keep || threaded == Some(&0) {
        return Ok(());
    }
    if !host.netdev.has_threads() {
        if threaded.is_some() && nic.napi.get(&NapiFile::Threaded) == Some(&0) {
            desired.notes.push(format!(
                "napi.threaded makes the threads of {}: apply once more, and each is bound to the CPU of its \
                 queue",
                nic.name
            ));
        }
        return Ok(());
    }
    let cpus = cpus_of_instances(host, rx, tx);
    for napi in &host.netdev.napis {
        let reason = match (&napi.thread, cpus.get(&napi.id)) {
            (Some(_), Some(cpu)) => {
                let own = Value::List(CpuSet::from_iter([*cpu]));
                let setting = Setting::NapiThread(nic.name.clone(), napi.id);
                desired.set(setting, own, format!("the CPU of its queue, {cpu}, polls it in a thread"));
                continue;
            }
            (Some(thread), None) => {
                format!("which queue {} ({}) polls is not known{}", thread.name, thread.pid, because(host))
            }
            (None, _) => match unseen(napi) {
                Some(reason) => reason,
                None => continue,
            },
        };
        desired.cannot(profile.queues.require, format!("queues.napi_threads of {}", nic.name), reason)?;
    }
    Ok(())
}

/// Where the thread of an instance is, if it is not to be seen.
fn unseen(napi: &Napi) -> Option<String> {
    let pid = napi.pid?;
    Some(format!(
        "thread {pid} of NAPI instance {} is gone, or of another PID namespace; run tune in the first one",
        napi.id
    ))
}

fn because(host: &NicHost) -> String {
    host.netdev.unknown.as_ref().map_or_else(
        || ": the driver does not tell which NAPI instance serves a queue".to_owned(),
        |reason| format!(": {reason}"),
    )
}

/// The CPU that the packets of the first queue of each instance belong to, of its RX queues if it has any.
fn cpus_of_instances(host: &NicHost, rx: &[Layout], tx: &[Layout]) -> BTreeMap<NapiId, Cpu> {
    let rx = host.nic.rx_queues.iter().map(|queue| (Direction::Rx, queue.index)).zip(rx);
    let tx = host.nic.tx_queues.iter().map(|queue| (Direction::Tx, queue.index)).zip(tx);
    let mut cpus = BTreeMap::new();
    for ((direction, queue), layout) in rx.chain(tx) {
        if let Some(napi) = host.netdev.of_queue(direction, queue) {
            cpus.entry(napi.id).or_insert(layout.first_of_group());
        }
    }
    cpus
}

#[cfg(test)]
mod tests {
    use super::super::plan;
    use crate::host::fixture::nic_host;
    use crate::host::netdev::NetdevQueue;
    use crate::host::{Direction, Host, Napi, NapiFile, NapiId, NapiThread, QueueIndex};
    use crate::profile::Profile;
    use crate::setting::Setting;

    /// Two CPUs and two queues, polled by threads 900 and 901.
    fn threaded() -> Host {
        let mut host = nic_host(2, 2);
        for queue in 0..2 {
            let id = NapiId(513 + queue);
            for direction in [Direction::Rx, Direction::Tx] {
                host.nics[0].netdev.queues.push(NetdevQueue {
                    direction,
                    index: QueueIndex(queue),
                    napi: Some(id),
                });
            }
            let name = format!("napi/eth0-{id}");
            let thread = Some(NapiThread { pid: 900 + queue, name, cpus: "0-1".parse().unwrap() });
            host.nics[0].netdev.napis.push(Napi { id, irq: None, pid: Some(900 + queue), thread });
        }
        host
    }

    /// The planned CPUs of threads, and what is skipped.
    fn planned(host: &Host, profile: &str) -> (Vec<(u32, String)>, Vec<String>) {
        let profile = format!("irqbalance = \"coexist\"\n{profile}");
        let desired = plan(&Profile::parse(&profile, "p").unwrap(), host).unwrap();
        let threads = desired.settings.iter().filter_map(|(setting, value)| match setting {
            Setting::NapiThread(_, id) => Some((id.0, value.to_string())),
            _ => None,
        });
        let skipped = desired.skipped.iter().map(|skipped| format!("{}: {}", skipped.wish, skipped.reason));
        (threads.collect(), skipped.collect())
    }

    #[test]
    fn a_thread_runs_on_the_cpu_of_its_queue() {
        let host = threaded();
        assert_eq!(planned(&host, "").0, [(513, "0".to_owned()), (514, "1".to_owned())]);
        assert_eq!(planned(&host, "[queues]\nnapi_threads = \"keep\""), (vec![], vec![]));
        assert_eq!(planned(&nic_host(2, 2), ""), (vec![], vec![]));
    }

    #[test]
    fn threads_that_the_profile_ends_are_not_bound_and_those_that_it_makes_are_announced() {
        let mut host = threaded();
        host.nics[0].nic.napi.insert(NapiFile::Threaded, 1);
        assert_eq!(planned(&host, "[napi]\nthreaded = false").0, []);
        assert_eq!(planned(&host, "[napi]\nthreaded = true").0.len(), 2);
        let mut host = nic_host(2, 2);
        host.nics[0].nic.napi.insert(NapiFile::Threaded, 0);
        let notes = |profile: &str| plan(&Profile::parse(profile, "p").unwrap(), &host).unwrap().notes;
        assert!(notes("[napi]\nthreaded = true")[0].contains("of eth0: apply once more"));
        assert_eq!(notes("[napi]\nthreaded = false"), [""; 0]);
        assert_eq!(notes(""), [""; 0]);
    }

    #[test]
    fn a_thread_that_is_gone_or_polls_who_knows_what_is_skipped_and_said() {
        let mut host = threaded();
        host.nics[0].netdev.napis[1].thread = None;
        let (threads, skipped) = planned(&host, "");
        assert_eq!(threads, [(513, "0".to_owned())]);
        assert!(
            skipped[0].starts_with("queues.napi_threads of eth0: thread 901 of NAPI instance 514 is gone")
        );

        let mut host = threaded();
        host.nics[0].netdev.queues.clear();
        let (threads, skipped) = planned(&host, "");
        assert_eq!((threads.len(), skipped.len()), (0, 2));
        assert!(skipped[0].contains("which queue napi/eth0-513 (900) polls is not known"), "{}", skipped[0]);
    }
}
