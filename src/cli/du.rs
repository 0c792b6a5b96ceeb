//! `lapstrake du`.

use super::{Failure, images::align, progress::visible, report, surroundings::Surroundings};
use crate::{
    engine::upkeep::{Outcome, Step, Work},
    error::{Error, Kind},
    store::{Bounds, LayerUse, Size, Usage, shown_bytes},
};

/// So much of an instruction is shown.
const SHOWN: usize = 60;

/// Shows what the store holds.
pub(super) fn run(around: &Surroundings, verbose: bool, json: bool) -> Result<(), Failure> {
    let Outcome::Usage(usage, steps) = around.upkeep(Work::Usage)? else {
        return Err(Error::new(Kind::Bug, "another answer than was asked for").into());
    };
    let text = if json { as_json(&usage, &steps)? } else { as_table(&usage, verbose.then_some(&steps)) };
    Ok(report::print(&text)?)
}

fn as_json(usage: &Usage, steps: &[Step]) -> Result<String, Error> {
    let bug = |error: serde_json::Error| Error::new(Kind::Bug, "no JSON").because(&error);
    let mut value = serde_json::to_value(usage).map_err(bug)?;
    value["instructions"] = serde_json::to_value(steps).map_err(bug)?;
    Ok(serde_json::to_string_pretty(&value).map_err(bug)? + "\n")
}

fn as_table(usage: &Usage, verbose: Option<&Vec<Step>>) -> String {
    let row = |name: &str, size: Size| vec![name.to_owned(), shown_bytes(size.bytes), size.inodes.to_string()];
    let mut table = vec![["KIND", "SIZE", "FILES"].map(str::to_owned).to_vec()];
    table.extend(usage.kinds.iter().map(|(kind, size)| row(kind.name(), *size)));
    let mut text = align(&table);
    if let Some(steps) = verbose {
        text = [text, images(usage), instructions(usage, steps)].join("\n");
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

/// Each with what its layer takes, the largest first.
fn instructions(usage: &Usage, steps: &[Step]) -> String {
    let size = |step: &Step| usage.layers.get(&step.layer).copied().unwrap_or_default();
    let mut steps: Vec<&Step> = steps.iter().collect();
    steps.sort_by_key(|step| std::cmp::Reverse(size(step).total().bytes));
    let mut table = vec![["INSTRUCTION", "BLOB", "TREE", "INDEX", "CREATED"].map(str::to_owned).to_vec()];
    for step in steps {
        let LayerUse { blobs, trees, index } = size(step);
        let shown: String = visible(step.shown.as_bytes()).chars().take(SHOWN).collect();
        let [blobs, trees, index] = [blobs, trees, index].map(|size| shown_bytes(size.bytes));
        table.push(vec![shown, blobs, trees, index, step.created.chars().take(19).collect()]);
    }
    align(&table)
}
