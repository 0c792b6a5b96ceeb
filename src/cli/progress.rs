//! Progress as text: what the events look like. `plain` has the form of BuildKit's, because people grep it.

use std::{
    collections::BTreeMap,
    io::{self, Write},
    time::Instant,
};

use serde_json::Value;

use super::{ledger::Ledger, log::Log, rawjson::RawJson};
use crate::{
    cache::Why,
    engine::{Event, How, StepInfo},
    error::Error,
    oci::DiffId,
    sandbox::{
        Driver,
        driver::{Isolation, Refusal},
    },
};

/// Which form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Line by line.
    Plain,
    /// An object of JSON for each event.
    RawJson,
    /// Nothing, unless a step fails: then what it printed.
    Quiet,
    /// Nothing at all.
    None,
}

/// The most of a step's output that quiet progress keeps for the case that it fails.
const TAIL: usize = 64 * 1024;

/// Writes events as they come.
pub(super) struct Progress<W> {
    log: Log,
    form: Form,
    to: W,
    steps: Vec<StepInfo>,
    running: BTreeMap<usize, Running>,
    transfers: BTreeMap<String, Instant>,
    /// That of steps which ask for none, in words.
    network: &'static str,
    /// Are all reasons wanted, and the records?
    explain: bool,
    ledger: Ledger,
    raw: RawJson,
}

/// A step that runs: when it began, and what it printed that is not shown yet.
struct Running {
    since: Instant,
    pending: Vec<u8>,
}

impl<W: Write> Progress<W> {
    /// Nothing has happened. `network` is the value of the flag.
    pub(super) fn new(form: Form, to: W, network: &str, log: Log) -> Self {
        let network = if network == "none" { "no network" } else { "the host's network" };
        Self {
            log,
            form,
            to,
            steps: Vec::new(),
            running: BTreeMap::new(),
            transfers: BTreeMap::new(),
            network,
            explain: false,
            ledger: Ledger::default(),
            raw: RawJson::default(),
        }
    }

    /// With all reasons for what is done and what is not.
    pub(super) fn explaining(mut self, explain: bool) -> Self {
        self.explain = explain;
        self
    }

    /// Shows an event. A terminal that is gone is no reason to stop a build.
    pub(super) fn show(&mut self, event: &Event) {
        self.ledger.see(event);
        self.log.see(event, &self.ledger);
        let _lost_terminal: io::Result<()> = match self.form {
            Form::Plain => self.plain(event),
            Form::RawJson => self.raw.event(event, &self.ledger).map_or(Ok(()), |line| self.json(&line)),
            Form::Quiet => self.quiet(event),
            Form::None => Ok(()),
        };
    }

    /// The build ended with an error: says what was never begun.
    pub(super) fn failed(&mut self, error: &Error) {
        match self.form {
            Form::Plain => {
                for step in self.ledger.skipped() {
                    let title = self.title(step);
                    let _lost_terminal = writeln!(self.to, "#{} SKIPPED {title}", step + 1);
                }
            }
            Form::RawJson => {
                for line in self.raw.failed(error, &self.ledger) {
                    let _lost_terminal = self.json(&line);
                }
            }
            Form::Quiet | Form::None => {}
        }
    }

    /// What became of each step.
    pub(super) fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    fn json(&mut self, line: &Value) -> io::Result<()> {
        writeln!(self.to, "{line}")?;
        self.to.flush()
    }

    /// Shows a line that belongs to no step.
    pub(super) fn line(&mut self, text: &str) {
        if self.form == Form::Plain {
            let _lost_terminal = writeln!(self.to, "{text}");
        }
    }

