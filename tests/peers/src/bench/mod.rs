//! The runner: rounds of all contenders by turns, under one client.
//!
//! A scenario is run like this. Each contender is started once, on its own port and pinned to the server's
//! cores, and stays up; the client is this process, pinned to the client's cores. In a round each contender
//! has its turn, in one order and in the next round in the reverse one (A B, B A, …), so that a machine that
//! gets slower or faster does so to the gain of each. The counters of the server's process are read when all
//! connections are open and when the last answer is there. The first round warms up and is thrown away.
//!
//! What disturbs is measured beside each turn: the share of CPU time that neither server nor client used, and
//! the distance between the server's CPU and the client's. A disturbed round is kept in the raw figures, not
//! in the summary, and repeated; how often is bounded, counted and printed.
//! A peer that fails is left out of the scenario, which begins again for the others. If the first contender
//! fails, or the last of the others, the run ends, and what the scenarios before gave is written.
//!
//! * [`cli`] reads the options; [`scenario`], [`contender`] and [`peer`] say what is measured and of whom;
//! * [`counters`] and [`distance`] read the machine, [`priority`] keeps others off it;
//! * [`turn`] measures one contender once, [`memory`] what idle connections cost it; [`rounds`] has all of
//!   them take turns;
//! * [`floor`] is what the kernel alone needs;
//! * [`selection`] chooses the rounds that count, [`figures`] summarizes a scenario's, [`report`] prints all
//!   as [`table`]s, [`overview`] and [`plot`] have all scenarios in one.

pub mod cli;
pub(crate) mod contender;
mod counters;
mod distance;
mod figures;
mod floor;
mod memory;
mod overview;
mod peer;
mod plot;
pub(crate) mod priority;
mod report;
mod rounds;
mod scenario;
mod selection;
pub(crate) mod table;
pub(crate) mod turn;
