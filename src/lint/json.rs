//! Findings in the JSON form of a parsed file.

use serde_json::{Map, Value, json};

use super::{Finding, Options, Origin, Subject, check, violation};
use crate::{
    dockerfile::Parsed,
    plan::{self, AssumedBases, Wanted},
};

/// Adds `checks`, `hints` (what our own rules find) and `build_error` to the JSON of a parsed file. Nothing but the text is looked
/// at: of its bases only a `PATH` is assumed, and the platform `linux/amd64`.
pub fn describe(text: &str, parsed: &Parsed, out: &mut Map<String, Value>) {
    let (found, stop) = judge(text, parsed);
    let entries = |own: bool| -> Value { found.iter().filter(|finding| (finding.rule.origin == Origin::Own) == own).map(entry).collect() };
    drop(out.insert("checks".to_owned(), entries(false)));
    let hints = entries(true);
    if hints.as_array().is_some_and(|hints| !hints.is_empty()) {
        drop(out.insert("hints".to_owned(), hints));
    }
    if let Some(stop) = stop {
        drop(out.insert("build_error".to_owned(), json!(stop)));
    }
}

/// What is found, and the error at which a build would end before its first step.
fn judge(text: &str, parsed: &Parsed) -> (Vec<Finding>, Option<String>) {
    let options = match Options::of(text, None) {
        Ok(options) => options,
        Err(error) => return (Vec::new(), Some(error.to_string())),
    };
    let platform = "linux/amd64".parse().ok();
    let request = plan::Request { platform, ..plan::Request::default() };
    let facts = parsed.errors.is_empty().then(|| plan::survey(&parsed.dockerfile, &request, &AssumedBases::default(), Wanted::All).facts);
    let found = check(Subject { text, parsed, facts: facts.as_ref(), files: None }, &options);
    let stop = facts.and_then(|facts| facts.stop).or_else(|| violation(&options, &found).filter(|_| parsed.errors.is_empty()));
    (found, stop)
}

fn entry(finding: &Finding) -> Value {
    json!({"rule": finding.rule.name, "detail": finding.detail, "line": finding.place.lines.0})
}
