//! How a step ends.

use std::time::{Duration, Instant};

use lapstrake::sandbox::Status;

use super::cases;
use crate::world::{World, alive, run, run_until};

cases![
    cancelling_ends_a_step_with_all_its_processes,
    a_step_may_be_cancelled_before_it_begins,
    processes_in_the_background_do_not_outlive_the_step,
    orphans_are_reaped,
    all_output_arrives,
    output_comes_as_it_is_written,
    a_program_that_is_killed_says_so,
    the_engine_holds_no_fd_longer_than_a_step,
];

fn cancelling_ends_a_step_with_all_its_processes(world: &World) {
    let mark = format!("100.{}", std::process::id());
    let (cancel, held) = rustix::pipe::pipe().expect("a pipe");
    let spec = world.spec(&["sh", "-c", &format!("trap '' TERM INT; (setsid sleep {mark} &); sleep {mark}")]);
    let stopper = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    let begun = Instant::now();
    let ran = run_until(spec, &cancel);
    assert_eq!(ran.status(), Status::Cancelled, "{ran:?}");
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!(alive(&mark), 0);
    stopper.join().expect("the stopper");
}

fn a_step_may_be_cancelled_before_it_begins(world: &World) {
    let (cancel, held) = rustix::pipe::pipe().expect("a pipe");
    drop(held);
    assert_eq!(run_until(world.spec(&["sleep", "100"]), &cancel).status(), Status::Cancelled);
}

fn processes_in_the_background_do_not_outlive_the_step(world: &World) {
    let mark = format!("200.{}", std::process::id());
    let begun = Instant::now();
    let ran = world.shell(&format!("sleep {mark} & (setsid sh -c 'sleep {mark}' &); echo done"));
    assert_eq!((ran.out.as_str(), ran.status()), ("done\n", Status::Exited(0)));
    assert!(begun.elapsed() < Duration::from_secs(20), "it waited for a process in the background");
    assert_eq!(alive(&mark), 0);
}

fn orphans_are_reaped(world: &World) {
    let ran = world.shell("(setsid sh -c 'true & true' &); sleep 0.2; grep -h ^State /proc/[0-9]*/status");
    assert!(!ran.out.contains('Z'), "{ran:?}");
}

fn all_output_arrives(world: &World) {
    let ran = world.shell("seq 1 200000; seq 1 1000 >&2");
    assert_eq!((ran.out.lines().count(), ran.err.lines().count()), (200_000, 1000));
    assert!(ran.out.ends_with("\n200000\n"));
}

fn output_comes_as_it_is_written(world: &World) {
    let (cancel, held) = rustix::pipe::pipe().expect("a pipe");
    let mut held = Some(held);
    // It ends only because what it printed was seen.
    let status = lapstrake::sandbox::run(world.spec(&["sh", "-c", "echo now; sleep 100"]), &cancel, &mut |_, bytes| {
        assert_eq!(bytes, b"now\n");
        held.take();
    });
    assert_eq!(status.expect("a result").status, Status::Cancelled);
}

fn a_program_that_is_killed_says_so(world: &World) {
    assert_eq!(world.shell("kill -9 $$").status(), Status::Signalled(9));
}

fn the_engine_holds_no_fd_longer_than_a_step(world: &World) {
    let open = || std::fs::read_dir("/proc/self/fd").expect("fds").count();
    run(world.spec(&["true"]));
    let before = open();
    for _ in 0..5 {
        run(world.spec(&["true"]));
        run(world.spec(&["none"]));
    }
    assert_eq!(open(), before);
    // No child is left unwaited for.
    assert!(rustix::process::wait(rustix::process::WaitOptions::NOHANG).is_err());
}
