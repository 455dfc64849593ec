//! Channels, rings, RSS, coalescing and features: what the driver has of what is asked for. Pure.

mod drivers;
#[cfg(test)]
mod tests;

use drivers::{ADAPTIVE_USECS, ARFS, NTUPLE_HURTS, RSS_LIMIT_X550, RSS_LIMITS, RSS_TABLE_X550};

use super::{Desired, PlanError, cpus};
use crate::cpu_set::CpuSet;
use crate::host::ethtool::{
    Channels, CoalesceField, Knob, Limited, NTUPLE, RssTable, is_even, rounded, rounds_to,
};
use crate::host::{Ethtool, Host, NicHost};
use crate::profile::{ChannelCount, ChannelsWish, EthtoolWishes, FeaturesWish, Profile, RingsWish};
use crate::setting::{Setting, Value};

/// Plans the sections. What the host cannot have is skipped, or refused where the section says `require`.
pub(super) fn plan(
    profile: &Profile,
    host: &Host,
    workers: &CpuSet,
    desired: &mut Desired,
) -> Result<(), PlanError> {
    // One that stands on others is refused later.
    for on in host.nics.iter().filter(|on| on.nic.lower.is_none()) {
        let cpus = cpus::of_interface(&profile.queues.placement, on, &host.topology, workers)?;
        plan_of(&profile.ethtool, on, u32::try_from(cpus.len()).unwrap_or(u32::MAX), desired)?;
    }
    Ok(())
}

/// `cpus`: how many CPUs get queues of this interface.
fn plan_of(wishes: &EthtoolWishes, on: &NicHost, cpus: u32, desired: &mut Desired) -> Result<(), PlanError> {
    let mut planner = Planner { on, desired };
    let mut queues = on.ethtool.channels;
    if let Some(wish) = wishes.channels {
        queues = planner.channels(wish, cpus)?;
    }
    if let Some(wish) = wishes.rings {
        planner.rings(wish)?;
    }
    if let Some(wish) = &wishes.rss {
        if wish.equal {
            planner.table(wish.require, queues)?;
        }
        for (&flow, fields) in &wish.hash {
            let key = format!("rss.{}", flow.name());
            if on.ethtool.hash.contains_key(&flow) {
                planner.set_words(Knob::Hash(flow), fields.to_string(), format!("{key} = \"{fields}\""));
            } else {
                planner.cannot(wish.require, &key, planner.absence("hash"))?;
            }
        }
    }
    if let Some(wish) = &wishes.coalesce {
        for (&field, &number) in &wish.values {
            let knob = Knob::Coalesce(field);
            let key = format!("coalesce.{}", field.name());
            if let Some(&found) = on.ethtool.coalesce.get(&field) {
                let most = wish.at_most.contains(&field);
                let number = if most && !planner.adapts(field, found) { number.min(found) } else { number };
                let asked = field.value(wish.values[&field]).in_toml();
                let asked = if most { format!("at most {asked}") } else { asked };
                planner.set(knob, field.value(number), format!("{key} = {asked}"));
            } else {
                planner.cannot(wish.require, &key, planner.absence("coalesce"))?;
            }
        }
    }
    if let Some(wish) = wishes.features {
        planner.ntuple(wish)?;
    }
    Ok(())
}

struct Planner<'a> {
    on: &'a NicHost,
    desired: &'a mut Desired,
}

