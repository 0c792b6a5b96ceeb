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
    wait_until("the step to run", || (!crate::harness::processes_with(&format!("sleep\0{seconds}\0")).is_empty()).then_some(()));
    let refused = project.run(["prune", "--reset"]).ends_with(4);
    assert!(refused.stderr.contains("running build"), "{}", refused.stderr);
    build.kill().unwrap();
    let _status = build.wait().unwrap();
    wait_until("the build to be gone", || (project.run(["prune", "--reset"]).code == Some(0)).then_some(()));
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

/// Bytes and files of a store, without and with what is temporary.
fn weigh(store: &Path) -> [(u64, u64); 2] {
    let mut all = [(0, 0); 2];
    let mut dirs = vec![(store.to_owned(), false)];
    while let Some((dir, temporary)) = dirs.pop() {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            let Ok(found) = entry.metadata() else { continue };
            let temporary = temporary || entry.file_name() == "tmp";
            let size = match found.file_type() {
                kind if kind.is_dir() => 4096,
                kind if kind.is_file() => found.len().next_multiple_of(4096),
                _ => 0,
            };
            for (at, (bytes, files)) in all.iter_mut().enumerate() {
                if at == 1 || !temporary {
                    (*bytes, *files) = (*bytes + size, *files + 1);
                }
            }
            if found.is_dir() {
                dirs.push((entry.path(), temporary));
            }
        }
    }
    all
}

#[test]
fn limits_hold_during_many_builds_a_few_at_once() {
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
    let builds: u64 = std::env::var("LAPSTRAKE_TEST_BUILDS").ok().and_then(|text| text.parse().ok()).unwrap_or(12);
    let (most_bytes, most_files) = (30_000_000, 4_000);
    let store = Project::with_busybox();
    let config = store.path("home/config.toml");
    let text = format!("[store]\nmax-used-space = {most_bytes}\nmax-used-inodes = {most_files}\nreserved-space = 0\nmin-free-space = 0\n");
    fs::write(&config, text).unwrap();
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut largest = [(0, 0); 2];
    let mut samples = 0;
    std::thread::scope(|scope| {
        let builder = || {
            loop {
                let number = next.fetch_add(1, Relaxed);
                if number >= builds {
                    break;
                }
                let project = Project::on_store(store.store());
                let _app = project.file("app", format!("{number}"));
                let many = "RUN mkdir /many && for i in $(seq 300); do echo $i > /many/$i; done\n";
                project.dockerfile(&format!("{DOCKERFILE}{many}"));
                let ran = project.run(["build", "--config", config.to_str().unwrap(), "--progress", "plain", "ctx"]);
                let _good = ran.good();
            }
        };
        let builders: Vec<_> = (0..3).map(|_| scope.spawn(builder)).collect();
        let (stop, store) = (&stop, &store);
        let scales = scope.spawn(move || {
            let (mut largest, mut samples) = ([(0, 0); 2], 0);
            while !stop.load(Relaxed) {
                // A walk while others remove and commit would count things twice: those who do so have this lock.
                let lock = fs::File::open(store.store()).unwrap();
                lock.lock_shared().unwrap();
                let weighed = weigh(store.store());
                drop(lock);
                for (most, now) in largest.iter_mut().zip(weighed) {
                    *most = (most.0.max(now.0), most.1.max(now.1));
                }
                samples += 1;
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            (largest, samples)
        });
        let done: Vec<_> = builders.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
        stop.store(true, Relaxed);
        (largest, samples) = scales.join().unwrap();
        assert!(done.iter().all(Result::is_ok), "a build failed");
    });
    let [committed, all] = largest;
    println!(
        "{builds} builds, {samples} samples; limits {most_bytes} bytes, {most_files} files; largest: committed {committed:?}, with temporary {all:?}"
    );
    // The three that run hold 6 MB each of their own, and a base of 2.
    assert!(committed.0 <= most_bytes + 1_000_000 && committed.1 <= most_files + 200, "{committed:?}");
}
