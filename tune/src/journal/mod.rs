//! The journal: what every changed file held before `tune` touched it, on disk before the first write.
//!
//! `journal.<netns>.json` lies in the state directory, one for each network namespace, since interface names
//! and most network sysctls are per namespace. (What the whole host has once is set in the first one only,
//! see [`crate::Error::HostWide`], so that no two journals hold the same file.) It is written to a temporary
//! file, synced, renamed, and the directory synced, so that after a crash or `kill -9` at any point it is
//! either the old one or the new one. A lock on the directory keeps two runs apart, and is no file that a run
//! would have to make. A journal ends with the boot it was written in: a reboot resets what it holds.

mod directory;
mod errors;
mod state;
#[cfg(test)]
mod tests;
mod text;

use serde::{Deserialize, Serialize};

pub use errors::JournalError;
pub use state::State;

use crate::netns::{self, Link, Links};
use crate::setting::Setting;
use crate::setting_io;

/// Since 3 there is a checksum.
const SCHEMA: u32 = 3;

/// The values of one network namespace before the first `apply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Journal {
    schema: u32,
    /// The version that wrote it.
    pub tool: String,
    /// `/proc/sys/kernel/random/boot_id`; `None` in a captured tree without it.
    pub boot_id: Option<String>,
    /// Cookie of the network namespace ([`netns::cookie`]); 0 in a captured tree.
    pub netns: u64,
    /// A restore has begun to put these values back: whoever wants them otherwise says so by the next apply.
    /// That is how a `watch --repair` learns of a restore that did not get to its end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub restoring: bool,
    /// In the order of writing, each path once.
    pub entries: Vec<Entry>,
}

/// What one file held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The kernel path, without the root.
    pub path: String,
    /// Its text as it was read, without the last newline.
    pub before: String,
    /// Whose value it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owner: Option<Owner>,
}

/// Whose value it is, where the path does not tell for ever: the number of an interrupt and the name of an
/// interface may be given to another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// An interrupt.
    Interrupt {
        /// Its handler, by which it is found under another number; a driver names it after its interface, and
        /// it changes with that. Empty where `/proc/interrupts` is masked.
        name: String,
        /// The device, as [`interrupt_directory`](crate::host::nic::Device::interrupt_directory) gives it;
        /// empty for an interrupt of another function of the card.
        device: String,
    },
    /// An interface.
    Interface(Link),
}

impl Owner {
    /// True if the two, found at the same path, are certainly not the same: of an interface index and address
    /// differ.
    fn is_other(&self, found: &Self) -> bool {
        match (self, found) {
            (Self::Interrupt { device, .. }, Self::Interrupt { device: found, .. }) => device != found,
            (Self::Interface(link), Self::Interface(found)) => {
                link.index != found.index && link.address != found.address
            }
            _ => true,
        }
    }
}

impl Entry {
    /// `setting`, which is the one of this entry's path, under the name that its interface has now; `None` if
    /// the interface is gone.
    pub(crate) fn now(&self, setting: &Setting, links: &Links) -> Option<Setting> {
        match (&self.owner, setting.interface()) {
            (Some(Owner::Interface(link)), Some(name)) => {
                netns::find(links, &name, link).map(|name| setting.with_interface(name))
            }
            _ => Some(setting.clone()),
        }
    }

    /// True if exactly one of these is of the same interrupt's handler of the same device, under whatever
    /// number.
    fn is_once_in(&self, entries: &[Self]) -> bool {
        let has_handler = matches!(&self.owner, Some(Owner::Interrupt { name, .. }) if !name.is_empty());
        has_handler && entries.iter().filter(|entry| entry.owner == self.owner).count() == 1
    }

    fn is_of_other(&self, found: &Self) -> bool {
        self.owner.as_ref().zip(found.owner.as_ref()).is_some_and(|(known, found)| known.is_other(found))
    }
}

/// What `load` found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Loaded {
    /// No journal.
    Nothing,
    /// One that counts.
    Journal(Journal),
    /// One of another boot, whose values are gone with that boot.
    OtherBoot,
}

impl Journal {
    /// This journal, as it is while a restore follows it.
    #[must_use]
    pub fn being_restored(mut self) -> Self {
        self.restoring = true;
        self
    }

    /// This journal with the entries of a further `apply`. A path that is known keeps its oldest value, also
    /// when its interface was renamed, unless that was the value of another interrupt or interface, whose
    /// number or name has been given to a new one since.
    #[must_use]
    pub fn extended(mut self, entries: Vec<Entry>, links: &Links) -> Self {
        self.restoring = false;
        for known in &mut self.entries {
            let now = Setting::from_path(&known.path).and_then(|setting| known.now(&setting, links));
            if let Some(now) = now {
                known.path = now.path();
            }
        }
        let known = self.entries.clone();
        let news = entries.clone();
        for entry in entries {
            // An interrupt of this queue was journaled under the number that it had before the channels
            // changed.
            if entry.is_once_in(&known) && entry.is_once_in(&news) {
                continue;
            }
            let setting = Setting::from_path(&entry.path);
            if let Some((known, setting)) =
                self.entries.iter_mut().find(|known| known.path == entry.path).zip(setting)
            {
                known.before = setting_io::merged(&setting, &known.before, &entry.before);
            }
            if !self.entries.iter().any(|known| known.path == entry.path && !known.is_of_other(&entry)) {
                self.entries.retain(|known| known.path != entry.path);
                self.entries.push(entry);
            }
        }
        self
    }
}
