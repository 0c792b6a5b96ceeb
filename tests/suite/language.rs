//! The language against recorded answers of BuildKit's own parser, lexer and pattern matcher.
//!
//! The corpus is not part of the project; where it is absent these tests say so and pass, except in CI.

use std::path::{Path, PathBuf};

use lapstrake::dockerfile::{self, Mode};
use lapstrake::pattern::{self, PatternList};
use serde_json::Value;

/// The folder of the corpus, if it is there.
fn corpus() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/parse");
    if path.is_dir() {
        return Some(path);
    }
    let ci = std::env::vars().any(|(name, value)| name == "CI" && value == "true");
    assert!(!ci, "the corpus is missing: {}", path.display());
    println!("skipped: no corpus at {}", path.display());
    None
}

fn rows(path: &Path) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn text_of<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap()
}

/// What held and what did not.
#[derive(Default)]
struct Tally {
    held: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn note(&mut self, what: &str, result: Result<(), String>) {
        match result {
            Ok(()) => self.held += 1,
            Err(why) => self.wrong.push(format!("{what}: {why}")),
        }
    }

    fn finish(self, title: &str) {
        println!("{title}: {} hold, {} do not", self.held, self.wrong.len());
        assert!(self.held > 0, "{title}: nothing was compared");
        assert!(self.wrong.is_empty(), "{}", self.wrong.join("\n"));
    }
}

/// Only what the recorded answer has is compared; `errors` may say more.
fn compare(expected: &Value, actual: &Value, path: &str) -> Result<(), String> {
    let different = || Err(format!("{path}: expected {expected}, is {actual}"));
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in expected {
                // Words differ; findings are another test's; a mount's own error too.
                if matches!(key.as_str(), "error" | "checks" | "build_error") {
                    continue;
                }
                let path = format!("{path}.{key}");
                let own = actual.get(key).ok_or_else(|| format!("{path}: is not there, expected {value}"))?;
                if key == "error_lines" && own_line(value, own) {
                    continue;
                }
                compare(value, own, &path)?;
            }
            Ok(())
        }
        (Value::Array(expected), Value::Array(actual)) => {
            if expected.len() != actual.len() {
                return different();
            }
            let pairs = expected.iter().zip(actual).enumerate();
            pairs.into_iter().try_for_each(|(index, (expected, actual))| compare(expected, actual, &format!("{path}[{index}]")))
        }
        _ if expected == actual => Ok(()),
        _ => different(),
    }
}

/// BuildKit counts a bad directive one line too early; its own line is as good.
fn own_line(expected: &Value, actual: &Value) -> bool {
    expected[0] == expected[1] && actual[0] == actual[1] && actual[0].as_u64() == expected[0].as_u64().map(|line| line + 1)
}

/// Keys of a command, stage or mount that ours has and the answer has not.
fn extra_keys(expected: &Value, actual: &Value, path: &str) -> Result<(), String> {
    match (expected, actual) {
        (Value::Object(expected), Value::Object(actual)) => {
            for (key, value) in actual {
                let path = format!("{path}.{key}");
                let Some(own) = expected.get(key) else { return Err(format!("{path}: is {value}, expected nothing")) };
                extra_keys(own, value, &path)?;
            }
            Ok(())
        }
        (Value::Array(expected), Value::Array(actual)) => {
            expected.iter().zip(actual).try_for_each(|(expected, actual)| extra_keys(expected, actual, path))
        }
        _ => Ok(()),
    }
}

fn agrees(text: &str, oracle: &Value) -> Result<(), String> {
    let actual = dockerfile::json::to_json(&dockerfile::parse(text));
    compare(oracle, &actual, "")?;
    ["stages", "meta_args", "warnings"].iter().try_for_each(|key| extra_keys(&oracle[*key], &actual[*key], key))
}

fn folders(path: &Path) -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
    folders.sort();
    folders
}

#[test]
fn real_dockerfiles_read_as_buildkit_reads_them() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    for path in folders(&corpus.join("real")).into_iter().filter(|path| path.extension().is_some_and(|end| end == "Dockerfile")) {
        let text = String::from_utf8(std::fs::read(&path).unwrap()).unwrap();
        let oracle = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
        tally.note(&path.display().to_string(), agrees(&text, &oracle));
    }
    tally.finish("real");
}

#[test]
fn the_test_files_of_buildkit_read_as_there() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    for path in ["upstream/testfiles", "upstream/negative"].iter().flat_map(|part| folders(&corpus.join(part))) {
        let text = String::from_utf8(std::fs::read(path.join("Dockerfile")).unwrap()).unwrap();
        let oracle = serde_json::from_slice(&std::fs::read(path.join("oracle.json")).unwrap()).unwrap();
        tally.note(&path.display().to_string(), agrees(&text, &oracle));
    }
    for row in rows(&corpus.join("upstream/inline.jsonl")) {
        let text = text_of(&row, "text");
        tally.note(&format!("{text:?}"), agrees(text, &row["oracle"]));
    }
    tally.finish("upstream");
}

#[test]
fn dockerfiles_of_build_cases_read_as_buildkit_reads_them() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    for path in folders(&corpus.join("../build")) {
        let Ok(oracle) = std::fs::read(path.join("parse.json")) else { continue };
        let Ok(text) = std::fs::read_to_string(path.join("Dockerfile")) else { continue };
        tally.note(&path.display().to_string(), agrees(&text, &serde_json::from_slice(&oracle).unwrap()));
    }
    tally.finish("build cases");
}

