//! A line that begins with no instruction: what was probably meant.

use crate::diag::{Diagnostic, closest};

use super::INSTRUCTIONS;
use crate::dockerfile::heredoc::announced;
use crate::dockerfile::node::Node;

/// The error for it; `previous` is the instruction before.
pub(super) fn instruction(node: &Node, previous: Option<&Node>) -> Diagnostic {
    let keyword = &node.keyword.text;
    if keyword.is_empty() {
        return Diagnostic::error("this continued line has no instruction", node.span).help("begin it with one, or remove the `\\`");
    }
    let error = Diagnostic::error(format!("there is no instruction `{keyword}`"), node.keyword.span).label("not an instruction");
    match meant(node, previous) {
        Some(help) => error.help(help),
        None => error.help(format!("the instructions are {}", INSTRUCTIONS.join(", "))),
    }
}

fn meant(node: &Node, previous: Option<&Node>) -> Option<String> {
    let keyword = node.keyword.text.as_str();
    let upper = keyword.to_uppercase();
    if let Some(near) = INSTRUCTIONS.iter().find(|own| upper.strip_prefix(**own).is_some_and(|rest| rest.starts_with(char::is_whitespace)))
    {
        return Some(format!("the blank after `{near}` is not a plain one (a no-break space?): type it anew"));
    }
    if let Some((name, _)) = stray_body(node, previous) {
        return Some(format!("{name} takes no heredoc; only RUN, COPY and ADD do"));
    }
    if previous.is_some_and(|previous| previous.lines.1 + 1 == node.lines.0 && previous.commented) {
        return Some("the line above does not continue: its `\\` is not its last character; a comment needs a line of its own".to_owned());
    }
    if keyword.starts_with("//") || keyword.starts_with("/*") || keyword.starts_with("--") || keyword.starts_with(';') {
        return Some("a comment begins with `#`".to_owned());
    }
    if keyword.starts_with(['&', '|', ';', '>', '-', '\\']) {
        return Some("if this continues the line above, that line must end with `\\`".to_owned());
    }
    if keyword.starts_with(['“', '”', '‘', '’']) {
        return Some("these are typographic quotes; remove them".to_owned());
    }
    let glued = INSTRUCTIONS.iter().find(|own| {
        upper.strip_prefix(**own).is_some_and(|rest| rest.starts_with(|ch: char| !ch.is_alphabetic()) || (own.len() > 2 && rest.len() > 2))
    });
    if let Some(near) = closest(&upper, INSTRUCTIONS) {
        return Some(format!("did you mean `{near}`?"));
    }
    if let Some(own) = glued {
        return Some(format!("put a blank after `{own}`"));
    }
    if keyword.contains('=') {
        return Some("a variable is set with `ENV` or declared with `ARG`".to_owned());
    }
    let continued = previous.is_some_and(|previous| matches!(&*previous.name, "run" | "env" | "label" | "copy" | "cmd"));
    continued.then(|| "if this continues the line above, that line must end with `\\`".to_owned())
}

/// Is this the first line of a heredoc where none is read? The keyword above it, and the line that ends the body.
pub(super) fn stray_body(node: &Node, previous: Option<&Node>) -> Option<(String, String)> {
    let previous = previous.filter(|previous| node.lines.0 == previous.lines.1 + 1)?;
    let end = announced(previous.stray.as_deref()?).ok().flatten()?.name;
    let name = previous.name.to_uppercase();
    INSTRUCTIONS.contains(&name.as_str()).then_some((name, end))
}
