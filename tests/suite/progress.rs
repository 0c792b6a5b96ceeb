//! What progress says, and what programs read of it: `--explain`, `--progress rawjson`, `--metadata-file`.

use std::fs;

use serde_json::Value;

use crate::harness::Project;

fn metadata(project: &Project) -> Value {
    serde_json::from_slice(&fs::read(project.path("metadata")).unwrap()).unwrap()
}

fn raw(project: &Project, args: &[&str], code: i32) -> Vec<Value> {
    let ran = project.run([&["build", "--progress", "rawjson"], args, &["ctx"]].concat()).ends_with(code);
    ran.stderr.lines().filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The last message of each vertex.
fn vertexes(lines: &[Value]) -> Vec<Value> {
    let mut last: Vec<Value> = Vec::new();
    for vertex in lines.iter().filter_map(|line| line["vertexes"].as_array()).flatten() {
        match last.iter_mut().find(|known| known["digest"] == vertex["digest"]) {
            Some(known) => *known = vertex.clone(),
            None => last.push(vertex.clone()),
        }
    }
    last
}

#[test]
fn explain_gives_every_reason_and_the_record_of_what_is_cached() {
    let project = Project::with_busybox();
    for name in ["a", "b", "c"] {
        let _path = project.file(&format!("src/{name}"), name);
    }
    project.dockerfile("FROM busybox\nRUN true\nCOPY src /src\n");
    let _first = project.build(&[]).good();
    for name in ["a", "b", "c"] {
        let _path = project.file(&format!("src/{name}"), "other");
    }
    let short = project.build(&[]).good();
    assert!(short.stderr.contains("#2 not cached: src/a: content (and 2 more)\n"), "{}", short.stderr);
    let _path = project.file("src/c", "again");
    let _path = project.file("src/b", "again");
    let ran = project.build(&["--explain"]).good();
    for line in
        ["#1 CACHED", "#1 record ", "#2 not cached: src/b: content\n", "#2 not cached: src/c: content\n", "its nearest record, made "]
    {
        assert!(ran.stderr.contains(line), "{line}\n{}", ran.stderr);
    }
    let _refused = project.run(["build", "-q", "--explain", "ctx"]).ends_with(2).says(&["--explain"]);
}

#[test]
fn rawjson_is_the_status_of_buildkit_on_a_line_for_each_event() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo hello\nRUN echo > /f\n");
    let first = raw(&project, &[], 0);
    let all = vertexes(&first);
    assert_eq!(all.len(), 2);
    assert_eq!(all[0]["name"], "[stage-0 1/2] RUN echo hello");
    assert_eq!(all[1]["inputs"][0], all[0]["digest"]);
    assert!(all.iter().all(|vertex| vertex["completed"].is_string() && vertex["cached"].is_null()), "{all:?}");
    assert_eq!(all[0]["lapstrake"]["missed"]["cause"], "first");
    let logs: Vec<&Value> = first.iter().filter_map(|line| line["logs"].as_array()).flatten().collect();
    assert!(logs.iter().any(|log| log["data"] == "aGVsbG8K" && log["vertex"] == all[0]["digest"]), "{logs:?}");
    let again = vertexes(&raw(&project, &[], 0));
    assert!(again.iter().all(|vertex| vertex["cached"] == true && vertex["lapstrake"]["how"] == "cached"), "{again:?}");
}

#[test]
fn what_fails_and_what_is_skipped_have_words_of_their_own() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN true\nRUN exit 7\nRUN echo never\n");
    let ran = project.build(&["--metadata-file", "metadata"]).ends_with(3);
    assert!(ran.stderr.contains("#3 SKIPPED [stage-0 3/3] RUN echo never\n"), "{}", ran.stderr);
    let told = metadata(&project);
    let how: Vec<&str> = told["lapstrake.steps"].as_array().unwrap().iter().map(|step| step["how"].as_str().unwrap()).collect();
    assert_eq!((how, &told["lapstrake.exitcode"]), (vec!["done", "failed", "skipped"], &Value::from(3)));
    assert!(told["containerimage.digest"].is_null());
    let lines = raw(&project, &[], 3);
    let all = vertexes(&lines);
    assert!(all[1]["error"].as_str().unwrap().contains("exit code: 7") && all[0]["cached"] == true, "{all:?}");
    assert_eq!(lines.last().unwrap()["lapstrake"]["failed"]["skipped"], serde_json::json!([2]));
}

