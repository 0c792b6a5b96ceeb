//! Killed, interrupted, out of space: the store stays good, nothing is left.

use std::{
    collections::hash_map::RandomState,
    fs,
    hash::{BuildHasher as _, Hasher as _},
    process::{Child, Command, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

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
pub(crate) fn left(project: &Project) -> Vec<String> {
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

/// A started build, stopped so that it starts no more processes, and all that come from it.
pub(crate) fn descendants(build: &Child) -> Vec<(u32, String)> {
    let parents: Vec<(u32, u32)> = fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name, which may have anything in it: the state, the parent.
            Some((pid, stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()?))
        })
        .collect();
    let mut all = vec![build.id()];
    let mut at = 0;
    while let Some(parent) = all.get(at).copied() {
        all.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    let line = |pid: u32| String::from_utf8_lossy(&fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default()).replace('\0', " ");
    all.into_iter().skip(1).map(|pid| (pid, line(pid))).collect()
}

/// Kills a build with SIGKILL and waits until nothing that came from it is there. A process that is being killed may still
/// be in a system call that makes a file: as long as it is in /proc it is not gone.
fn kill_and_wait(build: &mut Child) {
    let pid = Pid::from_child(build);
    kill_process(pid, Signal::STOP).unwrap();
    let all = descendants(build);
    build.kill().unwrap();
    let _status = build.wait().unwrap();
    let gone = || all.iter().all(|(pid, _)| !std::path::Path::new(&format!("/proc/{pid}")).exists());
    wait_until("the processes of a killed build to be gone", || gone().then_some(()));
}

pub(crate) fn random(below: u64) -> u64 {
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
        kill_and_wait(&mut build);
        wait_until("the processes and mounts of a killed build to be gone", || left(&project).is_empty().then_some(()));
        let before = committed(&project);
        let image = project.image(&[]);
        let after = committed(&project);
        assert!(before.iter().all(|record| after.contains(record)), "a step that was committed was made again");
        assert_eq!(image.diff_ids()[..2], cold.diff_ids()[..2], "what was committed before the kill is cached");
        assert_no_file_is_left(&project);
    }
}

/// One of several builds that share a store, with steps of its own in each round.
fn mixed(store: &std::path::Path, round: u64, which: u64) -> Project {
    let own = match which {
        0 => "FROM busybox\nRUN echo shared > /shared\nCOPY VERSION /v\nRUN cat /v /shared > /all\n",
        1 => {
            "FROM busybox AS a\nRUN echo shared > /shared\nFROM busybox\nCOPY --from=a /shared /s\nCOPY VERSION /v\nRUN --mount=type=cache,target=/c cp /v /c/v\n"
        }
        _ => {
            "FROM busybox AS a\nCOPY VERSION /v\nRUN dd if=/dev/urandom of=/n bs=64k count=8 2>/dev/null\nFROM busybox AS b\nCOPY VERSION /w\nRUN sleep 0.05; cat /w\nFROM a\nCOPY --from=b /w /w\n"
        }
    };
    let project = Project::on_store(store);
    project.dockerfile(own);
    let _version = project.file("VERSION", format!("{round} {which}"));
    project
}

#[test]
fn after_kills_of_builds_that_share_a_store_and_of_a_prune_all_is_as_it_was_committed() {
    let first = project();
    let cold = first.image(&[]);
    let rounds: u64 = std::env::var("LAPSTRAKE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(15) / 3;
    for round in 0..rounds {
        let projects: Vec<Project> = (0..3).map(|which| mixed(first.store(), round, which)).collect();
        let start = |mut command: Command| command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut running: Vec<Child> = projects.iter().map(|project| start(project.command(["build", "-t", "mixed", "ctx"]))).collect();
        running.push(start(first.command(["prune", "--reserved-space=0", "--max-used-space=20MB", "--min-free-space=0"])));
        for each in &mut running {
            std::thread::sleep(Duration::from_millis(random(400)));
            if each.try_wait().unwrap().is_none() {
                kill_and_wait(each);
            }
        }
        wait_until("the processes and mounts of killed builds to be gone", || left(&first).is_empty().then_some(()));
        let before = committed(&first);
        for project in &projects {
            let _good = project.build(&[]).good();
        }
        let after = committed(&first);
        assert!(before.iter().all(|record| after.contains(record)), "a step that was committed was made again");
        let _sound = first.run(["fsck"]).good();
        assert_no_file_is_left(&first);
    }
    println!("{} kills", rounds * 4);
    // Its own steps may have been pruned: what they make is the same but for times.
    let wrong = crate::harness::differences(&first.image(&[]).tree(), &cold.tree());
    assert!(wrong.is_empty(), "{wrong:?}");
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

/// Seconds that nothing else on the machine sleeps for.
pub(crate) fn seconds(test: u32) -> u32 {
    test * 10_000_000 + std::process::id()
}

/// A build whose step sleeps, in two processes, for a number of seconds that no other test has.
fn sleeper(project: &Project, seconds: u32, args: &[&str]) -> Child {
    project.dockerfile(&format!("FROM busybox\nRUN echo running; (sleep {seconds} &) ; sleep {seconds}\n"));
    let build = project.start_build(args);
    // The step runs when a sleep of that length does.
    wait_until("the step to run", || (sleeping(seconds) == 2).then_some(()));
    build
}

pub(crate) fn sleeping(seconds: u32) -> usize {
    processes_with(&format!("sleep\0{seconds}\0")).len()
}

/// Every process of the step is dead, nothing is mounted, no lock and no file is left, and the store is good.
pub(crate) fn assert_nothing_is_left(project: &Project, seconds: u32) {
    wait_until("all of the step to be dead", || (sleeping(seconds) == 0).then_some(()));
    wait_until("mounts to be gone", || left(project).is_empty().then_some(()));
    project.dockerfile("FROM busybox\nRUN true\n");
    let _next = project.build(&[]).good();
    assert_no_file_is_left(project);
}

pub(crate) fn assert_no_file_is_left(project: &Project) {
    for dir in ["tmp", "locks"] {
        assert_eq!(fs::read_dir(project.store().join(dir)).unwrap().count(), 0, "something is left in {dir}");
    }
}

#[test]
fn the_signals_that_ask_a_build_to_end_end_its_step_and_the_exit_code_says_so() {
    for (signal, seconds) in [(Signal::INT, seconds(11)), (Signal::TERM, seconds(12)), (Signal::HUP, seconds(13))] {
        let project = Project::with_busybox();
        let mut build = sleeper(&project, seconds, &["-o", "type=oci,dest=image.tar"]);
        kill_process(Pid::from_child(&build), signal).unwrap();
        let status = wait_until("the build to end", || build.try_wait().unwrap());
        assert_eq!(status.code(), Some(130), "{signal:?}: {status}");
        wait_until("all of the step to be dead", || (sleeping(seconds) == 0).then_some(()));
        assert!(!project.path("image.tar").exists(), "an output that is not whole was left");
        assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0, "temporary files are left");
        assert_nothing_is_left(&project, seconds);
    }
}

#[test]
fn a_lost_terminal_ends_the_step() {
    let Some(script) = crate::harness::need("script") else { return };
    let project = Project::with_busybox();
    let seconds = seconds(14);
    project.dockerfile(&format!("FROM busybox\nRUN (sleep {seconds} &) ; sleep {seconds}\n"));
    let build = project.command(["build", "ctx"]);
    let mut line = String::from("exec");
    for word in std::iter::once(build.get_program()).chain(build.get_args()) {
        line.push(' ');
        line.push_str(word.to_str().unwrap());
    }
    let mut terminal = Command::new(script);
    terminal.args(["-q", "-c", &line, "/dev/null"]).current_dir(project.path("")).stdin(Stdio::null()).stdout(Stdio::null());
    terminal.env_clear().envs(build.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut terminal = terminal.spawn().unwrap();
    wait_until("the step to run", || (sleeping(seconds) == 2).then_some(()));
    // The one who holds the other end of the terminal is gone: the kernel sends SIGHUP to the build.
    terminal.kill().unwrap();
    let _status = terminal.wait().unwrap();
    assert_nothing_is_left(&project, seconds);
}

#[test]
fn a_step_that_runs_out_of_time_is_killed_with_all_that_it_started() {
    let project = Project::with_busybox();
    let seconds = seconds(15);
    let build = sleeper(&project, seconds, &["--step-timeout", "3s"]);
    let ran = Ran::of_child("build --step-timeout 3s".to_owned(), build).ends_with(3);
    let _said = ran.says(&["it ran longer than 3s", "--> Dockerfile:2:1"]);
    assert_nothing_is_left(&project, seconds);
}

#[test]
fn whoever_is_killed_leaves_no_process_of_the_step() {
    for (victim, seconds) in [("build", seconds(16)), ("engine-process", seconds(17)), ("step-init", seconds(18))] {
        let project = Project::with_busybox();
        let mut build = sleeper(&project, seconds, &[]);
        let all = descendants(&build);
        match all.iter().find(|(_, line)| line.contains(victim)) {
            Some((pid, _)) => kill_process(Pid::from_raw(i32::try_from(*pid).unwrap()).unwrap(), Signal::KILL).unwrap(),
            None if victim == "build" => kill_process(Pid::from_child(&build), Signal::KILL).unwrap(),
            None => panic!("no {victim} among {all:?}"),
        }
        let status = wait_until("the build to end", || build.try_wait().unwrap());
        assert_ne!(status.code(), Some(0), "{victim}");
        let gone = || all.iter().all(|(pid, _)| !std::path::Path::new(&format!("/proc/{pid}")).exists());
        wait_until("its processes to be gone", || gone().then_some(()));
        assert_nothing_is_left(&project, seconds);
    }
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
