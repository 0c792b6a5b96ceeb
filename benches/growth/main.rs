//! How cost grows: with files, with the size of a layer, with steps, with stages, with images in the store.
//!
//! ```sh
//! cargo bench --bench growth                          # all rows, short: to 100,000 files, 1 GiB, 316 steps, 63 stages, 1,000 images
//! cargo bench --bench growth -- --full                # to 1,000,000 files, 10 GiB, 1,000 steps, 200 stages, 10,000 images
//! cargo bench --bench growth -- --most 4096 layer     # one row, its longest points left out
//! cargo bench --bench growth -- --rounds 3 --plots DIR files steps
//! ```
//!
//! Needs busybox (a static one, of which the base image is made) and room in /var/tmp (`--dir DIR` for another place): the full rows
//! take up to 25 GiB, which is removed point by point. It prints a Markdown table and writes a plot for each row (`growth-<row>.svg`, into docs/
//! unless `--plots` names another directory). Figures are of all processes of the command: wall and CPU in seconds, and the largest
//! process in MiB; with rounds, the median of each. "grows as" is the exponent between the last two points: 1 is linear.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "a tool that prints a table and runs what it measures"
)]

mod measure;
mod plot;
mod rows;

use std::{collections::BTreeMap, error::Error, fs, path::PathBuf, process::ExitCode};

use measure::Cost;
use rows::{Bench, Row};

/// What goes wrong here is shown and ends the run.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// A line of a plot: what it is of, and its cost at each size.
pub(crate) struct Curve {
    pub(crate) name: String,
    pub(crate) points: Vec<(u64, Cost)>,
}

/// The arguments.
struct Wanted {
    full: bool,
    most: Option<u64>,
    rounds: usize,
    plots: PathBuf,
    dir: PathBuf,
    rows: Vec<String>,
}

fn wanted() -> Result<Wanted> {
    let docs = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs");
    let mut wanted = Wanted { full: false, most: None, rounds: 1, plots: docs, dir: "/var/tmp".into(), rows: Vec::new() };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} takes a value"));
        match word.as_str() {
            "--full" => wanted.full = true,
            "--most" => wanted.most = Some(value()?.parse()?),
            "--rounds" => wanted.rounds = value()?.parse::<usize>()?.max(1),
            "--plots" => wanted.plots = value()?.into(),
            "--dir" => wanted.dir = value()?.into(),
            row if rows::ALL.iter().any(|known| known.name == row) => wanted.rows.push(row.to_owned()),
            other => return Err(format!("not understood: {other}").into()),
        }
    }
    Ok(wanted)
}

fn run() -> Result<()> {
    let wanted = wanted()?;
    println!("| | | size | wall s | CPU s | MiB | CPU grows as |\n|---|---|---|---|---|---|---|");
    for row in rows::ALL.iter().filter(|row| wanted.rows.is_empty() || wanted.rows.iter().any(|name| name == row.name)) {
        let curves = measured(row, &wanted)?;
        print(row, &curves);
        fs::create_dir_all(&wanted.plots)?;
        fs::write(wanted.plots.join(format!("growth-{}.svg", row.name)), plot::svg(row.title, row.unit, &curves))?;
    }
    Ok(())
}

/// All points of a row, each in a fresh directory.
fn measured(row: &Row, wanted: &Wanted) -> Result<Vec<Curve>> {
    let sizes = if wanted.full { row.full } else { row.short };
    let mut curves: Vec<Curve> = Vec::new();
    for size in sizes.iter().copied().filter(|size| wanted.most.is_none_or(|most| *size <= most)) {
        let mut rounds: BTreeMap<usize, (&str, Vec<Cost>)> = BTreeMap::new();
        for _ in 0..wanted.rounds {
            let bench = Bench::new(&wanted.dir)?;
            for (number, (name, cost)) in (row.measure)(&bench, size)?.into_iter().enumerate() {
                rounds.entry(number).or_insert_with(|| (name, Vec::new())).1.push(cost);
            }
        }
        for (number, (name, costs)) in rounds {
            if curves.len() <= number {
                curves.push(Curve { name: name.to_owned(), points: Vec::new() });
            }
            if let Some(curve) = curves.get_mut(number) {
                curve.points.push((size, measure::median(&costs)));
            }
        }
        eprintln!("{} {size}: done", row.name);
    }
    Ok(curves)
}

fn print(row: &Row, curves: &[Curve]) {
    let mut title = row.title;
    for curve in curves {
        let mut name = curve.name.as_str();
        for (number, (size, cost)) in curve.points.iter().enumerate() {
            let before = number.checked_sub(1).and_then(|before| curve.points.get(before)).filter(|_| number + 1 == curve.points.len());
            // Below a hundredth of a second the clock of the kernel says little.
            let grows = before.filter(|(_, before)| before.cpu >= 0.01).map_or_else(String::new, |(small, before)| {
                #[expect(clippy::cast_precision_loss, reason = "sizes are small beside 2^53")]
                let factor = *size as f64 / *small as f64;
                format!("n^{:.1}", (cost.cpu / before.cpu).ln() / factor.ln())
            });
            let Cost { wall, cpu, memory } = cost;
            println!("| {title} | {name} | {} {} | {wall:.3} | {cpu:.3} | {memory:.0} | {grows} |", thousands(*size), row.unit);
            (title, name) = ("", "");
        }
    }
}

/// `1,000`
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let result = if words.next().is_some_and(|word| word == measure::MEASURED) { measure::measured(words) } else { run() };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
