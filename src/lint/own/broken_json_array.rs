//! An array that is no JSON.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::dockerfile::{Command, CommandLine, CopySource};

pub(super) const RULE: Rule = Rule {
    name: "BrokenJsonArray",
    summary: "what looks like an array is one: else a shell gets it as text",
    origin: Origin::Own,
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
SHELL [\"/bin/sh\", \"-c\"]
CMD ['httpd', '-f']
",
        says: &[(3, "CMD takes this for a command for the shell, because it is no JSON array")],
        good: "\
FROM busybox
SHELL [\"/bin/sh\", \"-c\"]
CMD [\"httpd\", \"-f\"]
",
        files: &[],
    },
};

/// Quotes that people begin the words of an array with.
const QUOTES: [char; 6] = ['"', '\'', '“', '”', '‘', '’'];

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for instruction in view.instructions() {
        let Some(text) = text(&instruction.command).filter(|text| looks_like_array(text)) else { continue };
        let keyword = &instruction.keyword.text;
        let is_words = matches!(instruction.command, Command::Copy(_) | Command::Add(_) | Command::Volume(_));
        let taken = if is_words { "words" } else { "a command for the shell" };
        let detail = format!("{keyword} takes this for {taken}, because it is no JSON array");
        notes.advise(&instruction.comments, Place::from(instruction), detail, Some(wrong(text)));
    }
}

/// The text that could have been an array.
fn text(command: &Command) -> Option<&str> {
    if let Some(line) = command.line() {
        if let CommandLine::Shell(word) = line { Some(&word.text) } else { None }
    } else if let Some(copy) = command.copied() {
        if let CopySource::Path(word) = copy.sources.first()? { Some(&word.text) } else { None }
    } else if let Command::Volume(words) = command {
        words.first().map(|word| word.text.as_str())
    } else if let Command::Healthcheck(health) = command {
        if let [kind, text] = health.test.as_slice() { Some(text.as_str()).filter(|_| kind == "CMD-SHELL") } else { None }
    } else {
        None
    }
}

/// A shell's `[` is followed by a blank, and what stands in it has no commas between.
fn looks_like_array(text: &str) -> bool {
    let Some(inside) = text.trim().strip_prefix('[') else { return false };
    let first = inside.trim_start();
    let Some(quote) = first.chars().next().filter(|letter| QUOTES.contains(letter)) else { return false };
    if inside.starts_with(quote) {
        return true;
    }
    let rest = first.get(quote.len_utf8()..).unwrap_or_default();
    let after = rest.find(QUOTES).and_then(|at| rest.get(at..)).map(|rest| rest.trim_start_matches(QUOTES).trim_start());
    after.is_some_and(|after| after.starts_with(','))
}

/// What is wrong with it.
fn wrong(text: &str) -> &'static str {
    let bare: String = text.chars().filter(|letter| !letter.is_whitespace()).collect();
    if text.contains(['“', '”', '‘', '’']) {
        "these are typographic quotes; use `\"`"
    } else if bare.starts_with("['") {
        "use double quotes: JSON has no single ones"
    } else if bare.ends_with(",]") {
        "remove the comma before `]`"
    } else if text.contains("] #") || text.contains("]#") {
        "put the comment on a line above"
    } else if !bare.ends_with(']') {
        "close the array with `]`"
    } else if text.contains('\\') {
        "write a backslash twice inside of a JSON string"
    } else {
        "write `[\"word\", \"word\"]`"
    }
}
