//! Which CPUs the workers have, and which of them the queues of an interface are laid on. Pure.

use super::{Desired, PlanError};
use crate::cpu_set::CpuSet;
use crate::host::{Nic, NicHost, Topology};
use crate::profile::{CpuChoice, Placement};

/// The CPUs of the workers. `online` is what is online, allowed, and not isolated; a list must be online, and
/// may name isolated CPUs and such as are not allowed to this process, since a server may be started
/// elsewhere.
pub(super) fn workers(
    choice: &CpuChoice,
    topology: &Topology,
    desired: &mut Desired,
) -> Result<CpuSet, PlanError> {
    match choice {
        CpuChoice::Online => online(topology, desired),
        CpuChoice::List(cpus) => {
            check_online(cpus, topology)?;
            let allowed = topology.allowed.as_ref().unwrap_or(&topology.online);
            // An isolated CPU is never in the mask that a process inherits, and a server may pin threads
            // there.
            let outside = cpus.difference(allowed).difference(&isolated(topology));
            if !outside.is_empty() {
                desired.notes.push(format!(
                    "the workers' CPUs {outside} are outside of {allowed}, the CPUs that this process may \
                     use (cpuset of its cgroup, taskset): a server that is started from here cannot pin its \
                     threads to them"
                ));
            }
            Ok(cpus.clone())
        }
    }
}

fn online(topology: &Topology, desired: &mut Desired) -> Result<CpuSet, PlanError> {
    let online = &topology.online;
    let isolated = isolated(topology);
    let usable = online.difference(&isolated);
    let cpus = match &topology.allowed {
        Some(allowed) => usable.intersection(allowed),
        None => usable.clone(),
    };
    if cpus.is_empty() {
        return Err(PlanError::NoWorkerCpus {
            online: online.clone(),
            isolated,
            allowed: topology.allowed.clone().unwrap_or_else(|| online.clone()),
        });
    }
    if !isolated.is_empty() {
        desired.notes.push(format!(
            "cpus = \"online\" leaves out CPUs {isolated}, which are isolated (isolcpus, nohz_full): a list \
             may name them"
        ));
    }
    let outside = usable.difference(&cpus);
    if !outside.is_empty() {
        desired.notes.push(format!(
            "cpus = \"online\" leaves out CPUs {outside}, which this process may not use (cpuset of its \
             cgroup, taskset)"
        ));
    }
    Ok(cpus)
}

/// The online CPUs that the scheduler or the tick leaves alone.
fn isolated(topology: &Topology) -> CpuSet {
    topology.online.difference(&topology.housekeeping)
}

/// All of them must be online.
fn check_online(cpus: &CpuSet, topology: &Topology) -> Result<(), PlanError> {
    let missing = cpus.difference(&topology.online);
    if missing.is_empty() {
        return Ok(());
    }
    Err(PlanError::MissingCpus { asked: cpus.clone(), missing, online: topology.online.clone() })
}

/// The CPUs that have the interrupts and the packet processing of an interface.
pub(super) fn of_interface(
    placement: &Placement,
    on: &NicHost,
    topology: &Topology,
    workers: &CpuSet,
) -> Result<CpuSet, PlanError> {
    match placement {
        Placement::OnePerCore | Placement::Spread => Ok(workers.clone()),
        Placement::NumaLocal => numa_local(on, topology, workers),
        Placement::Pack(cpus) => {
            let missing = cpus.difference(&topology.online);
            if !missing.is_empty() {
                let online = topology.online.clone();
                return Err(PlanError::PackedOffline { asked: cpus.clone(), missing, online });
            }
            Ok(cpus.clone())
        }
    }
}

fn numa_local(on: &NicHost, topology: &Topology, workers: &CpuSet) -> Result<CpuSet, PlanError> {
    let interface = on.nic.name.clone();
    let near = on.numa_nodes();
    if near.is_empty() {
        let nodes = topology.distances.len();
        if nodes > 1 {
            return Err(PlanError::UnknownNode { interface, nodes });
        }
        return Ok(workers.clone());
    }
    let local = workers.intersection(&on.near_cpus(topology));
    if local.is_empty() {
        return Err(PlanError::NoLocalCpus { interface, nodes: nodes_of(on), workers: workers.clone() });
    }
    Ok(local)
}

/// The numbers of its nodes; several where it stands on several PCI functions.
fn nodes_of(on: &NicHost) -> String {
    let nodes: Vec<String> = on.numa_nodes().iter().map(ToString::to_string).collect();
    nodes.join(", ")
}

/// Says where every worker is on another node than the interface.
pub(super) fn note_foreign_node(on: &NicHost, topology: &Topology, workers: &CpuSet, desired: &mut Desired) {
    let near = on.near_cpus(topology);
    if !near.is_empty() && near.intersection(workers).is_empty() {
        desired.notes.push(format!(
            "{} is on NUMA node {} (CPUs {near}), and none of the workers' CPUs {workers} is: all that it \
             receives is read from the memory of another node; name CPUs there with --cpus",
            on.nic.name,
            nodes_of(on)
        ));
    }
}

