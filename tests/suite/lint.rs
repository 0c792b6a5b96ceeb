//! The rules: what BuildKit finds in real files, and what a user sees of it.

use std::{collections::BTreeMap, path::PathBuf};

use lapstrake::{dockerfile, lint};
use serde_json::Value;

use crate::harness::{Project, skipped};

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

/// A project with this Dockerfile.
fn project(text: &str) -> Project {
    let project = Project::new();
    project.dockerfile(text);
    project
}

const TWO: &str = "FROM scratch as base\nLABEL a b\n";

#[test]
fn a_check_builds_nothing_and_ends_with_what_it_found() {
    let project = project(TWO);
    let ran = project.build(&["--check"]).ends_with(1);
    assert!(ran.out().contains("warning[FromAsCasing]") && ran.out().contains("--> Dockerfile:2:1"), "{}", ran.all());
    assert!(ran.out().ends_with("check complete: 2 warnings\n") && !ran.all().contains("built "), "{}", ran.all());
    drop(project.build(&["--call", "check,ignorestatus=true"]).ends_with(0));
    let ran = project.build(&["--call=check,format=github"]).ends_with(1);
    assert!(ran.out().starts_with("::warning file=Dockerfile,line=1,endLine=1,title=FromAsCasing::'as' and"), "{}", ran.out());
    let ran = project.build(&["--call=check,format=json"]).ends_with(1);
    let json: Value = serde_json::from_str(&ran.out()).unwrap();
    assert_eq!(json["warnings"][1]["ruleName"], "LegacyKeyValueFormat");
    assert_eq!(json["warnings"][1]["location"], serde_json::json!({"ranges": [{"start": {"line": 2}, "end": {"line": 2}}]}));
    assert_eq!(json["sources"][0]["filename"], "Dockerfile");
    project.dockerfile("FROM scratch AS base\nLABEL a=b\n");
    assert_eq!(project.build(&["--check"]).ends_with(0).out(), "check complete: no warnings\n");
    project.dockerfile("FROM scratch as base\nLABEL a\n");
    let ran = project.build(&["--call=check,format=json"]).ends_with(1);
    let json: Value = serde_json::from_str(&ran.out()).unwrap();
    assert_eq!(json["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    drop(project.build(&["--call=check,format=xml"]).ends_with(2));
}

#[test]
fn findings_are_warnings_unless_they_are_to_be_errors() {
    let project = project(TWO);
    drop(project.build(&[]).ends_with(0).says(&["warning[FromAsCasing]", "warning[LegacyKeyValueFormat]", "built "]));
    let failed = project.build(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=FromAsCasing;error=true"]).ends_with(1);
    assert!(failed.all().contains("lint violation found for rules: LegacyKeyValueFormat\n"), "{}", failed.all());
    let skipped = project.build(&["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all;error=true"]).ends_with(0);
    assert!(!skipped.all().contains("warning"), "{}", skipped.all());
    project.dockerfile(&format!("# check=error=true\n{TWO}"));
    drop(project.build(&[]).ends_with(1).says(&["lint violation found for rules: FromAsCasing, LegacyKeyValueFormat"]));
    project.dockerfile("# check=skip=FromAsCasing;error=true\nFROM scratch as base\n# check=skip=LegacyKeyValueFormat\nLABEL a b\n");
    drop(project.build(&[]).ends_with(0));
    // Our own rules make no build fail, with BuildKit it would not either.
    project.dockerfile("# check=error=true\nFROM scratch\nENV A=“b”\n");
    drop(project.build(&[]).ends_with(0).says(&["warning[TypographicQuotes]"]));
    project.dockerfile("# check=skp=all\nFROM scratch\n");
    drop(project.build(&[]).ends_with(1).says(&["failed to parse check options: invalid check option \"skp\"", "Dockerfile:1:9"]));
}

#[test]
fn files_of_the_context_are_looked_at() {
    let project = project("FROM scratch\nCOPY secret.env start.sh /app/\nENTRYPOINT [\"/app/start.sh\"]\n");
    let _files = [project.file(".dockerignore", "*.env\n"), project.file("secret.env", "A=1\n"), project.file("start.sh", "#!/bin/sh\n")];
    let ran = project.build(&["--check"]).ends_with(1);
    let expected =
        ["Attempting to Copy file \"secret.env\" that is excluded", "'/app/start.sh' cannot be executed: the mode of 'start.sh' is 06"];
    assert!(expected.iter().all(|text| ran.out().contains(text)), "{}", ran.out());
}

#[test]
fn outline_and_targets_say_what_there_is() {
    let project = project(
        "# BASE where it begins\nARG BASE=scratch\nARG UNUSED=1\nFROM $BASE AS tools\nFROM ${BASE} AS app\n# app is a comment of ARG\n\
         # PORT to listen on\nARG PORT=80\n# token for the mirror\n\
         RUN --mount=type=secret,id=token,required --mount=type=ssh --mount=type=cache,target=/c true\n",
    );
    let ran = project.build(&["--call=outline,format=json", "--build-arg", "PORT=81"]).ends_with(0);
    let json: Value = serde_json::from_str(&ran.out()).unwrap();
    let args: Vec<_> = json["args"].as_array().unwrap().iter().map(|arg| (&arg["name"], &arg["value"], &arg["description"])).collect();
    assert_eq!(format!("{args:?}").matches("String").count(), 6, "{args:?}");
    assert_eq!((json["args"][0]["name"].as_str(), json["args"][1]["value"].as_str()), (Some("BASE"), Some("81")));
    assert_eq!(json["secrets"][0]["name"], "token");
    assert_eq!((&json["secrets"][0]["required"], &json["secrets"][0]["description"]), (&Value::Bool(true), &"for the mirror".into()));
    assert_eq!((&json["ssh"][0]["name"], &json["cache"][0]["ID"], &json["name"]), (&"default".into(), &"/c".into(), &"app".into()));
    let ran = project.build(&["--call=outline"]).ends_with(0);
    assert!(ran.out().contains("BUILD ARG   VALUE     DESCRIPTION\nBASE        scratch   where it begins\n"), "{}", ran.out());
    let ran = project.build(&["--call=targets"]).ends_with(0);
    assert_eq!(ran.out(), "TARGET          DESCRIPTION\ntools\napp (default)\n");
    let json: Value = serde_json::from_str(&project.build(&["--call=targets,format=json"]).out()).unwrap();
    assert_eq!((&json["targets"][1]["default"], &json["targets"][1]["base"]), (&Value::Bool(true), &"${BASE}".into()));
}
