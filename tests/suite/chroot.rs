//! Root of an ordinary container: no user namespace, no mount, and steps in a changed root directory.

use std::{fs, os::unix::fs::MetadataExt as _, process::Stdio, time::Duration};

use crate::harness::{Docker, Project, Way, need, need_root, processes_with, wait_until};

fn project(dockerfile: &str) -> Option<Project> {
    if !need_root() || need("python3").is_none() {
        return None;
    }
    let project = Way::Chroot.project();
    project.dockerfile(dockerfile);
    Some(project)
}

#[test]
fn a_step_has_dockers_rights_and_devices_and_a_build_says_what_it_lacks() {
    let Some(project) = project(
        "FROM busybox\nRUN --network=host test \"$(id -u)\" = 0 && test \"$(umask)\" = 0022 && test -c /dev/null && echo x > /dev/null && head -c 4 /dev/zero | wc -c && test -z \"$(ls /proc)\" && grep -q localhost /etc/hosts && test -z \"$(cat)\" && chown 7:8 /tmp && mknod /zero c 1 5 && chmod 4755 /bin/busybox\nUSER 33:44\nRUN test \"$(id -u):$(id -g)\" = 33:44 && ! cat /root/x 2> /dev/null && echo mine > /tmp/mine\nUSER 0\nRUN test \"$(stat -c %u:%g /tmp/mine)\" = 33:44\n",
    ) else {
        return;
    };
    let image = Way::Chroot.image(&project);
    assert!(image.tree().contains_key("zero"), "a device that a step makes is in its layer");
    assert!(image.paths(1).iter().all(|path| !path.starts_with("dev") && !path.starts_with("etc") && path != "proc" && path != "sys"));
    let ran = Way::Chroot.build(&project, &["--no-cache"]).good();
    assert_eq!(ran.stderr.matches("WARNING: steps run in a changed root directory").count(), 1, "{}", ran.stderr);
    let quiet = Way::Chroot.run(&project, &["build", "-q", "--no-cache", "ctx"]).good();
    assert!(quiet.stderr.contains("WARNING"), "{}", quiet.stderr);
}

#[test]
fn caches_and_bind_mounts_are_brought_in_and_out() {
    let Some(project) = project(
        "FROM busybox\nRUN mkdir -p /var/cache/x && echo original > /var/cache/x/of-the-image\nRUN --mount=type=cache,target=/var/cache/x,mode=0750,uid=3 --mount=type=bind,target=/src,rw --mount=type=bind,source=deep/file,target=/one test \"$(stat -c %a:%u /var/cache/x)\" = 750:3 && test ! -e /var/cache/x/of-the-image && cp /src/deep/file /var/cache/x/kept && test \"$(cat /one)\" = bound && echo scribble > /src/deep/file && ln -s / /var/cache/x/link\nRUN --mount=type=cache,target=/c,id=/var/cache/x,mode=0750,uid=3 test \"$(cat /c/kept)\" = bound && test -L /c/link && test -f /var/cache/x/of-the-image && test ! -e /src && rm /c/kept\nRUN --mount=type=cache,target=/c,id=/var/cache/x,mode=0750,uid=3 test ! -e /c/kept && test -L /c/link\n",
    ) else {
        return;
    };
    let source = project.file("deep/file", "bound");
    let image = Way::Chroot.image(&project);
    assert!((0..3).all(|layer| image.paths(layer).is_empty()), "{:?}", image.paths(1));
    assert_eq!(fs::read_to_string(source).unwrap(), "bound");
    // A step that fails keeps its cache, and one that replaces the mountpoint keeps nothing of it.
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,id=other echo 1 > /c/1 && false\n");
    let _failed = Way::Chroot.build(&project, &[]).ends_with(3);
    project.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,id=other test -f /c/1 && rm -r /c && ln -s /etc /c\nRUN --mount=type=cache,target=/c,id=other test -z \"$(ls /c)\"\n");
    let image = Way::Chroot.image(&project);
    assert!(image.paths(1).is_empty(), "{:?}", image.paths(1));
    // Nothing holds root to a read-only mount, but it is seen.
    project.dockerfile("FROM busybox\nRUN --mount=type=bind,target=/src --mount=type=cache,target=/src/deep/cache echo 1 > /src/deep/cache/1 && cat /src/deep/file\n");
    let _read = Way::Chroot.build(&project, &[]).good();
    project.dockerfile("FROM busybox\nRUN --mount=type=bind,target=/src echo other > /src/deep/file\n");
    let _written = Way::Chroot.build(&project, &[]).ends_with(4).says(&["the step changed `/src`, which is mounted read-only"]);
    project.dockerfile(
        "FROM busybox AS base\nRUN echo 1 > /1\nFROM busybox\nRUN --mount=from=base,target=/b,rw test -f /b/1 && echo 2 > /b/2\n",
    );
    let _root = Way::Chroot.build(&project, &[]).good();
}

#[test]
fn what_needs_a_mount_or_a_namespace_is_refused_with_the_reason() {
    let Some(project) = project("FROM busybox\n") else { return };
    for (flag, reason) in [
        ("--mount=type=tmpfs,target=/t", "nothing can be mounted here, so there is no memory to mount"),
        ("--mount=type=secret,id=s", "the secret would be a file on a disk"),
        ("--mount=type=cache,target=/c,ro", "root could write to a read-only cache"),
        ("--network=none", "it takes a network namespace"),
    ] {
        project.dockerfile(&format!("FROM busybox\nRUN {flag} true\n"));
        let _file = project.file("s", "hush");
        let _refused = Way::Chroot.build(&project, &["--secret", "id=s,src=ctx/s"]).ends_with(4).says(&[reason]);
    }
    project.dockerfile("FROM busybox\nRUN --mount=type=secret,id=s,env=WORD test \"$WORD\" = hush\n");
    let _built = Way::Chroot.build(&project, &["--secret", "id=s,src=ctx/s"]).good();
}

