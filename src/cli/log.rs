//! `--log-level`: what a command was at and what that took, on standard error, apart from progress and whatever its form.
//!
//! A line has the level, the time since the command began, what the part took, who was at it (the front, the engine, a step of the
//! engine by the number that progress gives it), and what it was. The parts are [`Phase`]s, on the clock that all processes
//! share. They name numbers and no text that somebody wrote, so that no secret can be in them.

use std::io::{self, Write as _};

use clap::ValueEnum;

use super::ledger::Ledger;
use crate::{
    engine::{
        Event,
        timing::{By, Instant, Phase, Span, Spell},
    },
    sys,
};

/// How much is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Level {
    /// Nothing.
    Off,
    /// What the command used in all, when it is over.
    Info,
    /// Also each of its parts, and each step.
    Debug,
    /// Also the parts of each step, its record and its layer.
    Trace,
}

/// What is told of one command.
#[derive(Debug, Clone, Copy)]
pub(super) struct Log {
    level: Level,
    begun: Instant,
}

impl Log {
    /// The command begins now.
    pub(super) fn begin(level: Level) -> Self {
        Self { level, begun: Instant::now() }
    }

    /// Are phases of the engine told?
    pub(super) fn has_phases(self) -> bool {
        self.level >= Level::Debug
    }

    /// A part that belongs to no step.
    pub(super) fn phase(self, phase: &Phase) {
        self.line(Level::Debug, phase.span, by(phase.by), &phase.what);
    }

    /// What of an event is worth a line; `ledger` has seen it.
    pub(super) fn see(self, event: &Event, ledger: &Ledger) {
        match event {
            Event::Phase(phase) => match phase.step {
                None => self.phase(phase),
                Some(step) => self.line(Level::Trace, phase.span, &number(step), &phase.what),
            },
            Event::Aside { what, span } => self.line(Level::Debug, *span, by(By::Front), what),
            Event::Spent { step, at, span } => {
                let (level, what) = match at {
                    Spell::Whole => return,
                    Spell::Waiting => (Level::Trace, "waited"),
                    Spell::Running => (Level::Trace, "ran"),
                    Spell::Compressing => (Level::Trace, "was compressed"),
                };
                self.line(level, *span, &number(*step), what);
            }
            Event::Finished { step, .. } => {
                let whole = ledger.step(*step).and_then(|entry| {
                    let span = entry.spells.iter().rev().find(|(at, _)| *at == Spell::Whole).map(|(_, span)| *span);
                    span.map(|span| (span, entry.word()))
                });
                if let Some((span, how)) = whole {
                    self.line(Level::Debug, span, &number(*step), how);
                }
            }
            Event::Layer { step, key, layer, .. } => {
                let now = Instant::now();
                self.line(
                    Level::Trace,
                    Span { from: now, to: now },
                    &number(*step),
                    &format!("has the record {key} and the layer {layer}"),
                );
            }
            Event::Driver { .. }
            | Event::Planned { .. }
            | Event::Started { .. }
            | Event::Missed { .. }
            | Event::Recorded { .. }
            | Event::Output { .. }
            | Event::Used { .. }
            | Event::Note { .. }
            | Event::Warning { .. }
            | Event::Transfer { .. } => {}
        }
    }

    /// The command is over.
    pub(super) fn end(self, code: u8) {
        let used = sys::used_by_all();
        let (cpu, peak) = (millis(u64::try_from(used.processors.as_micros()).unwrap_or(u64::MAX)), used.peak_memory >> 10);
        let what = format!("exit code {code}; {cpu} ms of processors, at most {peak} KiB of memory in one process");
        self.line(Level::Info, Span::since(self.begun), "in all", &what);
    }

    fn line(self, level: Level, span: Span, who: &str, what: &str) {
        if self.level < level {
            return;
        }
        let word = match level {
            Level::Off => return,
            Level::Info => "info",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let at = millis(span.to.micros_since(self.begun));
        let took = millis(span.to.micros_since(span.from));
        // A terminal that is gone is no reason to stop.
        let _lost_terminal = io::stderr().lock().write_all(format!("{word:5} {at:>10} ms {took:>10} ms  {who:7} {what}\n").as_bytes());
    }
}

fn by(by: By) -> &'static str {
    match by {
        By::Front => "front",
        By::Engine => "engine",
    }
}

/// As progress numbers steps.
fn number(step: usize) -> String {
    format!("#{}", step + 1)
}

/// Microseconds as milliseconds.
fn millis(micros: u64) -> String {
    format!("{}.{:03}", micros / 1000, micros % 1000)
}
