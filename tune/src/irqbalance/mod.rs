//! irqbalance, which would move the interrupts again: which it leaves alone, and asking it to leave more
//! alone.
//!
//! It is told, not stopped: `settings ban irqs` on its socket holds until it ends, needs no restart and
//! touches no configuration. The message replaces the whole list, so what is banned already is read first and
//! sent along. A captured tree has the same in `corelocal/irqbalance.json`:
//! `{"daemons":[{"pid":812,"banned_irqs":[24]}]}`, or `{"unknown":"the reason"}`.

pub mod message;
mod socket;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::host::Irq;
use crate::kernel_files::{KernelFileError, KernelFiles};
use message::Additions;
use socket::Socket;
pub(crate) use socket::process;

/// Where a captured tree has it.
const TREE: &str = "/corelocal/irqbalance.json";

/// What is known of irqbalance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Irqbalance {
    /// It does not run.
    Absent,
    /// Whether it runs, or what it leaves alone, is not known; the reason.
    Unknown(String),
    /// These run; never empty, and seldom more than one.
    Running(Vec<Daemon>),
}

/// A running irqbalance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Daemon {
    /// Its process.
    pub pid: u32,
    /// The interrupts that it leaves alone because it was told to, by its command line or on its socket. (It
    /// has further reasons of its own, which its socket does not say.)
    pub banned_irqs: BTreeSet<Irq>,
}

/// The form of the tree's file.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Tree {
    /// Those that ran.
    Daemons(Vec<Daemon>),
    /// Why nobody knew.
    Unknown(String),
}

impl Irqbalance {
    /// Asks every irqbalance that runs, or reads the tree's file.
    #[must_use]
    pub fn read(files: &KernelFiles) -> Self {
        ask(files).unwrap_or_else(|error| Self::Unknown(error.to_string()))
    }

    /// The same for a captured tree: path and text.
    #[must_use]
    pub fn captured(self) -> (String, String) {
        let tree = match self {
            Self::Absent => Tree::Daemons(Vec::new()),
            Self::Running(daemons) => Tree::Daemons(daemons),
            Self::Unknown(reason) => Tree::Unknown(reason),
        };
        (TREE.to_owned(), serde_json::to_string(&tree).expect("numbers and a text") + "\n")
    }

    /// The interrupts that every running irqbalance leaves alone; `None` if none runs or that is not known.
    #[must_use]
    pub fn banned(&self) -> Option<BTreeSet<Irq>> {
        let Self::Running(daemons) = self else { return None };
        daemons.iter().map(|daemon| daemon.banned_irqs.clone()).reduce(|all, more| &all & &more)
    }
}

/// Why irqbalance could not be asked or told. `Display` is one line.
#[derive(Debug, thiserror::Error)]
pub enum IrqbalanceError {
    /// The socket, or what came from it.
    #[error("ask irqbalance at {socket}: {reason}")]
    Socket {
        /// Its path or name.
        socket: String,
        /// The errno or what was wrong.
        reason: String,
    },
    /// Not root.
    #[error("irqbalance answers only root; run as root")]
    NotRoot,
    /// A process is there, and no socket.
    #[error(
        "irqbalance runs as process {0} and has no socket here, as in a container or before version 1.3: it \
         may move the interrupts again; stop it, or ban them in its configuration (--banirq) and set \
         irqbalance = \"coexist\""
    )]
    NoSocket(u32),
    /// What it was told to look after again, it still leaves alone.
    #[error("irqbalance was told to look after IRQs {0} again and still leaves them alone; restart it")]
    StillBanned(String),
    /// More than it can be told.
    #[error("irqbalance reads {longest} bytes of a list, and {count} interrupts take \
             more", longest = message::LONGEST)]
    TooLong {
        /// How many there would be.
        count: usize,
    },
    /// The tree's file.
    #[error(transparent)]
    File(#[from] KernelFileError),
    /// The text of the tree's file.
    #[error("read {TREE}: not understood: {0}")]
    Tree(String),
    /// Nothing is known in this tree.
    #[error("{TREE} is not in this tree")]
    NoTree,
}

impl IrqbalanceError {
    fn of(socket: &str, reason: &str) -> Self {
        Self::Socket { socket: socket.to_owned(), reason: reason.to_owned() }
    }
}

/// As [`Irqbalance::read`], with the error instead of [`Irqbalance::Unknown`].
pub(crate) fn ask(files: &KernelFiles) -> Result<Irqbalance, IrqbalanceError> {
    if !files.is_live() {
        return Ok(match read_tree(files)?.ok_or(IrqbalanceError::NoTree)? {
            Tree::Daemons(daemons) if daemons.is_empty() => Irqbalance::Absent,
            Tree::Daemons(daemons) => Irqbalance::Running(daemons),
            Tree::Unknown(reason) => Irqbalance::Unknown(reason),
        });
    }
    let daemons = ask_all(files)?;
    if !daemons.is_empty() {
        return Ok(Irqbalance::Running(daemons.into_iter().map(|(_, daemon)| daemon).collect()));
    }
    match process(files)? {
        Some(pid) => Err(IrqbalanceError::NoSocket(pid)),
        None => Ok(Irqbalance::Absent),
    }
}

