//! FROM, ARG and ONBUILD.

use crate::diag::Diagnostic;

use super::flags::Flags;
use super::{Docs, FROM, Rejected, needs, rejected, trailing_comment};
use crate::dockerfile::ast::{ArgDeclaration, Command, Stage, Word};
use crate::dockerfile::node::Node;

/// FROM
pub(super) fn from(node: &mut Node) -> Result<Stage, Rejected> {
    let name = match node.args.as_slice() {
        [_] => None,
        [_, middle, name] if middle.text.eq_ignore_ascii_case("as") => Some(stage_name(name)?),
        [] => return rejected(needs(node, "an image").help("write `FROM` and an image, or `FROM scratch`")),
        words => return rejected(shape(words)),
    };
    let flags = Flags::read(node, FROM)?;
    Ok(Stage {
        base: node.args.first_mut().map(std::mem::take).unwrap_or_default(),
        doc: name.as_ref().and_then(|name| Docs::of(&node.comments).find(&name.text)),
        name,
        platform: flags.word("platform"),
        comments: std::mem::take(&mut node.comments),
        span: node.span,
        lines: node.lines,
        original: std::mem::take(&mut node.original),
        commands: Vec::new(),
    })
}

/// Lower-cased; letters, digits, `-`, `_` and `.`, a letter first.
fn stage_name(word: &Word) -> Result<Word, Rejected> {
    let text = word.text.to_lowercase();
    let begins = text.starts_with(|ch: char| ch.is_ascii_lowercase());
    if begins && text.chars().all(|ch| ch.is_ascii_lowercase() || ch.is_ascii_digit() || matches!(ch, '-' | '_' | '.')) {
        return Ok(Word { text, span: word.span });
    }
    let error = Diagnostic::error(format!("`{}` cannot be the name of a stage", word.text), word.span);
    let plain = |ch: char| if ch.is_ascii_alphanumeric() || matches!(ch, '-' | '_' | '.') { ch } else { '-' };
    let plain: String = text.chars().map(plain).collect();
    rejected(if begins {
        error.label("only letters, digits, `-`, `_` and `.` may stand in it").help(format!("call it `{plain}`"))
    } else {
        error.label("a letter must come first").help(format!("call it `stage-{}`", plain.trim_start_matches(['-', '_', '.'])))
    })
}

/// FROM with a number of words that means nothing.
fn shape(words: &[Word]) -> Diagnostic {
    let place = words.get(1).map(|word| word.span).unwrap_or_default();
    let place = words.last().map_or(place, |last| place.to(last.span));
    let error = Diagnostic::error("FROM takes an image, or an image, `AS` and a name", place);
    if let Some(comment) = trailing_comment(words) {
        let span = words.last().map_or(comment.span, |last| comment.span.to(last.span));
        return Diagnostic::error("FROM takes an image, or an image, `AS` and a name", span)
            .label("this is not a comment")
            .help("a comment needs a line of its own");
    }
    match words {
        [_, word] if word.text.eq_ignore_ascii_case("as") => error.label("no name follows").help("write the stage's name after `AS`"),
        [_, name] => error.label("unexpected").help(format!("did you mean `AS {}`?", name.text)),
        _ => error.label("unexpected").help("write `FROM image` or `FROM image AS name`, and nothing behind it"),
    }
}

/// ARG
pub(super) fn arg(node: &Node) -> Result<Command, Rejected> {
    if node.args.is_empty() {
        return rejected(needs(node, "a name"));
    }
    Flags::read(node, &[])?;
    let docs = Docs::of(&node.comments);
    let mut declarations = Vec::with_capacity(node.args.len());
    for word in &node.args {
        let (key, value) = match word.text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (word.text.as_str(), None),
        };
        if key.is_empty() {
            let error = Diagnostic::error("an ARG has no name", word.span).label("no name before `=`");
            return rejected(error.help("write `ARG name=value`, without blanks around `=`"));
        }
        declarations.push(ArgDeclaration {
            key: Word { text: key.to_owned(), span: head(word, key.len()) },
            value: value.map(|value| Word { text: value.to_owned(), span: tail(word, key.len() + 1) }),
            doc: docs.find(key),
        });
    }
    Ok(Command::Arg(declarations))
}

/// The place of the first `length` bytes of a word; the whole word where it is broken over lines.
fn head(word: &Word, length: usize) -> crate::diag::Span {
    let mut span = word.span;
    if (span.end - span.start) as usize == word.text.len() {
        span.end = span.start + u32::try_from(length).unwrap_or(0);
    }
    span
}

/// The place of a word from the byte `length` on; the whole word where it is broken over lines.
fn tail(word: &Word, length: usize) -> crate::diag::Span {
    let mut span = word.span;
    if (span.end - span.start) as usize == word.text.len() {
        span.start = (span.start + u32::try_from(length).unwrap_or(0)).min(span.end);
    }
    span
}

/// ONBUILD: the text after it, heredocs included; nothing inside is decoded.
pub(super) fn onbuild(node: &Node) -> Result<Command, Rejected> {
    let Some(sub) = &node.sub else { return rejected(needs(node, "an instruction")) };
    Flags::read(node, &[])?;
    match sub.keyword.text.to_uppercase().as_str() {
        "ONBUILD" => {
            let error = Diagnostic::error("ONBUILD cannot stand under ONBUILD", sub.keyword.span);
            return rejected(error.help("remove one of the two"));
        }
        inner @ ("FROM" | "MAINTAINER") => {
            let error = Diagnostic::error(format!("{inner} cannot stand under ONBUILD"), sub.keyword.span);
            return rejected(error.label("not for images made from this one").help("remove the line, or the word ONBUILD"));
        }
        _ => {}
    }
    let after = node.original.trim_start().get("onbuild".len()..).unwrap_or_default();
    let mut text = after.trim_start_matches(|ch: char| ch.is_ascii_whitespace()).to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Ok(Command::Onbuild(Word { text, span: node.rest }))
}
