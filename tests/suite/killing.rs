//! Killed, interrupted, out of space: the store stays good, nothing is left.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use crate::harness::{Project, Ran, need_root, output_of, processes_with, wait_until};

const DOCKERFILE: &str = "FROM busybox\nENV A=b\nWORKDIR /app\nRUN echo 1 > one\nCOPY VERSION ./\nRUN mkdir -p data && cat VERSION > data/stamp\nCOPY lib ./lib\nRUN ls lib | wc -l > count\nRUN dd if=/dev/zero of=zero bs=64k count=40 2>/dev/null\nCOPY VERSION /etc/version\nRUN chmod 0700 one\n";

fn project() -> Project {
    let project = Project::with_busybox();
    project.dockerfile(DOCKERFILE);
    let _version = project.file("VERSION", "1.0");
    for at in 0..20 {
        let _lib = project.file(&format!("lib/{at}"), vec![at; 1000]);
    }
    project
}

/// Which processes and mounts name this project, and what do processes still hold that are nearly gone? (The first thread of a
/// killed process may be dead, with nothing to be seen of it, while another one is still in a system call.)
fn left(project: &Project) -> Vec<String> {
    let name = project.path("").display().to_string();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let mut left: Vec<String> = mounts.lines().filter(|line| line.contains(&name)).map(str::to_owned).collect();
    for entry in fs::read_dir(project.store().join("tmp")).into_iter().flatten().flatten() {
        let locked = fs::File::open(entry.path()).is_ok_and(|file| matches!(file.try_lock(), Err(fs::TryLockError::WouldBlock)));
        left.extend(locked.then(|| format!("a lock on {}", entry.path().display())));
    }
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let (Ok(line), Some(pid)) = (fs::read(entry.path().join("cmdline")), entry.file_name().to_str().map(str::to_owned)) else {
            continue;
        };
        let own = fs::read_to_string(entry.path().join("mountinfo")).unwrap_or_default();
        if String::from_utf8_lossy(&line).contains(&name) || (pid.parse::<u32>().is_ok() && own.contains(&name)) {
            left.push(format!("process {pid}: {}", String::from_utf8_lossy(&line).replace('\0', " ")));
        }
    }
    left
}

fn random(below: u64) -> u64 {
    RandomState::new().build_hasher().finish() % below
}

#[test]
fn after_a_kill_at_any_moment_the_next_build_succeeds_and_nothing_is_left() {
    let project = project();
    let started = std::time::Instant::now();
    let cold = project.image(&[]);
    let longest = u64::try_from(started.elapsed().as_millis()).unwrap().max(50);
    let rounds: u64 = std::env::var("LAPSTRAKE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(15);
    for round in 0..rounds {
        // Each round has steps of its own, so that there is something to do.
        let _version = project.file("VERSION", format!("{round}"));
        let spec = format!("type=oci,tar=false,dest=killed{round}");
        let mut build: Child = project.command(["build", "-o", &spec, "ctx"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_millis(random(longest)));
        build.kill().unwrap();
        let _status = build.wait().unwrap();
        wait_until(10, "the processes and mounts of a killed build to be gone", || left(&project).is_empty().then_some(()));
        let before = committed(&project);
        let image = project.image(&[]);
        let after = committed(&project);
        assert!(before.iter().all(|record| after.contains(record)), "a step that was committed was made again");
        assert_eq!(image.diff_ids()[..2], cold.diff_ids()[..2], "what was committed before the kill is cached");
        assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0, "temporary files are left");
        assert_eq!(fs::read_dir(project.store().join("locks")).unwrap().count(), 0, "locks are left");
    }
}

/// The names and bytes of all step records (their pointers by instruction change with every build).
fn committed(project: &Project) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = fs::read_dir(project.store().join("cache"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
        .filter(|(name, _)| !name.contains('-'))
        .collect();
    all.sort();
    all
}

#[test]
fn ctrl_c_ends_the_step_and_the_exit_code_says_so() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo running; (sleep 971 &) ; sleep 971\n");
    let mut build = project.start_build(&["-o", "type=oci,dest=image.tar"]);
    // The step runs when a sleep of that length does.
    let sleeping = || processes_with("sleep\u{0}971").len();
    wait_until(30, "the step to run", || (sleeping() == 2).then_some(()));
    let pid = rustix::process::Pid::from_child(&build);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let status = wait_until(15, "the build to end", || build.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    wait_until(10, "all of the step to be dead", || (sleeping() == 0).then_some(()));
    assert!(!project.path("image.tar").exists(), "an output that is not whole was left");
    wait_until(10, "mounts to be gone", || left(&project).is_empty().then_some(()));
    assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0, "temporary files are left");
}

#[test]
fn a_background_process_of_a_step_does_not_outlive_it() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN (setsid sleep 973 > /dev/null 2>&1 &) ; echo done\n");
    let _built = project.build(&[]).good();
    assert!(processes_with("sleep\u{0}973").is_empty());
}

#[test]
fn a_full_disk_is_an_error_and_leaves_no_partial_file() {
    if !need_root() {
        return;
    }
    let project = Project::new();
    let small = project.path("small");
    fs::create_dir(&small).unwrap();
    let _mounted = output_of(Command::new("mount").args(["-t", "tmpfs", "-o", "size=12m", "tmpfs"]).arg(&small)).good();
    let ran = full_disk(&small);
    let gone = output_of(Command::new("umount").arg("-l").arg(&small));
    let (failed, temporary, fixed) = ran;
    let _gone = gone.good();
    let failed = failed.ends_with(4);
    assert!(failed.stderr.to_lowercase().contains("no space"), "{}", failed.stderr);
    assert_eq!(temporary, 0, "temporary files are left");
    let _fixed = fixed.good();
}

/// A context that does not fit, what is left under `tmp/`, and a build that fits.
fn full_disk(store: &std::path::Path) -> (Ran, usize, Ran) {
    let project = Project::on_store(&store.join("store"));
    project.load_busybox();
    let noise: Vec<u8> = (0..24_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).rotate_left(at % 31).to_le_bytes()[2]).collect();
    let _big = project.file("big", noise);
    project.dockerfile("FROM busybox\nCOPY big /big\nRUN true\n");
    let failed = project.build(&["-o", "type=oci,dest=image.tar"]);
    let temporary = fs::read_dir(project.store().join("tmp")).unwrap().count();
    project.dockerfile("FROM busybox\nCOPY Dockerfile /small\n");
    let fixed = project.build(&[]);
    (failed, temporary, fixed)
}