fn read_tree(files: &KernelFiles) -> Result<Option<Tree>, IrqbalanceError> {
    let Some(text) = files.read_optional(TREE)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|error| IrqbalanceError::Tree(error.to_string()))
}

/// Every irqbalance that answers, in the order of their processes, and each once.
fn ask_all(files: &KernelFiles) -> Result<Vec<(Socket, Daemon)>, IrqbalanceError> {
    let sockets = socket::candidates(files)?;
    if !sockets.is_empty() && !rustix::process::geteuid().is_root() {
        return Err(IrqbalanceError::NotRoot);
    }
    let mut daemons: Vec<(Socket, Daemon)> = Vec::new();
    for socket in sockets {
        let Some(answer) = socket.ask(files, message::SETUP)? else { continue };
        let banned_irqs = message::parse_setup(&answer.text)
            .map_err(|reason| IrqbalanceError::of(&socket.name, &reason))?;
        daemons.push((socket, Daemon { pid: answer.pid, banned_irqs }));
    }
    daemons.sort_by_key(|(_, daemon)| daemon.pid);
    daemons.dedup_by_key(|(_, daemon)| daemon.pid);
    Ok(daemons)
}

/// Has every irqbalance leave these alone besides what it leaves alone already. Nothing happens where none
/// runs.
///
/// # Errors
/// If one cannot be told.
pub fn ban(files: &KernelFiles, irqs: &BTreeSet<Irq>) -> Result<(), IrqbalanceError> {
    change(files, |_, banned| banned | irqs).map(drop)
}

/// What [`ban`] would add to the list of each.
///
/// # Errors
/// If one cannot be asked.
pub fn additions(files: &KernelFiles, irqs: &BTreeSet<Irq>) -> Result<Additions, IrqbalanceError> {
    let Irqbalance::Running(daemons) = ask(files)? else { return Ok(Additions::new()) };
    Ok(daemons.into_iter().map(|daemon| (daemon.pid, irqs - &daemon.banned_irqs)).collect())
}

/// What became of bans that were to be taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GivenBack {
    /// None of those processes runs any more: their lists ended with them.
    Gone,
    /// None of the interrupts was banned any more.
    Unchanged,
    /// They were banned by at least one.
    Done {
        /// The interrupts that were banned.
        found: BTreeSet<Irq>,
        /// Those that still are, because others banned them.
        left: BTreeSet<Irq>,
    },
}

/// Has each irqbalance that was told so look after these again, and leaves the rest of its list.
///
/// # Errors
/// If one cannot be asked or told, or does not do it.
pub fn give_back(files: &KernelFiles, added: &Additions) -> Result<GivenBack, IrqbalanceError> {
    let nothing = BTreeSet::new();
    let ours = |pid: u32| added.get(&pid).unwrap_or(&nothing);
    let mut changed = change(files, |pid, banned| banned - ours(pid))?;
    changed.retain(|(pid, ..)| added.contains_key(pid));
    // What was told and not done would be left for ever.
    if let Irqbalance::Running(daemons) = ask(files)? {
        let still = daemons.iter().flat_map(|daemon| &daemon.banned_irqs & ours(daemon.pid));
        let still: BTreeSet<Irq> = still.collect();
        if !still.is_empty() {
            return Err(IrqbalanceError::StillBanned(message::list(&still)));
        }
    }
    if changed.is_empty() {
        return Ok(GivenBack::Gone);
    }
    if changed.iter().all(|(_, before, after)| before == after) {
        return Ok(GivenBack::Unchanged);
    }
    Ok(GivenBack::Done {
        found: changed.iter().flat_map(|(_, before, _)| before.iter().copied()).collect(),
        left: changed.iter().flat_map(|(.., after)| after.iter().copied()).collect(),
    })
}

/// A process, what it left alone before a message, and after it.
type Lists = (u32, BTreeSet<Irq>, BTreeSet<Irq>);

