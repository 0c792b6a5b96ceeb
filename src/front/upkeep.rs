//! Work on the store, done by a process that has the rights to it: counting, pruning, checking.

use std::{
    ffi::{OsStr, OsString},
    fs::File,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
    process::ExitCode,
};

use rustix::pipe::PipeFlags;

use crate::{
    engine::{
        driver::Place,
        upkeep::{Chore, Outcome},
    },
    error::{Error, Kind},
    sandbox::{
        driver::Preset,
        enter::{self, EngineProcess},
    },
};

/// The first argument that makes this program do a chore; the second is the chore.
pub const UPKEEP: &str = "upkeep-process";

/// An answer is no longer.
const LONGEST: u64 = 1 << 30;

/// Has a chore done as root of a user namespace with all ids that can be had; where there is none, by this process, as far
/// as its rights go.
pub fn upkeep(chore: &Chore, preset: Preset) -> Result<Outcome, Error> {
    let broken =
        |error: std::io::Error| Error::new(Kind::Environment, "cannot speak to the process that looks after the store").because(&error);
    let question = serde_json::to_string(chore).map_err(|error| broken(error.into()))?;
    let (answers, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| broken(errno.into()))?;
    let args = [OsString::from(UPKEEP), OsString::from(question)];
    let Some(process) = preset.ids().into_iter().find_map(|ids| preset.spawn(ids, &args, &[theirs.as_fd()]).ok()) else {
        return chore.run(&Place::plain());
    };
    drop(theirs);
    answer(process, File::from(answers)).map_err(broken)?
}

fn answer(process: EngineProcess, answers: File) -> std::io::Result<Result<Outcome, Error>> {
    let mut text = Vec::new();
    let _read = answers.take(LONGEST).read_to_end(&mut text)?;
    let _status = process.wait()?;
    Ok(serde_json::from_slice(&text)?)
}

/// What `main` does for [`UPKEEP`] and one more argument.
pub fn upkeep_main(question: &OsStr) -> ExitCode {
    let chore = question.to_str().and_then(|text| serde_json::from_str::<Chore>(text).ok());
    // The front has heard of an error.
    let (Some(chore), Ok(entered)) = (chore, enter::become_engine()) else { return ExitCode::FAILURE };
    let Some(answers) = entered.fds.first().and_then(|fd| fd.try_clone().ok()) else { return ExitCode::FAILURE };
    let text = serde_json::to_vec(&chore.run(&Place::of(&entered))).unwrap_or_default();
    // A front that is gone does not hear it.
    if File::from(answers).write_all(&text).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
