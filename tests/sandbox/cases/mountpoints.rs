//! What is made for mounts is found without leaving the root, and is gone afterwards.

use std::os::unix::fs::symlink;

use lapstrake::sandbox::{Mount, MountSource, Spec, Status};
use rustix::io::Errno;

use super::cases;
use crate::world::{World, at, run};

cases![
    mountpoints_are_gone_after_the_step,
    a_root_without_layers_is_left_empty,
    a_mountpoint_that_the_step_filled_stays,
    a_dangling_link_to_resolv_conf_leads_into_the_root,
    links_of_an_image_never_lead_to_the_host,
    an_image_whose_proc_is_a_link_is_refused,
    links_swapped_by_the_step_are_not_followed_when_mountpoints_go,
    a_file_of_the_step_in_the_place_of_a_mountpoint_stays,
];

fn tmpfs(path: &str) -> Mount {
    Mount { target: at(path), what: MountSource::Tmpfs(None), readonly: false }
}

fn secret(path: &str) -> Mount {
    let what = MountSource::File { bytes: b"secret".to_vec(), mode: 0o400, uid: 0, gid: 0 };
    Mount { target: at(path), what, readonly: true }
}

fn with(world: &World, mounts: Vec<Mount>, script: &str) -> Spec {
    Spec { mounts, ..world.spec(&["sh", "-c", script]) }
}

fn mountpoints_are_gone_after_the_step(world: &World) {
    let ran =
        run(with(world, vec![tmpfs("a/b/c"), secret("run/secrets/x"), secret("a/b/c/y")], "cat /run/secrets/x /a/b/c/y; touch /a/b/c/z"));
    assert_eq!((ran.out.as_str(), ran.status()), ("secretsecret", Status::Exited(0)), "{ran:?}");
    assert_eq!(ran.written(), ["etc"]);
    let stubs: Vec<String> = ran.result.expect("a result").stubs.iter().map(ToString::to_string).collect();
    for path in ["/a", "/a/b", "/a/b/c", "/run/secrets/x", "/run/secrets", "/run", "/proc", "/dev", "/sys", "/etc/hosts"] {
        assert!(stubs.contains(&path.to_owned()), "{path}: {stubs:?}");
    }
}

fn a_root_without_layers_is_left_empty(world: &World) {
    let bytes = std::fs::read(world.path("base/bin/busybox")).expect("busybox");
    let program = Mount { target: at("tools/busybox"), what: MountSource::File { bytes, mode: 0o755, uid: 0, gid: 0 }, readonly: true };
    let root = world.fresh_overlay(Vec::new());
    let ran = run(Spec {
        root: lapstrake::sandbox::Root::Overlay(root),
        mounts: vec![program],
        ..world.spec(&["/tools/busybox", "sh", "-c", "cat /etc/hosts; echo * > /left"])
    });
    assert_eq!(ran.out, "127.0.0.1 localhost\n", "{ran:?}");
    assert_eq!(ran.written(), ["left"]);
    assert_eq!(std::fs::read_dir(ran.upper.parent().expect("its directory")).expect("a directory").count(), 2);
}

fn a_mountpoint_that_the_step_filled_stays(world: &World) {
    let ran = run(with(world, vec![tmpfs("cache/x"), secret("cache/y/z")], "echo kept > /cache/kept; chmod 700 /cache/y"));
    assert_eq!(ran.status(), Status::Exited(0), "{ran:?}");
    assert_eq!(ran.written(), ["cache", "cache/kept", "cache/y", "etc"]);
    assert!(!ran.result.expect("a result").stubs.contains(&at("cache")));
}

fn a_dangling_link_to_resolv_conf_leads_into_the_root(world: &World) {
    symlink("../run/systemd/resolve/stub-resolv.conf", world.path("base/etc/resolv.conf")).expect("a link");
    let ran = world.shell("cat /etc/resolv.conf; readlink /etc/resolv.conf");
    assert_eq!(ran.out, "nameserver 192.0.2.1\n../run/systemd/resolve/stub-resolv.conf\n", "{ran:?}");
    assert_eq!(ran.written().iter().filter(|path| *path != "etc").count(), 0, "{:?}", ran.written());
}

fn links_of_an_image_never_lead_to_the_host(world: &World) {
    let host = world.dir("host");
    std::fs::write(host.join("x"), "host's").expect("a file");
    symlink(&host, world.path("base/link")).expect("a link");
    symlink("../../../../../../../../../../../../../..", world.path("base/up")).expect("a link");
    symlink("loop", world.path("base/loop")).expect("a link");
    symlink("/proc/self/root", world.path("base/magic")).expect("a link");
    let ran = run(with(world, vec![secret("link/x"), secret("up/up/new"), tmpfs("magic/tmp/t")], "cat /link/x /new; ls /tmp"));
    assert_eq!(std::fs::read_to_string(host.join("x")).expect("a file"), "host's");
    // A link to /proc/self/root is walked as the words that it reads as: proc's own link is the root's.
    match ran.result {
        Ok(_) => assert!(ran.out.starts_with("secretsecret"), "{ran:?}"),
        Err(ref error) => assert_eq!(error.step, "find", "{error}"),
    }
    let error = run(with(world, vec![tmpfs("loop/x")], "true")).result.expect_err("an error");
    assert_eq!((error.step.as_str(), error.errno), ("find", Errno::LOOP.raw_os_error()));
}

fn an_image_whose_proc_is_a_link_is_refused(world: &World) {
    for name in ["proc", "dev", "sys"] {
        symlink("/etc", world.path("base").join(name)).expect("a link");
        let error = world.shell("true").result.expect_err("an error");
        assert_eq!((error.path, error.errno), (format!("/{name}"), Errno::LOOP.raw_os_error()));
        std::fs::remove_file(world.path("base").join(name)).expect("a link");
    }
}

fn links_swapped_by_the_step_are_not_followed_when_mountpoints_go(world: &World) {
    let host = world.dir("victim/secrets");
    std::fs::write(host.join("x"), "").expect("a file");
    std::fs::create_dir(host.join("d")).expect("a directory");
    let outside = world.path("victim").display().to_string();
    let script = format!("mv /made /moved && ln -s {outside} /made && mkdir /inside && ln -s /inside /made2 && touch /inside/e");
    let ran = run(with(world, vec![secret("made/secrets/x"), tmpfs("made/secrets/d"), secret("made2/f")], &script));
    drop(ran);
    assert!(host.join("x").exists() && host.join("d").exists(), "what is on the host stays");
}

fn a_file_of_the_step_in_the_place_of_a_mountpoint_stays(world: &World) {
    let script = "mv /made /moved; mkdir /made; : > /made/x";
    let ran = run(with(world, vec![secret("made/x")], script));
    assert_eq!(ran.status(), Status::Exited(0), "{ran:?}");
    assert!(ran.written().contains(&"made/x".to_owned()), "{:?}", ran.written());
}
