//! The store's limits, and the commands that look after it: `du`, `prune`.

use std::{fs, path::Path, process::Command};

use serde_json::Value;

use crate::harness::{Project, am_root, need_user, output_of, wait_until};

const DOCKERFILE: &str =
    "FROM busybox\nCOPY app /app\nRUN dd if=/dev/urandom of=/noise bs=64k count=16 2>/dev/null\nRUN cat /noise > /more\n";

fn project() -> Project {
    let project = Project::with_busybox();
    let _app = project.file("app", "one");
    project.dockerfile(DOCKERFILE);
    project
}

/// What `du --json` says.
fn usage(project: &Project) -> Value {
    serde_json::from_slice(&project.run(["du", "--json"]).good().stdout).unwrap()
}

fn bytes(usage: &Value, name: &str) -> u64 {
    usage["kinds"][name]["bytes"].as_u64().unwrap_or(0)
}

/// All regular files of the store, rounded up to blocks, but the temporary ones.
fn files_of(store: &Path) -> u64 {
    let mut all = 0;
    let mut dirs = vec![store.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().flatten() {
            let found = entry.metadata().unwrap();
            if found.is_dir() && entry.file_name() != "tmp" {
                dirs.push(entry.path());
            } else if found.is_file() {
                all += found.len().next_multiple_of(4096);
            }
        }
    }
    all
}

