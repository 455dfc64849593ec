//! The worker against a simulated kernel: every order of completions that io_uring may produce, chosen by
//! proptest.
//!
//! [`kernel`] is the ring: its queues, what it lets a worker see and when. [`rules`] is what a worker may not
//! ask for, [`armed`] what it has asked for, [`requests`] what each request does, [`transfers`] those that
//! move bytes. [`world`] is what is outside: time, the network ([`socket`]), the [peers](peer); [`promises`]
//! what the server promises them. [`choices`] is where all that is free to choose comes from. [`case`] is
//! what is simulated, [`run`] drives workers through it turn by turn; [`properties`] says what must hold,
//! [`regressions`] has the cases by name, [`seen`] what the simulation came to.

mod armed;
mod case;
mod choices;
mod kernel;
mod peer;
mod promises;
mod properties;
mod regressions;
mod requests;
mod rules;
mod run;
mod seen;
mod socket;
mod transfers;
mod world;
