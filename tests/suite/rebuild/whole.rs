//! All conformance cases and examples whose steps are deterministic, in all surroundings: `LAPSTRAKE_TEST_REBUILDS=all`. That takes
//! half an hour. With other words, separated by commas, the cases that have one in their name.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{ALL, EPOCH, Surroundings, check_out_at, digests};
use crate::harness::{Project, debian_rootfs, need_root, output_of, skipped, sources};

/// Left out, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("kn-multistage", "a step writes the date into a file"),
    ("bk-MountTmpfsSize-1", "a step writes down its mounts, whose options name the user outside"),
];

/// Examples; the others install packages, whose logs have times in them and whose mirror is another one tomorrow.
const EXAMPLES: [&str; 3] = ["jar", "service", "small-print"];

/// One build.
struct Case {
    name: String,
    what: What,
}

enum What {
    /// Its directory.
    Conformance(PathBuf),
    /// Likewise.
    Example(PathBuf),
}

/// A case that is laid out.
struct Laid {
    args: Vec<String>,
    context: PathBuf,
}

fn cases(only: &str) -> Vec<Case> {
    let conformance = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/build");
    let mut all: Vec<Case> = fs::read_dir(conformance)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| Case { name: entry.file_name().into_string().unwrap(), what: What::Conformance(entry.path()) })
        .collect();
    all.extend(
        EXAMPLES.iter().map(|name| Case { name: format!("example {name}"), what: What::Example(sources().join("examples").join(name)) }),
    );
    all.retain(|case| builds(case) && (only == "all" || only.split(',').any(|part| case.name.contains(part))));
    all.retain(|case| !LEFT_OUT.iter().any(|(name, _)| *name == case.name));
    all.sort_by(|one, other| one.name.cmp(&other.name));
    all
}

/// Is there to be an image?
fn builds(case: &Case) -> bool {
    let What::Conformance(dir) = &case.what else { return true };
    let Ok(text) = fs::read_to_string(dir.join("expect.json")) else { return false };
    let expected: Value = serde_json::from_str(&text).unwrap();
    let fails = |check: &Value| check["check"] == "result" && check["is"] == "fail";
    !expected["expect"].as_array().unwrap().iter().any(fails)
}

/// As the project's user, so that modes are what they are to be. `None`: that user cannot make such files.
fn lay_out(case: &Case, project: &Project, around: &Surroundings) -> Option<Laid> {
    let room = project.path("case");
    match &case.what {
        What::Example(dir) => {
            let mut copy = as_user(project, "cp");
            let _copied = output_of(copy.args(["-r", "--no-preserve=ownership"]).arg(dir).arg(&room)).good();
            check_out_at(&room, around.checkout);
            let more = ["--build-arg", "BASE=debian:bookworm"];
            let args = if case.name.ends_with("jar") { more.map(str::to_owned).to_vec() } else { Vec::new() };
            Some(Laid { args, context: room })
        }
        What::Conformance(dir) => {
            let tool = dir.join("../../tools/prepare.py");
            let mut prepare = as_user(project, "python3");
            let ran = output_of(prepare.arg(tool).arg(dir).arg(&room).env("CASE_MTIME", around.checkout.to_string()));
            if ran.code != Some(0) {
                return None;
            }
            let options: Value = serde_json::from_str(&ran.out()).unwrap();
            Some(Laid { args: arguments(&options, &room), context: room.join("context") })
        }
    }
}

fn as_user(project: &Project, program: &str) -> Command {
    let mut command = if let Some(name) = project.user() {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", name, "--regid", name, "--init-groups", "--", program]);
        command
    } else {
        Command::new(program)
    };
    // Not what only we may run.
    command.stdin(Stdio::null()).env("PATH", "/usr/local/bin:/usr/bin:/bin");
    command
}

fn arguments(options: &Value, room: &Path) -> Vec<String> {
    let mut args = Vec::new();
    let pairs = |key: &str| options[key].as_object().cloned().unwrap_or_default();
    for (flag, key) in [("--build-arg", "build_args"), ("--label", "labels")] {
        args.extend(pairs(key).into_iter().flat_map(|(name, value)| [flag.to_owned(), format!("{name}={}", value.as_str().unwrap())]));
    }
    for name in pairs("secrets").keys() {
        args.extend(["--secret".to_owned(), format!("id={name},src={}", room.join("secrets").join(name).display())]);
    }
    for name in pairs("named_contexts").keys() {
        args.extend(["--build-context".to_owned(), format!("{name}={}", room.join("named").join(name).display())]);
    }
    if let Some(target) = options["target"].as_str() {
        args.extend(["--target".to_owned(), target.to_owned()]);
    }
    if options["no_cache"] == true {
        args.push("--no-cache".to_owned());
    }
    let dockerfile = options["dockerfile"].as_str().unwrap_or("Dockerfile");
    args.extend(["-f".to_owned(), room.join(dockerfile).display().to_string()]);
    args
}

