//! `lapstrake doctor`.

use std::io::{self, Write as _};

use super::{Failure, surroundings::Surroundings};
use crate::{
    error::{Error, Kind},
    sandbox,
};

/// Tries what a build needs, and shows what came of it.
pub(super) fn run(around: &Surroundings) -> Result<(), Failure> {
    let store = around.store()?;
    let report = sandbox::probe::probe(store.root());
    let written = write!(io::stdout(), "{report}");
    written.map_err(|error| Error::new(Kind::Environment, "cannot write to standard output").because(&error))?;
    if report.works() { Ok(()) } else { Err(Error::new(Kind::Environment, "RUN steps cannot be isolated here").into()) }
}
