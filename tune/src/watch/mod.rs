//! `watch`: looks at the host again and again, says what is not as the profile wants it any more, and repairs
//! it if asked to.
//!
//! A link event leads to a look at once. Between them a poll opens few files: the list of online CPUs, the
//! list of queues of each interface, and some of the settings, each time the next ones. Only where one of
//! them is not as it was, or after a while, the whole host is read and the profile planned again.

mod causes;
mod event;
mod lagging;
mod link_events;
mod repair;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use crate::Error;
use crate::check::{self, Checked};
use crate::host::{HostError, InterfaceName};
use crate::irqbalance;
use crate::kernel_files::KernelFiles;
use crate::plan::Desired;
use crate::profile::Profile;
use crate::setting::{Setting, Value};
use crate::setting_io;
use crate::verify::{Fired, Mismatch};
use causes::Facts;
use event::failed;
pub use event::{Event, Options, WatchError};
use lagging::Lagging;
use link_events::{LinkEvents, LinkState};
use repair::{Repair, Repaired};

/// How many settings a poll reads.
const WINDOW: usize = 64;
/// After so many polls everything is read.
const FULL_EVERY: u32 = 12;
/// A driver that resets makes several events, and is not done with the first one.
const QUIET: Duration = Duration::from_millis(200);
/// How long they are waited for.
const MOST_QUIET: Duration = Duration::from_secs(2);

/// Watches until `stop` becomes readable, or, where it repairs, what was applied is restored; `say` is told
/// of each event, and how often it is alive by `alive`.
///
/// # Errors
/// If the profile cannot be had at the beginning (an interface that is not there yet is waited for), the
/// kernel cannot be listened to, or `say` fails.
pub fn watch(
    files: &KernelFiles,
    profile: &Profile,
    options: &Options,
    stop: &impl AsFd,
    alive: &mut dyn FnMut(),
    say: &mut dyn FnMut(Event) -> io::Result<()>,
) -> Result<(), WatchError> {
    let links = LinkEvents::open().map_err(failed("listen to link events"))?;
    let mut watcher = Watcher::new(files, profile, options, say)?;
    watcher.start()?;
    alive();
    let mut next_poll = Instant::now() + options.interval;
    loop {
        if watcher.is_over {
            return watcher.say(Event::Restored);
        }
        let left = next_poll.saturating_duration_since(Instant::now());
        let (stopped, heard) = wait(stop, &links, left).map_err(failed("wait for events"))?;
        if stopped {
            return watcher.say(Event::Stopped);
        }
        alive();
        if heard && watcher.hear(&links)? {
            let deadline = Instant::now() + MOST_QUIET;
            while Instant::now() < deadline
                && wait(&links, &links, QUIET).map_err(failed("wait for events"))?.0
            {
                watcher.hear(&links)?;
            }
            watcher.look()?;
        } else if Instant::now() >= next_poll {
            watcher.poll()?;
        }
        if Instant::now() >= next_poll {
            next_poll = Instant::now() + options.interval;
        }
    }
}

/// Which of the two can be read; none after `timeout`.
fn wait(one: &impl AsFd, other: &impl AsFd, timeout: Duration) -> io::Result<(bool, bool)> {
    let mut descriptors = [PollFd::new(one, PollFlags::IN), PollFd::new(other, PollFlags::IN)];
    let timeout = Timespec::try_from(timeout).map_err(io::Error::other)?;
    match poll(&mut descriptors, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let [one, other] = descriptors.map(|descriptor| !descriptor.revents().is_empty());
    Ok((one, other))
}

struct Watcher<'a> {
    files: &'a KernelFiles,
    profile: &'a Profile,
    /// How drifts are repaired, if they are.
    repair: Option<Repair>,
    /// What was applied has been restored.
    is_over: bool,
    say: &'a mut dyn FnMut(Event) -> io::Result<()>,
    /// What shall be, as of the last look; `None` while nobody can tell.
    desired: Option<Desired>,
    facts: Option<Facts>,
    /// What became of the interfaces since the last look.
    link_changes: Vec<String>,
    link_states: BTreeMap<String, LinkState>,
    /// The drifts that were said.
    said: BTreeMap<Setting, Mismatch>,
    /// The interrupts whose controllers have not followed.
    lagging: Lagging,
    /// What could not be done or told, as it was said last.
    trouble: Option<String>,
    polls: u32,
    /// Where the next poll begins.
    position: usize,
}