/// What a case's output is, file by file; the error's words if it is none.
fn build(case: &Case, project: &Project, around: &Surroundings, again: bool) -> Option<Result<BTreeMap<String, String>, String>> {
    let laid = lay_out(case, project, around)?;
    let mut result = Err(String::new());
    for _ in 0..if again { 2 } else { 1 } {
        let _none = fs::remove_dir_all(project.path("out"));
        let mut line = vec!["build", "--progress", "plain", "-o", "type=oci,tar=false,dest=out", "--source-date-epoch", EPOCH];
        line.extend(around.flags);
        line.extend(laid.args.iter().map(String::as_str));
        let context = laid.context.display().to_string();
        line.push(&context);
        let ran = output_of(&mut around.command(project, &line));
        let made = if ran.code == Some(0) { Ok(digests(&project.path("out"))) } else { Err(ran.stderr) };
        if again && result.is_ok() && result != made {
            result = Err("a warm build is another".to_owned());
        } else {
            result = made;
        }
    }
    let mut gone = Command::new("rm");
    let _removed = output_of(gone.arg("-rf").args([project.path("case"), project.path("out")]));
    Some(result)
}

fn prepared(around: &Surroundings) -> Option<Project> {
    let project = around.project()?;
    let rootfs = debian_rootfs().expect("who asks for all cases has their base");
    let base = project.path("debian.tar");
    let _size = fs::copy(rootfs, &base).unwrap();
    // An imported image is as old as its tar.
    fs::File::options().write(true).open(&base).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let layout = project.path("busybox-layout");
    let tool = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/conformance/tools/mkbase.py");
    let _made = output_of(as_user(&project, "python3").arg(tool).arg("busybox").arg(&layout)).good();
    let _loaded = project.run(["load", "-i", layout.to_str().unwrap(), "-t", "busybox"]).good();
    let _imported = project.run(["import", base.to_str().unwrap(), "debian:bookworm", "--change", "CMD [\"bash\"]"]).good();
    let _named = project.run(["tag", "debian:bookworm", "debian"]);
    Some(project)
}

#[test]
fn every_case_and_example_makes_the_same_bytes_everywhere() {
    let Some(only) = std::env::var("LAPSTRAKE_TEST_REBUILDS").ok() else {
        println!("LAPSTRAKE_TEST_REBUILDS is not set: a Dockerfile of our own stands for all");
        return;
    };
    if !need_root() {
        return;
    }
    let mut cases = cases(&only);
    if cases.is_empty() {
        return skipped("there are no conformance cases beside the sources");
    }
    let mut first: BTreeMap<String, Result<BTreeMap<String, String>, String>> = BTreeMap::new();
    let mut wrong = Vec::new();
    for around in ALL {
        let Some(project) = prepared(around) else { continue };
        let (mut same, mut not_here) = (0, 0);
        for case in &cases {
            match build(case, &project, around, around.name == "plain") {
                None => not_here += 1,
                Some(made) => {
                    let want = first.entry(case.name.clone()).or_insert_with(|| made.clone());
                    let said = match (&*want, &made) {
                        (Ok(want), Ok(made)) if want == made => None,
                        (_, Err(text)) => Some(text.lines().last().unwrap_or_default().to_owned()),
                        _ => Some("other bytes".to_owned()),
                    };
                    if let Some(said) = said {
                        wrong.push(format!("{} in {}: {said}", case.name, around.name));
                        println!("{}", wrong.last().unwrap());
                    } else {
                        same += 1;
                    }
                }
            }
        }
        println!("{}: {same} of {} cases the same, {not_here} cannot be laid out", around.name, cases.len());
        // What is in the store when a case begins is another in each place.
        cases.reverse();
    }
    assert!(wrong.is_empty(), "{} differ:\n{}", wrong.len(), wrong.join("\n"));
}