#[test]
fn nothing_that_a_step_started_outlives_it() {
    let word = (98_000_000 + std::process::id()).to_string();
    let (sleeping, comet) = (format!("sleep\0{word}"), format!("sh\0/comet\0{word}"));
    let Some(project) = project(&format!(
        "FROM busybox\nRUN sleep {word} & setsid sleep {word} & (setsid sh -c 'sleep {word} & sleep {word}' &) ; nohup sleep {word} > /dev/null 2>&1 & echo started\n"
    )) else {
        return;
    };
    let _built = Way::Chroot.build(&project, &[]).good();
    assert!(processes_with(&sleeping).is_empty(), "{:?}", processes_with(&sleeping));
    // A chain of processes that each start the next and end.
    project.dockerfile(&format!(
        "FROM busybox\nRUN echo 'sh /comet {word} & exit' > /comet; for n in 1 2 3 4 5 6 7 8; do sh /comet {word} & done; echo started\n"
    ));
    let _built = Way::Chroot.build(&project, &[]).good();
    assert!(processes_with(&comet).is_empty(), "{:?}", processes_with(&comet));
}

#[test]
fn a_build_that_is_killed_or_interrupted_leaves_no_process() {
    let word = (97_000_000 + std::process::id()).to_string();
    let sleeping = format!("sleep\0{word}");
    let Some(project) = project(&format!("FROM busybox\nRUN setsid sleep {word} & sleep {word}\n")) else { return };
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::INT, rustix::process::Signal::TERM] {
        let mut command = Way::Chroot.command(&project, &["build", "--progress", "plain", "ctx"]);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        wait_until("the step", || (processes_with(&sleeping).len() >= 2).then_some(()));
        rustix::process::kill_process(rustix::process::Pid::from_child(&child), signal).unwrap();
        let _status = child.wait().unwrap();
        wait_until("the end of the step", || processes_with(&sleeping).is_empty().then_some(()));
    }
    project.dockerfile("FROM busybox\nRUN true\n");
    let _built = Way::Chroot.build(&project, &[]).good();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0, "the next build sweeps what was left");
}

/// The mountpoints of a hostile image lead nowhere but into the image.
#[test]
fn links_in_place_of_mountpoints_lead_nowhere_else() {
    let Some(project) = project("FROM busybox\n") else { return };
    let canary = project.path("canary");
    fs::create_dir(&canary).unwrap();
    let before = fs::metadata("/etc/hosts").map(|found| (found.ino(), found.mtime())).ok();
    let place = canary.display();
    project.dockerfile(&format!(
        "FROM busybox\nRUN rm -f /etc/resolv.conf /etc/hosts; ln -s {place}/resolv /etc/resolv.conf; ln -s ../../../../../../etc/hosts /etc/hosts; ln -s {place} /cache\nRUN --mount=type=cache,target=/cache --mount=type=bind,target={place}/deep echo x > /cache/x; rm -rf {place}; ln -s /etc {place}\n"
    ));
    let _ran = Way::Chroot.build(&project, &[]);
    assert_eq!(fs::read_dir(&canary).unwrap().count(), 0);
    assert_eq!(fs::metadata("/etc/hosts").map(|found| (found.ino(), found.mtime())).ok(), before);
}

#[test]
fn in_a_container_of_dockers_engine_steps_run() {
    let Some(project) = project(
        "FROM busybox\nRUN --mount=type=cache,target=/c echo 1 > /c/1 && chown 33:33 /tmp && mkdir /d && echo x > /d/x\nUSER 33\nRUN id -u > /tmp/who\n",
    ) else {
        return;
    };
    let dir = tempfile::tempdir().unwrap();
    let Some(docker) = Docker::start(dir.path()) else { return };
    let layout = project.path("busybox-layout");
    let rootfs = crate::harness::busybox_layout(&layout).unwrap();
    let archive = project.path("busybox.tar");
    let _loaded = project.run(["load", "-i", rootfs.to_str().unwrap(), "-t", "busybox"]).good();
    let scratch = project.file("image/Dockerfile", "FROM busybox\n");
    let spec = format!("type=docker,dest={}", archive.display());
    let _saved = project.run(["build", "-t", "busybox", "-o", &spec, scratch.parent().unwrap().to_str().unwrap()]).good();
    let _image = docker.run(&["load", "-i", archive.to_str().unwrap()]).good();
    let (program, context, layout) = (project.program().display(), project.context(), rootfs.display());
    let script =
        "set -e; lapstrake load -q -i /layout -t busybox; lapstrake build --progress plain -o type=oci,tar=false,dest=/out/image /ctx";
    let volumes = [
        format!("{program}:/bin/lapstrake:ro"),
        format!("{}:/ctx:ro", context.display()),
        format!("{layout}:/layout:ro"),
        format!("{}:/out", project.path("home").display()),
    ];
    let mut line = vec!["run", "--rm", "--network", "none", "-e", "HOME=/root"];
    for volume in &volumes {
        line.extend(["-v", volume]);
    }
    line.extend(["busybox", "sh", "-c", script]);
    let ran = docker.run(&line).good();
    assert!(ran.all().contains(Way::Chroot.named()), "{}", ran.all());
    let image = crate::harness::Image::of_layout(&project.path("home/image"));
    assert!(image.tree().contains_key("d/x") && image.tree().contains_key("tmp/who"));
}
