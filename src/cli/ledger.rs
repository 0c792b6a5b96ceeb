//! What became of each step, kept while the events come: for `--metadata-file`, for rawjson, for the page of `--timings`, and for what was never begun.

use serde_json::{Map, Value, json};

use crate::{
    cache::Why,
    engine::{
        Event, How, StepInfo,
        timing::{Instant, Span, Spell, Used},
    },
    oci::DiffId,
};

/// All steps of a build, in the order of the plan.
#[derive(Default)]
pub(super) struct Ledger {
    pub(super) steps: Vec<Entry>,
    /// What belongs to no step, and when it was.
    pub(super) asides: Vec<(String, Span)>,
    /// What is being fetched or sent, and since when.
    transfers: Vec<(String, Instant)>,
}

/// The most that is kept of what belongs to no step.
const ASIDES: usize = 10_000;

/// One step.
pub(super) struct Entry {
    pub(super) info: StepInfo,
    /// RFC 3339, as all times here.
    pub(super) started: Option<String>,
    pub(super) completed: Option<String>,
    pub(super) how: Option<How>,
    pub(super) why: Option<Why>,
    /// Its key, its layer, and when that was made.
    pub(super) layer: Option<(String, DiffId, String)>,
    /// When it was at what.
    pub(super) spells: Vec<(Spell, Span)>,
    pub(super) used: Used,
}

impl Ledger {
    /// Notes an event.
    pub(super) fn see(&mut self, event: &Event) {
        match event {
            Event::Planned { steps } => self.steps = steps.iter().map(Entry::planned).collect(),
            Event::Started { step } => self.change(*step, |entry| entry.started = Some(now())),
            Event::Missed { step, why } => self.change(*step, |entry| entry.why = Some(why.clone())),
            Event::Layer { step, key, layer, created } => {
                self.change(*step, |entry| entry.layer = Some((key.clone(), *layer, created.clone())));
            }
            Event::Finished { step, how, .. } => self.change(*step, |entry| {
                entry.how = Some(*how);
                entry.completed = Some(now());
            }),
            Event::Spent { step, at, span } => self.change(*step, |entry| entry.spells.push((*at, *span))),
            Event::Used { step, used } => self.change(*step, |entry| entry.used = entry.used.and(*used)),
            Event::Aside { what, span } => self.aside(what, *span),
            Event::Transfer { what, done, total } => self.transfer(what, *done >= *total),
            Event::Phase(_)
            | Event::Recorded { .. }
            | Event::Driver { .. }
            | Event::Output { .. }
            | Event::Note { .. }
            | Event::Warning { .. } => {}
        }
    }

    fn aside(&mut self, what: &str, span: Span) {
        if self.asides.len() < ASIDES {
            self.asides.push((what.to_owned(), span));
        }
    }

    fn transfer(&mut self, what: &str, is_over: bool) {
        let known = self.transfers.iter().position(|(name, _)| name == what);
        let since = known.and_then(|at| self.transfers.get(at)).map_or_else(Instant::now, |(_, since)| *since);
        match (known, is_over) {
            (Some(at), true) => {
                drop(self.transfers.swap_remove(at));
                self.aside(what, Span::since(since));
            }
            (None, true) => self.aside(what, Span::since(since)),
            (None, false) if self.transfers.len() < ASIDES => self.transfers.push((what.to_owned(), since)),
            (Some(_) | None, false) => {}
        }
    }

    fn change(&mut self, step: usize, change: impl FnOnce(&mut Entry)) {
        if let Some(entry) = self.steps.get_mut(step) {
            change(entry);
        }
    }

    /// A step.
    pub(super) fn step(&self, number: usize) -> Option<&Entry> {
        self.steps.get(number)
    }

    /// The numbers of the steps that were never begun.
    pub(super) fn skipped(&self) -> Vec<usize> {
        self.steps.iter().enumerate().filter(|(_, entry)| entry.started.is_none()).map(|(number, _)| number).collect()
    }

    /// The steps, for `--metadata-file`.
    pub(super) fn json(&self) -> Value {
        let step = |entry: &Entry| {
            let mut all = entry.ours();
            for (key, time) in [("started", &entry.started), ("completed", &entry.completed)] {
                if let Some(time) = time {
                    drop(all.insert(key.to_owned(), json!(time)));
                }
            }
            Value::Object(all)
        };
        self.steps.iter().map(step).collect()
    }
}

impl Entry {
    fn planned(info: &StepInfo) -> Self {
        Self {
            info: info.clone(),
            started: None,
            completed: None,
            how: None,
            why: None,
            layer: None,
            spells: Vec::new(),
            used: Used::default(),
        }
    }

    /// As BuildKit names it.
    pub(super) fn name(&self) -> String {
        let StepInfo { stage, number, of, shown, .. } = &self.info;
        format!("[{stage} {number}/{of}] {shown}")
    }

    /// What is known of it.
    pub(super) fn ours(&self) -> Map<String, Value> {
        let StepInfo { stage, number, of, shown, .. } = &self.info;
        let mut all = Map::new();
        let mut put = |key: &str, value: Value| drop(all.insert(key.to_owned(), value));
        put("stage", json!(stage));
        put("number", json!(number));
        put("of", json!(of));
        put("instruction", json!(shown));
        put("how", json!(self.word()));
        if let Some(why) = &self.why {
            let mut told = json!(why);
            if let Some(fields) = told.as_object_mut() {
                drop(fields.insert("lines".to_owned(), json!(why.lines())));
            }
            put("missed", told);
        }
        if let Some((key, layer, created)) = &self.layer {
            put("key", json!(key));
            put("layer", json!(layer.to_string()));
            put("created", json!(created));
        }
        all
    }

    pub(super) fn word(&self) -> &'static str {
        match self.how {
            None if self.started.is_none() => "skipped",
            None => "running",
            Some(how) => word(how),
        }
    }
}

/// In one word.
fn word(how: How) -> &'static str {
    match how {
        How::Cached => "cached",
        How::Imported => "imported",
        How::Done => "done",
        How::Noted => "noted",
        How::Failed => "failed",
        How::Cancelled => "canceled",
    }
}

/// Now, RFC 3339 with nanoseconds, UTC.
pub(super) fn now() -> String {
    jiff::Timestamp::try_from(crate::sys::now()).map(|now| now.to_string()).unwrap_or_default()
}
