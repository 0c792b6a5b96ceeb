//! What a command costs.

use std::{
    ffi::OsString,
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

/// The first argument of [`measured`].
pub(crate) const MEASURED: &str = "--measured";

/// Runs our program with a store, and takes what it and all that it waited for have used: in a small process in between, because the kernel counts what
/// a process was before `exec` as its memory.
pub(crate) fn ours(store: &Path, args: &[&str]) -> Result<Cost> {
    let mut between = Command::new(std::env::current_exe()?);
    between.arg(MEASURED).arg(store).args(args).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = between.output()?;
    let said = String::from_utf8(output.stdout)?;
    let numbers: Vec<f64> = said.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [wall, cpu, memory] if output.status.success() => Ok(Cost { wall, cpu, memory }),
        _ => Err(format!("`lapstrake {}` failed", args.join(" ")).into()),
    }
}

/// The process in between: its arguments are the store and the command's. Prints the cost.
pub(crate) fn measured(mut words: impl Iterator<Item = OsString>) -> Result<()> {
    let store = words.next().ok_or("a store")?;
    let said = Path::new(&store).with_extension("said");
    let mut command = Command::new(env!("CARGO_BIN_EXE_lapstrake"));
    command.args(words).env("LAPSTRAKE_ROOT", &store).stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&said)?);
    // What those before have written is not to be this one's burden.
    rustix::fs::sync();
    let begun = Instant::now();
    let child = command.spawn()?;
    let (status, used) = sys::reap(Pid::from_child(&child))?;
    let wall = begun.elapsed().as_secs_f64();
    if !status.success() {
        let text = std::fs::read_to_string(&said)?;
        let end: Vec<&str> = text.lines().rev().take(20).collect();
        return Err(end.into_iter().rev().collect::<Vec<_>>().join("\n").into());
    }
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let memory = used.peak_memory as f64 / f64::from(1 << 20);
    println!("{wall} {} {memory}", used.processors.as_secs_f64());
    Ok(())
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
