//! The RSS indirection table as text. Pure.
//!
//! `equal 8` is what `ethtool -X IF equal 8` makes: entry i holds queue i mod 8, which is also the kernel's
//! default for 8 queues (`ethtool_rxfh_indir_default()`). Any other table is written as runs of the same
//! queue: `table 0*16 1*16`.

use std::fmt;
use std::str::FromStr;

use super::knob::KnobError;

/// Entries of a table that is still believed; the largest that drivers have is 4096.
const LONGEST: usize = 1 << 16;

/// An indirection table, or the rule by which one of any length is filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RssTable {
    /// Queue i mod this, never 0.
    Equal(u32),
    /// These queues, entry by entry.
    Entries(Vec<u32>),
}

impl RssTable {
    /// The table of these entries, as a rule where it follows one; `None` for an empty one.
    #[must_use]
    pub fn of(entries: &[u32]) -> Option<Self> {
        let queues = entries.iter().max()?.checked_add(1)?;
        let equal =
            (queues as usize) <= entries.len() && entries.iter().copied().eq(fill(queues, entries.len()));
        Some(if equal { Self::Equal(queues) } else { Self::Entries(entries.to_vec()) })
    }

    /// The entries of a table of this length.
    ///
    /// # Errors
    /// If these are of another length.
    pub fn entries(&self, length: usize) -> Result<Vec<u32>, KnobError> {
        match self {
            Self::Equal(queues) => Ok(fill(*queues, length).collect()),
            Self::Entries(entries) if entries.len() == length => Ok(entries.clone()),
            Self::Entries(_) => {
                Err(KnobError(format!("the table has {length} entries, not as many as \"{self}\"")))
            }
        }
    }
}

fn fill(queues: u32, length: usize) -> impl Iterator<Item = u32> {
    (0..queues).cycle().take(length)
}

/// True if the entries name each of the queues 0 to `queues` - 1 and no other, each as often as the others or
/// once more.
pub(crate) fn is_even(entries: &[u32], queues: u32) -> bool {
    let mut counts = vec![0usize; (queues as usize).min(entries.len())];
    for &entry in entries {
        match counts.get_mut(entry as usize) {
            Some(count) => *count += 1,
            None => return false,
        }
    }
    let (least, most) = (counts.iter().min(), counts.iter().max());
    least.zip(most).is_some_and(|(least, most)| *least > 0 && most - least <= 1)
}

impl fmt::Display for RssTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Equal(queues) => write!(f, "equal {queues}"),
            Self::Entries(entries) => {
                f.write_str("table")?;
                entries.chunk_by(|a, b| a == b).try_for_each(|run| write!(f, " {}*{}", run[0], run.len()))
            }
        }
    }
}

impl FromStr for RssTable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("\"{}\" is not \"equal N\" or \"table QUEUE*COUNT …\"", text.escape_debug());
        let mut words = text.split_whitespace();
        match words.next() {
            Some("equal") => {
                let queues = words.next().and_then(|word| word.parse().ok()).filter(|queues| *queues > 0);
                queues.filter(|_| words.next().is_none()).map(Self::Equal).ok_or_else(wrong)
            }
            Some("table") => {
                let mut entries = Vec::new();
                for word in words {
                    let (queue, count) = word.split_once('*').ok_or_else(wrong)?;
                    let queue: u32 = queue.parse().map_err(|_| wrong())?;
                    let count: usize = count.parse().map_err(|_| wrong())?;
                    if count == 0 || count > LONGEST - entries.len() {
                        return Err(wrong());
                    }
                    entries.extend(std::iter::repeat_n(queue, count));
                }
                Self::of(&entries).ok_or_else(wrong)
            }
            _ => Err(wrong()),
        }
    }
}
