//! The rules: what BuildKit finds in real files, and what a user sees of it.

use std::{collections::BTreeMap, path::PathBuf};

use lapstrake::{dockerfile, lint};
use serde_json::Value;

use crate::harness::skipped;

/// The conformance files, where they are.
fn conformance() -> Option<PathBuf> {
    let folder = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/conformance/parse"));
    if folder.is_dir() {
        return Some(folder);
    }
    skipped("the conformance files are not here");
    None
}

/// What `lapstrake parse --json` says of a text.
fn described(text: &str) -> Value {
    let parsed = dockerfile::parse(text);
    let mut json = dockerfile::json::to_json(&parsed);
    lint::describe(text, &parsed, json.as_object_mut().unwrap());
    json
}

/// Rule, line and detail of each finding. The order of those of one line is not BuildKit's either.
fn findings(json: &Value, key: &str) -> Vec<(String, u64, String)> {
    let word = |entry: &Value, key: &str| entry[key].as_str().unwrap().to_owned();
    let entries = json[key].as_array().into_iter().flatten();
    let mut found: Vec<_> = entries.map(|entry| (word(entry, "rule"), entry["line"].as_u64().unwrap(), word(entry, "detail"))).collect();
    found.sort();
    found
}

/// Compares with the oracle; what differs, and how many findings of each rule agree.
#[derive(Default)]
struct Agreement {
    files: usize,
    rules: BTreeMap<String, usize>,
    different: Vec<String>,
}

impl Agreement {
    fn compare(&mut self, name: &str, text: &str, oracle: &Value) {
        self.files += 1;
        let ours = described(text);
        let expected = findings(oracle, "checks");
        if findings(&ours, "checks") != expected || (ours["build_error"].is_null() && !oracle["build_error"].is_null()) {
            let theirs = &oracle["build_error"];
            let stop = &ours["build_error"];
            self.different.push(format!("{name}:\n  oracle {expected:?} {theirs}\n  ours   {:?} {stop}", findings(&ours, "checks")));
            return;
        }
        for (rule, ..) in expected {
            *self.rules.entry(rule).or_default() += 1;
        }
    }

    fn hold(&self, what: &str) {
        println!("{what}: {} files, findings that agree: {:?}", self.files, self.rules);
        assert!(self.different.is_empty(), "{} of {} differ:\n{}", self.different.len(), self.files, self.different.join("\n"));
    }
}

#[test]
fn in_real_files_the_rules_find_what_buildkit_finds() {
    let Some(folder) = conformance() else { return };
    let mut agreement = Agreement::default();
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder.join("real")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|end| end == "Dockerfile"));
    files.sort();
    for path in files {
        let oracle: Value = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
        agreement.compare(&path.display().to_string(), &std::fs::read_to_string(&path).unwrap(), &oracle);
    }
    agreement.hold("real files");
    assert!(agreement.files >= 295);
}

#[test]
fn in_the_files_of_its_check_tests_the_rules_find_what_buildkit_finds() {
    let Some(folder) = conformance() else { return };
    let mut agreement = Agreement::default();
    for line in std::fs::read_to_string(folder.join("upstream/inline.jsonl")).unwrap().lines() {
        let row: Value = serde_json::from_str(line).unwrap();
        if row["oracle"]["checks"].is_array() {
            agreement.compare(row["text"].as_str().unwrap(), row["text"].as_str().unwrap(), &row["oracle"]);
        }
    }
    agreement.hold("check tests");
    assert!(agreement.files >= 40);
}
