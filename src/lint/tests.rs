//! Every rule against its own example.

use std::{collections::BTreeSet, path::Path};

use super::{Example, Files, Finding, Options, Origin, Rule, Subject, check, rules, view::MOST};
use crate::{
    diag::{Source, render},
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

/// What all rules find in a text.
fn found(rule: &Rule, text: &str) -> Vec<Finding> {
    let parsed = dockerfile::parse(text);
    assert!(parsed.errors.is_empty(), "{}: {:?}", rule.name, parsed.errors);
    let request = plan::Request { platform: "linux/amd64".parse().ok(), ..plan::Request::default() };
    let bases = AssumedBases::default().with("arm64v8/busybox", "linux/arm64".parse().unwrap());
    let facts = plan::survey(&parsed.dockerfile, &request, &bases, Wanted::All).facts;
    let files = Shown(rule.example.files);
    let subject = Subject { text, parsed: &parsed, facts: Some(&facts), files: Some(&files) };
    check(subject, &Options::of(text, None).unwrap())
}

/// The same as rule, line, detail.
fn said(rule: &Rule, text: &str) -> Vec<(&'static str, u32, String)> {
    found(rule, text).into_iter().map(|finding| (finding.rule.name, finding.place.lines.0, finding.detail)).collect()
}

/// The top of the project.
fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn what_the_rules_say_is_in_the_catalogue_of_messages() {
    let shown: Vec<String> = rules()
        .map(|rule| {
            let source = Source { name: "Dockerfile".to_owned(), text: rule.example.bad.to_owned() };
            let own = found(rule, rule.example.bad).into_iter().filter(|finding| finding.rule.name == rule.name);
            own.map(|finding| render(&source, &finding.diagnostic())).collect()
        })
        .collect();
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path(top().join("testdata/messages"));
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("rules", shown.join("\n")));
}

/// A table of docs/lint.md: the rules of one origin, each with its examples.
fn page(own: bool) -> String {
    let sections = rules().filter(|rule| (rule.origin == Origin::Own) == own).map(|rule| {
        let url = rule.url().map(|url| format!(" ([BuildKit's page]({url}))")).unwrap_or_default();
        let experimental = if rule.experimental { " Only with `experimental=`." } else { "" };
        let mut summary = rule.summary.to_owned();
        if let Some(first) = summary.get_mut(..1) {
            first.make_ascii_uppercase();
        }
        let Example { bad, good, files, says } = &rule.example;
        let files: Vec<String> = files.iter().map(|(path, mode, text)| format!("# file {path}, mode {mode:04o}: {text:?}\n")).collect();
        let says: Vec<String> = says.iter().map(|(line, detail)| format!("# line {line}: {detail}\n")).collect();
        let bad = format!("```dockerfile\n{}{bad}{}```", files.concat(), says.concat());
        format!("### {}\n\n{summary}.{experimental}{url}\n\n{bad}\n\nRight:\n\n```dockerfile\n{good}```\n\n", rule.name)
    });
    sections.collect::<Vec<_>>().concat()
}

#[test]
fn the_page_of_the_rules_is_up_to_date() {
    let path = top().join("docs/lint.md");
    let text = std::fs::read_to_string(&path).unwrap();
    let head = text.split("## BuildKit's rules\n").next().unwrap();
    let expected = format!("{head}## BuildKit's rules\n\n{}## Our own rules\n\n{}", page(false), page(true));
    let expected = format!("{}\n", expected.trim_end());
    if text != expected {
        let new = path.with_extension("md.new");
        std::fs::write(&new, expected).unwrap();
        panic!("docs/lint.md is not what the rules say of themselves; {} is", new.display());
    }
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

/// What all rules find in a text of no rule's.
fn all(text: &str) -> Vec<(&'static str, u32)> {
    let parsed = dockerfile::parse(text);
    let facts = plan::survey(&parsed.dockerfile, &plan::Request::default(), &AssumedBases::default(), Wanted::All).facts;
    let subject = Subject { text, parsed: &parsed, facts: Some(&facts), files: None };
    check(subject, &Options::default()).into_iter().map(|finding| (finding.rule.name, finding.place.lines.0)).collect()
}

#[test]
fn a_rule_that_finds_too_much_silences_no_other() {
    let text = format!("FROM a\n{}USER “me”\n", "ENV a b\n".repeat(MOST + 1));
    let found = all(&text);
    assert_eq!(found.iter().filter(|(name, _)| *name == "LegacyKeyValueFormat").count(), MOST);
    assert!(found.contains(&("TypographicQuotes", u32::try_from(MOST).unwrap() + 3)));
}

#[test]
fn comments_hold_for_the_instruction_below_them_alone() {
    let text = "FROM a\n# check=skip=SecretsUsedInArgOrEnv\nARG A_KEY B_KEY\nARG C_KEY D_KEY\n# check=skip=all\nARG E_KEY\nARG F_KEY\n";
    assert_eq!(all(text), [4, 4, 7].map(|line| ("SecretsUsedInArgOrEnv", line)));
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