impl<'a> Watcher<'a> {
    fn new(
        files: &'a KernelFiles,
        profile: &'a Profile,
        options: &Options,
        say: &'a mut dyn FnMut(Event) -> io::Result<()>,
    ) -> Result<Self, WatchError> {
        let repair = options.repair.clone().map(|directory| Repair::begin(files, directory)).transpose();
        Ok(Self {
            files,
            profile,
            repair: repair.map_err(|error| Box::new(Error::from(error)))?,
            is_over: false,
            say,
            desired: None,
            facts: None,
            link_changes: Vec::new(),
            link_states: BTreeMap::new(),
            said: BTreeMap::new(),
            lagging: Lagging::default(),
            trouble: None,
            polls: 0,
            position: 0,
        })
    }

    fn say(&mut self, event: Event) -> Result<(), WatchError> {
        (self.say)(event).map_err(WatchError::Output)
    }

    fn start(&mut self) -> Result<(), WatchError> {
        let started = |interfaces: Vec<InterfaceName>, settings| Event::Started {
            interfaces: interfaces.iter().map(ToString::to_string).collect(),
            settings,
        };
        match self.read() {
            Ok((checked, fired)) => {
                self.say(started(checked.host.interfaces(), checked.desired.settings.len()))?;
                self.take_in(checked, fired)
            }
            Err(Error::Host(HostError::NoInterface { name, .. })) => {
                self.say(started(vec![name], 0))?;
                self.look()
            }
            Err(error) => Err(Box::new(error).into()),
        }
    }

    /// Takes in the link events; true if one is of interest.
    fn hear(&mut self, links: &LinkEvents) -> Result<bool, WatchError> {
        let Some(events) = links.drain().map_err(failed("read link events"))? else { return Ok(true) };
        let mut of_interest = false;
        for event in events {
            let known = self
                .facts
                .as_ref()
                .is_some_and(|facts| facts.nics.keys().any(|name| name.as_str() == event.name));
            of_interest |= known || self.desired.is_none();
            let before = self.link_states.insert(event.name.clone(), event.state);
            if !known || before == Some(event.state) {
                continue;
            }
            // Whatever an event is about, it says that the link is up; that it came up is known only if it
            // was down.
            if before.is_none() && event.state == LinkState::Up {
                continue;
            }
            let (state, words) = match event.state {
                LinkState::Up => ("up", "came up"),
                LinkState::Down => ("down", "went down"),
                LinkState::Deleted => ("deleted", "was deleted"),
            };
            self.link_changes.push(format!("{} {words}", event.name));
            self.say(Event::Link { interface: event.name, state })?;
        }
        Ok(of_interest)
    }

    /// A cheap look; where it finds anything, or there is trouble, the whole.
    fn poll(&mut self) -> Result<(), WatchError> {
        self.polls += 1;
        if self.polls >= FULL_EVERY
            || !self.said.is_empty()
            || self.lagging.is_any()
            || self.trouble.is_some()
            || !self.seems_unchanged()
        {
            return self.look();
        }
        Ok(())
    }

    fn seems_unchanged(&mut self) -> bool {
        let (Some(desired), Some(facts)) = (&self.desired, &self.facts) else { return false };
        let online = self.files.read("/sys/devices/system/cpu/online");
        let same_cpus = online.is_ok_and(|text| text.trim().parse().is_ok_and(|cpus| facts.online == cpus));
        let same_queues = facts.nics.iter().all(|(name, nic)| {
            let queues = self.files.list(&format!("/sys/class/net/{name}/queues"));
            queues.is_ok_and(|queues| queues.len() == nic.queues.0 + nic.queues.1)
        });
        let count = desired.settings.len();
        let window = desired.settings.iter().cycle().skip(self.position).take(WINDOW.min(count));
        let same_values = window.clone().all(|(setting, value)| self.holds(setting, value));
        self.position = if count == 0 { 0 } else { (self.position + WINDOW) % count };
        same_cpus && same_queues && same_values
    }

