//! argv, environment, home directory, terminal: the only room that reads them. What was written becomes values here, and
//! goes to the rooms beneath as such.

mod archives;
mod args;
mod build;
mod cache_spec;
mod call;
mod config;
mod doctor;
mod du;
mod fsck;
mod images;
mod ledger;
mod limits_spec;
mod log;
mod output_spec;
mod parse;
mod progress;
mod prune;
mod rawjson;
mod report;
mod request;
mod ssh_spec;
mod store_limits;
mod surroundings;
mod timings;
mod transfers;

use std::{
    ffi::OsString,
    panic,
    process::ExitCode,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use clap::Parser as _;

use crate::{
    error::{Error, Kind},
    front::Cancel,
    sys::signals,
};
use args::{Cli, Command};
use log::Log;
use surroundings::Surroundings;

/// How long a cancelled command has to put its things in order.
const GRACE: Duration = Duration::from_secs(10);

/// The stack of the thread that works: parsers of hostile input recurse to bounded depths.
const STACK: usize = 16 << 20;

/// The program. The first argument of the processes that it starts itself is one that no user writes.
pub fn main() -> ExitCode {
    crate::sys::share_heap();
    let args: Vec<OsString> = std::env::args_os().collect();
    match args.get(1).and_then(|first| first.to_str()) {
        Some(crate::front::ENGINE) => crate::front::engine_main(),
        Some(crate::front::UPKEEP) => crate::front::upkeep_main(args.get(2).map_or_else(Default::default, OsString::as_os_str)),
        Some(crate::sandbox::STEP_INIT) => crate::sandbox::init_main(),
        Some(crate::sandbox::SUPERVISOR) => crate::sandbox::supervisor_main(),
        Some(crate::sandbox::probe::PROBE_ENGINE) => {
            crate::sandbox::probe::engine_main(args.get(2).map_or_else(Default::default, OsString::as_os_str))
        }
        _ => user_main(),
    }
}

/// What a user called: the command works in a thread, this one waits for its end or for a signal.
fn user_main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let cancel = match Cancel::new().and_then(|cancel| signals::block_ending().map(|()| Arc::new(cancel))) {
        Ok(cancel) => cancel,
        Err(error) => return report::error(&Error::new(Kind::Environment, "cannot prepare for signals").because(&error), None),
    };
    let (say, hear) = mpsc::channel();
    let ended = say.clone();
    let held = Arc::clone(&cancel);
    let worker = thread::Builder::new().stack_size(STACK).spawn(move || {
        // If nobody hears it, the program is ending already.
        let _unheard = ended.send(Some(ended_with(|| run(cli, &held))));
    });
    let watcher = thread::Builder::new().spawn(move || {
        while signals::wait_for_ending().is_ok() {
            let _unheard = say.send(None);
        }
    });
    if worker.is_err() || watcher.is_err() {
        return report::error(&Error::new(Kind::Environment, "cannot start a thread"), None);
    }
    let first = hear.recv().ok().flatten();
    let code = first.unwrap_or_else(|| {
        cancel.cancel();
        // A second signal does not wait.
        hear.recv_timeout(GRACE).ok().flatten().unwrap_or(Kind::Interrupted.exit_code())
    });
    ExitCode::from(code)
}

/// The exit code of work; that of a bug if it panics, which the panic has told of: nobody waits for an answer that never comes.
fn ended_with(work: impl FnOnce() -> u8) -> u8 {
    panic::catch_unwind(panic::AssertUnwindSafe(work)).unwrap_or_else(|_told| Kind::Bug.exit_code())
}

/// What clap has to say: help and version are no errors.
fn usage(error: &clap::Error) -> ExitCode {
    let _lost_terminal = error.print();
    ExitCode::from(if error.use_stderr() { Kind::Usage.exit_code() } else { 0 })
}

/// Runs a command; its exit code.
fn run(cli: Cli, cancel: &Cancel) -> u8 {
    let Cli { global, command } = cli;
    let log = Log::begin(global.log_level);
    let result = Surroundings::read(&global, log).map_err(Failure::from).and_then(|around| match command {
        Command::Build(args) => build::run(&args, &around, cancel),
        Command::Pull { reference, platform, quiet } => transfers::pull(&around, &reference, platform.as_deref(), quiet),
        Command::Push { reference, all_tags, quiet } => transfers::push(&around, &reference, all_tags, quiet),
        Command::Tag { source, target } => images::tag(&around, &source, &target),
        Command::Images { quiet, digests, json } => images::list(&around, images::Columns { quiet, digests, json }),
        Command::Load { input, tag, quiet } => archives::load(&around, input.as_deref(), tag.as_deref(), quiet),
        Command::Import { file, reference, change } => archives::import(&around, &file, &reference, &change),
        Command::Du { verbose, json } => du::run(&around, verbose, json),
        Command::Prune { all, reset, limits } => prune::run(&around, all, reset, &limits),
        Command::Fsck => fsck::run(&around),
        Command::Doctor { apparmor_profile: true } => doctor::profile(),
        Command::Doctor { apparmor_profile: false } => doctor::run(&around),
        Command::Parse { json, file } => parse::run(&file, json),
    });
    let code = match result {
        Ok(()) => 0,
        Err(failure) => {
            let code = failure.error.kind.exit_code();
            let _ = report::error(&failure.error, failure.source.as_ref());
            code
        }
    };
    log.end(code);
    code
}

/// An error, and the text that its places point into.
#[derive(Debug)]
struct Failure {
    error: Box<Error>,
    source: Option<crate::diag::Source>,
}

impl Failure {
    /// With the text that its places point into.
    fn in_text(error: Error, source: crate::diag::Source) -> Self {
        Self { error: Box::new(error), source: Some(source) }
    }
}

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self { error: Box::new(error.into()), source: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_program_as_a_bug() {
        assert_eq!(ended_with(|| 7), 7);
        assert_eq!(ended_with(|| panic!("on purpose")), Kind::Bug.exit_code());
    }
}