    fn plain(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Driver { driver, refused } => self.driver(*driver, refused)?,
            Event::Planned { steps } => self.steps.clone_from(steps),
            Event::Started { step } => {
                drop(self.running.insert(*step, Running { since: Instant::now(), pending: Vec::new() }));
                let title = self.title(*step);
                writeln!(self.to, "#{} {title}", step + 1)?;
            }
            Event::Missed { step, why } => self.missed(*step, why)?,
            Event::Layer { step, key, layer, created } => self.layer(*step, key, layer, created)?,
            Event::Output { step, bytes, .. } => self.output(*step, bytes)?,
            Event::Finished { step, how, millis } => self.finished(*step, *how, *millis)?,
            Event::Note { text } => writeln!(self.to, "   {text}")?,
            Event::Transfer { what, done, total } => self.transfer(what, *done, *total)?,
            // A warning is drawn with the Dockerfile beside it, by who has it; figures are of the page.
            Event::Warning { .. }
            | Event::Recorded { .. }
            | Event::Spent { .. }
            | Event::Used { .. }
            | Event::Phase(_)
            | Event::Aside { .. } => {}
        }
        self.to.flush()
    }

    /// One line: the first reason and how many there are besides; all of them, and compared with what, if it is asked for.
    fn missed(&mut self, step: usize, why: &Why) -> io::Result<()> {
        if !self.explain {
            return writeln!(self.to, "#{} not cached: {}", step + 1, visible(why.to_string().as_bytes()));
        }
        if let Why::Changed { since, .. } = why {
            writeln!(self.to, "#{} not cached; what is different from its nearest record, made {}:", step + 1, visible(since.as_bytes()))?;
        }
        for line in why.lines() {
            writeln!(self.to, "#{} not cached: {}", step + 1, visible(line.as_bytes()))?;
        }
        Ok(())
    }

    /// Which record it is, if that is asked for.
    fn layer(&mut self, step: usize, key: &str, layer: &DiffId, created: &str) -> io::Result<()> {
        if !self.explain {
            return Ok(());
        }
        let short: String = key.chars().take(16).collect();
        writeln!(self.to, "#{} record {short}, made {}: layer {layer}", step + 1, visible(created.as_bytes()))
    }

    /// The first line says how steps are run; what was passed over for it follows.
    fn driver(&mut self, driver: Option<Driver>, refused: &[Refusal]) -> io::Result<()> {
        match driver {
            Some(driver) => writeln!(self.to, "steps: {driver}; {}, unless they ask otherwise", self.network)?,
            None if refused.is_empty() => writeln!(self.to, "steps: none is run, and no image's files are read")?,
            None => writeln!(self.to, "steps: none can be run")?,
        }
        for refusal in refused {
            writeln!(self.to, "   not used: {}", visible(refusal.to_string().as_bytes()))?;
        }
        self.unconfined(driver)
    }

    /// A loud word, whatever the form.
    fn unconfined(&mut self, driver: Option<Driver>) -> io::Result<()> {
        if driver.is_none_or(|driver| driver.isolation != Isolation::Chroot) {
            return Ok(());
        }
        writeln!(
            self.to,
            "WARNING: steps run in a changed root directory and nothing else, which confines no hostile one: it can reach this \
             machine's (or container's) files and processes. Build only what you trust. `lapstrake doctor` says what a real sandbox needs."
        )
    }

    fn title(&self, step: usize) -> String {
        self.steps.get(step).map_or_else(String::new, |info| {
            let first = info.shown.lines().next().unwrap_or_default();
            format!("[{} {}/{}] {}", info.stage, info.number, info.of, visible(first.as_bytes()))
        })
    }

    fn output(&mut self, step: usize, bytes: &[u8]) -> io::Result<()> {
        let Some(running) = self.running.get_mut(&step) else { return Ok(()) };
        running.pending.extend_from_slice(bytes);
        let seconds = running.since.elapsed().as_secs_f32();
        while let Some(end) =
            running.pending.iter().position(|byte| *byte == b'\n').or_else(|| (running.pending.len() > TAIL).then_some(TAIL))
        {
            let line: Vec<u8> = running.pending.drain(..=end).collect();
            writeln!(self.to, "#{} {seconds:.3} {}", step + 1, visible(line.strip_suffix(b"\n").unwrap_or(&line)))?;
        }
        Ok(())
    }

    fn finished(&mut self, step: usize, how: How, millis: u64) -> io::Result<()> {
        if let Some(rest) = self.running.remove(&step).filter(|running| !running.pending.is_empty()) {
            writeln!(self.to, "#{} {:.3} {}", step + 1, rest.since.elapsed().as_secs_f32(), visible(&rest.pending))?;
        }
        let seconds = std::time::Duration::from_millis(millis).as_secs_f32();
        match how {
            How::Noted => Ok(()),
            How::Cached => writeln!(self.to, "#{} CACHED", step + 1),
            How::Imported => writeln!(self.to, "#{} IMPORTED", step + 1),
            How::Done => writeln!(self.to, "#{} DONE {seconds:.1}s", step + 1),
            How::Failed => writeln!(self.to, "#{} ERROR after {seconds:.1}s", step + 1),
            How::Cancelled => writeln!(self.to, "#{} CANCELED after {seconds:.1}s", step + 1),
        }
    }

    /// A line when it begins, each second, and at the end.
    fn transfer(&mut self, what: &str, done: u64, total: u64) -> io::Result<()> {
        let now = Instant::now();
        let due = self.transfers.get(what).is_none_or(|last| now.duration_since(*last).as_secs() >= 1);
        if done >= total {
            let _begun: Option<Instant> = self.transfers.remove(what);
        } else if due {
            let _last: Option<Instant> = self.transfers.insert(what.to_owned(), now);
        }
        if due || done >= total { writeln!(self.to, "   {what} {done} / {total} bytes") } else { Ok(()) }
    }

    /// Keeps what a step prints, and shows it only if the step fails.
    fn quiet(&mut self, event: &Event) -> io::Result<()> {
        match event {
            Event::Started { step } => drop(self.running.insert(*step, Running { since: Instant::now(), pending: Vec::new() })),
            Event::Output { step, bytes, .. } => {
                if let Some(running) = self.running.get_mut(step) {
                    running.pending.extend_from_slice(bytes);
                    let excess = running.pending.len().saturating_sub(TAIL);
                    drop(running.pending.drain(..excess));
                }
            }
            Event::Finished { step, how, .. } => {
                if let (Some(running), How::Failed) = (self.running.remove(step), how) {
                    for line in running.pending.split_inclusive(|byte| *byte == b'\n') {
                        writeln!(self.to, "{}", visible(line.strip_suffix(b"\n").unwrap_or(line)))?;
                    }
                }
            }
            Event::Driver { driver, .. } => self.unconfined(*driver)?,
            Event::Planned { .. }
            | Event::Recorded { .. }
            | Event::Missed { .. }
            | Event::Layer { .. }
            | Event::Spent { .. }
            | Event::Used { .. }
            | Event::Phase(_)
            | Event::Aside { .. }
            | Event::Note { .. }
            | Event::Transfer { .. }
            | Event::Warning { .. } => {}
        }
        self.to.flush()
    }
}

/// Bytes of a step or of a name as text for a terminal: control sequences can do no harm, nor can what turns the
/// direction of all that follows; tabs stay.
pub(super) fn visible(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\t' => shown.push('\t'),
            '\r' => {}
            '\u{1b}' => shown.push('␛'),
            other if other.is_control() || matches!(other, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') => {
                shown.extend(other.escape_default());
            }
            other => shown.push(other),
        }
    }
    shown
}
