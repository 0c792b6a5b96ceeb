//! `lapstrake parse`.

use std::{
    io::{self, Write as _},
    path::Path,
};

use super::Failure;
use crate::{
    dockerfile,
    error::{Error, Kind},
    front::{self, DockerfileFrom},
};

/// Shows what a Dockerfile is read as; a rejected one is exit code 1, and JSON with `ok: false`.
pub(super) fn run(file: &Path, json: bool) -> Result<(), Failure> {
    let from = if file == Path::new("-") { DockerfileFrom::Text(read_stdin()?) } else { DockerfileFrom::File(file.to_owned()) };
    let text = front::read_dockerfile(&from)?;
    let parsed = dockerfile::parse(&text.source.text);
    let mut out = io::stdout().lock();
    if json {
        let shown = serde_json::to_string_pretty(&dockerfile::json::to_json(&parsed))
            .map_err(|error| Error::new(Kind::Bug, "no JSON").because(&error))?;
        writeln!(out, "{shown}").map_err(|error| unwritable(&error))?;
        if !parsed.errors.is_empty() {
            return Err(Failure::in_text(Error::at(Kind::Request, parsed.errors), text.source));
        }
        return Ok(());
    }
    if !parsed.errors.is_empty() {
        return Err(Failure::in_text(Error::at(Kind::Request, parsed.errors), text.source));
    }
    for stage in &parsed.dockerfile.stages {
        writeln!(out, "{:>4}  {}", stage.lines.0, stage.original.lines().next().unwrap_or_default()).map_err(|error| unwritable(&error))?;
        for command in &stage.commands {
            writeln!(out, "{:>4}    {}", command.lines.0, command.original.lines().next().unwrap_or_default())
                .map_err(|error| unwritable(&error))?;
        }
    }
    Ok(())
}

fn unwritable(error: &io::Error) -> Error {
    Error::new(Kind::Environment, "cannot write to standard output").because(error)
}

fn read_stdin() -> Result<Vec<u8>, Error> {
    use io::Read as _;
    let mut bytes = Vec::new();
    let read = io::stdin().lock().take(16 << 20).read_to_end(&mut bytes);
    read.map(|_length| bytes).map_err(|error| Error::new(Kind::Environment, "cannot read standard input").because(&error))
}
