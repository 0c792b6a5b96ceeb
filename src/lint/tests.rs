//! Every rule against its own example.

use std::collections::BTreeSet;

use super::{Files, Options, Origin, Rule, Subject, check, rules};
use crate::{
    dockerfile,
    plan::{self, AssumedBases, Wanted},
};

/// The files of an example.
struct Shown(&'static [(&'static str, u32, &'static str)]);

impl Files for Shown {
    fn is_excluded(&self, path: &str) -> Option<bool> {
        let (_, _, patterns) = self.0.iter().find(|(path, ..)| *path == ".dockerignore")?;
        // Examples use suffixes only.
        Some(patterns.lines().any(|pattern| pattern.strip_prefix('*').is_some_and(|end| path.ends_with(end))))
    }

    fn mode(&self, path: &str) -> Option<u32> {
        self.0.iter().find(|(known, ..)| *known == path).map(|(_, mode, _)| *mode)
    }
}

/// What all rules say of a text: rule, line, detail.
fn said(rule: &Rule, text: &str) -> Vec<(&'static str, u32, String)> {
    let parsed = dockerfile::parse(text);
    assert!(parsed.errors.is_empty(), "{}: {:?}", rule.name, parsed.errors);
    let request = plan::Request { platform: "linux/amd64".parse().ok(), ..plan::Request::default() };
    let bases = AssumedBases::default().with("arm64v8/busybox", "linux/arm64".parse().unwrap());
    let facts = plan::survey(&parsed.dockerfile, &request, &bases, Wanted::All).facts;
    let files = Shown(rule.example.files);
    let subject = Subject { text, parsed: &parsed, facts: Some(&facts), files: Some(&files) };
    let found = check(subject, &Options::of(text, None).unwrap());
    found.into_iter().map(|finding| (finding.rule.name, finding.place.lines.0, finding.detail)).collect()
}

#[test]
fn every_rule_says_of_its_example_what_it_shows() {
    for rule in rules() {
        let bad = said(rule, rule.example.bad);
        let own: Vec<(u32, &str)> =
            bad.iter().filter(|(name, ..)| *name == rule.name).map(|(_, line, text)| (*line, text.as_str())).collect();
        assert_eq!(own, rule.example.says, "{}", rule.name);
        assert!(!rule.example.says.is_empty(), "{} has nothing to show", rule.name);
        assert_eq!(said(rule, rule.example.good), [], "the good example of {}", rule.name);
    }
}

#[test]
fn every_rule_can_be_skipped_for_the_file_and_by_the_build_argument() {
    for rule in rules().filter(|rule| !rule.experimental) {
        let skipped = format!("# check=skip={}\n{}", rule.name, rule.example.bad);
        assert!(said(rule, &skipped).iter().all(|(name, ..)| *name != rule.name), "{}", rule.name);
        let all = format!("# check=skip=all\n{}", rule.example.bad);
        assert_eq!(said(rule, &all), [], "{}", rule.name);
    }
}

#[test]
fn names_are_unique_and_nothing_is_missing() {
    let names: BTreeSet<&str> = rules().map(|rule| rule.name).collect();
    assert_eq!(names.len(), rules().count());
    assert_eq!(rules().filter(|rule| rule.origin != Origin::Own).count(), 22);
    for rule in rules() {
        assert!(!rule.summary.ends_with('.') && rule.summary.len() < 130, "{}", rule.name);
        assert!(rule.name.starts_with(char::is_uppercase) && rule.name.chars().all(char::is_alphanumeric), "{}", rule.name);
    }
}
