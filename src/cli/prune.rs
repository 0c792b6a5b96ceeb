//! `lapstrake prune`.

use super::{Failure, report, store_limits::LimitFlags, surroundings::Surroundings};
use crate::{
    engine::upkeep::{Outcome, Work},
    error::{Error, Kind},
    store::{Pruned, Pruning},
};

/// Removes, and says what.
pub(super) fn run(around: &Surroundings, all: bool, reset: bool, flags: &LimitFlags) -> Result<(), Failure> {
    let work = if reset { Work::Reset } else { Work::Prune(Pruning { all, limits: limits(around, flags)? }) };
    let text = match around.upkeep(work)? {
        Outcome::Pruned(pruned) => told(&pruned),
        Outcome::Reset(size) => format!("removed the whole store: {size}\n"),
        Outcome::Usage(..) | Outcome::Checked(_) => return Err(Error::new(Kind::Bug, "another answer than was asked for").into()),
    };
    Ok(report::print(&text)?)
}

/// Limits that are flags stand for those of the configuration; without any, all goes that can.
fn limits(around: &Surroundings, flags: &LimitFlags) -> Result<Option<crate::store::Limits>, Error> {
    Ok(flags.limits()?.map(|given| around.limits.or(given)))
}

fn told(pruned: &Pruned) -> String {
    let mut lines: Vec<String> = pruned.names.iter().map(|name| format!("untagged {name}")).collect();
    lines.extend(pruned.removed.iter().map(|(kind, (count, size))| format!("removed {kind}: {count} ({size})")));
    if pruned.holders > 0 {
        let who = if pruned.holders == 1 { "a running build keeps" } else { "running builds keep" };
        lines.push(format!("{who} all that is in use"));
    }
    lines.push(format!("reclaimed {}; left: {}", pruned.size(), pruned.left));
    lines.join("\n") + "\n"
}