impl Planner<'_> {
    fn driver(&self) -> &str {
        self.on.nic.driver().or(self.on.ethtool.driver.as_deref()).unwrap_or_default()
    }

    fn set(&mut self, knob: Knob, value: Value, reason: String) {
        self.desired.set(Setting::Ethtool(self.on.nic.name.clone(), knob), value, reason);
    }

    fn set_words(&mut self, knob: Knob, words: String, reason: String) {
        self.set(knob, Value::Words(words), reason);
    }

    /// True if this is no delay, but lets the driver choose one.
    fn adapts(&self, field: CoalesceField, found: u32) -> bool {
        let is_delay = matches!(field, CoalesceField::RxUsecs | CoalesceField::TxUsecs);
        let means = |(driver, numbers): &(&str, &[u32])| *driver == self.driver() && numbers.contains(&found);
        is_delay && ADAPTIVE_USECS.iter().any(means)
    }

    /// The most queues over which RSS spreads.
    fn rss_limit(&self) -> u32 {
        let limit = RSS_LIMITS.iter().find(|(driver, _)| *driver == self.driver()).map(|(_, most)| *most);
        let entries = self.on.ethtool.rss.as_ref().map_or(0, |rss| rss.table.len());
        match limit {
            Some(_) if self.driver() == "ixgbe" && entries == RSS_TABLE_X550 => RSS_LIMIT_X550,
            limit => limit.unwrap_or(u32::MAX),
        }
    }

    /// Skips a wish, or refuses the profile.
    fn cannot(&mut self, require: bool, key: &str, reason: String) -> Result<(), PlanError> {
        self.desired.cannot(require, format!("{key} of {}", self.on.nic.name), reason)
    }

    /// Why something is not known.
    fn absence(&self, what: &str) -> String {
        let unknown = self.on.ethtool.unknown.get(what);
        let absent = if self.on.ethtool == Ethtool::default() {
            "what ethtool says of the interface was not captured"
        } else {
            "the driver does not have it"
        };
        unknown.cloned().unwrap_or_else(|| absent.to_owned())
    }

    /// The channels as they will be.
    fn channels(&mut self, wish: ChannelsWish, cpus: u32) -> Result<Option<Channels>, PlanError> {
        let asked = match wish.count {
            ChannelCount::Workers => cpus,
            ChannelCount::Number(number) => number,
        };
        let found = self.on.ethtool.channels;
        let Some(channels) = found.filter(|_| self.on.ethtool.text(Knob::Channels).is_some()) else {
            self.cannot(wish.require, "channels.count", self.absence("channels"))?;
            return Ok(found);
        };
        let limit = self.rss_limit();
        let wanted = lay(channels, asked.min(limit), asked);
        let most = wanted.rx_queues();
        let why = match () {
            () if most >= asked => String::new(),
            () if most == limit => format!("{} spreads RSS over {limit} queues at most", self.driver()),
            () => format!("the interface has {most} receive queues at most"),
        };
        let number = matches!(wish.count, ChannelCount::Number(_));
        if !why.is_empty() && (wish.require || number) {
            self.cannot(
                wish.require,
                &format!("channels.count = {asked}"),
                format!("{why}; it gets {most}"),
            )?;
        }
        let asked_by = if number { "channels.count" } else { "a queue for each CPU that gets one" };
        let reason = if why.is_empty() {
            format!("{asked_by}: {asked}")
        } else {
            format!("{asked_by}: {asked}; {why}")
        };
        let mut planned = self.on.ethtool.clone();
        planned.channels = Some(wanted);
        if let Some(words) = planned.text(Knob::Channels) {
            self.set_words(Knob::Channels, words, reason);
        }
        Ok(Some(wanted))
    }

    fn rings(&mut self, wish: RingsWish) -> Result<(), PlanError> {
        let mut planned = self.on.ethtool.clone();
        let (rx, tx) =
            planned.rings.as_mut().map_or((None, None), |rings| (rings.rx.as_mut(), rings.tx.as_mut()));
        let mut reasons = Vec::new();
        for (key, asked, place) in [("rings.rx", wish.rx, rx), ("rings.tx", wish.tx, tx)] {
            let Some(asked) = asked else { continue };
            let Some(place) = place else {
                self.cannot(wish.require, key, self.absence("rings"))?;
                continue;
            };
            if asked > place.max {
                let reason = format!("the ring has {} descriptors at most; it gets them", place.max);
                self.cannot(wish.require, &format!("{key} = {asked}"), reason)?;
            }
            let wanted = asked.min(place.max);
            let mut reason = format!("{key} = {asked}");
            match self.rounding(wanted, place.now) {
                None => place.now = wanted,
                Some(_) if place.now == wanted => {}
                Some(why) => {
                    reason = format!("{key} = {wanted} of {}: {why}", self.on.nic.name);
                    self.desired.notes.push(reason.clone());
                }
            }
            reasons.push(reason);
        }
        if let Some(words) = planned.text(Knob::Rings).filter(|_| !reasons.is_empty()) {
            self.set_words(Knob::Rings, words, reasons.join(", "));
        }
        Ok(())
    }

    /// How the driver may have made `found` descriptors of as many as are `wanted`; `None` if it has not.
    fn rounding(&self, wanted: u32, found: u32) -> Option<String> {
        match rounded(self.driver(), wanted) {
            Some(made) => (made == found).then(|| format!("the driver rounds it to {found}")),
            None => rounds_to(wanted, found).then(|| {
                format!(
                    "it has {found}, as a driver has that rounds {wanted}; whether this one does is not known"
                )
            }),
        }
    }

    /// Equal over the queues that there will be. A table that is so already, in whatever order, is left; so
    /// is one that the driver will fill anew for another number of channels: it is looked at again after
    /// that.
    fn table(&mut self, require: bool, queues: Option<Channels>) -> Result<(), PlanError> {
        const KEY: &str = "rss.table";
        let Some(rss) = self.on.ethtool.rss.as_ref().filter(|rss| !rss.table.is_empty()) else {
            return self.cannot(require, KEY, self.absence("rss"));
        };
        let entries = u32::try_from(rss.table.len()).unwrap_or(u32::MAX);
        let now = u32::try_from(self.on.nic.rx_queues.len()).unwrap_or(u32::MAX);
        let wanted = queues.map_or(now, |channels| channels.rx_queues()).clamp(1, entries);
        let now = self.on.ethtool.channels.map_or(now, |channels| channels.rx_queues()).clamp(1, entries);
        let reason = format!("the hash spreads evenly over the {wanted} queues used");
        if is_even(&rss.table, wanted) {
            if let Some(text) = self.on.ethtool.text(Knob::Rss) {
                self.set_words(Knob::Rss, text, reason);
            }
        } else if wanted != now && is_even(&rss.table, now) {
            self.desired.notes.push(format!(
                "rss.table of {}: the driver fills the table anew for {wanted} channels; it is looked at \
                 again then",
                self.on.nic.name
            ));
        } else {
            self.set_words(Knob::Rss, RssTable::Equal(wanted).to_string(), reason);
        }
        Ok(())
    }

    fn ntuple(&mut self, wish: FeaturesWish) -> Result<(), PlanError> {
        let Some(on) = wish.ntuple else { return Ok(()) };
        let word = if on { "on" } else { "off" };
        let key = format!("features.ntuple = \"{word}\"");
        let driver = self.driver().to_owned();
        let found = self.on.ethtool.features.get(NTUPLE).copied();
        let hurts = NTUPLE_HURTS.iter().find(|(name, _)| *name == driver);
        let reason = match (found, hurts) {
            (None, _) => self.absence("features"),
            (Some(feature), _) if feature.on == on => {
                self.set_words(Knob::Ntuple, word.to_owned(), key);
                return Ok(());
            }
            (Some(feature), _) if feature.fixed => {
                format!("it is {} and fixed here", if on { "off" } else { "on" })
            }
            (_, Some((_, why))) => (*why).to_owned(),
            (_, None) if !ARFS.contains(&driver.as_str()) => {
                let driver = if driver.is_empty() { "the interface" } else { &driver };
                format!("{driver} has no accelerated RFS, which alone would use it")
            }
            (_, None) => {
                self.set_words(Knob::Ntuple, word.to_owned(), key);
                return Ok(());
            }
        };
        self.cannot(wish.require, &key, reason)
    }
}

