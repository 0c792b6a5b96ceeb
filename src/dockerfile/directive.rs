//! Parser directives: `# name=value` at the head of the file.
//!
//! Source: BuildKit `parser/directives.go`.

use super::ast::{Directive, Word};
use super::lines::{Physical, Reader};
use crate::diag::{Diagnostic, Span};

/// Reads the head of a file line by line, until a line that is no directive.
#[derive(Debug, Default)]
pub(super) struct Head {
    done: bool,
    /// What was read.
    pub(super) directives: Vec<Directive>,
    /// The escape character, once it was set.
    pub(super) escape: Option<char>,
}

const CHECK: &str = "check";
const KNOWN: [&str; 3] = [CHECK, "escape", "syntax"];

impl Head {
    /// Takes notice of the next line: is it a directive?
    pub(super) fn read(&mut self, line: Physical<'_>) -> Result<bool, Box<Diagnostic>> {
        if self.done {
            return Ok(false);
        }
        let Some((name, value)) = split(line).filter(|(name, _)| KNOWN.contains(&name.as_str())) else {
            self.done = true;
            return Ok(false);
        };
        if let Some(earlier) = self.directives.iter().find(|directive| directive.name == name) {
            let error = Diagnostic::error(format!("the directive `{name}` stands here a second time"), value.span)
                .also(earlier.value.span, "the first one")
                .help("remove one of them");
            return Err(Box::new(error));
        }
        let escape = (name == "escape").then(|| value.clone());
        self.directives.push(Directive { name, value, line: line.number });
        if let Some(value) = escape {
            self.escape = Some(match value.text.as_str() {
                "\\" => '\\',
                "`" => '`',
                other => {
                    let error = Diagnostic::error(format!("`{other}` cannot be the escape character"), value.span)
                        .label("not `\\` or a backquote")
                        .help("write `# escape=\\` or `# escape=` with a backquote");
                    return Err(Box::new(error));
                }
            });
        }
        Ok(true)
    }
}

/// The value of the leading `# check=…`, up to its first blank. A `#!` line may stand before the directives here, though they
/// are no directives to the parser then.
pub fn check_directive(text: &str) -> Option<Word> {
    let mut reader = Reader::new(text);
    let mut head = Head::default();
    let mut first = true;
    while let Some(line) = reader.next() {
        if std::mem::take(&mut first) && line.text.starts_with("#!") {
            continue;
        }
        if !matches!(head.read(line), Ok(true)) {
            break;
        }
    }
    let mut value = head.directives.into_iter().find(|directive| directive.name == CHECK)?.value;
    value.text.truncate(value.text.find(' ').unwrap_or(value.text.len()));
    value.span.end = value.span.start + u32::try_from(value.text.len()).unwrap_or(0);
    Some(value)
}

/// The value of the first `check=…` among the comments above an instruction, up to its first blank.
pub fn check_comment(comments: &[String]) -> Option<&str> {
    let value = comments.iter().find_map(|comment| named_value(comment).filter(|(name, _)| name == CHECK))?.1;
    value.split(' ').next()
}

/// Go's `\s`.
fn is_space(ch: char) -> bool {
    matches!(ch, '\t' | '\n' | '\x0c' | '\r' | ' ')
}

/// `# name = value`, the name in lower case.
fn split(line: Physical<'_>) -> Option<(String, Word)> {
    let (name, value) = named_value(line.text.trim_start().strip_prefix('#')?)?;
    let tail = line.text.len() - line.text.trim_end_matches(is_space).len();
    let end = line.start + line.text.len() - tail;
    Some((name, Word { text: value.to_owned(), span: Span::new(end - value.len(), end) }))
}

/// `name = value` as a comment holds it, the name in lower case.
fn named_value(comment: &str) -> Option<(String, &str)> {
    let after = comment.trim_start_matches(is_space);
    let length = after.find(|ch: char| !ch.is_ascii_alphanumeric()).unwrap_or(after.len());
    let (name, rest) = after.split_at_checked(length)?;
    if !name.starts_with(|ch: char| ch.is_ascii_alphabetic()) {
        return None;
    }
    let value = rest.trim_start_matches(is_space).strip_prefix('=')?.trim_matches(is_space);
    (!value.is_empty()).then(|| (name.to_ascii_lowercase(), value))
}
