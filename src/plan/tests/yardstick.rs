//! Plans against the corpus of evaluated Dockerfiles: config, history and operations as BuildKit computed them.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{Base, BaseError, Bases, Plan, Platform, Request, amd64, image, resolve};
use crate::{
    dockerfile,
    oci::{Config, ImageConfig},
    plan::{Action, Chmod, Copy, CopySource, Origin, Run, Start, Step},
};

/// Every name is an image with one and the same config.
struct Everything(ImageConfig);

impl Bases for Everything {
    fn base(&self, name: &str, _platform: &Platform) -> Result<Option<Base>, BaseError> {
        Ok(Some(image(name, self.0.clone())))
    }
}

fn corpus() -> Option<PathBuf> {
    let corpus = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/conformance/parse"));
    if corpus.is_dir() {
        return Some(corpus);
    }
    #[expect(clippy::disallowed_methods, reason = "a test may not be skipped where it counts")]
    let in_ci = std::env::var("CI").is_ok_and(|value| value == "true");
    assert!(!in_ci, "the corpus is missing");
    println!("skipped: no corpus at {}", corpus.display());
    None
}

fn rows(name: &str) -> Vec<Value> {
    let Some(corpus) = corpus() else { return Vec::new() };
    let text = fs::read_to_string(corpus.join(name)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn generated_dockerfiles_evaluate_as_in_buildkit() {
    let rows = rows("generated/eval.jsonl");
    judge(&rows, |row| row["text"].as_str().unwrap().to_owned());
}

#[test]
fn real_dockerfiles_evaluate_as_in_buildkit() {
    let rows = rows("real/eval.jsonl");
    let corpus = corpus().unwrap_or_default();
    judge(&rows, |row| {
        let bytes = fs::read(corpus.join(row["file"].as_str().unwrap())).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
}

#[test]
fn configs_of_the_build_cases_are_as_expected() {
    let Some(corpus) = corpus() else { return };
    let mut cases: Vec<PathBuf> = fs::read_dir(corpus.join("../build")).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    let (mut checks, mut wrong) = (0, Vec::new());
    for case in cases {
        let expected: Value = serde_json::from_str(&fs::read_to_string(case.join("expect.json")).unwrap()).unwrap();
        match build_case(&case, &expected) {
            Ok(count) => checks += count,
            Err(difference) => wrong.push(format!("{}: {difference}", case.display())),
        }
    }
    println!("{checks} checks of configs hold, {} cases do not", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The images and directories of a build case.
struct Case {
    directories: Vec<String>,
}

impl Bases for Case {
    fn base(&self, name: &str, _platform: &Platform) -> Result<Option<Base>, BaseError> {
        if self.directories.iter().any(|directory| directory == name) {
            return Ok(Some(Base::Directory(name.to_owned())));
        }
        let shell = match name.strip_suffix(":latest").unwrap_or(name) {
            "busybox" => "sh",
            "debian" => "bash",
            _ => return Ok(None),
        };
        let env = Some(vec!["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".to_owned()]);
        let config = Config { env, cmd: Some(vec![shell.to_owned()]), ..Config::default() };
        Ok(Some(image(name, ImageConfig { architecture: "amd64".into(), os: "linux".into(), config, ..ImageConfig::default() })))
    }
}

fn build_case(case: &Path, expected: &Value) -> Result<usize, String> {
    let build = &expected["build"];
    let map = |key: &str| -> BTreeMap<String, String> { serde_json::from_value(build[key].clone()).unwrap_or_default() };
    let directories: Vec<String> = build["named_contexts"].as_object().into_iter().flatten().map(|(name, _)| name.clone()).collect();
    let target = build["target"].as_str().map(str::to_owned);
    let request = Request { build_args: map("build_args"), labels: map("labels"), target, contexts: directories.clone(), ..amd64() };
    let parsed = dockerfile::parse(&fs::read_to_string(case.join("Dockerfile")).unwrap());
    let resolved = if parsed.errors.is_empty() {
        resolve(&parsed.dockerfile, &request, &Case { directories }).map_err(|error| error.places)
    } else {
        Err(parsed.errors)
    };
    let checks = expected["expect"].as_array().unwrap();
    let builds = checks.iter().any(|check| check["check"] == "result" && check["is"] == "ok");
    let plan = match resolved {
        Ok(plan) => plan,
        Err(_) if !builds => return Ok(0),
        Err(places) => return Err(format!("does not resolve: {places:#?}")),
    };
    let config = serde_json::to_value(&plan.stages[plan.target.0].config.config).unwrap();
    let mut count = 0;
    for check in checks.iter().filter(|check| check["check"] == "config" && check.get("top").is_none() && check.get("value").is_some()) {
        let (field, theirs) = (check["field"].as_str().unwrap(), &check["value"]);
        let ours = &config[field];
        let root = field == "WorkingDir" && ["", "/"].map(Value::from).contains(theirs) && (ours.is_null() || ours == "/");
        if ours != theirs && !root {
            return Err(format!("{field} is {ours}, not {theirs}"));
        }
        count += 1;
    }
    Ok(count)
}

fn judge(rows: &[Value], text: impl Fn(&Value) -> String) {
    let mut wrong = Vec::new();
    for (number, row) in rows.iter().enumerate() {
        let text = text(row);
        if let Err(difference) = compare(row, &text) {
            wrong.push(format!("row {number}, {}: {difference}", row["file"]));
        }
    }
    println!("{} of {} rows as BuildKit has them", rows.len() - wrong.len(), rows.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn base() -> ImageConfig {
    let text = fs::read_to_string(corpus().unwrap().join("generated/eval.base.json")).unwrap();
    let config: Config = serde_json::from_str(&text).unwrap();
    ImageConfig { architecture: "amd64".into(), os: "linux".into(), config, ..ImageConfig::default() }
}

fn compare(row: &Value, text: &str) -> Result<(), String> {
    let build_args: BTreeMap<String, String> =
        row.get("build_args").map(|args| serde_json::from_value(args.clone()).unwrap()).unwrap_or_default();
    let request = Request { build_args, ..amd64() };
    let parsed = dockerfile::parse(text);
    let resolved = if parsed.errors.is_empty() {
        resolve(&parsed.dockerfile, &request, &Everything(base())).map_err(|error| error.places)
    } else {
        Err(parsed.errors)
    };
    let expected = &row["eval"];
    match (resolved, expected["ok"].as_bool().unwrap()) {
        (Ok(plan), true) => same(&plan, expected),
        (Ok(_), false) => Err(format!("resolves, but BuildKit says {}", expected["error"])),
        (Err(places), true) => Err(format!("does not resolve: {places:#?}")),
        (Err(places), false) => {
            let lines: (usize, usize) = serde_json::from_value(expected["error_lines"].clone()).unwrap();
            let line = |offset: u32| text.get(..offset as usize).unwrap_or(text).matches('\n').count() + 1;
            let named = places.iter().any(|place| (lines.0..=lines.1).contains(&line(place.span().start)));
            if named { Ok(()) } else { Err(format!("no error is on lines {lines:?}: {places:#?}")) }
        }
    }
}

fn same(plan: &Plan, expected: &Value) -> Result<(), String> {
    let target = &plan.stages[plan.target.0];
    let config = serde_json::to_value(&target.config.config).unwrap();
    differ("config", &config, &expected["config"])?;
    let history: Vec<Value> = history(plan, plan.target.0).iter().map(|step| line(step)).collect();
    let theirs = if expected["history"].is_null() { json!([]) } else { expected["history"].clone() };
    differ("history", &Value::from(history), &theirs)?;
    let expected: Vec<Value> = expected["ops"].as_array().unwrap().iter().flat_map(oracle_operations).collect();
    differ("ops", &sorted(operations(plan)), &sorted(expected))
}

fn differ(what: &str, ours: &Value, theirs: &Value) -> Result<(), String> {
    if ours == theirs {
        return Ok(());
    }
    let only = |left: &Value, right: &Value| -> Vec<Value> {
        let right = right.as_array().cloned().unwrap_or_default();
        left.as_array().into_iter().flatten().filter(|item| !right.contains(item)).cloned().collect()
    };
    if ours.is_array() {
        return Err(format!("{what} differs, ours: {:#?}, theirs: {:#?}", only(ours, theirs), only(theirs, ours)));
    }
    Err(format!("{what} differs, ours: {ours}, theirs: {theirs}"))
}

/// The steps of a stage and of those it starts from.
fn history(plan: &Plan, stage: usize) -> Vec<&Step> {
    let stage = &plan.stages[stage];
    let mut steps = if let Start::Stage(base) = stage.start { history(plan, base.0) } else { Vec::new() };
    steps.extend(&stage.steps);
    steps
}

fn line(step: &Step) -> Value {
    let mut line = json!({ "created_by": step.history });
    if matches!(step.action, Action::Metadata) {
        line["empty_layer"] = true.into();
    }
    line
}

fn sorted(mut operations: Vec<Value>) -> Value {
    operations.sort_by_key(Value::to_string);
    Value::from(operations)
}

/// What the plan does, in the oracle's form. BuildKit does one thing on one ground once, wherever it is written.
fn operations(plan: &Plan) -> Vec<Value> {
    let mut operations = Vec::new();
    let mut seen = BTreeSet::new();
    let mut once = Vec::new();
    let mut grounds: Vec<String> = Vec::new();
    for stage in &plan.stages {
        let mut ground = match &stage.start {
            Start::Stage(base) => grounds[base.0].clone(),
            // The oracle's images have no layers, so they are all one empty ground.
            Start::Scratch | Start::Image(_) => "scratch".to_owned(),
        };
        for step in &stage.steps {
            let (done, shared) = match &step.action {
                Action::Metadata => continue,
                Action::Run(run) => run_operations(run),
                Action::Copy(copy) => copy_operations(copy),
                Action::Workdir { path, user } => {
                    (vec![json!({ "mkdir": owned(json!({ "path": path, "mode": 0o755 }), Some(user)) })], Vec::new())
                }
            };
            ground = blake3::hash(format!("{ground} {:?}", step.action).as_bytes()).to_string();
            if seen.insert(ground.clone()) {
                operations.extend(done);
            }
            once.extend(shared);
        }
        grounds.push(ground);
    }
    once.sort_by_key(Value::to_string);
    once.dedup();
    operations.extend(once);
    operations
}

fn context() -> Value {
    json!({ "source": "local://context" })
}

fn run_operations(run: &Run) -> (Vec<Value>, Vec<Value>) {
    let env: Vec<String> = run.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let mut value = json!({ "args": run.argv, "env": env, "cwd": run.cwd });
    if !run.user.is_empty() {
        value["user"] = run.user.clone().into();
    }
    let mut shared: Vec<Value> = run.mounts.iter().filter(|mount| mount.from == Origin::Context).map(|_| context()).collect();
    for file in &run.files {
        let name = file.name.rsplit('/').next().unwrap();
        shared.push(json!({ "mkfile": { "path": format!("/{name}"), "data": base64(file.data.as_bytes()), "mode": 0o755 } }));
    }
    for mount in run.mounts.iter().filter(|mount| mount.kind == dockerfile::MountKind::Cache) {
        if mount.uid.is_some() || mount.gid.is_some() || mount.mode.is_some() {
            let mut made = json!({ "path": "/cache", "mode": mount.mode.unwrap_or(0o755) });
            let owner = format!("{}:{}", mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
            made = owned(made, Some(&owner));
            shared.push(json!({ "mkdir": made }));
        }
    }
    (vec![json!({ "run": value })], shared)
}

fn copy_operations(copy: &Copy) -> (Vec<Value>, Vec<Value>) {
    let mode = match &copy.chmod {
        Some(Chmod::Octal(bits)) => i64::from(*bits),
        None | Some(Chmod::Symbolic(_)) => -1,
    };
    let (mut copies, mut shared) = (Vec::new(), Vec::new());
    for source in &copy.sources {
        let from = match source {
            CopySource::Path(path) => {
                if copy.from == Origin::Context {
                    shared.push(context());
                }
                match path.split_once("/./") {
                    Some((pivot, _)) if copy.parents => format!("/{}", pivot.trim_matches('/')),
                    None if copy.parents => "/".to_owned(),
                    _ => path.clone(),
                }
            }
            CopySource::Inline(file) => {
                shared
                    .push(json!({ "mkfile": { "path": format!("/{}", file.name), "data": base64(file.data.as_bytes()), "mode": 0o644 } }));
                format!("/{}", file.name)
            }
            CopySource::Http { url, .. } => {
                shared.push(json!({ "source": url.url() }));
                format!("/{}", url.file_name())
            }
            CopySource::Git(address) => {
                shared.push(json!({ "source": address.to_string().replace("https://", "git://") }));
                "/".to_owned()
            }
        };
        copies.push(json!({ "copy": owned(json!({ "src": from, "dest": copy.dest, "mode": mode }), copy.chown.as_ref()) }));
    }
    (copies, shared)
}

/// Adds an owner, `user[:group]`.
fn owned(mut value: Value, owner: Option<&String>) -> Value {
    let Some(owner) = owner.filter(|owner| !owner.is_empty()) else { return value };
    let one = |name: &str| match (name, name.parse::<i32>()) {
        ("root" | "", _) => json!({ "byID": 0 }),
        (_, Ok(id)) => json!({ "byID": id }),
        (_, Err(_)) => json!({ "byName": { "name": name } }),
    };
    let (user, group) = owner.split_once(':').map_or((owner.as_str(), None), |(user, group)| (user, Some(group)));
    value["owner"] = json!({ "user": one(user) });
    if let Some(group) = group {
        value["owner"]["group"] = one(group);
    }
    value
}

/// The oracle's operations, without what this comparison leaves out.
fn oracle_operations(operation: &Value) -> Vec<Value> {
    if let Some(actions) = operation["file"].as_array() {
        return actions.iter().map(oracle_action).collect();
    }
    if operation.get("merge").is_some() {
        return Vec::new();
    }
    vec![operation.clone()]
}

fn oracle_action(action: &Value) -> Value {
    let (kind, keys): (_, &[&str]) = if action.get("copy").is_some() {
        ("copy", &["src", "dest", "mode", "owner"])
    } else if action.get("mkdir").is_some() {
        ("mkdir", &["path", "mode", "owner"])
    } else {
        ("mkfile", &["path", "data", "mode"])
    };
    let mut kept = json!({});
    for key in keys {
        if let Some(value) = action[kind].get(key) {
            kept[key] = value.clone();
        }
    }
    for part in ["user", "group"] {
        if let Some(Value::Object(named)) = kept.pointer_mut(&format!("/owner/{part}/byName")) {
            named.remove("input");
        }
    }
    if let Some(dest) = kept["dest"].as_str().and_then(|dest| dest.strip_suffix("/.")) {
        kept["dest"] = format!("{dest}/").into();
    }
    json!({ kind: kept })
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(word >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}
