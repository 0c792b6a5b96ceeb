//! The sandbox, tried for real. This binary is front, engine and pid 1: each case runs in an engine of its own, as
//! whoever runs the tests, and, if that is root, also as an ordinary user with subordinate ids, and as root in a user
//! namespace.
//!
//! `cargo test --test sandbox [WORD…]` runs the cases whose names contain a word; `--bench N` times N steps instead,
//! `--probe DIR` says what `doctor` would.

mod bench;
mod cases;
mod fronts;
mod world;

use std::{
    ffi::{OsStr, OsString},
    io::Write as _,
    os::unix::process::CommandExt as _,
    process::ExitCode,
};

use lapstrake::sandbox::{self, driver::Ids, enter};

fn main() -> ExitCode {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let words: Vec<&str> = args.iter().filter_map(|arg| arg.to_str()).collect();
    match words.as_slice() {
        [sandbox::STEP_INIT] => sandbox::init_main(),
        [sandbox::SUPERVISOR] => sandbox::supervisor_main(),
        [sandbox::probe::PROBE_ENGINE, question] => sandbox::probe::engine_main(question.as_ref()),
        ["engine", name] => engine(name),
        ["connect", name] => connect(name),
        ["sleeping-engine", word] => fronts::sleeping_engine(word),
        ["telling-engine"] => fronts::telling_engine(),
        ["sleeping-front", word] => fronts::sleeping_front(word),
        ["bench-engine", count] => bench::engine(count.parse().expect("a number of steps")),
        ["--probe", dir] => {
            say(&fronts::probe(dir.as_ref()).to_string());
            ExitCode::SUCCESS
        }
        ["--bench", count] => front(&["bench-engine", count]),
        ["nested-engine", rest @ ..] => {
            enter::become_engine().expect("the outer engine");
            everything("root in a namespace", rest)
        }
        ["as", who, rest @ ..] => everything(who, rest),
        rest => levels(rest),
    }
}

/// The same cases as each of the users that there are.
fn levels(words: &[&str]) -> ExitCode {
    if words.iter().any(|word| word.starts_with("--list")) {
        return ExitCode::SUCCESS;
    }
    let words: Vec<&str> = words.iter().copied().filter(|word| !word.starts_with('-')).collect();
    if !rustix::process::geteuid().is_root() {
        return everything("ordinary user", &words);
    }
    let mut failed = everything("root", &words) != ExitCode::SUCCESS;
    let nested: Vec<&str> = ["nested-engine"].into_iter().chain(words.iter().copied()).collect();
    failed |= front(&nested) != ExitCode::SUCCESS;
    match world::ordinary_user() {
        Some((uid, gid)) => {
            let own = std::env::current_exe().expect("this program");
            #[expect(clippy::disallowed_methods, reason = "the tests start themselves as another user")]
            let mut command = std::process::Command::new(own);
            let status = command.arg("as").arg("ordinary user").args(&words).uid(uid).gid(gid).current_dir("/").status();
            failed |= !status.expect("this program, as another user").success();
        }
        None if in_ci() => {
            say("FAILED: no ordinary user with subordinate ids here");
            failed = true;
        }
        None => say("skipped: no ordinary user with subordinate ids here"),
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[expect(clippy::disallowed_methods, reason = "whether a test may skip is said by the environment")]
fn in_ci() -> bool {
    std::env::var_os("CI").as_deref() == Some(OsStr::new("true"))
}

fn everything(who: &str, words: &[&str]) -> ExitCode {
    let mut failed = 0;
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word));
    let mut ended = |name: &str, passed: bool| {
        failed += usize::from(!passed);
        say(&format!("{who}: {name} ... {}", if passed { "ok" } else { "FAILED" }));
    };
    for (name, _) in cases::all().filter(|(name, _)| chosen(name)) {
        ended(name, front(&["engine", name]) == ExitCode::SUCCESS);
    }
    for (name, case) in fronts::CASES.iter().filter(|(name, _)| chosen(name)) {
        ended(name, std::panic::catch_unwind(case).is_ok());
    }
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// As a program of a step: says whether an abstract socket of that name is there for it.
fn connect(name: &str) -> ExitCode {
    use std::os::linux::net::SocketAddrExt as _;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).expect("a name");
    match std::os::unix::net::UnixStream::connect_addr(&address) {
        Ok(_) => say("reached"),
        Err(error) => say(&format!("{:?}", error.kind())),
    }
    let own = std::os::unix::net::SocketAddr::from_abstract_name(format!("{name}-own")).expect("a name");
    let _listener = std::os::unix::net::UnixListener::bind_addr(&own).expect("a socket of its own");
    let child = std::os::unix::net::UnixStream::connect_addr(&own);
    say(if child.is_ok() { "own reached" } else { "own refused" });
    ExitCode::SUCCESS
}

fn front(args: &[&str]) -> ExitCode {
    let args: Vec<OsString> = args.iter().map(OsString::from).collect();
    // A secret that no step may see.
    let env = [OsString::from(format!("{}=front", cases::CANARY)), OsString::from("RUST_BACKTRACE=1")];
    match enter::spawn_engine(Ids::Full, &args, &env, &[]) {
        Ok(engine) => match engine.wait() {
            Ok(0) => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        },
        Err(error) => {
            say(&format!("no engine: {error}; {:?}", error.knob.as_ref().and_then(enter::Knob::command)));
            ExitCode::FAILURE
        }
    }
}

fn engine(name: &str) -> ExitCode {
    let entered = enter::become_engine().expect("the engine");
    assert_eq!(entered.domain.as_str().len(), 16);
    let (_, case) = cases::all().find(|(known, _)| *known == name).expect("a case of this name");
    case(&world::World::new());
    ExitCode::SUCCESS
}

fn say(text: &str) {
    writeln!(std::io::stderr(), "{text}").ok();
}
