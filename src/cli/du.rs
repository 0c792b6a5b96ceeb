//! `lapstrake du`.

use super::{Failure, images::align, report, surroundings::Surroundings};
use crate::{
    engine::upkeep::{Outcome, Work},
    error::{Error, Kind},
    store::{Bounds, Size, Usage, shown_bytes},
};

/// Shows what the store holds.
pub(super) fn run(around: &Surroundings, verbose: bool, json: bool) -> Result<(), Failure> {
    let Outcome::Usage(usage) = around.upkeep(Work::Usage)? else {
        return Err(Error::new(Kind::Bug, "another answer than was asked for").into());
    };
    let text = if json { as_json(&usage)? } else { as_table(&usage, verbose) };
    Ok(report::print(&text)?)
}

fn as_json(usage: &Usage) -> Result<String, Error> {
    let text = serde_json::to_string_pretty(usage).map_err(|error| Error::new(Kind::Bug, "no JSON").because(&error))?;
    Ok(text + "\n")
}

fn as_table(usage: &Usage, verbose: bool) -> String {
    let row = |name: &str, size: Size| vec![name.to_owned(), shown_bytes(size.bytes), size.inodes.to_string()];
    let mut table = vec![["KIND", "SIZE", "FILES"].map(str::to_owned).to_vec()];
    table.extend(usage.kinds.iter().map(|(kind, size)| row(kind.name(), *size)));
    let mut text = align(&table);
    if verbose {
        text.push('\n');
        text.push_str(&images(usage));
    }
    let Bounds { reserved_space, max_used_space, min_free_space, max_used_inodes } = usage.limits;
    let limit = |limit: u64, shown: String| if limit == u64::MAX { "no limit".to_owned() } else { shown };
    let sums = [
        ["total".to_owned(), usage.total.to_string()],
        ["reclaimable".to_owned(), usage.reclaimable.to_string()],
        ["max-used-space".to_owned(), limit(max_used_space, shown_bytes(max_used_space))],
        ["max-used-inodes".to_owned(), limit(max_used_inodes, max_used_inodes.to_string())],
        ["min-free-space".to_owned(), shown_bytes(min_free_space)],
        ["reserved-space".to_owned(), shown_bytes(reserved_space)],
    ];
    text.push('\n');
    text.push_str(&align(&sums.map(|row| row.to_vec())));
    text
}

fn images(usage: &Usage) -> String {
    let mut table = vec![["IMAGE", "SIZE", "UNIQUE"].map(str::to_owned).to_vec()];
    for image in &usage.images {
        table.push(vec![image.name.clone(), shown_bytes(image.size.bytes), shown_bytes(image.unique.bytes)]);
    }
    align(&table)
}
