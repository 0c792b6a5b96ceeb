//! Mounts that a step asks for.

use std::{os::unix::fs::symlink, path::PathBuf};

use lapstrake::sandbox::{Mount, MountSource, Overlay, Spec, Status};

use super::cases;
use crate::world::{World, at, run};

cases![
    a_tmpfs_has_its_size,
    a_file_has_its_bytes_mode_and_owner,
    a_directory_of_the_host_is_written_through,
    what_is_read_only_stays_so,
    a_view_of_trees_keeps_nothing,
    a_view_shows_a_path_of_the_trees_and_never_the_host,
    the_same_lowers_serve_many_steps_at_once,
];

fn with(world: &World, mounts: Vec<Mount>, script: &str) -> Spec {
    Spec { mounts, ..world.spec(&["sh", "-c", script]) }
}

fn host(path: &std::path::Path) -> MountSource {
    let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
    MountSource::Host(rustix::fs::open(path, flags, rustix::fs::Mode::empty()).expect("what is to be mounted"))
}

fn view(lowers: Vec<PathBuf>, path: &str) -> MountSource {
    MountSource::Overlay(Overlay { lowers, upper: PathBuf::new(), work: PathBuf::new() }, at(path))
}

fn a_tmpfs_has_its_size(world: &World) {
    let mount = Mount { target: at("t"), what: MountSource::Tmpfs(Some(65_536)), readonly: false };
    let ran = run(with(world, vec![mount], "df -k /t | grep -c ' 64 '; dd if=/dev/zero of=/t/x bs=1k count=100; stat -c %a /t"));
    assert_eq!(ran.out, "1\n1777\n", "{ran:?}");
    assert!(ran.err.contains("No space left"), "{ran:?}");
}

fn a_file_has_its_bytes_mode_and_owner(world: &World) {
    let bytes = vec![b'x'; 300_000];
    let mount = Mount { target: at("run/f"), what: MountSource::File { bytes, mode: 0o440, uid: 5, gid: 6 }, readonly: true };
    let ran = run(with(world, vec![mount], "stat -c '%a %u %g %s' /run/f; echo more >> /run/f"));
    assert_eq!(ran.out, "440 5 6 300000\n", "{ran:?}");
    assert!(ran.err.contains("Read-only file system"), "{ran:?}");
}

fn a_directory_of_the_host_is_written_through(world: &World) {
    let dir = world.dir("cache");
    std::fs::write(dir.join("old"), "old").expect("a file");
    let mounts = vec![
        Mount { target: at("cache"), what: host(&dir), readonly: false },
        Mount { target: at("one"), what: host(&dir.join("old")), readonly: false },
    ];
    let ran = run(with(world, mounts, "cat /cache/old /one; echo new > /cache/new; chown 33 /cache/new; ls -d /cache/.."));
    assert_eq!(ran.out, "oldold/cache/..\n", "{ran:?}");
    assert_eq!(std::fs::read_to_string(dir.join("new")).expect("a file"), "new\n");
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&dir.join("new").metadata().expect("a file")), 33);
    assert_eq!(ran.written(), ["etc"]);
}

fn what_is_read_only_stays_so(world: &World) {
    let dir = world.dir("context");
    std::fs::write(dir.join("f"), "as it was").expect("a file");
    let mounts = vec![
        Mount { target: at("host"), what: host(&dir), readonly: true },
        Mount { target: at("mem"), what: MountSource::Tmpfs(None), readonly: true },
        Mount { target: at("view"), what: view(vec![world.path("base")], ""), readonly: true },
    ];
    let script = "for d in /host /mem /view; do (echo x > $d/f) 2>/dev/null && echo wrote $d; mount -o remount,rw,bind $d; \
                  mount -o remount,rw $d; (echo x > $d/f) 2>/dev/null && echo wrote $d; umount $d; done; cat /host/f";
    let ran = run(with(world, mounts, script));
    assert_eq!(ran.out, "as it was", "{ran:?}");
    assert_eq!(std::fs::read_to_string(dir.join("f")).expect("a file"), "as it was");
}

fn a_view_of_trees_keeps_nothing(world: &World) {
    let (below, above) = (world.dir("below"), world.dir("above"));
    std::fs::write(below.join("f"), "below").expect("a file");
    std::fs::write(below.join("g"), "g").expect("a file");
    std::fs::write(above.join("f"), "above").expect("a file");
    let mount = Mount { target: at("v"), what: view(vec![below.clone(), above], ""), readonly: false };
    let empty = Mount { target: at("e"), what: view(vec![], ""), readonly: false };
    let ran = run(with(world, vec![mount, empty], "cat /v/f; rm /v/g; echo new > /v/f; echo e > /e/e; cat /v/f; ls /v /e"));
    assert_eq!(ran.out, "abovenew\n/e:\ne\n\n/v:\nf\n", "{ran:?}");
    assert_eq!(ran.status(), Status::Exited(0));
    assert!(below.join("g").exists());
    // One on disk.
    let trees = world.fresh_overlay(vec![below.clone()]);
    let mount = Mount { target: at("v"), what: MountSource::Overlay(trees, at("")), readonly: false };
    let ran = run(with(world, vec![mount], "rm /v/g; ls /v"));
    assert_eq!(ran.out, "f\n", "{ran:?}");
    assert!(below.join("g").exists());
}

fn a_view_shows_a_path_of_the_trees_and_never_the_host(world: &World) {
    let tree = world.dir("tree");
    std::fs::create_dir_all(tree.join("a/b")).expect("directories");
    std::fs::write(tree.join("a/b/f"), "inside").expect("a file");
    std::fs::write(tree.join("hostname"), "inside too").expect("a file");
    symlink("/a/b", tree.join("absolute")).expect("a link");
    symlink("../../../../../../../..", tree.join("up")).expect("a link");
    symlink("/proc/self/root", tree.join("magic")).expect("a link");
    let mounts = vec![
        Mount { target: at("dir"), what: view(vec![tree.clone()], "absolute"), readonly: true },
        Mount { target: at("file"), what: view(vec![tree.clone()], "a/b/f"), readonly: true },
        Mount { target: at("up"), what: view(vec![tree.clone()], "up"), readonly: true },
    ];
    let ran = run(with(world, mounts, "cat /dir/f /file /up/hostname; ls /up"));
    assert_eq!(ran.out, "insideinsideinside tooa\nabsolute\nhostname\nmagic\nup\n", "{ran:?}");
    for path in ["magic", "magic/etc", "none"] {
        let mounts = vec![Mount { target: at("x"), what: view(vec![tree.clone()], path), readonly: true }];
        let error = run(with(world, mounts, "ls /x")).result.expect_err("an error");
        assert_eq!(error.step, "find", "{error}");
    }
}

fn the_same_lowers_serve_many_steps_at_once(world: &World) {
    let specs: Vec<Spec> = (0..8).map(|_| world.spec(&["sh", "-c", "rm -rf /etc/passwd /root; seq 1 2000; echo x > /tmp/x"])).collect();
    std::thread::scope(|scope| {
        let steps: Vec<_> = specs.into_iter().map(|spec| scope.spawn(|| run(spec))).collect();
        for step in steps {
            let ran = step.join().expect("a step");
            assert_eq!((ran.out.lines().count(), ran.status()), (2000, Status::Exited(0)), "{ran:?}");
        }
    });
    assert!(world.path("base/etc/passwd").exists());
}
