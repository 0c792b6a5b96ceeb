//! `lapstrake fsck`.

use super::{Failure, progress::visible, report, surroundings::Surroundings};
use crate::{
    engine::upkeep::{Outcome, Work},
    error::{Error, Kind},
};

/// Checks the store. As with git's, a store in which something was wrong is an error, mended or not; the next check finds nothing.
pub(super) fn run(around: &Surroundings) -> Result<(), Failure> {
    let Outcome::Checked(checked) = around.upkeep(Work::Fsck)? else {
        return Err(Error::new(Kind::Bug, "another answer than was asked for").into());
    };
    let lines = checked.wrong.iter().map(|wrong| format!("removed {}: {}\n", visible(wrong.what.as_bytes()), wrong.why));
    report::print(&(lines.collect::<String>() + &format!("checked: {}, wrong: {}\n", checked.things, checked.wrong.len())))?;
    match checked.wrong.len() {
        0 => Ok(()),
        count => {
            let what = if count == 1 { "1 thing was".to_owned() } else { format!("{count} things were") };
            let error = Error::new(Kind::Environment, format!("{what} not as they should be"));
            Err(error.help("what was wrong is removed, and is made anew when it is needed; look after the disk").into())
        }
    }
}
