//! What a program finds when it starts.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use lapstrake::sandbox::{Spec, Status, User};
use rustix::io::Errno;

use super::cases;
use crate::world::{World, at, run};

cases![
    a_program_runs_as_root,
    a_user_has_its_ids_and_can_open_standard_output,
    what_a_step_owns_the_engine_sees_with_the_same_ids,
    nothing_is_inherited_but_three_streams,
    signals_are_as_in_a_fresh_process,
    a_missing_program_is_told_from_one_that_cannot_run,
    a_working_directory_must_exist_and_be_one,
    a_working_directory_is_never_an_fd_of_ours,
    an_id_without_a_map_is_refused,
    su_works_and_nothing_forbids_setuid_programs,
    the_files_of_the_network_are_ours,
    devices_are_there_for_everyone,
];

fn a_program_runs_as_root(world: &World) {
    let ran = world.shell("id; echo oops >&2; umask; hostname; pwd; tty; exit 7");
    assert_eq!(ran.out, "uid=0(root) gid=0(root)\n0022\nstep\n/\nnot a tty\n", "{ran:?}");
    assert_eq!(ran.err, "oops\n");
    assert_eq!(ran.status(), Status::Exited(7));
    // Copied up for the mountpoints in it, otherwise as it was.
    assert_eq!(ran.written(), ["etc"]);
    let time = |path: &std::path::Path| path.metadata().expect("a directory").modified().expect("a time");
    assert_eq!(time(&ran.upper.join("etc")), time(&world.path("base/etc")));
}

