//! lapstrake beside buildah, Docker's BuildKit, `tar`, `gzip`, `cp` and `curl`, in one run.
//!
//! ```sh
//! cargo bench --bench peers -- --base LAYOUT            # all rows, five rounds; as root, with Docker's engine, buildah and busybox installed
//! cargo bench --bench peers -- --base LAYOUT --rounds 3 w3 w4
//! ```
//!
//! `LAYOUT` is an OCI layout of a Debian (`tests/run` makes one, and so does `examples/debian-base`). Every round runs all that a row
//! compares, one after the other. A figure is the median of its rounds: wall and CPU in seconds, and the largest process in MiB;
//! a ratio is the median of the ratios to ours of the same round. The engine's CPU is what its daemons used meanwhile.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool that prints a table and runs what it compares")]

mod builders;
mod measure;
mod registry;
mod rows;
mod workloads;

use std::{error::Error, path::PathBuf, process::ExitCode};

use builders::Machine;

/// What goes wrong here is shown and ends the run.
pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The arguments.
struct Wanted {
    base: PathBuf,
    rounds: usize,
    rows: Vec<String>,
}

fn wanted() -> Result<Wanted> {
    let (mut base, mut rounds, mut rows) = (None, 5, Vec::new());
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        match word.as_str() {
            "--base" => base = words.next().map(PathBuf::from),
            "--rounds" => rounds = words.next().ok_or("--rounds takes a number")?.parse()?,
            row => rows.push(row.to_owned()),
        }
    }
    let base = base.ok_or("--base LAYOUT: the OCI layout of a Debian, of which the images are made")?;
    Ok(Wanted { base: base.canonicalize()?, rounds, rows })
}

fn run() -> Result<()> {
    let wanted = wanted()?;
    let dir = tempfile::Builder::new().prefix("lapstrake-peers-").tempdir_in("/var/tmp")?;
    workloads::make(dir.path())?;
    let machine = Machine::start(dir.path(), &wanted.base)?;
    println!("{:<28} {:<26} {:>8} {:>8} {:>8} {:>9} {:>8}", "", "", "wall s", "CPU s", "MiB", "x wall", "x CPU");
    for row in rows::all() {
        if wanted.rows.is_empty() || wanted.rows.iter().any(|name| row.name.starts_with(name.as_str())) {
            row.race(&machine, wanted.rounds)?;
        }
    }
    if wanted.rows.is_empty() || wanted.rows.iter().any(|name| name == "w7") {
        registry::race(&machine, wanted.rounds)?;
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error}");
            ExitCode::FAILURE
        }
    }
}