    fn holds(&self, setting: &Setting, value: &Value) -> bool {
        let text = setting_io::read(self.files, setting);
        text.is_ok_and(|text| setting.parse(&text).is_ok_and(|found| found == *value))
    }

    /// Reads the host and plans.
    fn read(&self) -> Result<(Checked, Vec<Fired>), Error> {
        let checked = check::look(self.files, self.profile)?;
        let fired = check::fired(self.files, &checked.found.pending)?;
        Ok((checked, fired))
    }

    /// Reads the host, plans, and takes in what is found.
    fn look(&mut self) -> Result<(), WatchError> {
        self.polls = 0;
        match self.read() {
            Ok((checked, fired)) => self.take_in(checked, fired),
            Err(error) => {
                self.desired = None;
                self.in_trouble(error.to_string(), |message| Event::Unknown { message })
            }
        }
    }

    /// Says what drifted; repairs it if asked to.
    fn take_in(&mut self, checked: Checked, fired: Vec<Fired>) -> Result<(), WatchError> {
        let facts = Facts::of(&checked.host);
        let mut changes = std::mem::take(&mut self.link_changes);
        let changes = self.facts.as_ref().map(|before| {
            changes.extend(before.changes(&facts));
            changes
        });
        self.facts = Some(facts);
        let had_drifts = !self.said.is_empty() || self.desired.is_none() || self.lagging.is_stuck();
        self.say_drifts(&checked, changes.as_deref())?;
        for event in self.lagging.take_in(fired) {
            self.say(event)?;
        }
        let Checked { desired, found, .. } = checked;
        self.desired = Some(desired);
        if let Some(repair) = &mut self.repair
            && let Err(error) = repair.learn(self.files)
        {
            return self.in_trouble(error.to_string(), |message| Event::RepairFailed { message });
        }
        if found.mismatches.is_empty() {
            let had = self.trouble.take().is_some() || had_drifts;
            self.said.clear();
            return if had && !self.lagging.is_stuck() { self.say(Event::AsWanted) } else { Ok(()) };
        }
        if let Some(repair) = &mut self.repair {
            match repair.run(self.files, self.profile) {
                Ok(Repaired::Applied(applied)) => {
                    self.said.clear();
                    self.trouble = None;
                    self.say(Event::Repaired { changes: applied.changes.len() })?;
                }
                Ok(Repaired::Restored) => self.is_over = true,
                Err(error) => {
                    self.in_trouble(error.to_string(), |message| Event::RepairFailed { message })?;
                }
            }
        }
        Ok(())
    }

    fn in_trouble(&mut self, message: String, event: fn(String) -> Event) -> Result<(), WatchError> {
        if self.trouble.as_ref() == Some(&message) {
            return Ok(());
        }
        self.trouble = Some(message.clone());
        self.say(event(message))
    }

    /// Each drift once, as long as what is found and what is wanted stay the same.
    fn say_drifts(&mut self, checked: &Checked, changes: Option<&[String]>) -> Result<(), WatchError> {
        let is_irq = |mismatch: &Mismatch| matches!(mismatch.setting, Setting::IrqAffinity(_));
        let has_irq = checked.found.mismatches.iter().any(is_irq);
        // Without /proc nobody can say, and it is only a hint.
        let irqbalance = if has_irq { irqbalance::process(self.files).ok().flatten() } else { None };
        let mut now = BTreeMap::new();
        for mismatch in &checked.found.mismatches {
            let Mismatch { setting, desired, found } = mismatch;
            if self.said.get(setting) != Some(mismatch) {
                self.say(Event::Drift {
                    path: setting.path(),
                    found: found.as_ref().map(ToString::to_string),
                    wanted: desired.to_string(),
                    causes: causes::causes(setting, changes, irqbalance),
                })?;
            }
            now.insert(setting.clone(), mismatch.clone());
        }
        self.said = now;
        Ok(())
    }
}
