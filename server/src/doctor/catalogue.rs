//! Every feature of io_uring that the doctor knows: which Linux brought it, why it matters, who uses it.
//! Pure.

use super::finding::{FeatureFinding, FeatureState, Finding, Group, Mark};
use crate::config::{AcceptModel, Config, Feature};
use crate::worker::Capability;

/// What the server, as configured, wants of a feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    /// It does not start without.
    Required,
    /// It uses it, and has another way.
    Used,
    /// An option of the configuration asks for it, and there is another way.
    Asked,
    /// It has no use for it.
    None,
}

/// A feature.
struct Entry {
    capability: Capability,
    /// Stable name in the JSON.
    check: &'static str,
    name: &'static str,
    since: &'static str,
    why: &'static str,
    instead: &'static str,
    wish: fn(&Config) -> Wish,
    /// `--without` has this name for it.
    switch: Option<Feature>,
}

/// Without it the server does not start.
const NOTHING: &str = "does not start";
/// Nothing is lost.
const NOT_NEEDED: &str = "does not use it";

const fn entry(
    capability: Capability,
    [check, name, since]: [&'static str; 3],
    [why, instead]: [&'static str; 2],
    wish: fn(&Config) -> Wish,
) -> Entry {
    let switch = match capability {
        Capability::DirectDescriptors => Some(Feature::DirectDescriptors),
        Capability::ReceiveCredit => Some(Feature::ReceiveCredit),
        Capability::Splice => Some(Feature::Splice),
        _ => None,
    };
    Entry { capability, check, name, since, why, instead, wish, switch }
}

fn required(_: &Config) -> Wish {
    Wish::Required
}

fn used(_: &Config) -> Wish {
    Wish::Used
}

fn unused(_: &Config) -> Wish {
    Wish::None
}

fn with(asked: bool, wish: Wish) -> Wish {
    if asked { wish } else { Wish::None }
}

const ENTRIES: [Entry; 20] = [
    entry(
        Capability::DeferTaskrun,
        ["feature.defer_taskrun", "DEFER_TASKRUN", "6.1"],
        ["completions are run when the worker asks for them, not in the middle of its work", NOTHING],
        required,
    ),
    entry(
        Capability::MultishotAccept,
        ["feature.multishot_accept", "multishot accept", "5.19"],
        ["one request accepts connection after connection", NOTHING],
        |config| with(!config.udp, Wish::Required),
    ),
    entry(
        Capability::MultishotReceive,
        ["feature.multishot_receive", "multishot receive", "6.0"],
        ["one request receives again and again, so that an echo costs no request to receive", NOTHING],
        |config| with(!config.udp, Wish::Required),
    ),
    entry(
        Capability::BufferRing,
        ["feature.buffer_ring", "buffer ring", "5.19"],
        ["connections share buffers, and an idle one has none", NOTHING],
        required,
    ),
    entry(
        Capability::CqeSkip,
        ["feature.cqe_skip", "sends without completion", "5.17"],
        ["a send that went well costs no completion", NOTHING],
        required,
    ),
    entry(
        Capability::RingDescriptor,
        ["feature.ring_descriptor", "registered ring", "5.18"],
        ["io_uring_enter does not look the ring's descriptor up each time", NOTHING],
        required,
    ),
    entry(
        Capability::DirectDescriptors,
        ["feature.direct_descriptors", "direct descriptors", "6.13"],
        [
            "accepting and closing take no lock that the cores share",
            "has connections in the process's table of open files",
        ],
        |config| with(!config.udp, Wish::Used),
    ),
    entry(
        Capability::SocketCommands,
        ["feature.socket_commands", "socket commands", "6.7"],
        [
            "options of direct descriptors, such as the CPU of the last segment, can be read",
            "reads them by system call, of plain descriptors",
        ],
        |config| with(!config.udp && !config.without.contains(&Feature::DirectDescriptors), Wish::Used),
    ),
    entry(
        Capability::ReceiveCredit,
        ["feature.receive_credit", "receive credit", "6.17"],
        [
            "a peer that does not read can have no more than 256 KiB on its way in",
            "cancels the receive of a peer that does not read, when it notices",
        ],
        |config| with(!config.udp, Wish::Used),
    ),
    entry(
        Capability::Splice,
        ["feature.splice", "splice", "2.6.25"],
        ["messages larger than a buffer are echoed without being copied", "copies them"],
        |config| with(config.splices(), Wish::Used),
    ),
    entry(
        Capability::NoIowait,
        ["feature.no_iowait", "no iowait", "6.15"],
        [
            "a core that waits for the network does not count as waiting for a disk",
            "shows idle cores as iowait in top and /proc/pressure",
        ],
        used,
    ),
    entry(
        Capability::Messages,
        ["feature.messages", "messages between rings", "5.18"],
        ["with --accept single the accepting core wakes the others through their rings", NOTHING],
        |config| with(config.accept == AcceptModel::Single, Wish::Required),
    ),
    entry(
        Capability::MessageDescriptor,
        ["feature.message_descriptor", "descriptors in messages", "6.0"],
        ["with --accept single a direct descriptor goes from ring to ring", "hands plain descriptors over"],
        |config| with(config.accept == AcceptModel::Single, Wish::Asked),
    ),
    entry(
        Capability::FastMessages,
        ["feature.fast_messages", "fast messages", "6.11"],
        [
            "with --accept single a message costs the other core one wake-up, not two",
            "sends messages the slower way",
        ],
        |config| with(config.accept == AcceptModel::Single, Wish::Used),
    ),
    entry(
        Capability::ZeroCopySend,
        ["feature.zero_copy_send", "zero-copy send", "6.1"],
        ["with --zerocopy-threshold large sends are not copied", "copies what it sends"],
        |config| with(config.zerocopy_threshold.is_some(), Wish::Asked),
    ),
    entry(
        Capability::MultishotReceiveMessage,
        ["feature.multishot_receive_message", "multishot recvmsg", "6.0"],
        ["with --udp one request receives datagram after datagram", NOTHING],
        |config| with(config.udp, Wish::Required),
    ),
    entry(
        Capability::Napi,
        ["feature.napi", "NAPI busy polling", "6.9"],
        ["with --busy-poll a waiting ring polls the NIC itself", "sleeps until the interrupt"],
        |config| with(!config.busy_poll.is_zero(), Wish::Asked),
    ),
    entry(
        Capability::MinWait,
        ["feature.min_wait", "minimum wait", "6.12"],
        ["a worker could wait for a batch of completions", NOT_NEEDED],
        unused,
    ),
    entry(
        Capability::NoSqArray,
        ["feature.no_sqarray", "no SQ array", "6.6"],
        ["a submission could spare one look-up", NOT_NEEDED],
        unused,
    ),
    entry(
        Capability::CqeMixed,
        ["feature.cqe_mixed", "mixed completion sizes", "6.18"],
        ["completions with extra data could share a ring with plain ones", NOT_NEEDED],
        unused,
    ),
];

/// The finding of every feature, in the order of their weight.
pub(super) fn features(config: &Config, has: impl Fn(Capability) -> bool) -> Vec<Finding> {
    ENTRIES.iter().map(|entry| finding(entry, config, has(entry.capability))).collect()
}

fn finding(entry: &Entry, config: &Config, is_there: bool) -> Finding {
    let Entry { check, name, since, why, instead, .. } = *entry;
    let wish = (entry.wish)(config);
    let is_off = entry.switch.is_some_and(|switch| config.without.contains(&switch));
    let (state, mark, says) = match (is_there, is_off, wish) {
        (true, true, _) => {
            let says = format!("switched off by --without: the server {instead}; with it, {why}");
            (FeatureState::SwitchedOff, Mark::Note, says)
        }
        (true, false, Wish::None) => (FeatureState::Available, Mark::Ok, format!("there, not used: {why}")),
        (true, false, _) => (FeatureState::Used, Mark::Ok, format!("used: {why}")),
        (false, _, _) => {
            let mark = match wish {
                Wish::Required => Mark::Problem,
                Wish::Asked => Mark::Warning,
                Wish::Used => Mark::Note,
                Wish::None => Mark::Ok,
            };
            (FeatureState::Absent, mark, format!("absent: the server {instead}; with it, {why}"))
        }
    };
    let finding = Finding::new(Group::Features, check, mark, format!("{name} ({since})"), says);
    let finding = if matches!(mark, Mark::Warning | Mark::Problem) {
        finding.next(format!("a kernel that has it: Linux {since} or later"))
    } else {
        finding
    };
    Finding { feature: Some(FeatureFinding { state, since, why, instead }), ..finding }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;

    fn of(config: &Config, has: bool, capability: Capability) -> Finding {
        let position = ENTRIES.iter().position(|entry| entry.capability == capability).unwrap();
        features(config, |_| has).swap_remove(position)
    }

    fn state(finding: &Finding) -> (FeatureState, Mark) {
        (finding.feature.as_ref().unwrap().state, finding.mark)
    }

    #[test]
    fn every_feature_is_told_once() {
        let capabilities: BTreeSet<Capability> = ENTRIES.iter().map(|entry| entry.capability).collect();
        let checks: BTreeSet<&str> = ENTRIES.iter().map(|entry| entry.check).collect();
        assert_eq!((capabilities.len(), checks.len()), (ENTRIES.len(), ENTRIES.len()));
    }

    #[test]
    fn with_everything_there_nothing_is_wrong() {
        assert!(features(&Config::default(), |_| true).iter().all(|finding| finding.mark == Mark::Ok));
    }

    #[test]
    fn what_is_absent_weighs_as_much_as_it_is_wanted() {
        let config = Config::default();
        let absent = |config: &Config, capability| state(&of(config, false, capability));
        assert_eq!(absent(&config, Capability::BufferRing), (FeatureState::Absent, Mark::Problem));
        assert_eq!(absent(&config, Capability::DirectDescriptors), (FeatureState::Absent, Mark::Note));
        assert_eq!(absent(&config, Capability::CqeMixed), (FeatureState::Absent, Mark::Ok));
        assert_eq!(absent(&config, Capability::Messages), (FeatureState::Absent, Mark::Ok));
        let config = Config {
            accept: AcceptModel::Single,
            zerocopy_threshold: Some(1),
            busy_poll: Duration::from_micros(50),
            udp: true,
            ..config
        };
        assert_eq!(absent(&config, Capability::Messages), (FeatureState::Absent, Mark::Problem));
        assert_eq!(absent(&config, Capability::ZeroCopySend), (FeatureState::Absent, Mark::Warning));
        assert_eq!(absent(&config, Capability::Napi), (FeatureState::Absent, Mark::Warning));
        assert_eq!(absent(&config, Capability::MultishotReceiveMessage).1, Mark::Problem);
        assert_eq!(absent(&config, Capability::MultishotReceive).1, Mark::Ok, "datagrams need no recv");
        assert_eq!(absent(&config, Capability::MultishotAccept).1, Mark::Ok, "nor an accept");
    }

    #[test]
    fn what_is_switched_off_says_so_and_what_the_server_does_instead() {
        let config = Config { without: vec![Feature::DirectDescriptors], ..Config::default() };
        let finding = of(&config, true, Capability::DirectDescriptors);
        assert_eq!(state(&finding), (FeatureState::SwitchedOff, Mark::Note));
        assert!(
            finding.says.contains("--without") && finding.says.contains("table of open files"),
            "{finding:?}"
        );
        assert_eq!(state(&of(&config, false, Capability::DirectDescriptors)).0, FeatureState::Absent);
        assert_eq!(state(&of(&config, true, Capability::ReceiveCredit)).0, FeatureState::Used);
        assert_eq!(state(&of(&config, true, Capability::MinWait)).0, FeatureState::Available);
    }
}