#[test]
fn the_metadata_file_has_each_step_beside_the_keys_of_buildx() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nARG SHA\nRUN echo $SHA\nCMD [\"true\"]\n");
    let _first = project.build(&["--build-arg", "SHA=hunter2"]).good();
    let _second = project.build(&["--build-arg", "SHA=hunter3", "--metadata-file", "metadata"]).good();
    let told = metadata(&project);
    assert!(told["containerimage.config.digest"].is_string() && told["containerimage.descriptor"]["digest"].is_string());
    let steps = told["lapstrake.steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "{told}");
    let run = steps.iter().find(|step| step["how"] == "done").unwrap();
    assert_eq!(run["missed"]["changes"], serde_json::json!([{ "of": "instruction", "name": "ARG SHA", "how": "changed" }]));
    for key in ["key", "layer", "created", "started", "completed"] {
        assert!(run[key].is_string(), "{key}: {run}");
    }
    assert!(!told.to_string().contains("hunter"), "{told}");
}

/// What the lines of a log are of, by level.
fn logged<'a>(stderr: &'a str, level: &str) -> Vec<&'a str> {
    let of =
        |line: &'a str| line.strip_prefix(level)?.split_once(" ms  ").and_then(|(_, rest)| rest.split_once(" ms  ")).map(|(_, rest)| rest);
    stderr.lines().filter_map(of).collect()
}

#[test]
fn each_level_of_the_log_tells_more_than_the_one_before_it() {
    let project = Project::with_busybox();
    let _path = project.file("src/a", "a");
    project.dockerfile("FROM busybox\nCOPY src /src\nRUN echo > /f\n");
    let at = |level: &str, args: &[&str]| project.run([&["build", "-q", "--log-level", level], args, &["ctx"]].concat()).good();
    let first = at("trace", &[]).stderr;
    let (debug, trace) = (logged(&first, "debug"), logged(&first, "trace"));
    for part in [
        "front   parsed ",
        "front   planned 1 stages of 2 steps",
        "engine  opened the store",
        "engine  did the steps",
        "#1      done",
        "#2      done",
    ] {
        assert!(debug.iter().any(|line| line.starts_with(part)), "{part}\n{first}");
    }
    for part in [
        "#1      looked at the files",
        "#2      made its key and looked it up",
        "#2      ran",
        "#2      was compressed",
        "#2      has the record ",
    ] {
        assert!(trace.iter().any(|line| line.starts_with(part)), "{part}\n{first}");
    }
    let again = at("debug", &[]).stderr;
    assert!(logged(&again, "debug").contains(&"#2      cached") && logged(&again, "trace").is_empty(), "{again}");
    let info = at("info", &[]).stderr;
    assert_eq!(info.lines().count(), 1, "{info}");
    assert!(logged(&info, "info ")[0].starts_with("in all  exit code 0; "), "{info}");
    assert_eq!(at("off", &[]).stderr, "");
    let failed = project.run(["--log-level", "info", "tag", "nothing", "other"]);
    assert!(failed.stderr.contains(&format!("exit code {}; ", failed.code.unwrap())), "{}", failed.stderr);
    let _refused = project.run(["build", "--log-level", "loud", "ctx"]).ends_with(2).says(&["off, info, debug, trace"]);
}

#[test]
fn the_log_tells_the_parts_on_one_clock() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN sleep 0.2\n");
    let ran = project.build(&["--log-level", "debug"]).good();
    let micros = |text: &str| text.trim().replace('.', "").parse::<u64>().unwrap();
    let lines: Vec<(u64, u64, &str)> = ran
        .stderr
        .lines()
        .filter_map(|line| {
            let (at, rest) = line.strip_prefix("debug").or_else(|| line.strip_prefix("info "))?.split_once(" ms ")?;
            let (took, what) = rest.split_once(" ms  ")?;
            Some((micros(at), micros(took), what))
        })
        .collect();
    let of = |what: &str| *lines.iter().find(|(.., said)| said.starts_with(what)).unwrap_or_else(|| panic!("{what}\n{}", ran.stderr));
    let (heard, steps, step, all) = (of("front   heard the engine out"), of("engine  did the steps"), of("#1 "), of("in all"));
    assert!(step.1 >= 200_000 && step.1 <= steps.1 && steps.1 <= heard.1 && heard.1 <= all.1, "{}", ran.stderr);
    assert!(steps.0 <= heard.0 && heard.0 <= all.0 && heard.0 - heard.1 <= steps.0 - steps.1, "{}", ran.stderr);
}