fn a_user_has_its_ids_and_can_open_standard_output(world: &World) {
    let user = User { uid: 33, gid: 34, groups: vec![34, 100] };
    let spec =
        Spec { user, cwd: at("tmp"), ..world.spec(&["sh", "-c", "id; pwd; echo out > /dev/stdout; echo err > /dev/stderr; cat /root/x"]) };
    std::fs::write(world.path("base/root/x"), "secret").expect("a file");
    std::fs::set_permissions(world.path("base/root"), std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("a mode");
    let ran = run(spec);
    assert_eq!(ran.out, "uid=33(ann) gid=34 groups=34,100\n/tmp\nout\n", "{ran:?}");
    assert!(ran.err.starts_with("err\n") && ran.err.contains("Permission denied"), "{ran:?}");
}

fn what_a_step_owns_the_engine_sees_with_the_same_ids(world: &World) {
    let ran = world.shell("touch /tmp/f && chown 33:44 /tmp/f && chmod 4751 /tmp/f && rm /etc/group && rm -rf /root && mkdir /root");
    assert_eq!(ran.status(), Status::Exited(0), "{ran:?}");
    let meta = ran.upper.join("tmp/f").metadata().expect("the file");
    assert_eq!((meta.uid(), meta.gid(), meta.mode() & 0o7777), (33, 44, 0o4751));
    let whiteout = ran.upper.join("etc/group").symlink_metadata().expect("a whiteout");
    assert!(whiteout.file_type().is_char_device() && whiteout.rdev() == 0);
    assert_eq!(ran.written(), ["etc", "etc/group", "root", "tmp", "tmp/f"]);
}

fn nothing_is_inherited_but_three_streams(world: &World) {
    let ran = world.shell("readlink /proc/self/fd/0; for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; env | sort");
    // 3 is the shell's own, of the directory that it lists, if it is one that keeps it open.
    assert_eq!(ran.out.lines().take(4).collect::<Vec<_>>(), ["/dev/null", "0", "1", "2"], "{ran:?}");
    assert!(!ran.out.contains("LAPSTRAKE") && !ran.out.contains("RUST_"), "{ran:?}");
    assert!(ran.out.lines().all(|line| line.parse() != Ok(4) && line.parse() != Ok(5)), "{ran:?}");
}

fn signals_are_as_in_a_fresh_process(world: &World) {
    let ran = run(world.spec(&["grep", "^Sig[BI]", "/proc/self/status"]));
    assert_eq!(ran.out, "SigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\n", "{ran:?}");
    let ran = run(world.spec(&["sh", "-c", "yes | head -n 1; kill -TERM $$"]));
    assert_eq!((ran.out.as_str(), ran.status()), ("y\n", Status::Signalled(15)));
}

fn a_missing_program_is_told_from_one_that_cannot_run(world: &World) {
    let error = run(world.spec(&["no-such-program"])).result.expect_err("an error");
    assert_eq!((error.step.as_str(), error.path.as_str(), error.errno), ("exec", "no-such-program", Errno::NOENT.raw_os_error()));
    assert_eq!(error.to_string(), "exec `no-such-program`: not found");
    let error = run(world.spec(&["/etc/passwd"])).result.expect_err("an error");
    assert_eq!((error.step.as_str(), error.errno), ("exec", Errno::ACCESS.raw_os_error()));
    let error = run(world.spec(&[])).result.expect_err("an error");
    assert_eq!(error.step, "exec");
}

fn a_working_directory_must_exist_and_be_one(world: &World) {
    for path in ["none", "etc/passwd"] {
        let error = run(Spec { cwd: at(path), ..world.spec(&["true"]) }).result.expect_err("an error");
        assert_eq!((error.step.as_str(), error.path), ("enter", format!("/{path}")));
    }
}

fn a_working_directory_is_never_an_fd_of_ours(world: &World) {
    for number in 0..12 {
        let cwd = at(&format!("proc/self/fd/{number}"));
        let error = run(Spec { cwd, ..world.spec(&["ls"]) }).result.expect_err("an error");
        assert_eq!(error.step, "enter", "{error}");
    }
    // Nor can the program be one of them.
    for number in 3..12 {
        let program = format!("/proc/self/fd/{number}");
        let ran = run(world.spec(&[&program, "step-init"]));
        assert_eq!(ran.result.expect_err("an error").step, "exec");
    }
}

fn an_id_without_a_map_is_refused(world: &World) {
    let user = User { uid: 4_294_967_295, ..User::default() };
    let error = run(Spec { user, ..world.spec(&["true"]) }).result.expect_err("an error");
    assert_eq!(error.step, "become user");
}

fn su_works_and_nothing_forbids_setuid_programs(world: &World) {
    let ran = world.shell("su ann -c 'id -u'; grep NoNewPrivs /proc/self/status; grep ' / / ' /proc/self/mountinfo | grep -c nosuid");
    assert_eq!(ran.out, "33\nNoNewPrivs:\t0\n0\n", "{ran:?}");
}

fn the_files_of_the_network_are_ours(world: &World) {
    let ran = world.shell("cat /etc/hosts /etc/resolv.conf; ls -ln /etc/hosts | head -c 10");
    assert_eq!(ran.out, "127.0.0.1 localhost\nnameserver 192.0.2.1\n-rw-r--r--", "{ran:?}");
    // A base that has its own keeps it.
    std::fs::write(world.path("base/etc/hosts"), "old").expect("a file");
    let ran = world.shell("cat /etc/hosts; echo more >> /etc/hosts");
    assert_eq!(ran.out, "127.0.0.1 localhost\n", "{ran:?}");
    assert_eq!(std::fs::read(world.path("base/etc/hosts")).expect("a file"), b"old");
    assert_eq!(ran.written(), ["etc"]);
}

fn devices_are_there_for_everyone(world: &World) {
    let script = "echo x > /dev/null; head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; echo y > /dev/shm/f; \
                  cat /dev/shm/f; test -c /dev/ptmx; echo $?; test -d /dev/pts; echo $?; echo z | cat /dev/stdin; echo full > /dev/full";
    let ran = run(Spec { user: User { uid: 33, gid: 33, groups: vec![] }, ..world.spec(&["sh", "-c", script]) });
    assert_eq!(ran.out, "4\n4\ny\n0\n0\nz\n", "{ran:?}");
    assert!(ran.err.contains("No space left"), "{ran:?}");
    assert_eq!(ran.written(), ["etc"]);
}
