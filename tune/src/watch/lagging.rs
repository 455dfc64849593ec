//! Interrupts that lag behind, from one look to the next. Pure.

use super::event::Event;
use crate::verify::{self, Fired, PendingMove};

/// What the last look found of them.
#[derive(Debug, Default)]
pub(super) struct Lagging {
    fired: Vec<Fired>,
    /// Those that have fired since they should have moved, until they do.
    stuck: Vec<PendingMove>,
}

impl Lagging {
    /// Takes in what a look found, and says which of them turned out to be stuck since the one before.
    pub(super) fn take_in(&mut self, fired: Vec<Fired>) -> Vec<Event> {
        let mut new = verify::stuck(&self.fired, &fired);
        self.stuck.retain(|stuck| fired.iter().any(|(pending, _)| pending == stuck));
        new.retain(|stuck| !self.stuck.contains(stuck));
        let events = new.iter().map(event).collect();
        self.stuck.append(&mut new);
        self.fired = fired;
        events
    }

    /// True if there is one, which the next poll shall look at.
    pub(super) fn is_any(&self) -> bool {
        !self.fired.is_empty()
    }

    /// True if one is stuck.
    pub(super) fn is_stuck(&self) -> bool {
        !self.stuck.is_empty()
    }
}

fn event(stuck: &PendingMove) -> Event {
    Event::Drift {
        path: stuck.path(),
        found: Some(stuck.effective.to_string()),
        wanted: stuck.affinity.to_string(),
        causes: vec![format!("{stuck}: it has fired there since, and did not move")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Irq;

    #[test]
    fn a_stuck_interrupt_is_said_once_until_it_moves() {
        let fired = |count: u64| {
            let (affinity, effective) = ("0".parse().unwrap(), "1".parse().unwrap());
            vec![(PendingMove { irq: Irq(38), affinity, effective }, count)]
        };
        let mut lagging = Lagging::default();
        let mut look = |found: Vec<Fired>| {
            let said = lagging.take_in(found).len();
            (said, lagging.is_any(), lagging.is_stuck())
        };
        assert_eq!(look(fired(5)), (0, true, false), "nothing to compare with");
        assert_eq!(look(fired(5)), (0, true, false), "it does not fire");
        assert_eq!(look(fired(6)), (1, true, true));
        assert_eq!(look(fired(7)), (0, true, true), "said before");
        assert_eq!(look(fired(7)), (0, true, true), "quiet now, and where it was");
        assert_eq!(look(Vec::new()), (0, false, false), "it has moved");
    }
}
