//! Why a step was not in the cache: each cause alone, named by its line.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use crate::harness::{GitDaemon, Project, Ran, Shelf};

/// A cause: two Dockerfiles (or one and a change of the world), and the reason that the second build gives.
struct Cause {
    name: &'static str,
    before: String,
    after: String,
    args: [&'static [&'static str]; 2],
    /// What changes between the builds.
    change: Box<dyn Fn(&Project)>,
    /// The first reason.
    line: &'static str,
}

/// Nothing changes but what is in the two texts.
fn text(name: &'static str, before: &str, after: &str, line: &'static str) -> Cause {
    let (before, after) = (format!("FROM busybox\n{before}\n"), format!("FROM busybox\n{after}\n"));
    Cause { name, before, after, args: [&[], &[]], change: Box::new(|_| {}), line }
}

/// The Dockerfile stays.
fn world(name: &'static str, dockerfile: &str, line: &'static str, change: impl Fn(&Project) + 'static) -> Cause {
    Cause { change: Box::new(change), ..text(name, dockerfile, dockerfile, line) }
}

/// Only the command line is another.
fn flags(name: &'static str, dockerfile: &str, args: [&'static [&'static str]; 2], line: &'static str) -> Cause {
    Cause { args, ..text(name, dockerfile, dockerfile, line) }
}

fn file_causes() -> Vec<Cause> {
    let copy = "COPY src /src";
    let set = |name: &'static str| move |project: &Project| drop(project.file(name, "another"));
    let in_context = |name: &'static str, work: fn(&std::path::Path)| move |project: &Project| work(&project.context().join(name));
    vec![
        world("file content", copy, "src/a: content", set("src/a")),
        world("file mode", copy, "src/a: mode 0644→0755", |project| {
            fs::set_permissions(project.context().join("src/a"), fs::Permissions::from_mode(0o755)).unwrap();
        }),
        world("file added", copy, "src/new: added", set("src/new")),
        world("file removed", copy, "src/b: removed", in_context("src/b", |path| fs::remove_file(path).unwrap())),
        world("file renamed", copy, "src/b→src/c: renamed", in_context("src", |dir| fs::rename(dir.join("b"), dir.join("c")).unwrap())),
        world(
            "file type",
            copy,
            "src/b: file→symlink",
            in_context("src", |dir| {
                fs::remove_file(dir.join("b")).unwrap();
                symlink("a", dir.join("b")).unwrap();
            }),
        ),
        world(
            "symlink target",
            copy,
            "src/link: target",
            in_context("src", |dir| {
                fs::remove_file(dir.join("link")).unwrap();
                symlink("b", dir.join("link")).unwrap();
            }),
        ),
        world(
            "extended attribute",
            copy,
            "src/a: extended attributes",
            in_context("src/a", |path| {
                rustix::fs::setxattr(path, "user.note", b"1", rustix::fs::XattrFlags::empty()).unwrap();
            }),
        ),
        world(".dockerignore", copy, "src/b: removed", |project| drop(project.file(".dockerignore", "src/b\n"))),
        world("bind mount content", "RUN --mount=type=bind,source=src,target=/s true", "src/a (at /s): content", set("src/a")),
        Cause {
            name: "owner of COPY --from",
            before: "FROM busybox AS a\nRUN echo 1 > /f\nFROM busybox\nCOPY --from=a /f /f\n".into(),
            after: "FROM busybox AS a\nRUN echo 1 > /f && chown 7:8 /f\nFROM busybox\nCOPY --from=a /f /f\n".into(),
            ..text("", "", "", "/f: owner 0:0→7:8")
        },
    ]
}

fn instruction_causes() -> Vec<Cause> {
    vec![
        text("command", "RUN echo 1", "RUN echo 2", "command: changed"),
        text("heredoc of RUN", "RUN <<E\necho 1\nE", "RUN <<E\necho 2\nE", "command: changed"),
        text("script of RUN", "RUN <<E\n#!/bin/sh\necho 1\nE", "RUN <<E\n#!/bin/sh\necho 2\nE", "heredoc /dev/pipes/E: changed"),
        text("heredoc of COPY", "COPY <<E /e\n1\nE", "COPY <<E /e\n2\nE", "E: content"),
        text("SHELL", "RUN true", "SHELL [\"/bin/ash\", \"-c\"]\nRUN true", "SHELL: changed"),
        text("USER", "RUN true", "USER nobody\nRUN true", "user: changed"),
        text("WORKDIR", "WORKDIR /a", "WORKDIR /b", "path: changed"),
        text("working directory", "WORKDIR /bin\nRUN true", "WORKDIR /etc\nRUN true", "working directory: changed"),
        text("ENV added", "RUN true", "ENV A=1\nRUN true", "ENV A: added"),
        text("ENV changed", "ENV A=1\nRUN true", "ENV A=2\nRUN true", "ENV A: changed"),
        text("ENV removed", "ENV A=1\nRUN true", "RUN true", "ENV A: removed"),
        text("--network", "RUN true", "RUN --network=none true", "--network: changed"),
        text("mount kind", "RUN --mount=type=tmpfs,target=/m true", "RUN --mount=type=cache,target=/m true", "--mount /m: changed"),
        text("mount target", "RUN --mount=type=cache,target=/m true", "RUN --mount=type=cache,target=/n true", "--mount /n: added"),
        text("mount option", "RUN --mount=type=cache,target=/m true", "RUN --mount=type=cache,target=/m,ro true", "--mount /m: changed"),
        text("--chown", "COPY src /s", "COPY --chown=1:2 src /s", "--chown: changed"),
        text("--chmod", "COPY src /s", "COPY --chmod=700 src /s", "--chmod: changed"),
        text("--link", "COPY src /s", "COPY --link src /s", "--link: changed"),
        text("--exclude", "COPY src /s", "COPY --exclude=zzz src /s", "--exclude: added"),
        text("destination", "COPY src /s", "COPY src /t", "destination: changed"),
        text("instruction above", "RUN echo 1 > /1\nCOPY src /s", "RUN echo 2 > /1\nCOPY src /s", "command: changed"),
        text("instruction inserted above", "RUN true", "RUN echo > /new\nRUN true", "`RUN echo > /new` above: is new or changed"),
    ]
}

fn flag_causes() -> Vec<Cause> {
    let run = "RUN true";
    vec![
        flags("ARG", "ARG A\nRUN true", [&["--build-arg", "A=1"], &["--build-arg", "A=2"]], "ARG A: changed"),
        flags("--security", "RUN true", [&[], &[]], "--security: added").and_after("RUN --security=insecure true"),
        flags("--ulimit", run, [&[], &["--ulimit", "nofile=100"]], "--ulimit nofile: added"),
        flags("--shm-size", run, [&[], &["--shm-size", "1m"]], "--shm-size: added"),
        flags("platform", "COPY src /s", [&[], &["--platform", "linux/s390x"]], "platform: changed").on_scratch(),
        flags("--no-cache", run, [&[], &["--no-cache"]], "--no-cache"),
        flags("--no-cache-filter", run, [&[], &["--no-cache-filter", "only"]], "--no-cache-filter only").named_stage(),
    ]
}

impl Cause {
    fn and_after(self, text: &str) -> Self {
        let args: &[&str] = &["--allow", "security.insecure"];
        Self { after: format!("FROM busybox\n{text}\n"), args: [args, args], ..self }
    }

    fn on_scratch(self) -> Self {
        Self { before: self.before.replace("busybox", "scratch"), after: self.after.replace("busybox", "scratch"), ..self }
    }

    fn named_stage(self) -> Self {
        Self { before: self.before.replace("busybox", "busybox AS only"), after: self.after.replace("busybox", "busybox AS only"), ..self }
    }
}

fn store_causes() -> Vec<Cause> {
    let files = |project: &Project, dir: &str| {
        let entries: Vec<_> = fs::read_dir(project.store().join(dir)).unwrap().map(|entry| entry.unwrap().path()).collect();
        entries
    };
    vec![
        world("record gone", "RUN true", "its record is gone from the store", move |project| {
            for path in files(project, "cache").iter().filter(|path| !path.file_name().unwrap().to_str().unwrap().contains('-')) {
                fs::remove_file(path).unwrap();
            }
        }),
        world("layer gone", "RUN echo > /f", "its layer sha256:", |project| {
            for layer in project.image(&[]).layers.iter().skip(1) {
                fs::remove_file(project.store().join("blobs/sha256").join(layer.digest.strip_prefix("sha256:").unwrap())).unwrap();
            }
        }),
        world("base digest", "RUN true", "base docker.io/library/busybox:latest: sha256:", |project| {
            let other = Project::on_store(project.store());
            other.dockerfile("FROM busybox\nRUN echo > /changed\n");
            let _built = other.build(&["-t", "busybox"]).good();
        }),
    ]
}

/// The reason lines of a build.
fn reasons(ran: &Ran) -> Vec<&str> {
    ran.stderr.lines().filter_map(|line| Some(line.split_once(" not cached: ")?.1)).collect()
}

fn context(project: &Project) {
    for name in ["a", "b"] {
        let path = project.file(&format!("src/{name}"), name);
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
    symlink("a", project.context().join("src/link")).unwrap();
}

#[test]
fn each_cause_of_a_miss_is_named_by_its_line() {
    let mut table = String::from("| cause | the line |\n|---|---|\n");
    let all = [file_causes(), instruction_causes(), flag_causes(), store_causes()].into_iter().flatten();
    let mut wrong = Vec::new();
    for cause in all {
        let project = Project::with_busybox();
        context(&project);
        let _first = project.dockerfile(&cause.before).build(cause.args[0]).good();
        let again = project.build(cause.args[0]).good();
        assert_eq!(reasons(&again), Vec::<&str>::new(), "{}: a build that nothing changed for", cause.name);
        (cause.change)(&project);
        let ran = project.dockerfile(&cause.after).build(cause.args[1]).good();
        let found = reasons(&ran);
        // The first reason of the step that the cause is of: what follows it names that step.
        let named = found.iter().find(|line| line.starts_with(cause.line));
        match named {
            Some(line) => table.extend(["| ", cause.name, " | `", line, "` |\n"]),
            None => wrong.push(format!("{}: expected `{}`, found {found:?}\n{}", cause.name, cause.line, ran.stderr)),
        }
    }
    project_record(&table);
    assert!(wrong.is_empty(), "{}\n{table}", wrong.join("\n"));
}

fn project_record(table: &str) {
    use std::io::Write as _;
    let _written = writeln!(std::io::stderr(), "{table}");
    if let Some(path) = std::env::var_os("LAPSTRAKE_TEST_RECORD") {
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        file.unwrap().write_all(table.as_bytes()).unwrap();
    }
}

#[test]
fn what_add_fetches_is_named_by_what_it_is_now() {
    let project = Project::with_busybox();
    let shelf = Shelf::new();
    let url = shelf.put("/file", &[], b"one");
    project.dockerfile(&format!("FROM busybox\nADD {url} /file\n"));
    let _first = project.build(&[]).good();
    let _url = shelf.put("/file", &[], b"two");
    let ran = project.build(&[]).good();
    assert_eq!(reasons(&ran), ["file: content"], "{}", ran.stderr);
}

#[test]
fn a_commit_is_named_by_the_files_that_it_changes() {
    if crate::harness::need("git").is_none() {
        return;
    }
    let project = Project::with_busybox();
    fs::create_dir(project.path("repositories")).unwrap();
    let daemon = GitDaemon::start(&project.path("repositories"));
    fs::create_dir_all(daemon.files("r.git")).unwrap();
    fs::write(daemon.files("r.git").join("f"), "1").unwrap();
    let _first = daemon.commit("r.git", 1_700_000_000);
    project.dockerfile(&format!("FROM busybox\nADD {} /r\n", daemon.url("r.git")));
    let _first = project.build(&[]).good();
    fs::write(daemon.files("r.git").join("f"), "2").unwrap();
    let _second = daemon.commit("r.git", 1_700_000_001);
    let ran = project.build(&[]).good();
    assert_eq!(reasons(&ran), ["f: content"], "{}", ran.stderr);
}
