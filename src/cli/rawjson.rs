//! Progress as JSON, an object for each event on a line of its own: the status messages of BuildKit, as `buildx` prints them with
//! `--progress rawjson`. What BuildKit has no word for stands under `lapstrake`, in a vertex or beside them.
//!
//! Source: BuildKit `client/graph.go` (the fields), `util/progress/progressui/display.go` (one message on a line).

use serde_json::{Map, Value, json};

use super::ledger::{Ledger, now};
use crate::{
    diag::Diagnostic,
    engine::{Event, How},
    error::Error,
    http::base64,
    oci::Digest,
    sandbox::Stream,
};

/// The messages of a build.
#[derive(Default)]
pub(super) struct RawJson {
    /// Those failed steps whose error is not known yet.
    failed: Vec<usize>,
    /// What is on its way, and since when.
    transfers: Vec<(String, String)>,
}

impl RawJson {
    /// The line of an event; `ledger` has seen it.
    pub(super) fn event(&mut self, event: &Event, ledger: &Ledger) -> Option<Value> {
        match event {
            Event::Driver { driver, refused } => Some(ours("driver", json!({ "used": driver, "refused": refused }))),
            Event::Planned { .. } => {
                let all: Vec<Value> = (0..).map_while(|step| self.vertex(step, ledger, None)).collect();
                Some(json!({ "vertexes": all }))
            }
            Event::Finished { step, how: How::Failed, .. } => {
                self.failed.push(*step);
                None
            }
            Event::Finished { step, how: How::Cancelled, .. } => self.vertexes(*step, ledger, Some("context canceled")),
            Event::Started { step } | Event::Finished { step, .. } | Event::Missed { step, .. } => self.vertexes(*step, ledger, None),
            // Told with the end of the step, and in the page of timings.
            Event::Layer { .. }
            | Event::Recorded { .. }
            | Event::Spent { .. }
            | Event::Used { .. }
            | Event::Phase(_)
            | Event::Aside { .. } => None,
            Event::Output { step, stream, bytes } => {
                let number = if *stream == Stream::Out { 1 } else { 2 };
                let log = json!({ "vertex": vertex_of(*step), "stream": number, "data": base64(bytes), "timestamp": now() });
                Some(json!({ "logs": [log] }))
            }
            Event::Note { text } => Some(ours("note", json!(text))),
            Event::Warning { diagnostic } => Some(json!({ "warnings": [warning(diagnostic)] })),
            Event::Transfer { what, done, total } => Some(self.transfer(what, *done, *total)),
        }
    }

    /// The lines at the end of a build that failed.
    pub(super) fn failed(&mut self, error: &Error, ledger: &Ledger) -> Vec<Value> {
        let text = error.to_string();
        let failed = std::mem::take(&mut self.failed);
        let mut lines: Vec<Value> = failed.into_iter().filter_map(|step| self.vertexes(step, ledger, Some(&text))).collect();
        lines.push(ours("failed", json!({ "error": text, "exitCode": error.kind.exit_code(), "skipped": ledger.skipped() })));
        lines
    }

    fn vertexes(&self, step: usize, ledger: &Ledger, error: Option<&str>) -> Option<Value> {
        Some(json!({ "vertexes": [self.vertex(step, ledger, error)?] }))
    }

    #[expect(clippy::unused_self, reason = "a vertex is one of these messages")]
    fn vertex(&self, step: usize, ledger: &Ledger, error: Option<&str>) -> Option<Value> {
        let entry = ledger.step(step)?;
        let mut vertex = Map::new();
        let mut put = |key: &str, value: Value| drop(vertex.insert(key.to_owned(), value));
        put("digest", json!(vertex_of(step)));
        if !entry.info.needs.is_empty() {
            let inputs: Vec<String> = entry.info.needs.iter().map(|step| vertex_of(*step)).collect();
            put("inputs", json!(inputs));
        }
        put("name", json!(entry.name()));
        for (key, time) in [("started", &entry.started), ("completed", &entry.completed)] {
            if let Some(time) = time {
                put(key, json!(time));
            }
        }
        if matches!(entry.how, Some(How::Cached | How::Imported)) {
            put("cached", json!(true));
        }
        if let Some(error) = error {
            put("error", json!(error));
        }
        put("lapstrake", Value::Object(entry.ours()));
        Some(Value::Object(vertex))
    }

