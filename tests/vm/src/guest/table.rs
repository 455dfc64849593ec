//! One line for each check: whether it held, its name, what was found.

use std::fmt::Display;

/// The checks so far.
#[derive(Debug, Default)]
pub(super) struct Table {
    held: usize,
    failed: usize,
}

impl Table {
    /// Prints a check.
    pub(super) fn check(&mut self, name: &str, holds: bool, found: impl Display) {
        *if holds { &mut self.held } else { &mut self.failed } += 1;
        println!("{}  {name:<58}  {found}", if holds { "ok  " } else { "FAIL" });
    }

    /// Prints a check of a list that must be empty: how many things were looked at, or the first that are
    /// wrong.
    pub(super) fn none(&mut self, name: &str, wrong: &[impl Display], looked_at: impl Display) {
        if wrong.is_empty() {
            return self.check(name, true, looked_at);
        }
        self.check(name, false, format!("{} wrong of {looked_at}: {}", wrong.len(), some(wrong)));
    }

    /// Prints the sum; true if all held.
    pub(super) fn finish(&self) -> bool {
        println!("{} checks held, {} failed", self.held, self.failed);
        self.failed == 0
    }
}

/// The first few.
fn some(wrong: &[impl Display]) -> String {
    const SHOWN: usize = 4;
    let more = if wrong.len() > SHOWN { "; …" } else { "" };
    let shown: Vec<String> = wrong.iter().take(SHOWN).map(ToString::to_string).collect();
    format!("{}{more}", shown.join("; "))
}
