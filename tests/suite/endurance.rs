//! Many steps leave nothing, and cost the engine no memory. `cargo bench --bench sandbox -- leak` does the same with thousands.

use std::{
    fmt::Write as _,
    fs,
    process::{Child, Stdio},
    time::Duration,
};

use crate::{
    harness::{Project, Ran, wait_until},
    killing::{assert_no_file_is_left, descendants, left},
};

/// Stages of eight steps each, which the last stage needs all.
fn stages(name: &str, count: usize) -> String {
    let mut text = String::new();
    for stage in 0..count {
        writeln!(text, "FROM busybox AS s{stage}\nENV OF={name}").unwrap();
        for step in 0..8 {
            writeln!(text, "RUN echo {stage} {step} > /f").unwrap();
        }
    }
    text.push_str("FROM busybox\n");
    for stage in 0..count {
        writeln!(text, "COPY --from=s{stage} /f /f{stage}").unwrap();
    }
    text
}

/// The resident memory of a build's engine in KiB, again and again until the build ends.
fn resident(build: &mut Child) -> Vec<u64> {
    let mut sizes = Vec::new();
    while build.try_wait().unwrap().is_none() {
        let engine = descendants(build).into_iter().find(|(_, line)| line.contains("engine-process"));
        let status = engine.and_then(|(pid, _)| fs::read_to_string(format!("/proc/{pid}/status")).ok()).unwrap_or_default();
        let size: Option<u64> = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        sizes.extend(size);
        std::thread::sleep(Duration::from_millis(50));
    }
    sizes
}

fn assert_nothing_is_left(project: &Project) {
    wait_until("mounts and processes to be gone", || left(project).is_empty().then_some(()));
    assert_no_file_is_left(project);
}

#[test]
fn many_steps_one_after_another_leave_nothing_and_the_engine_stays_as_small() {
    let project = Project::with_busybox();
    project.dockerfile(&stages("one", 10));
    let log = fs::File::create(project.path("log")).unwrap();
    let mut build = project.command(["build", "--progress", "plain", "ctx"]).stderr(log).stdout(Stdio::null()).spawn().unwrap();
    let sizes = resident(&mut build);
    let said = fs::read_to_string(project.path("log")).unwrap();
    assert_eq!(said.matches(" DONE ").count(), 90, "{said}");
    assert!(sizes.len() >= 8, "{sizes:?}");
    let (first, last) = sizes.split_at(sizes.len() / 2);
    let (first, last) = (first.iter().max().unwrap(), last.iter().max().unwrap());
    assert!(*last < first + 8 * 1024, "the engine grew from {first} to {last} KiB: {sizes:?}");
    assert_nothing_is_left(&project);
}

#[test]
fn many_steps_at_once_leave_nothing() {
    let shared = Project::with_busybox();
    let names = ["a", "b", "c", "d"];
    let projects: Vec<Project> = names.iter().map(|_| Project::on_store(shared.store())).collect();
    let builds: Vec<Child> = projects
        .iter()
        .zip(names)
        .map(|(project, name)| {
            project.dockerfile(&stages(name, 2));
            project.start_build(&[])
        })
        .collect();
    for (build, name) in builds.into_iter().zip(names) {
        let ran = Ran::of_child(name.to_owned(), build).good();
        // The copies are the same in all of them: one build does each.
        assert!(ran.stderr.matches(" DONE ").count() >= 16, "{}", ran.stderr);
    }
    projects.iter().chain([&shared]).for_each(assert_nothing_is_left);
}