/// Channels for `rx` receive and `tx` transmit queues, as the driver has them: combined ones where there are
/// any, else of each kind. (Some drivers refuse a mixture of the two.)
fn lay(mut channels: Channels, rx: u32, tx: u32) -> Channels {
    let to = |limited: Option<Limited>, number: u32| {
        limited.map(|limited| Limited { now: number.min(limited.max), ..limited })
    };
    if channels.combined.is_some_and(|combined| combined.max > 0) {
        channels.combined = to(channels.combined, rx);
        channels.rx = to(channels.rx, 0);
        channels.tx = to(channels.tx, 0);
    } else {
        channels.rx = to(channels.rx, rx);
        channels.tx = to(channels.tx, tx);
    }
    channels
}

/// The host with as many queues as it will have after the planned channels: the first ones, as they are now.
/// What a new queue will hold, and which interrupt it gets, is found out when it is there.
///
/// # Errors
/// If somebody told the interrupts of now: they are not those that the driver will ask for.
pub(super) fn predicted(
    profile: &Profile,
    host: &Host,
    desired: &mut Desired,
) -> Result<Option<Host>, PlanError> {
    let resized: Vec<_> = host.nics.iter().map(|on| resized(on, desired)).collect();
    let Some(first) = resized.iter().position(Option::is_some) else { return Ok(None) };
    if !profile.map.is_empty() {
        return Err(PlanError::MapOfOtherChannels(host.nics[first].nic.name.clone()));
    }
    let mut predicted = host.clone();
    for (on, channels) in predicted.nics.iter_mut().zip(resized) {
        if let Some(channels) = channels {
            on.resize(channels.rx_queues(), channels.tx_queues());
        }
    }
    Ok(Some(predicted))
}

/// The channels that an interface will have, if it has others now.
fn resized(on: &NicHost, desired: &mut Desired) -> Option<Channels> {
    let setting = Setting::Ethtool(on.nic.name.clone(), Knob::Channels);
    let (before, after) = (on.value(&setting)?, desired.settings.get(&setting)?);
    if before == *after {
        return None;
    }
    let mut ethtool = on.ethtool.clone();
    ethtool.set(Knob::Channels, &after.to_string()).ok()?;
    desired.notes.push(format!(
        "{} goes from {before} to {after}: its interrupts and queues are discovered and planned again after \
         that; what is said of them here is of those of now",
        setting.path()
    ));
    ethtool.channels
}