/// Changes the list of each, where that makes a difference; each list before and after. What is read back is
/// the caller's to compare.
fn change(
    files: &KernelFiles,
    to: impl Fn(u32, &BTreeSet<Irq>) -> BTreeSet<Irq>,
) -> Result<Vec<Lists>, IrqbalanceError> {
    let mut changed: Vec<Lists> = Vec::new();
    if !files.is_live() {
        let Some(Tree::Daemons(mut daemons)) = read_tree(files)? else { return Ok(changed) };
        for daemon in &mut daemons {
            let after = to(daemon.pid, &daemon.banned_irqs);
            changed.push((daemon.pid, std::mem::replace(&mut daemon.banned_irqs, after.clone()), after));
        }
        if changed.iter().any(|(_, before, after)| before != after) {
            let text = serde_json::to_string(&Tree::Daemons(daemons)).expect("numbers");
            files.write_existing(TREE, &text)?;
        }
        return Ok(changed);
    }
    for (socket, daemon) in ask_all(files)? {
        let after = to(daemon.pid, &daemon.banned_irqs);
        if daemon.banned_irqs != after {
            let message = message::ban(&after).ok_or(IrqbalanceError::TooLong { count: after.len() })?;
            socket.ask(files, &message)?;
        }
        changed.push((daemon.pid, daemon.banned_irqs, after));
    }
    Ok(changed)
}

/// Checks that the list could be changed, without changing it.
///
/// # Errors
/// If no irqbalance runs any more, or not every one can be asked.
pub fn check(files: &KernelFiles) -> Result<(), IrqbalanceError> {
    if files.is_live() {
        return ask_all(files).map(drop);
    }
    Ok(files.check_writable(TREE)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn irqs(numbers: &[u32]) -> BTreeSet<Irq> {
        numbers.iter().copied().map(Irq).collect()
    }

    fn tree(text: Option<&str>) -> (tempfile::TempDir, KernelFiles) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("corelocal")).unwrap();
        if let Some(text) = text {
            std::fs::write(dir.path().join(&TREE[1..]), text).unwrap();
        }
        let files = KernelFiles::open(dir.path()).unwrap();
        (dir, files)
    }

    #[test]
    fn a_tree_says_what_runs_or_it_is_unknown() {
        let read = |text| Irqbalance::read(&tree(text).1);
        assert_eq!(read(Some("{\"daemons\":[]}\n")), Irqbalance::Absent);
        let daemon = Daemon { pid: 812, banned_irqs: irqs(&[24]) };
        assert_eq!(
            read(Some("{\"daemons\":[{\"pid\":812,\"banned_irqs\":[24]}]}")),
            Irqbalance::Running(vec![daemon])
        );
        let unknown = Irqbalance::Unknown("nobody knows".into());
        for known in
            [Irqbalance::Absent, read(Some("{\"daemons\":[{\"pid\":1,\"banned_irqs\":[]}]}")), unknown]
        {
            let (_, text) = known.clone().captured();
            assert_eq!(Irqbalance::read(&tree(Some(&text)).1), known);
        }
        for text in [None, Some(""), Some("{\"daemons\":[{\"pid\":-1}]}"), Some("{\"demons\":[]}")] {
            let Irqbalance::Unknown(reason) = read(text) else { panic!("{text:?}") };
            assert!(reason.contains("corelocal/irqbalance.json"), "{reason}");
        }
    }

    #[test]
    fn each_daemon_keeps_its_own_list_when_ours_come_and_go() {
        let before = "{\"daemons\":[{\"pid\":1,\"banned_irqs\":[7]},{\"pid\":2,\"banned_irqs\":[8,40]}]}";
        let (_dir, files) = tree(Some(before));
        let added = additions(&files, &irqs(&[40, 41])).unwrap();
        ban(&files, &irqs(&[40, 41])).unwrap();
        let Irqbalance::Running(daemons) = Irqbalance::read(&files) else { panic!() };
        let lists: Vec<BTreeSet<Irq>> = daemons.into_iter().map(|daemon| daemon.banned_irqs).collect();
        assert_eq!(lists, [irqs(&[7, 40, 41]), irqs(&[8, 40, 41])]);
        assert_eq!(added, Additions::from([(1, irqs(&[40, 41])), (2, irqs(&[41]))]));
        let done = give_back(&files, &added).unwrap();
        assert_eq!(done, GivenBack::Done { found: irqs(&[7, 8, 40, 41]), left: irqs(&[7, 8, 40]) });
        assert_eq!(files.read(TREE).unwrap(), before);
        assert_eq!(give_back(&files, &added).unwrap(), GivenBack::Unchanged);
    }

    #[test]
    fn where_none_runs_any_more_there_is_nothing_to_give_back() {
        let added = Additions::from([(1, irqs(&[41]))]);
        // Process 2 is another one, and its list its own.
        for text in ["{\"daemons\":[]}", "{\"daemons\":[{\"pid\":2,\"banned_irqs\":[41]}]}"] {
            let (_dir, files) = tree(Some(text));
            assert_eq!(give_back(&files, &added).unwrap(), GivenBack::Gone);
            assert_eq!(files.read(TREE).unwrap(), text);
        }
    }
}
