//! The cases, by what they are about.

mod ends;
mod isolation;
mod mountpoints;
mod programs;
mod views;

use crate::world::World;

/// In the environment of front and engine.
pub(crate) const CANARY: &str = "LAPSTRAKE_CANARY";

/// A name, and what it does in an engine.
pub(crate) type Case = (&'static str, fn(&World));

/// All of them.
pub(crate) fn all() -> impl Iterator<Item = &'static Case> {
    [programs::CASES, isolation::CASES, mountpoints::CASES, views::CASES, ends::CASES].into_iter().flatten()
}

/// A table row for each function.
macro_rules! cases {
    ($($name:ident),* $(,)?) => { pub(crate) const CASES: &[crate::cases::Case] = &[$((stringify!($name), $name)),*]; };
}
use cases;
