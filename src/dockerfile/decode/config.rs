//! The instructions that only change the image's configuration.

use crate::diag::Diagnostic;

use super::flags::Flags;
use super::{Rejected, needs, rejected};
use crate::dockerfile::ast::{Command, KeyValue, Word};
use crate::dockerfile::node::Node;

/// ENV
pub(super) fn env(node: &mut Node) -> Result<Command, Rejected> {
    pairs(node).map(Command::Env)
}

/// LABEL
pub(super) fn label(node: &mut Node) -> Result<Command, Rejected> {
    pairs(node).map(Command::Label)
}

fn pairs(node: &mut Node) -> Result<Vec<KeyValue>, Rejected> {
    Flags::read(node, &[])?;
    if node.args.is_empty() {
        return rejected(needs(node, "a name and a value"));
    }
    let mut pairs = Vec::with_capacity(node.args.len() / 3);
    for triple in node.args.chunks_exact_mut(3) {
        let [key, value, mark] = triple else { continue };
        if key.text.is_empty() {
            let keyword = node.keyword.text.to_uppercase();
            let error =
                Diagnostic::error(format!("{keyword} has a value without a name"), key.span.to(value.span)).label("no name before `=`");
            return rejected(error.help(format!("write `{keyword} name=value`, without blanks around `=`")));
        }
        pairs.push(KeyValue { key: std::mem::take(key), value: std::mem::take(value), no_delim: mark.text.is_empty() });
    }
    Ok(pairs)
}

/// EXPOSE: the ports sorted, as BuildKit has them.
pub(super) fn expose(node: &mut Node) -> Result<Command, Rejected> {
    if node.args.is_empty() {
        return rejected(needs(node, "a port"));
    }
    Flags::read(node, &[])?;
    let mut ports = std::mem::take(&mut node.args);
    ports.sort_by(|left, right| left.text.cmp(&right.text));
    Ok(Command::Expose(ports))
}

/// VOLUME
pub(super) fn volume(node: &Node) -> Result<Command, Rejected> {
    if node.args.is_empty() {
        return rejected(needs(node, "a path"));
    }
    Flags::read(node, &[])?;
    let mut volumes = Vec::with_capacity(node.args.len());
    for word in &node.args {
        let text = word.text.trim();
        if text.is_empty() {
            let error = Diagnostic::error("a VOLUME cannot be an empty path", word.span).label("no path");
            return rejected(error.help("write a path, or leave it out"));
        }
        volumes.push(Word { text: text.to_owned(), span: word.span });
    }
    Ok(Command::Volume(volumes))
}

/// The one argument of USER, WORKDIR, STOPSIGNAL and MAINTAINER.
pub(super) fn one(node: &mut Node, what: &str) -> Result<Word, Rejected> {
    if node.args.len() != 1 {
        return rejected(needs(node, what));
    }
    Flags::read(node, &[])?;
    Ok(node.args.pop().unwrap_or_default())
}
