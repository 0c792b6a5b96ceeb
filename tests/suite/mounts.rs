//! `RUN --mount`: caches, bind mounts, tmpfs, and the files of heredocs.

use std::{fs, process::Stdio};

use crate::harness::{Project, Ran, processes_with, wait_until};

fn built(dockerfile: &str) -> Project {
    let project = Project::with_busybox();
    project.dockerfile(dockerfile);
    let _built = project.build(&[]).good();
    project
}

#[test]
fn a_cache_keeps_its_files_and_has_the_mode_and_owner_that_are_asked_for() {
    let project = built(
        "FROM busybox\nRUN --mount=type=cache,target=/c test $(stat -c %a:%u:%g /c) = 755:0:0 && echo 1 > /c/one\nRUN --mount=type=cache,target=/c,ro cat /c/one && ! touch /c/two\nRUN --mount=type=cache,target=/elsewhere,id=/c test -f /elsewhere/one\nRUN --mount=type=cache,target=/c,mode=0770,uid=33,gid=50 test $(stat -c %a:%u:%g /c) = 770:33:50 && test ! -e /c/one\nUSER www-data\nRUN --mount=type=cache,target=/c,mode=0770,uid=33,gid=50 touch /c/mine\n",
    );
    // What is in it is in no key and in no layer.
    let image = project.image(&[]);
    assert!((1..image.layers.len()).all(|layer| image.paths(layer - 1).is_empty()), "{:?}", image.tree().keys());
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c test -f /c/one && echo again\n");
    let _again = project.build(&[]).good();
    // Of another namespace it is another cache.
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c test ! -e /c/one\n");
    let _other = project.build(&["--build-arg", "BUILDKIT_CACHE_MOUNT_NS=other"]).good();
}

#[test]
fn a_new_cache_begins_with_what_from_names() {
    let project = Project::with_busybox();
    let _file = project.file("extra/file", "of the context\n");
    let dockerfile = |content: &str, check: &str| {
        format!(
            "FROM busybox AS seed\nRUN mkdir -p /seed/deep && echo {content} > /seed/deep/file && ln /seed/deep/file /seed/link && chown -R 33:50 /seed && chmod 2750 /seed\nFROM busybox\nRUN --mount=type=cache,target=/c,from=seed,source=/seed {check}\n"
        )
    };
    let fresh = "test $(cat /c/deep/file) = one && test $(stat -c %a:%u:%g /c) = 2750:33:50 && test $(stat -c %h:%u /c/link) = 2:33 && echo more > /c/more && rm /c/link";
    project.dockerfile(&dockerfile("one", fresh));
    let _first = project.build(&[]).good();
    // The next step finds what the last one left.
    project.dockerfile(&dockerfile("one", "test -f /c/more && test ! -e /c/link"));
    let _second = project.build(&[]).good();
    // Other contents to begin with are another cache, and do the step again.
    project.dockerfile(&dockerfile("two", "test $(cat /c/deep/file) = two && test ! -e /c/more"));
    let _third = project.build(&[]).good();
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,from=extra grep -q context /c/file\nRUN --mount=type=cache,target=/c,from=busybox,source=/etc test -f /c/passwd\nRUN --mount=type=cache,target=/c test -z \"$(ls /c)\"\n");
    let _contexts = project.build(&["--build-context", "extra=ctx/extra"]).good();
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,from=busybox,source=/etc/passwd true\n");
    let _file = project.build(&[]).ends_with(1).says(&["a cache cannot begin with `/etc/passwd`, which is no directory", "Dockerfile:2:"]);
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,from=busybox,source=/nowhere true\n");
    let _nowhere = project.build(&[]).ends_with(1).says(&["/nowhere", "Dockerfile:2:"]);
}

/// Two builds at once on one cache. Each puts a file there; a shared one is looked at until both files are in it, another
/// one for two seconds.
fn two_at_once(sharing: &str) -> (Ran, Ran) {
    let project = Project::with_busybox();
    let (rounds, end) = if sharing == "shared" { (150, "true") } else { (10, "rm /c/$name") };
    let dockerfile = |name: &str| {
        format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,sharing={sharing} name={name}; touch /c/$name; for i in $(seq {rounds}); do test $(ls /c | wc -l) = 2 && echo both && break; sleep 0.2; done; {end}\n"
        )
    };
    let start = |name: &str| {
        let _file = project.file(name, dockerfile(name));
        let file = format!("ctx/{name}");
        let args = ["build", "--progress", "plain", "-f", &file, "ctx"];
        project.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let (one, other) = (start("one"), start("other"));
    (Ran::of_child("one".to_owned(), one).good(), Ran::of_child("other".to_owned(), other).good())
}

/// Did its step see the other's file?
fn saw_both(ran: &Ran) -> bool {
    ran.stderr.lines().any(|line| line.ends_with(" both"))
}

