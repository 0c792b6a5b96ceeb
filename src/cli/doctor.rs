//! `lapstrake doctor`.

use super::{Failure, report, surroundings::Surroundings};
use crate::{
    error::{Error, Kind},
    sandbox::{driver::Refusal, probe},
    store::Store,
};

/// The profile that Ubuntu's `AppArmor` wants, for a program in one of the usual places.
const PROFILE: &str = include_str!("../../packaging/apparmor/lapstrake");

/// The place that the profile names.
const USUAL: &str = "/usr/{local/,}bin/lapstrake";

/// Tries what a build needs, and shows what came of it.
pub(super) fn run(around: &Surroundings) -> Result<(), Failure> {
    let (preset, wish) = around.driver;
    let store = around.store();
    let dir = store.as_ref().map(Store::root).map_err(|error| Refusal {
        tried: "opening it".to_owned(),
        said: error.to_string(),
        help: error.help.clone(),
    });
    let shown = probe::probe(dir, preset, wish);
    report::print(&shown.to_string())?;
    if shown.works() { Ok(()) } else { Err(Error::new(Kind::Environment, "no RUN can be run here").into()) }
}

/// Shows the profile for this program, wherever it is.
pub(super) fn profile() -> Result<(), Failure> {
    let program = std::env::current_exe();
    let program = program.map_err(|error| Error::new(Kind::Environment, "it is not known where this program is").because(&error))?;
    let plain = |text: &&str| text.chars().all(|each| each.is_ascii_alphanumeric() || "/._-+".contains(each));
    let Some(path) = program.to_str().filter(plain) else {
        let error = Error::new(Kind::Environment, format!("`{}` has characters that mean something in a profile", program.display()));
        return Err(error.help("put the program in /usr/local/bin").into());
    };
    let usual = ["/usr/bin/lapstrake", "/usr/local/bin/lapstrake"].contains(&path);
    report::print(&if usual { PROFILE.to_owned() } else { PROFILE.replace(USUAL, path) })?;
    Ok(())
}