#[test]
fn generated_dockerfiles_read_as_buildkit_reads_them() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    for row in rows(&corpus.join("generated/dockerfiles.jsonl")) {
        let text = text_of(&row, "text");
        tally.note(&format!("{text:?}"), agrees(text, &row["oracle"]));
    }
    tally.finish("generated dockerfiles");
}

#[test]
fn arrays_are_strings_or_nothing() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    for row in rows(&corpus.join("tables/json-arrays.jsonl")) {
        let text = text_of(&row, "text");
        let parsed = dockerfile::parse(&format!("FROM a\nCMD {}\n", text.replace('\n', " ")));
        let json = dockerfile::json::to_json(&parsed);
        let strings = &json["stages"][0]["commands"][0];
        let valid = strings["form"] == "exec";
        let same = !valid || strings["cmdline"] == row["strings"];
        tally.note(text, if row["valid"] == valid && same { Ok(()) } else { Err(format!("is {json}")) });
    }
    tally.finish("arrays");
}

/// Is the list of strings the same? An absent one is empty.
fn same_strings(expected: &Value, actual: &[String]) -> bool {
    let expected = expected.as_array().map(Vec::as_slice).unwrap_or_default();
    expected.len() == actual.len() && expected.iter().zip(actual).all(|(expected, actual)| expected == actual)
}

fn names(value: &Value) -> Option<Vec<String>> {
    let mut names: Vec<String> = value.as_array()?.iter().map(|name| name.as_str().unwrap().to_owned()).collect();
    names.sort();
    names.dedup();
    Some(names)
}

fn word_agrees(row: &Value, env: &Value) -> Result<(), String> {
    let switch = |key: &str| row[key].as_bool().unwrap_or(false);
    let mode = Mode {
        skip_unset: switch("skip_unset"),
        raw_quotes: switch("raw_quotes"),
        raw_escapes: switch("raw_escapes"),
        skip_quotes: switch("skip_quotes"),
    };
    let look_up = |name: &str| env.get(name).map(|value| value.as_str().unwrap().to_owned());
    let text = text_of(row, "text");
    let escape = text_of(row, "escape").chars().next().unwrap();
    let fails = row.get("error").is_some();
    if text_of(row, "op") == "words" {
        return match dockerfile::expand_words(text, escape, mode, &look_up) {
            Ok(_) if fails => Err(format!("must fail: {}", row["error"])),
            Ok(words) if same_strings(&row["words"], &words) => Ok(()),
            Ok(words) => Err(format!("{words:?}, expected {}", row["words"])),
            Err(_) if fails => Ok(()),
            Err(error) => Err(error.to_string()),
        };
    }
    match dockerfile::expand(text, escape, mode, &look_up) {
        Ok(expanded) if fails => Err(format!("must fail: {}, is {expanded:?}", row["error"])),
        Ok(expanded) if row["result"] != *expanded.text => Err(format!("{expanded:?}, expected {}", row["result"])),
        Ok(expanded) => {
            let matched = names(&row["matched"]).is_none_or(|names| names == expanded.used);
            let unmatched = names(&row["unmatched"]).is_none_or(|names| names == expanded.unset);
            if matched && unmatched { Ok(()) } else { Err(format!("{expanded:?}, expected {row}")) }
        }
        Err(error) if fails => {
            if error.to_string() == text_of(row, "error") {
                Ok(())
            } else {
                Err(format!("words: {error}, expected {}", row["error"]))
            }
        }
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn words_expand_as_in_buildkit() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    let env: Value = serde_json::from_slice(&std::fs::read(corpus.join("generated/words.env.json")).unwrap()).unwrap();
    for row in rows(&corpus.join("generated/words.jsonl")) {
        tally.note(&row["text"].to_string(), word_agrees(&row, &env));
    }
    for row in rows(&corpus.join("tables/lexer.jsonl")) {
        tally.note(&row["text"].to_string(), word_agrees(&row, &row["env"]));
    }
    tally.finish("words");
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn list_agrees(row: &Value) -> Result<(), String> {
    let list = PatternList::compile(&strings(&row["patterns"]));
    // BuildKit finds some of these errors only at certain paths; we reject the list.
    let late = row["results"].as_object().into_iter().flatten().any(|(_, result)| result.is_string());
    if late || row.get("error").is_some() {
        return if list.is_err() { Ok(()) } else { Err("must fail".to_owned()) };
    }
    let list = list.map_err(|error| error.to_string())?;
    let single = row.get("path").map(|path| (path.as_str().unwrap().to_owned(), row["match"].clone()));
    let many = row["results"].as_object().into_iter().flatten().map(|(path, result)| (path.clone(), result.clone()));
    for (path, expected) in single.into_iter().chain(many) {
        let is = list.excludes(path.as_bytes());
        if expected != is {
            return Err(format!("{path:?} is {is}"));
        }
    }
    Ok(())
}

#[test]
fn ignore_patterns_match_as_in_buildkit() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    for row in rows(&corpus.join("tables/patterns.jsonl")).into_iter().chain(rows(&corpus.join("generated/patterns.jsonl"))) {
        tally.note(&row.to_string(), list_agrees(&row));
    }
    tally.finish("patterns");
}

#[test]
fn ignore_files_read_as_in_buildkit() {
    let Some(corpus) = corpus() else { return };
    let mut tally = Tally::default();
    for row in rows(&corpus.join("tables/ignorefile.jsonl")) {
        let read: Vec<String> =
            pattern::read_ignorefile(text_of(&row, "text").as_bytes()).into_iter().map(|bytes| String::from_utf8(bytes).unwrap()).collect();
        tally.note(&row["text"].to_string(), if same_strings(&row["patterns"], &read) { Ok(()) } else { Err(format!("{read:?}")) });
    }
    tally.finish("ignore files");
}
