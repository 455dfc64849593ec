//! The network of the lab: a server behind a NIC with a queue per CPU, and a client.

use std::fs;
use std::net::Ipv4Addr;

use anyhow::Context;
use tune::cpu_set::CpuSet;

use crate::namespace::Namespace;
use crate::settings::Settings;
use crate::veth::{VethEnd, create_veth_pair, spread_flows_over_peer_queues};

/// The server's address: of the block for benchmarks of network devices (RFC 2544).
pub(crate) const SERVER_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 1);
const CLIENT_ADDRESS: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 2);

/// The interface that is tuned.
pub(crate) const NIC: &str = "nic0";

/// Where the profile is for the programs in the server's namespace.
pub(crate) const PROFILE_PATH: &str = "/run/lab.toml";

/// `profiles/lab.toml`, so that the lab does not depend on where it is started.
const PROFILE: &str = include_str!("../../../profiles/lab.toml");

/// Server and client namespace and the CPUs that both use. Dropping it takes everything away.
pub(crate) struct Testbed {
    pub(crate) server: Namespace,
    pub(crate) client: Namespace,
    pub(crate) cpus: CpuSet,
}

impl Testbed {
    /// Makes the namespaces and a veth pair whose server end has one RX and one TX queue for each of `cpus`.
    pub(crate) fn create(cpus: CpuSet) -> anyhow::Result<Self> {
        let (server, client) = (Namespace::create()?, Namespace::create()?);
        let queues = u32::try_from(cpus.len()).context("number of CPUs")?;
        let nic = VethEnd {
            namespace: &server,
            name: NIC,
            address: SERVER_ADDRESS,
            tx_queues: queues,
            rx_queues: queues,
        };
        let wire = VethEnd {
            namespace: &client,
            name: "wire0",
            address: CLIENT_ADDRESS,
            // TX queue t of this end is RX queue t - 1 of the NIC, and TX queue 0 is not used.
            tx_queues: queues + 1,
            rx_queues: queues,
        };
        create_veth_pair(&nic, &wire)?;
        spread_flows_over_peer_queues(&wire, &cpus)?;
        server
            .run(|| fs::write(PROFILE_PATH, PROFILE))?
            .context("write the profile to the namespace's /run")?;
        Ok(Self { server, client, cpus })
    }

    /// What the NIC and the server's network are set to.
    pub(crate) fn settings(&self) -> anyhow::Result<Settings> {
        Settings::read(&self.server, NIC)
    }
}
