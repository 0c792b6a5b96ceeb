//! Heredocs: the `<<EOF` words of a line and the bodies below it.
//!
//! Source: BuildKit `parser/parser.go` (`heredocsFromLine`, `ParseHeredoc`); the words are found with the lexer of
//! `shell/lex.go`, always with `\` as its escape.

use crate::diag::{Diagnostic, Span};

use super::ast::Heredoc;
use super::lines::{Cut, Reader};
use super::{ExpandError, Mode, expand_words};

/// What a `<<` word announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// The delimiter without quotes.
    pub(super) name: String,
    /// No part of the delimiter is quoted.
    pub(super) expand: bool,
    /// `<<-`
    pub(super) chomp: bool,
    /// The number before it.
    pub(super) fd: u32,
    /// The word as written.
    pub(super) word: String,
}

const RAW: Mode = Mode { skip_unset: true, raw_quotes: true, raw_escapes: true, skip_quotes: false };
const QUOTED: Mode = Mode { skip_unset: true, raw_quotes: true, raw_escapes: false, skip_quotes: false };
const PLAIN: Mode = Mode { skip_unset: true, raw_quotes: false, raw_escapes: false, skip_quotes: false };

/// Reads one word; `Ok(None)` if it is not a heredoc.
pub(super) fn announced(word: &str) -> Result<Option<Announced>, ExpandError> {
    let after_digits = word.trim_start_matches(|ch: char| ch.is_ascii_digit());
    let Some(rest) = after_digits.strip_prefix("<<") else { return Ok(None) };
    let (chomp, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let rest = rest.trim_start_matches(|ch: char| ch.is_ascii_whitespace());
    if rest.is_empty() || rest.contains('<') {
        return Ok(None);
    }
    let nothing = |_: &str| None;
    let plain = expand_words(rest, '\\', PLAIN, &nothing)?;
    let [name] = plain.as_slice() else { return Ok(None) };
    // A quote that quotes is in the raw word alone; an escaped one is in both.
    let quoted = expand_words(rest, '\\', QUOTED, &nothing)?;
    let [unpeeled] = quoted.as_slice() else { return Ok(None) };
    let count = |word: &str| word.matches(['\'', '"']).count();
    let fd = word.get(..word.len() - after_digits.len()).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    Ok(Some(Announced { name: name.clone(), expand: count(name) == count(unpeeled), chomp, fd, word: word.to_owned() }))
}

/// All that a line announces, in order.
pub(super) fn announced_in(line: Cut<'_>) -> Result<Vec<Announced>, ExpandError> {
    // A line that the lexer cannot read has none: the shell may still understand it.
    let words = expand_words(line.text(), '\\', RAW, &|_| None).unwrap_or_default();
    words.iter().filter(|word| word.contains("<<")).filter_map(|word| announced(word).transpose()).collect()
}

/// Reads the body of one heredoc; `Err` if the text ends before its terminator.
pub(super) fn body(announced: &Announced, line: Cut<'_>, reader: &mut Reader<'_>) -> Result<Heredoc, Box<Diagnostic>> {
    let start = reader.offset();
    let mut content = String::new();
    let mut near = None;
    let mut end = start;
    while let Some(physical) = reader.next() {
        let text = if announced.chomp { physical.text.trim_start_matches('\t') } else { physical.text };
        if text == announced.name {
            let Announced { name, expand, chomp, fd, .. } = announced.clone();
            return Ok(Heredoc { name, expand, chomp, fd, content, span: Span::new(start, end) });
        }
        if physical.text.trim() == announced.name {
            near.get_or_insert(physical.span());
        }
        content.push_str(physical.raw);
        end = reader.offset();
    }
    Err(Box::new(unterminated(announced, line, near)))
}

fn unterminated(announced: &Announced, line: Cut<'_>, near: Option<Span>) -> Diagnostic {
    let place = line.text().find(&announced.word).map_or(line, |at| line.part(at, at + announced.word.len()));
    let name = &announced.name;
    let diagnostic = Diagnostic::error(format!("the heredoc `{}` has no end", announced.word), place.span())
        .label(format!("no line below is just `{name}`"));
    match near {
        Some(near) => diagnostic
            .also(near, "there are blanks around it")
            .help(format!("put `{name}` alone on its line; only `<<-` allows tabs (and nothing but tabs) before it")),
        None => diagnostic.help(format!("end the text with a line that is just `{name}`")),
    }
}

/// The body without leading tabs on its lines, as `<<-` asks for.
pub fn without_tabs(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