#[test]
fn a_shared_cache_is_seen_by_both_a_locked_one_by_one_and_a_private_one_is_each_ones_own() {
    let (one, other) = two_at_once("shared");
    assert!(saw_both(&one) && saw_both(&other), "{}{}", one.stderr, other.stderr);
    let (one, other) = two_at_once("locked");
    assert!(!saw_both(&one) && !saw_both(&other), "{}{}", one.stderr, other.stderr);
    assert!(one.stderr.contains("waiting for the cache `/c`") || other.stderr.contains("waiting for the cache `/c`"));
    let (one, other) = two_at_once("private");
    assert!(!saw_both(&one) && !saw_both(&other), "{}{}", one.stderr, other.stderr);
    assert!(
        !one.stderr.contains("waiting for the cache") && !other.stderr.contains("waiting for the cache"),
        "{}{}",
        one.stderr,
        other.stderr
    );
}

#[test]
fn a_cache_that_is_mounted_twice_does_not_wait_for_itself() {
    let _built = built(
        "FROM busybox\nRUN --mount=type=cache,id=a,target=/a,sharing=locked --mount=type=cache,id=a,target=/b,sharing=locked touch /a/x && test -f /b/x\nRUN --mount=type=cache,id=p,target=/a,sharing=private --mount=type=cache,id=p,target=/b,sharing=private touch /a/x && test -f /b/x\n",
    );
}

#[test]
fn a_killed_step_frees_its_locked_cache() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked sleep 963\n");
    let mut build = project.command(["build", "ctx"]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_until("the step to run", || (!processes_with("sleep\u{0}963").is_empty()).then_some(()));
    build.kill().unwrap();
    let _status = build.wait().unwrap();
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,sharing=locked echo free\n");
    let _next = project.build(&[]).good();
}

#[test]
fn bind_mounts_show_their_source_and_keep_nothing() {
    let project = Project::with_busybox();
    let _file = project.file("dir/file", "of the context\n");
    project.dockerfile(
        "FROM busybox AS made\nRUN mkdir /made && echo made > /made/file\nFROM busybox\nWORKDIR /w\nRUN --mount=target=. grep -q context dir/file && ! touch dir/new\nRUN --mount=type=bind,source=dir,target=here,rw touch here/new && echo x > here/file && test -f /w/here/new\nRUN --mount=type=bind,source=dir/file,target=/one grep -q context /one\nRUN --mount=from=made,source=/made,target=/made grep -qx made /made/file\nRUN --mount=from=busybox,target=/other test -x /other/bin/busybox\nRUN test ! -e /w/here && test ! -e /one && test ! -e /made\n",
    );
    let image = project.image(&[]);
    assert!(image.tree().keys().all(|path| !["w/here", "one", "made", "other"].contains(&path.as_str())));
    assert_eq!(fs::read_to_string(project.context().join("dir/file")).unwrap(), "of the context\n");
}

#[test]
fn a_tmpfs_has_the_size_that_is_asked_for() {
    let _built = built(
        "FROM busybox\nRUN --mount=type=tmpfs,target=/t,size=1m df -k /t | tail -1 | grep -q ' 1024 ' && ! dd if=/dev/zero of=/t/big bs=64k count=32 2>/dev/null\nRUN --mount=type=tmpfs,target=/t touch /t/x\nRUN test ! -e /t\n",
    );
}

#[test]
fn a_heredoc_is_a_script_for_the_shell_or_for_the_interpreter_that_it_names() {
    let project = built(
        "FROM busybox\nRUN <<EOF\nset -e\nx=1\necho \"$x ${HOME}\" > /shell\nEOF\nRUN <<\"AWK\"\n#!/bin/awk -f\nBEGIN { print \"$x awk\" > \"/awk\" }\nAWK\nRUN <<SELF\n#!/bin/sh\ntest $0 = /dev/pipes/SELF\ntest $(stat -c %a /dev/pipes/SELF) = 755\n! echo x >> /dev/pipes/SELF\nSELF\nRUN cat <<ONE > /one && cat <<-TWO > /two\n1 $HOME\nONE\n\t2\nTWO\nRUN test ! -e /dev/pipes\n",
    );
    let image = project.image(&["-o", "type=local,dest=out"]);
    let read = |name: &str| fs::read_to_string(project.path("out").join(name)).unwrap();
    assert_eq!([read("shell"), read("awk"), read("one"), read("two")], ["1 /root\n", "$x awk\n", "1 /root\n", "2\n"]);
    assert!(!image.tree().contains_key("dev/pipes"));
}

#[test]
fn a_step_has_the_groups_and_the_home_of_its_user() {
    let project = Project::with_busybox();
    let _group = project.file("group", "root:x:0:\nstaff:x:50:\nwww-data:x:33:\nextra:x:77:www-data\n");
    project.dockerfile(
        "FROM busybox\nCOPY group /etc/group\nUSER www-data\nRUN test \"$(id -G)\" = '33 77' && test $HOME = /var/www\nUSER www-data:staff\nRUN test \"$(id -G)\" = 50 && test $HOME = /var/www && test $(umask) = 0022 && test $(wc -c < /dev/stdin) = 0\nUSER 1234\nRUN test \"$(id -u):$(id -G)\" = 1234:0 && test $HOME = /\nUSER 1234:77\nRUN test \"$(id -u):$(id -G)\" = 1234:77\nENV HOME=/own\nUSER root\nRUN test $HOME = /own\n",
    );
    let _built = project.build(&[]).good();
    project.dockerfile("FROM busybox\nUSER nobody-knows\nRUN true\n");
    let _unknown = project.build(&[]).ends_with(1).says(&["nobody-knows", "Dockerfile:"]);
}
