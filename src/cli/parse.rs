//! `lapstrake parse`.

use std::path::Path;

use super::{Failure, report, surroundings::stdin};
use crate::{
    dockerfile,
    error::{Error, Kind},
    front::{self, DockerfileFrom},
    lint,
};

/// Shows what a Dockerfile is read as; a rejected one is exit code 1, and JSON with `ok: false`.
pub(super) fn run(file: &Path, json: bool) -> Result<(), Failure> {
    let from = if file == Path::new("-") { DockerfileFrom::Text(stdin()?) } else { DockerfileFrom::File(file.to_owned()) };
    let text = front::read_dockerfile(&from, &front::Context::empty())?;
    let parsed = dockerfile::parse(&text.source.text);
    if json {
        let mut described = dockerfile::json::to_json(&parsed);
        if let Some(fields) = described.as_object_mut() {
            lint::describe(&text.source.text, &parsed, fields);
        }
        let shown = serde_json::to_string_pretty(&described).map_err(|error| Error::new(Kind::Bug, "no JSON").because(&error))?;
        report::print(&format!("{shown}\n"))?;
        if !parsed.errors.is_empty() {
            return Err(Failure::in_text(Error::at(Kind::Request, parsed.errors), text.source));
        }
        return Ok(());
    }
    if !parsed.errors.is_empty() {
        return Err(Failure::in_text(Error::at(Kind::Request, parsed.errors), text.source));
    }
    let line = |number: u32, indent: &str, text: &str| format!("{number:>4}  {indent}{}\n", text.lines().next().unwrap_or_default());
    let stages = parsed.dockerfile.stages.iter().flat_map(|stage| {
        let commands = stage.commands.iter().map(move |command| line(command.lines.0, "  ", &command.original));
        std::iter::once(line(stage.lines.0, "", &stage.original)).chain(commands)
    });
    let shown: String = stages.collect();
    report::print(&shown)?;
    Ok(())
}