#[test]
fn du_says_what_the_files_say() {
    let project = project();
    let _built = project.build(&["-t", "app"]).good();
    let usage = usage(&project);
    let (said, found) = (usage["total"]["bytes"].as_u64().unwrap(), files_of(project.store()));
    // Directories count as a block each there.
    assert!(said >= found && said - found < 1 << 20, "{said} {found}");
    for kind in ["blobs", "trees", "indexes", "records", "refs"] {
        assert!(bytes(&usage, kind) > 0, "{kind}: {usage}");
    }
    let names: Vec<&str> = usage["images"].as_array().unwrap().iter().map(|image| image["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["app:latest", "busybox:latest"]);
    let _table = project.run(["du", "--verbose"]).good();
}

#[test]
fn prune_removes_what_no_image_with_a_name_needs_and_all_removes_the_rest() {
    let project = project();
    let image = project.image(&["-t", "app"]);
    let _unnamed = project.file("app", "two");
    let _built = project.build(&[]).good();
    let before = bytes(&usage(&project), "blobs");
    let pruned = project.run(["prune"]).good();
    assert!(pruned.out().contains("reclaimed"), "{}", pruned.out());
    let after = usage(&project);
    assert!(bytes(&after, "blobs") < before && bytes(&after, "trees") < 8192, "{after}");
    // The image is whole, and the next build needs no network for its base.
    let _saved = project.run(["images"]).good();
    let _app = project.file("app", "one");
    assert_eq!(project.image(&["--no-cache"]).diff_ids()[..1], image.diff_ids()[..1]);
    let all = project.run(["prune", "--all"]).good();
    assert!(all.out().contains("untagged app:latest"), "{}", all.out());
    assert!(bytes(&usage(&project), "blobs") == 0);
    assert_eq!(project.run(["images", "-q"]).good().out(), "");
}

#[test]
fn prune_to_a_limit_removes_no_more_than_it_must() {
    let project = project();
    for round in 0..5 {
        let _app = project.file("app", format!("{round}"));
        let _built = project.build(&[]).good();
    }
    let before = usage(&project)["total"]["bytes"].as_u64().unwrap();
    let limit = before - 4_000_000;
    let _pruned = project.run(["prune", "--reserved-space", "0", "--min-free-space", "0", "--max-used-space", &limit.to_string()]).good();
    let after = usage(&project)["total"]["bytes"].as_u64().unwrap();
    assert!(after <= limit && after > limit / 2, "{before} {after}");
    // What was made last is there still.
    let last = project.build(&[]).good();
    assert_eq!(last.stderr.lines().filter(|line| line.contains("CACHED")).count(), 3, "{}", last.stderr);
    assert_eq!(project.run(["prune", "--max-used-space", "lots"]).code, Some(2));
}

#[test]
fn a_limit_of_the_configuration_holds_for_builds() {
    let project = project();
    let limit = 12_000_000;
    let config = project.path("home/config.toml");
    fs::write(&config, format!("[store]\nmax-used-space = {limit}\nreserved-space = 0\nmin-free-space = 0\n")).unwrap();
    let mut told = 0;
    let mut largest = 0;
    for round in 0..8 {
        let _app = project.file("app", format!("{round}"));
        let ran = project.run(["build", "--config", config.to_str().unwrap(), "--progress", "plain", "ctx"]).good();
        told += usize::from(ran.stderr.contains("removed what was not used for longest"));
        largest = largest.max(files_of(project.store()));
    }
    assert!(told > 0 && largest <= limit + 1_000_000, "{told} {largest}");
}

#[test]
fn a_reset_removes_everything_and_not_what_a_build_uses() {
    let project = project();
    let seconds = 30_000_000 + std::process::id();
    project.dockerfile(&format!("FROM busybox\nRUN sleep {seconds}\n"));
    let mut build = project.start_build(&[]);
    wait_until(30, "the step to run", || (!crate::harness::processes_with(&format!("sleep\0{seconds}\0")).is_empty()).then_some(()));
    let refused = project.run(["prune", "--reset"]).ends_with(4);
    assert!(refused.stderr.contains("running build"), "{}", refused.stderr);
    build.kill().unwrap();
    let _status = build.wait().unwrap();
    wait_until(20, "the build to be gone", || (project.run(["prune", "--reset"]).code == Some(0)).then_some(()));
    assert_eq!(fs::read_dir(project.store()).unwrap().count(), 0);
    project.load_busybox();
    project.dockerfile("FROM busybox\nRUN true\n");
    let _built = project.build(&[]).good();
}

#[test]
fn a_user_with_subordinate_ids_gets_rid_of_their_files() {
    let Some(id) = need_user("lapstrake-test").filter(|_| am_root()) else { return };
    let project = Project::as_user("lapstrake-test", id);
    project.load_busybox();
    project.dockerfile("FROM busybox\nRUN mkdir /d && touch /d/f && chown -R 33:33 /d && chmod 0700 /d\n");
    let _built = project.build(&["-t", "app"]).good();
    let owned = || output_of(Command::new("find").arg(project.store()).args(["!", "-uid", &id.to_string()])).good().out();
    assert_ne!(owned(), "");
    let _pruned = project.run(["prune"]).good();
    assert_eq!(owned(), "");
    let _built = project.build(&["-t", "app"]).good();
    let _reset = project.run(["prune", "--reset"]).good();
    assert_eq!(fs::read_dir(project.store()).unwrap().count(), 0);
}

#[test]
fn what_a_running_build_uses_is_never_pruned() {
    let project = project();
    let _base = project.build(&["-t", "app"]).good();
    // Each round does every step again while another process removes everything that it may.
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _pruner = scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let _pruned = project.run(["prune", "--all"]).good();
            }
        });
        let mut failed = Vec::new();
        for round in 0..10 {
            let other = Project::on_store(project.store());
            let _app = other.file("app", format!("{round}"));
            // The base is gone whenever nobody holds it, so each build brings its own name for one.
            other.dockerfile(&DOCKERFILE.replace("FROM busybox", "FROM base"));
            let layout = other.path("layout");
            let _base = crate::harness::busybox_layout(&layout);
            let context = format!("base=oci-layout://{}:busybox", layout.display());
            let ran = other.build(&["--build-context", &context, "-o", "type=oci,dest=image.tar"]);
            if ran.code != Some(0) {
                failed.push(ran.stderr);
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        assert!(failed.is_empty(), "{}", failed.join("\n---\n"));
    });
}
