//! A comment behind an instruction that takes it for words.

use super::super::{
    Example, Origin, Place, Rule,
    view::{Notes, View},
};
use crate::{
    diag::Span,
    dockerfile::{Command, CopySource, Word},
};

pub(super) const RULE: Rule = Rule {
    name: "CommentAfterInstruction",
    summary: "a comment has a line of its own: behind an instruction it is part of it",
    origin: Origin::Own,
    experimental: false,
    look,
    example: Example {
        bad: "\
FROM busybox
WORKDIR /app # where it lives
",
        says: &[(2, "WORKDIR takes this comment for words of its own")],
        good: "\
FROM busybox
# where it lives
WORKDIR /app
",
        files: &[],
    },
};

fn look(view: &View<'_>, notes: &mut Notes<'_>) {
    for instruction in view.instructions() {
        if let Some(span) = comment(&instruction.command) {
            let detail = format!("{} takes this comment for words of its own", instruction.keyword.text);
            notes.advise(&instruction.comments, Place::from(instruction).mark(span), detail, Some("put the comment on a line above"));
        }
    }
}

/// Where the comment stands. RUN and its like are left out: to a shell it is a comment.
fn comment(command: &Command) -> Option<Span> {
    if let Some(copy) = command.copied() {
        // A first source may well begin with `#`, and an array says what it means.
        let sources = copy.sources.iter().filter_map(|source| if let CopySource::Path(word) = source { Some(word) } else { None });
        sources.skip(1).find(|word| word.text == "#" || word.text.starts_with('#')).map(|word| word.span)
    } else if let Command::Volume(words) = command {
        words.iter().find(|word| word.text.starts_with('#')).map(|word| word.span)
    } else if let Command::Arg(declarations) = command {
        declarations.iter().skip(1).find(|declaration| declaration.key.text.starts_with('#')).map(|declaration| declaration.key.span)
    } else if let Command::Env(pairs) | Command::Label(pairs) = command {
        pairs.iter().filter(|pair| pair.no_delim).find_map(|pair| behind(&pair.value))
    } else if let Command::Workdir(word) | Command::User(word) = command {
        behind(word)
    } else {
        None
    }
}

/// A `#` after a blank, and no quote before it.
fn behind(word: &Word) -> Option<Span> {
    let at = word.text.find(" #").or_else(|| word.text.find("\t#"))?;
    (!word.text.get(..at)?.contains(['"', '\''])).then_some(word.span)
}
