//! What a front sees: engines that end, fds that are passed, what `doctor` tries.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
    time::Duration,
};

use lapstrake::sandbox::{
    self,
    driver::{Ids, Preset, SnapshotWish},
    enter,
};

use crate::world::{World, alive, run};

/// A name, and what it does in a front.
pub(crate) const CASES: &[(&str, fn())] = &[
    ("a_step_ends_with_its_engine", a_step_ends_with_its_engine),
    ("engine_and_step_end_with_their_front", engine_and_step_end_with_their_front),
    ("fds_reach_the_engine_in_order", fds_reach_the_engine_in_order),
    ("an_engine_with_one_id_has_no_other", an_engine_with_one_id_has_no_other),
    ("an_engine_with_the_hosts_ids_is_roots_alone", an_engine_with_the_hosts_ids_is_roots_alone),
    ("a_probe_finds_that_all_works", a_probe_finds_that_all_works),
    ("a_probe_says_which_store_cannot_hold_an_overlay", a_probe_says_which_store_cannot_hold_an_overlay),
];

/// An engine that runs a step that sleeps for long; of the fds it got, the second tells it what to write into the first.
pub(crate) fn sleeping_engine(mark: &str) -> ExitCode {
    let entered = enter::become_engine().expect("the engine");
    if let [to, from] = entered.fds.as_slice() {
        let mut text = String::new();
        std::fs::File::from(from.try_clone().expect("an fd")).read_to_string(&mut text).expect("a word");
        std::fs::File::from(to.try_clone().expect("an fd")).write_all(format!("got {text}").as_bytes()).expect("a word");
        return ExitCode::SUCCESS;
    }
    let world = World::new();
    run(world.spec(&["sh", "-c", &format!("(setsid sleep {mark} &); sleep {mark}")]));
    ExitCode::SUCCESS
}

/// A front of such an engine.
pub(crate) fn sleeping_front(mark: &str) -> ExitCode {
    spawn(mark, &[]).wait().expect("an engine");
    ExitCode::SUCCESS
}

fn spawn(mark: &str, fds: &[std::os::fd::BorrowedFd<'_>]) -> enter::EngineProcess {
    enter::spawn_engine(Ids::Full, &["sleeping-engine", mark].map(OsString::from), &[], fds).expect("an engine")
}

fn until(what: impl Fn() -> bool) -> bool {
    (0..400).any(|_| {
        std::thread::sleep(Duration::from_millis(50));
        what()
    })
}

fn a_step_ends_with_its_engine() {
    let mark = format!("300.{}", std::process::id());
    let engine = spawn(&mark, &[]);
    // The two that sleep, by their arguments, and the engine.
    assert!(until(|| alive(&mark) >= 3), "the step runs");
    engine.kill().expect("a signal");
    assert_eq!(engine.wait().expect("an end"), 128 + 9);
    assert!(until(|| alive(&mark) == 0), "{} left", alive(&mark));
}

fn engine_and_step_end_with_their_front() {
    let mark = format!("400.{}", std::process::id());
    #[expect(clippy::disallowed_methods, reason = "the test starts itself as another front")]
    let mut front = std::process::Command::new("/proc/self/exe").args(["sleeping-front", &mark]).spawn().expect("a front");
    assert!(until(|| alive(&mark) >= 4), "the step runs");
    front.kill().expect("a signal");
    front.wait().expect("an end");
    assert!(until(|| alive(&mark) == 0), "{} left", alive(&mark));
}

/// An engine that says where it is.
pub(crate) fn telling_engine() -> ExitCode {
    let entered = enter::become_engine().expect("the engine");
    let map = std::fs::read_to_string("/proc/self/uid_map").expect("a map");
    let map = map.split_whitespace().collect::<Vec<_>>().join(" ");
    let mounts = std::fs::read_link("/proc/self/ns/mnt").expect("a namespace").display().to_string();
    let root = rustix::process::geteuid().is_root();
    let text = format!("{}; {}; {map}; {root}; {mounts}", entered.ids, entered.domain);
    std::fs::File::from(entered.fds.into_iter().next().expect("an fd")).write_all(text.as_bytes()).expect("words");
    ExitCode::SUCCESS
}

/// What such an engine says.
fn told(ids: Ids) -> Result<String, enter::EnterError> {
    let (answer, to) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let engine = enter::spawn_engine(ids, &["telling-engine".into()], &[], &[to.as_fd()])?;
    drop(to);
    let mut text = String::new();
    std::fs::File::from(answer).read_to_string(&mut text).expect("words");
    assert_eq!(engine.wait().expect("an end"), 0);
    Ok(text)
}

fn an_engine_with_one_id_has_no_other() {
    let own = rustix::process::geteuid().as_raw();
    let told = told(Ids::Single).expect("an engine");
    assert!(told.starts_with(&format!("a single id; single; 0 {own} 1; true; ")), "{told}");
}

fn an_engine_with_the_hosts_ids_is_roots_alone() {
    let mounts = std::fs::read_link("/proc/self/ns/mnt").expect("a namespace").display().to_string();
    match told(Ids::Host) {
        Ok(told) => assert!(rustix::process::geteuid().is_root() && told.ends_with(&mounts), "{told}"),
        Err(error) => assert_eq!(error.knob, Some(enter::Knob::NotRoot), "{error}"),
    }
}

fn fds_reach_the_engine_in_order() {
    let (answer, to) = rustix::pipe::pipe().expect("a pipe");
    let (from, question) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    let engine = spawn("any", &[to.as_fd(), from.as_fd()]);
    drop(to);
    std::fs::File::from(question).write_all(b"this").expect("a word");
    let mut text = String::new();
    std::fs::File::from(answer).read_to_string(&mut text).expect("a word");
    assert_eq!((text.as_str(), engine.wait().expect("an end")), ("got this", 0));
}

/// What `doctor` would say of a store there.
pub(crate) fn probe(store: &std::path::Path) -> sandbox::probe::Report {
    sandbox::probe::probe(Ok(store), Preset::Userns, SnapshotWish::Overlay)
}

fn a_probe_finds_that_all_works() {
    let store = tempfile::tempdir().expect("a directory");
    let report = probe(store.path());
    assert!(report.works(), "{report}");
    let wanted = ["used: a full map of ids, overlay", "ok         a step without network", "MiB free"];
    assert!(wanted.iter().all(|text| report.to_string().contains(text)), "{report}");
    assert_eq!(std::fs::read_dir(store.path()).expect("a directory").count(), 0);
}

fn a_probe_says_which_store_cannot_hold_an_overlay() {
    let report = probe("/proc/self/no/such".as_ref());
    assert!(!report.works() && report.to_string().contains("not tried  a step"), "{report}");
}
