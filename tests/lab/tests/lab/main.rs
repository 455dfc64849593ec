//! The lab as a program, from outside.

mod common;
mod run;
mod stopped;
