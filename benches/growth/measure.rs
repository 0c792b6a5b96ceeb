//! What a command costs.

use std::{
    fs::File,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use lapstrake::sys;
use rustix::process::Pid;

use crate::Result;

/// Seconds, seconds of processors, MiB of the largest process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
}

/// Runs our program with a store, and takes what it and all that it waited for have used.
pub(crate) fn ours(store: &Path, args: &[&str]) -> Result<Cost> {
    let said = store.with_extension("said");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapstrake"));
    command.args(args).env("LAPSTRAKE_ROOT", store).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    // What those before have written is not to be this one's burden.
    rustix::fs::sync();
    let begun = Instant::now();
    let child = command.spawn()?;
    let (status, used) = sys::reap(Pid::from_child(&child))?;
    let wall = begun.elapsed().as_secs_f64();
    if !status.success() {
        let text = std::fs::read_to_string(&said)?;
        let end: Vec<&str> = text.lines().rev().take(20).collect();
        return Err(format!("`lapstrake {}` failed:\n{}", args.join(" "), end.into_iter().rev().collect::<Vec<_>>().join("\n")).into());
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let memory = used.peak_memory as f64 / f64::from(1 << 20);
    Ok(Cost { wall, cpu: used.processors.as_secs_f64(), memory })
}

/// Of each figure the one in the middle.
pub(crate) fn median(costs: &[Cost]) -> Cost {
    let middle = |pick: fn(&Cost) -> f64| {
        let mut values: Vec<f64> = costs.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or_default()
    };
    Cost { wall: middle(|cost| cost.wall), cpu: middle(|cost| cost.cpu), memory: middle(|cost| cost.memory) }
}
