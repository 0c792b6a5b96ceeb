//! `lapstrake doctor`.

use super::{Failure, report, surroundings::Surroundings};
use crate::{
    error::{Error, Kind},
    sandbox,
};

/// Tries what a build needs, and shows what came of it.
pub(super) fn run(around: &Surroundings) -> Result<(), Failure> {
    let store = around.store()?;
    let shown = sandbox::probe::probe(store.root());
    report::print(&shown.to_string())?;
    if shown.works() { Ok(()) } else { Err(Error::new(Kind::Environment, "RUN steps cannot be isolated here").into()) }
}