/// Says which workers no packet reaches.
pub(super) fn note_unreached(
    placement: &Placement,
    nic: &Nic,
    workers: &CpuSet,
    cpus: &CpuSet,
    desired: &mut Desired,
) {
    let unreached = workers.difference(cpus);
    if !unreached.is_empty() {
        let policy = if matches!(placement, Placement::Pack(_)) { "{ pack }" } else { "\"numa-local\"" };
        desired.notes.push(format!(
            "queues.placement = {policy}: the packets of {} are processed on CPUs {cpus} only; those of the \
             workers beside them, {unreached}, get connections from it only where listeners are not chosen \
             by CPU",
            nic.name
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Host;
    use crate::host::fixture::{nic_host, veth_host};

    fn set(text: &str) -> CpuSet {
        text.parse().unwrap()
    }

    /// The CPUs of the interface, and what is said of the others.
    fn reached(placement: &Placement, host: &Host, workers: &str) -> Result<(CpuSet, Vec<String>), String> {
        let (on, workers) = (&host.nics[0], set(workers));
        let cpus =
            of_interface(placement, on, &host.topology, &workers).map_err(|error| error.to_string())?;
        let mut desired = Desired::default();
        note_unreached(placement, &on.nic, &workers, &cpus, &mut desired);
        Ok((cpus, desired.notes))
    }

    fn workers_of(choice: &str, topology: &Topology) -> (Result<CpuSet, String>, Vec<String>) {
        let mut desired = Desired::default();
        let cpus = workers(&choice.parse().unwrap(), topology, &mut desired);
        (cpus.map_err(|error| error.to_string()), desired.notes)
    }

    #[test]
    fn online_is_what_is_allowed_and_not_isolated() {
        let mut topology = veth_host(8, 1).topology;
        assert_eq!(workers_of("online", &topology), (Ok(set("0-7")), vec![]));
        topology.allowed = Some(set("0-5"));
        topology.isolated = set("4-5");
        topology.housekeeping = set("0-3,6-7");
        let (cpus, notes) = workers_of("online", &topology);
        assert_eq!((cpus, notes.len()), (Ok(set("0-3")), 2));
        assert!(notes[0].contains("leaves out CPUs 4-5, which are isolated"), "{notes:?}");
        assert!(notes[1].contains("leaves out CPUs 6-7, which this process may not use"), "{notes:?}");
        topology.allowed = Some(set("4-5"));
        let error = workers_of("online", &topology).0.unwrap_err();
        assert!(error.contains("online are 0-7, isolated 4-5, allowed 4-5"), "{error}");
    }

    #[test]
    fn a_list_may_name_isolated_cpus_and_is_told_of_those_that_are_not_allowed() {
        let mut topology = veth_host(8, 1).topology;
        topology.housekeeping = set("0-3");
        topology.allowed = Some(set("0-3"));
        assert_eq!(workers_of("2-5", &topology), (Ok(set("2-5")), vec![]));
        topology.housekeeping = set("0-4");
        let (cpus, notes) = workers_of("2-5", &topology);
        assert_eq!(cpus, Ok(set("2-5")));
        assert!(notes[0].starts_with("the workers' CPUs 4 are outside of 0-3, "), "{notes:?}");
        assert!(workers_of("2-9", &topology).0.unwrap_err().contains("8-9 missing"));
        topology.allowed = None;
        assert_eq!(workers_of("2-5", &topology).1, [""; 0], "unknown is no reason to warn");
    }

    #[test]
    fn numa_local_needs_a_node_and_cpus_on_it() {
        let mut host = nic_host(4, 2);
        for place in &mut host.topology.cpus {
            place.node = Some(place.cpu / 2);
        }
        host.topology.distances = [(0, vec![10, 20]), (1, vec![20, 10])].into();
        let local = |host: &Host, workers: &str| reached(&Placement::NumaLocal, host, workers);
        let error = local(&host, "0-3").unwrap_err();
        assert!(error.contains("the NUMA node of eth0 is not known") && error.contains("2 nodes"), "{error}");
        host.nics[0].nic.numa_node = Some(1);
        let (cpus, notes) = local(&host, "0-3").unwrap();
        assert_eq!(cpus, set("2-3"));
        assert!(notes[0].contains("processed on CPUs 2-3 only") && notes[0].contains("0-1"), "{notes:?}");
        assert_eq!(local(&host, "3"), Ok((set("3"), vec![])));
        let error = local(&host, "0-1").unwrap_err();
        assert!(error.contains("none of the workers' CPUs 0-1 is on node 1"), "{error}");
        let foreign = |host: &Host, workers: &str| {
            let mut desired = Desired::default();
            note_foreign_node(&host.nics[0], &host.topology, &set(workers), &mut desired);
            desired.notes
        };
        let notes = foreign(&host, "0-1");
        assert!(
            notes[0].starts_with("eth0 is on NUMA node 1 (CPUs 2-3), and none of the workers' CPUs 0-1 is")
        );
        assert_eq!(foreign(&host, "1-2"), [""; 0]);
        host.nics[0].nic.numa_node = Some(7);
        assert_eq!(foreign(&host, "0-1"), [""; 0], "a node without CPUs");
        host.topology.distances = [(0, vec![10])].into();
        host.nics[0].nic.numa_node = None;
        assert_eq!(foreign(&host, "0-1"), [""; 0], "an unknown node");
        assert_eq!(local(&host, "0-3"), Ok((set("0-3"), vec![])), "one node is the NIC's");
    }

    #[test]
    fn packed_cpus_must_be_online_and_need_not_be_the_workers() {
        let host = nic_host(4, 2);
        let pack = |cpus: &str, workers: &str| {
            let reached = reached(&Placement::Pack(set(cpus)), &host, workers);
            reached.map(|(cpus, notes)| (cpus, notes.len()))
        };
        assert_eq!(pack("0", "1-3"), Ok((set("0"), 1)));
        assert_eq!(pack("0-3", "1-3"), Ok((set("0-3"), 0)));
        assert!(pack("3-4", "1-3").unwrap_err().contains("CPUs 3-4 are not all online: 4 missing"));
    }
}
