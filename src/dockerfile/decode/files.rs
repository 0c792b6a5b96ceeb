//! COPY and ADD.

use crate::diag::{Diagnostic, Span};

use super::flags::Flags;
use super::{ADD, COPY, Rejected, rejected};
use crate::dockerfile::ast::{Add, Command, Copy, CopySource, Heredoc, Word};
use crate::dockerfile::heredoc::{announced, without_tabs};
use crate::dockerfile::node::Node;

/// COPY
pub(super) fn copy(node: &mut Node) -> Result<Command, Rejected> {
    enough(node)?;
    let flags = Flags::read(node, COPY)?;
    shared(node, &flags).map(Command::Copy)
}

/// ADD
pub(super) fn add(node: &mut Node) -> Result<Command, Rejected> {
    enough(node)?;
    let flags = Flags::read(node, ADD)?;
    Ok(Command::Add(Add {
        copy: shared(node, &flags)?,
        checksum: flags.word("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    }))
}

fn enough(node: &Node) -> Result<(), Rejected> {
    if node.args.len() >= 2 {
        return Ok(());
    }
    let keyword = node.keyword.text.to_uppercase();
    let place = node.args.first().map_or(node.keyword.span, |word| word.span);
    let label = if node.args.is_empty() { "nothing follows" } else { "no destination follows" };
    let error = Diagnostic::error(format!("{keyword} needs a source and a destination"), place).label(label);
    rejected(error.help(format!("write `{keyword} source destination`")))
}

fn shared(node: &mut Node, flags: &Flags) -> Result<Copy, Rejected> {
    let Some(dest) = node.args.last() else { return Err(Vec::new()) };
    if let Ok(Some(_)) = announced(&dest.text) {
        let error = Diagnostic::error("a heredoc cannot be the destination", dest.span);
        return rejected(error.help("write the destination's path after it"));
    }
    let mut sources = std::mem::take(&mut node.args);
    let dest = sources.pop().unwrap_or_default();
    Ok(Copy {
        sources: sources.into_iter().map(|word| source(node, word)).collect(),
        dest,
        from: flags.word("from"),
        chown: flags.word("chown"),
        chmod: flags.word("chmod"),
        link: flags.switch("link"),
        parents: flags.switch("parents"),
        exclude: flags.words("exclude"),
    })
}

fn source(node: &Node, word: Word) -> CopySource {
    let Ok(Some(own)) = announced(&word.text) else { return CopySource::Path(word) };
    // The last body of that name, as BuildKit has it.
    let body = node.heredocs.iter().rev().find(|heredoc| heredoc.name == own.name);
    // A line that the lexer cannot read has none.
    let nowhere = Span { start: word.span.end, end: word.span.end };
    let (content, span) = body.map_or(("", nowhere), |heredoc| (heredoc.content.as_str(), heredoc.span));
    let content = if own.chomp { without_tabs(content) } else { content.to_owned() };
    CopySource::Inline(Heredoc { name: own.name, expand: own.expand, chomp: own.chomp, fd: own.fd, content, span })
}
