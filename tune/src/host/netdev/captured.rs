//! `corelocal/netdev.json` of a captured tree. Its keys are those of the kernel's
//! `Documentation/netlink/specs/netdev.yaml`.
//!
//! ```json
//! {
//!   "schema": 1,
//!   "interfaces": {
//!     "eth0": {
//!       "queues": [{ "type": "rx", "id": 0, "napi-id": 513 }, { "type": "tx", "id": 0, "napi-id": 513 }],
//!       "napis": [{ "id": 513, "irq": 120, "pid": 881 }]
//!     }
//!   },
//!   "threads": [{ "pid": 881, "name": "napi/eth0-513", "cpus": "0-47" }]
//! }
//! ```

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Direction, Napi, NapiId, NapiThread, Netdev, NetdevQueue};
use crate::cpu_set::CpuSet;
use crate::host::{HostError, InterfaceName, Irq, QueueIndex};
use crate::kernel_files::KernelFiles;

/// Where it lies below the root.
pub(super) const PATH: &str = "/corelocal/netdev.json";

const SCHEMA: u32 = 1;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CapturedNetdev {
    pub(super) schema: u32,
    /// By name. An interface that is not here is one of which the kernel said nothing.
    #[serde(default)]
    pub(super) interfaces: BTreeMap<String, CapturedInterface>,
    /// The threads that poll NAPI instances, of whatever interface.
    #[serde(default)]
    pub(super) threads: Vec<CapturedThread>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CapturedInterface {
    pub(super) queues: Vec<CapturedQueue>,
    pub(super) napis: Vec<CapturedNapi>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct CapturedQueue {
    #[serde(rename = "type")]
    direction: Direction,
    id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    napi_id: Option<NapiId>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CapturedNapi {
    id: NapiId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    irq: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pid: Option<u32>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct CapturedThread {
    pub(super) pid: u32,
    /// `comm` of the thread.
    pub(super) name: String,
    /// The CPUs on which it may run, as a list.
    pub(super) cpus: String,
}

impl From<&NetdevQueue> for CapturedQueue {
    fn from(queue: &NetdevQueue) -> Self {
        Self { direction: queue.direction, id: queue.index.0, napi_id: queue.napi }
    }
}

impl From<&Napi> for CapturedNapi {
    fn from(napi: &Napi) -> Self {
        Self { id: napi.id, irq: napi.irq.map(|irq| irq.0), pid: napi.pid }
    }
}

impl From<&NapiThread> for CapturedThread {
    fn from(thread: &NapiThread) -> Self {
        Self { pid: thread.pid, name: thread.name.clone(), cpus: thread.cpus.to_string() }
    }
}

/// Reads what was captured of one interface.
pub(super) fn read(files: &KernelFiles, name: &InterfaceName) -> Result<Netdev, HostError> {
    let Some(mut captured) = read_file(files)? else {
        return Ok(unknown(format!("the captured tree has no {}", &PATH[1..])));
    };
    Ok(match captured.interfaces.remove(name.as_str()) {
        None => unknown(format!("{} of the captured tree says nothing of {name}", &PATH[1..])),
        Some(interface) => Netdev::from(interface),
    })
}

/// The whole file; `None` if there is none.
pub(super) fn read_file(files: &KernelFiles) -> Result<Option<CapturedNetdev>, HostError> {
    super::super::read_optional_as(files, PATH, parse)
}

fn unknown(reason: String) -> Netdev {
    Netdev { unknown: Some(reason), ..Netdev::default() }
}

pub(super) fn parse(text: &str) -> Result<CapturedNetdev, String> {
    let captured: CapturedNetdev = serde_json::from_str(text).map_err(|error| error.to_string())?;
    if captured.schema != SCHEMA {
        return Err(format!("its schema is {}, and this tune reads {SCHEMA}", captured.schema));
    }
    for thread in &captured.threads {
        CpuSet::parse_list(&thread.cpus).map_err(|error| format!("thread {}: {error}", thread.pid))?;
    }
    Ok(captured)
}

impl From<CapturedInterface> for Netdev {
    fn from(captured: CapturedInterface) -> Self {
        let queue = |queue: CapturedQueue| NetdevQueue {
            direction: queue.direction,
            index: QueueIndex(queue.id),
            napi: queue.napi_id,
        };
        let napi =
            |napi: CapturedNapi| Napi { id: napi.id, irq: napi.irq.map(Irq), pid: napi.pid, thread: None };
        Self {
            queues: captured.queues.into_iter().map(queue).collect(),
            napis: captured.napis.into_iter().map(napi).collect(),
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"{
        "schema": 1,
        "interfaces": { "eth0": {
            "queues": [{ "type": "rx", "id": 0, "napi-id": 513 }, { "type": "tx", "id": 0 }],
            "napis": [{ "id": 513, "irq": 120, "pid": 881 }, { "id": 514 }]
        } },
        "threads": [{ "pid": 881, "name": "napi/eth0-513", "cpus": "0-47" }]
    }"#;

    #[test]
    fn what_is_not_there_is_unknown() {
        let captured = parse(FILE).unwrap();
        let netdev = Netdev::from(captured.interfaces.into_values().next().unwrap());
        let rx = netdev.of_queue(Direction::Rx, QueueIndex(0)).unwrap();
        assert_eq!((rx.id, rx.irq, rx.pid), (NapiId(513), Some(Irq(120)), Some(881)));
        assert_eq!(netdev.of_queue(Direction::Tx, QueueIndex(0)), None);
        assert_eq!(netdev.napi(NapiId(514)).unwrap().irq, None);
    }

    #[test]
    fn another_form_is_refused_with_what_is_wrong() {
        for (text, reason) in [
            (FILE.replace("\"schema\": 1", "\"schema\": 2"), "its schema is 2"),
            (FILE.replace("\"rx\"", "\"xx\""), "unknown variant `xx`"),
            (FILE.replace("0-47", "0-"), "thread 881: "),
            (FILE.replace("napi-id", "napi"), "unknown field `napi`"),
            (FILE.replace("120", "-1"), "invalid value"),
            (String::new(), "EOF"),
        ] {
            let error = parse(&text).unwrap_err();
            assert!(error.contains(reason), "{reason}: {error}");
        }
    }

    #[test]
    fn it_is_written_as_it_is_read() {
        let captured = parse(FILE).unwrap();
        let again = serde_json::to_string(&captured).unwrap();
        assert_eq!(serde_json::to_string(&parse(&again).unwrap()).unwrap(), again);
    }
}