    /// A transfer is a vertex of its own with one status, which goes from 0 to the end.
    fn transfer(&mut self, what: &str, done: u64, total: u64) -> Value {
        let known = self.transfers.iter().find(|(name, _)| name == what).map(|(_, since)| since.clone());
        let (is_new, since) = (known.is_none(), known.unwrap_or_else(now));
        let (vertex, ended) = (digest(&format!("transfer {what}")), (done >= total).then(now));
        let mut message = Map::new();
        if is_new || ended.is_some() {
            let mut whole = json!({ "digest": vertex, "name": what, "started": since });
            complete(&mut whole, ended.as_deref());
            drop(message.insert("vertexes".to_owned(), json!([whole])));
        }
        let mut status = json!({ "id": what, "vertex": vertex, "total": total, "current": done, "timestamp": now(), "started": since });
        complete(&mut status, ended.as_deref());
        drop(message.insert("statuses".to_owned(), json!([status])));
        if ended.is_some() {
            self.transfers.retain(|(name, _)| name != what);
        } else if is_new {
            self.transfers.push((what.to_owned(), since));
        }
        Value::Object(message)
    }
}

fn complete(value: &mut Value, ended: Option<&str>) {
    if let (Some(ended), Some(fields)) = (ended, value.as_object_mut()) {
        drop(fields.insert("completed".to_owned(), json!(ended)));
    }
}

fn warning(diagnostic: &Diagnostic) -> Value {
    let detail: Vec<String> = diagnostic.notes.iter().chain(&diagnostic.help).map(|text| base64(text.as_bytes())).collect();
    json!({ "level": 1, "short": base64(diagnostic.headline.as_bytes()), "detail": detail, "lapstrake": { "rule": diagnostic.rule } })
}

fn ours(key: &str, value: Value) -> Value {
    json!({ "lapstrake": Map::from_iter([(key.to_owned(), value)]) })
}

fn vertex_of(step: usize) -> String {
    digest(&format!("step {step}"))
}

/// What tells a vertex from the others of the build.
fn digest(of: &str) -> String {
    Digest::of(format!("lapstrake vertex {of}").as_bytes()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StepInfo;

    fn lines(events: &[Event]) -> Vec<Value> {
        let (mut raw, mut ledger) = (RawJson::default(), Ledger::default());
        let mut line = |event: &Event| {
            ledger.see(event);
            raw.event(event, &ledger)
        };
        events.iter().filter_map(&mut line).collect()
    }

    fn planned() -> Event {
        let step =
            |number, needs| StepInfo { stage: "a".into(), number, of: 2, shown: format!("RUN {number}"), needs, on: None, base: vec![] };
        Event::Planned { steps: vec![step(1, vec![]), step(2, vec![0])] }
    }

    #[test]
    fn a_cached_step_is_a_vertex_with_its_inputs_and_times() {
        let all = lines(&[planned(), Event::Started { step: 1 }, Event::Finished { step: 1, how: How::Cached, millis: 1 }]);
        assert_eq!(all[0]["vertexes"].as_array().unwrap().len(), 2);
        let last = &all[2]["vertexes"][0];
        assert_eq!((&last["name"], &last["cached"]), (&json!("[a 2/2] RUN 2"), &json!(true)));
        assert_eq!(last["inputs"][0], all[0]["vertexes"][0]["digest"]);
        assert!(last["started"].is_string() && last["completed"].is_string() && last["lapstrake"]["how"] == "cached", "{last}");
    }

    #[test]
    fn a_transfer_has_one_beginning_and_one_end() {
        let transfer = |done| Event::Transfer { what: "pull x".into(), done, total: 9 };
        let all = lines(&[transfer(0), transfer(5), transfer(9)]);
        assert!(all[0]["vertexes"][0]["completed"].is_null() && all[1]["vertexes"].is_null());
        assert_eq!(all[1]["statuses"][0]["current"], 5);
        assert!(all[2]["vertexes"][0]["completed"].is_string() && all[2]["statuses"][0]["completed"].is_string());
    }

    #[test]
    fn what_a_step_prints_is_base64() {
        let all = lines(&[planned(), Event::Output { step: 0, stream: Stream::Out, bytes: b"hi\n".to_vec() }]);
        assert_eq!(all[1]["logs"][0]["data"], "aGkK");
    }
}
