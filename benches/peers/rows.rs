//! The rows of the table: what is prepared, and who is compared.

use std::fs;

use crate::{
    Result,
    builders::{Builder, Machine, Sink},
    measure::{Cost, shell, table},
};

/// What a round begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing is in a cache.
    Cold,
    /// One file of the context has changed since the last build.
    OneFile,
    /// Nothing has changed since the last build.
    Nothing,
}

/// Who is compared.
#[derive(Debug, Clone, Copy)]
enum Contestant {
    Build(Builder, Sink),
    /// A shell's command.
    Plain(&'static str, &'static str),
}

/// One comparison; ours comes first.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    context: &'static str,
    before: Before,
    contestants: Vec<Contestant>,
}

use Builder::{Buildah, Docker, Ours};
use Contestant::{Build, Plain};

fn row(name: &'static str, context: &'static str, before: Before, contestants: Vec<Contestant>) -> Row {
    Row { name, context, before, contestants }
}

fn everybody(sink: Sink) -> Vec<Contestant> {
    [Ours, Docker, Buildah].map(|builder| Build(builder, sink)).to_vec()
}

/// All of them.
pub(crate) fn all() -> Vec<Row> {
    let tar = Plain("tar c | gzip -6", "tar c -C w3 keep | gzip -6 > out.tar");
    let copy = Plain("cp", "rm -rf copy; cp -r w4/data copy");
    let mut cold = everybody(Sink::Own);
    cold.push(tar);
    vec![
        row("w1 nothing changed", "w1", Before::Nothing, everybody(Sink::Own)),
        row("w1 nothing changed, archive", "w1", Before::Nothing, everybody(Sink::Gzip)),
        row("w2 twenty RUNs", "w2", Before::Cold, everybody(Sink::Own)),
        row("w2b twenty RUNs on busybox", "w2b", Before::Cold, everybody(Sink::Own)),
        row("w3 cold", "w3", Before::Cold, cold),
        row("w3 one file changed", "w3", Before::OneFile, everybody(Sink::Own)),
        row("w3 nothing changed", "w3", Before::Nothing, everybody(Sink::Own)),
        row("w4 archive, gzip", "w4", Before::Cold, vec![Build(Ours, Sink::Gzip), Build(Buildah, Sink::Gzip)]),
        row("w4 archive, zstd", "w4", Before::Cold, vec![Build(Ours, Sink::Zstd), Build(Buildah, Sink::Gzip)]),
        row("w4 archive, plain layers", "w4", Before::Cold, vec![Build(Ours, Sink::Plain), Build(Docker, Sink::Plain), copy]),
        row("w5 apt-get install gcc", "w5", Before::Cold, everybody(Sink::Own)),
        row("w6 six stages", "w6", Before::Cold, vec![Build(Ours, Sink::Own), Build(Docker, Sink::Own), Plain("sleep 2", "sleep 2")]),
    ]
}

impl Contestant {
    fn name(self) -> String {
        match self {
            Build(builder, _) => match builder {
                Ours => "lapstrake",
                Buildah => "buildah --isolation chroot",
                Docker => "Docker's BuildKit",
            },
            Plain(name, _) => name,
        }
        .to_owned()
    }

    /// Who fails once, and is not ours, gets another try: hours of rows are not lost for it.
    fn run(self, machine: &Machine, context: &str, cold: bool) -> Result<Cost> {
        match self {
            Build(Ours, sink) => machine.build(Ours, context, sink, cold),
            Build(peer, sink) => machine.build(peer, context, sink, cold).or_else(|error| {
                println!("once more: {error}");
                machine.build(peer, context, sink, cold)
            }),
            Plain(_, script) => shell(&machine.dir, script),
        }
    }
}

impl Row {
    /// Runs all rounds and prints the lines.
    pub(crate) fn race(&self, machine: &Machine, rounds: usize) -> Result<()> {
        let names: Vec<String> = self.contestants.iter().map(|each| each.name()).collect();
        let mut costs = vec![Vec::new(); names.len()];
        // The base is extracted and all programs are in memory; of what is long by itself that is too little to wait for.
        if !matches!(self.context, "w4" | "w5") {
            for each in &self.contestants {
                let _first = each.run(machine, self.context, false)?;
            }
        }
        for round in 0..rounds {
            if self.before == Before::OneFile {
                fs::write(machine.dir.join(self.context).join("keep/d000/f00000.txt"), format!("changed {round}\n"))?;
            }
            for (each, costs) in self.contestants.iter().zip(&mut costs) {
                costs.push(each.run(machine, self.context, self.before == Before::Cold)?);
            }
        }
        table(self.name, &names, &costs);
        for (each, size) in self.sizes(machine)? {
            println!("{:<28} {each:<26} {size:>8} MiB", "");
        }
        Ok(())
    }

    /// How large the archives are, where that is the question.
    fn sizes(&self, machine: &Machine) -> Result<Vec<(String, u64)>> {
        let mut sizes = Vec::new();
        if self.name == "w4 archive, gzip" {
            for each in &self.contestants {
                let _again = each.run(machine, self.context, false)?;
                sizes.push((each.name(), fs::metadata(machine.dir.join("out.tar"))?.len() >> 20));
            }
        }
        Ok(sizes)
    }
}
