//! What a command costs, and medians.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::Result;

/// Seconds, seconds of processors, KiB of the largest process.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    pub(crate) cpu: f64,
    pub(crate) memory: f64,
}

impl Cost {
    /// One after the other.
    pub(crate) fn then(self, next: Self) -> Self {
        Self { wall: self.wall + next.wall, cpu: self.cpu + next.cpu, memory: self.memory.max(next.memory) }
    }
}

/// Runs a shell's command in a directory; what its processes cost is what bash's `time` says, in milliseconds, and of memory what
/// GNU time does, which knows no less than ten.
pub(crate) fn shell(dir: &Path, script: &str) -> Result<Cost> {
    let (clock, memory) = (dir.join("time"), dir.join("memory"));
    // What those before have written is not to be this one's burden.
    let measured = "sync; TIMEFORMAT='%3R %3U %3S'; { time /usr/bin/time -f %M -o \"$2\" sh -ec \"$3\" 2>&3; } 3>&2 2>\"$1\"";
    let mut command = Command::new("bash");
    command.args(["-c", measured, "bash"]).args([&clock, &memory]).arg(script).current_dir(dir);
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output()?;
    if !output.status.success() {
        return Err(format!("`{script}` failed: {}", String::from_utf8_lossy(&output.stderr)).into());
    }
    let text = [fs::read_to_string(&clock)?, fs::read_to_string(&memory)?].join(" ");
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [wall, user, system, memory] = numbers[..] else { return Err(format!("time says `{text}`").into()) };
    Ok(Cost { wall, cpu: user + system, memory })
}

/// Runs it without measuring.
pub(crate) fn prepare(dir: &Path, script: &str) -> Result<()> {
    shell(dir, script).map(drop)
}

/// The processor time of a daemon and of all that it has waited for, in seconds. Source: proc(5), `stat`, fields 14 to 17.
pub(crate) fn used_by(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks: f64 = after.split(' ').skip(11).take(4).filter_map(|field| field.parse::<f64>().ok()).sum();
    ticks / 100.0
}

/// The most memory that a process has had, in KiB.
pub(crate) fn peak_of(pid: u32) -> f64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The one in the middle.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Prints a line for each contestant; `costs` has its rounds, the first contestant is ours.
pub(crate) fn table(row: &str, names: &[String], costs: &[Vec<Cost>]) {
    let Some(ours) = costs.first() else { return };
    for (number, (name, rounds)) in names.iter().zip(costs).enumerate() {
        let of = |pick: fn(&Cost) -> f64| median(rounds.iter().map(pick));
        let ratio = |pick: fn(&Cost) -> f64| median(ours.iter().zip(rounds).map(|(ours, theirs)| pick(ours) / pick(theirs).max(0.001)));
        let (wall, cpu, memory) = (of(|cost| cost.wall), of(|cost| cost.cpu), of(|cost| cost.memory) / 1024.0);
        let label = if number == 0 { row } else { "" };
        print!("{label:<28} {name:<26} {wall:>8.3} {cpu:>8.3} {memory:>8.0}");
        if number == 0 {
            println!();
        } else {
            println!(" {:>9.2} {:>8.2}", ratio(|cost| cost.wall), ratio(|cost| cost.cpu));
        }
    }
}
