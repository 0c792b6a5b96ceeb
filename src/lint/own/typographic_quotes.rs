//! “Typographic quotes”, as word processors make them.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::{
    diag::Span,
    dockerfile::{Command, CommandLine, CopySource, Word},
};

pub(super) const RULE: Rule = Rule {
    name: "TypographicQuotes",
    summary: "quotes are plain ones: typographic ones are letters like others",
    origin: Origin::Own,
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
ENV GREETING=“hello”
",
        says: &[(2, "Typographic quotes do not quote, they become part of the text")],
        good: "\
FROM busybox
ENV GREETING=\"hello\"
",
        files: &[],
    },
};

/// Quotes that open something.
const OPENING: [char; 4] = ['“', '”', '‘', '„'];

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for instruction in view.instructions() {
        if let Some(span) = opening(&instruction.command) {
            let detail = "Typographic quotes do not quote, they become part of the text";
            notes.advise(&instruction.comments, Place::from(instruction).mark(span), detail, Some("use `\"` or `'`"));
        }
    }
}

/// Where the first one stands that was meant to quote something.
fn opening(command: &Command) -> Option<Span> {
    if let Command::Env(pairs) | Command::Label(pairs) = command {
        pairs.iter().map(|pair| &pair.value).find(|value| begins(value)).map(|value| value.span)
    } else if let Command::Arg(declarations) = command {
        declarations.iter().filter_map(|declaration| declaration.value.as_ref()).find(|value| begins(value)).map(|value| value.span)
    } else if let Some(copy) = command.copied() {
        let sources = copy.sources.iter().filter_map(|source| if let CopySource::Path(word) = source { Some(word) } else { None });
        sources.chain([&copy.dest]).find(|word| begins(word)).map(|word| word.span)
    } else if let Command::Workdir(word) | Command::User(word) = command {
        begins(word).then_some(word.span)
    } else {
        command.line().and_then(in_shell)
    }
}

fn begins(word: &Word) -> bool {
    word.text.starts_with(OPENING)
}

/// One at the head of a word of the shell's. Inside of plain quotes they are text; an array is another rule's.
fn in_shell(line: &CommandLine) -> Option<Span> {
    let CommandLine::Shell(word) = line else { return None };
    if word.text.trim_start().starts_with('[') {
        return None;
    }
    let mut quote = None;
    let mut before = ' ';
    for letter in word.text.chars() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'' | '`') if before != '\\' => quote = Some(letter),
            (None, '#') if before.is_whitespace() => return None,
            (None, _) if OPENING.contains(&letter) && (before.is_whitespace() || before == '=') => return Some(word.span),
            _ => {}
        }
        before = letter;
    }
    None
}
