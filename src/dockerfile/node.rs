//! The line-level tree: every instruction with its words, before they mean anything.
//!
//! This is BuildKit's `parser.Node`. Errors found here ("phase parse") come before every decoding error in BuildKit,
//! so they are kept apart from them.
//!
//! Source: BuildKit `frontend/dockerfile/parser` (`parser.go`, `line_parsers.go`).

use std::borrow::Cow;

use crate::diag::{Diagnostic, Span};

use super::ast::{Directive, Escape, Heredoc, Word};
use super::directive::Head;
use super::heredoc;
use super::lines::{Cut, LONGEST_LINE, Logical, Physical, Reader, is_cut_by_comment};
use super::words::{Array, Flag, json_array, quoted_words, take_flags};

/// Which of BuildKit's two passes finds an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The line level.
    Parse,
    /// Decoding an instruction.
    Instructions,
}

/// An error with what the JSON form says about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Problem {
    pub(super) diagnostic: Diagnostic,
    pub(super) phase: Phase,
    /// Physical lines of the instruction, 1-based.
    pub(super) lines: (u32, u32),
}

/// One instruction of the line level.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Node {
    pub(super) keyword: Word,
    /// The keyword in lower case.
    pub(super) name: Name,
    pub(super) flags: Vec<Flag>,
    pub(super) args: Vec<Word>,
    pub(super) json: bool,
    pub(super) heredocs: Vec<Heredoc>,
    pub(super) original: String,
    /// The place of the text after keyword and flags.
    pub(super) rest: Span,
    /// The first word with `<<` in it where no heredoc was read.
    pub(super) stray: Option<String>,
    /// A comment stands behind what was meant to continue it.
    pub(super) commented: bool,
    /// After an ONBUILD.
    pub(super) sub: Option<Box<Node>>,
    pub(super) span: Span,
    pub(super) lines: (u32, u32),
    /// The comment lines above it, without `#`.
    pub(super) comments: Vec<String>,
}

/// A name; those of instructions cost nothing.
type Name = Cow<'static, str>;

/// The instructions, in lower case.
const NAMES: [&str; 18] = [
    "run",
    "copy",
    "env",
    "arg",
    "from",
    "workdir",
    "label",
    "add",
    "cmd",
    "entrypoint",
    "expose",
    "user",
    "volume",
    "healthcheck",
    "maintainer",
    "onbuild",
    "shell",
    "stopsignal",
];

fn name_of(keyword: &str) -> Name {
    let known = NAMES.iter().find(|name| name.eq_ignore_ascii_case(keyword));
    known.map_or_else(|| Cow::Owned(keyword.to_lowercase()), |name| Cow::Borrowed(*name))
}

impl Node {
    /// May heredocs follow?
    fn takes_heredocs(&self) -> bool {
        let inner = match &self.sub {
            Some(sub) if self.name == "onbuild" => sub,
            _ => self,
        };
        matches!(&*inner.name, "add" | "copy" | "run") && !inner.json
    }
}

/// An instruction that is continued over a blank line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Blank {
    /// The last physical line.
    pub(super) line: u32,
    /// The logical line.
    pub(super) text: String,
    /// The blank line.
    pub(super) span: Span,
}

/// What the line level gives besides the nodes.
#[derive(Debug, Default)]
pub(super) struct Outline {
    pub(super) directives: Vec<Directive>,
    /// What is wrong with the first directive that cannot be read.
    pub(super) bad_directive: Option<String>,
    pub(super) escape: Escape,
    pub(super) problems: Vec<Problem>,
    /// Instructions with blank lines inside.
    pub(super) blanks: Vec<Blank>,
    /// Line and place of instructions that could not be read; a FROM may be among them.
    pub(super) lost: Vec<Span>,
}

impl Outline {
    fn problem(&mut self, diagnostic: Diagnostic, lines: (u32, u32)) {
        self.problems.push(Problem { diagnostic, phase: Phase::Parse, lines });
    }
}

/// Reads one instruction after the other: a node is large beside a line of text, so that all of a long file would fill the
/// memory with them.
#[derive(Debug)]
pub(super) struct Nodes<'t> {
    reader: Reader<'t>,
    head: Head,
    outline: Outline,
    /// Was there any?
    found: bool,
    ended: bool,
}

impl<'t> Nodes<'t> {
    /// At the beginning of the text.
    pub(super) fn of(text: &'t str) -> Self {
        Self { reader: Reader::new(text), head: Head::default(), outline: Outline::default(), found: false, ended: false }
    }

    /// The first instruction that cannot be read, of those so far.
    pub(super) fn first_lost(&self) -> Option<Span> {
        self.outline.lost.first().copied()
    }

    /// Reads to the end and gives what was found besides nodes.
    pub(super) fn finish(mut self) -> Outline {
        self.by_ref().for_each(drop);
        let mut outline = self.outline;
        outline.directives = self.head.directives;
        if !self.found && outline.lost.is_empty() {
            let (line, end) = (self.reader.line(), self.reader.offset());
            let error = Diagnostic::error("the file has no instructions", Span::new(end, end));
            outline.problem(error.help("begin with `FROM` and an image, or `FROM scratch`"), (line, line));
        }
        outline
    }
}

impl Iterator for Nodes<'_> {
    type Item = Node;

    fn next(&mut self) -> Option<Node> {
        let outline = &mut self.outline;
        let mut comments = Vec::new();
        while !self.ended
            && let Some(first) = self.reader.next()
        {
            let is_directive = self.head.read(first).unwrap_or_else(|error| {
                outline.bad_directive.get_or_insert_with(|| error.headline.clone());
                // BuildKit counts the line only after it has looked for a directive.
                outline.problem(*error, (first.number - 1, first.number - 1));
                true
            });
            outline.escape = self.head.escape.map_or_else(Escape::default, Escape);
            if is_directive {
                continue;
            }
            if first.is_comment() {
                note_comment(&mut comments, first);
            } else if !first.text.trim().is_empty() {
                match instruction(outline, first, &mut self.reader, std::mem::take(&mut comments)) {
                    Ok(Some(node)) => {
                        self.found = true;
                        return Some(node);
                    }
                    Ok(None) => {}
                    Err(Ended) => self.ended = true,
                }
            }
        }
        None
    }
}

fn note_comment(comments: &mut Vec<String>, line: Physical<'_>) {
    // The first character is dropped, `#` or not: an indented comment keeps its `#`, and documents nothing.
    let mut chars = line.text.chars();
    chars.next();
    let text = chars.as_str().trim();
    if text.is_empty() {
        comments.clear();
    } else {
        comments.push(text.to_owned());
    }
}

/// What follows cannot be read as instructions.
struct Ended;

fn instruction<'t>(
    outline: &mut Outline,
    first: Physical<'t>,
    reader: &mut Reader<'t>,
    comments: Vec<String>,
) -> Result<Option<Node>, Ended> {
    let line = Logical::join(first, outline.escape.0, reader);
    let start = first.start + (first.text.len() - first.text.trim_start().len());
    let lines = (first.number, reader.line());
    let whole = line.whole();
    if let Some(span) = line.blank {
        outline.blanks.push(Blank { line: lines.1, text: line.text.clone().into_owned(), span });
    }
    if let Some((number, span)) = line.too_long {
        let error = Diagnostic::error(
            format!("this line is longer than {LONGEST_LINE} bytes"),
            Span::new(span.start as usize, span.start as usize + 1),
        );
        outline.problem(error.help("break it with continuations, or COPY the text from a file"), (number - 1, number - 1));
    }
    let mut node = match node(whole, outline.escape.0, 0) {
        Ok(node) => node,
        Err(error) => {
            outline.problem(*error, lines);
            outline.lost.push(whole.span());
            return Ok(None);
        }
    };
    let bodies = bodies(&mut node, whole, reader);
    node.lines = (lines.0, reader.line());
    node.span = Span::new(start, reader.offset());
    trim_end(&mut node, whole);
    if let Err(error) = bodies {
        outline.problem(*error, node.lines);
        outline.lost.push(node.span);
        return Err(Ended);
    }
    node.comments = comments;
    node.commented = is_cut_by_comment(&node.original, outline.escape.0);
    Ok(Some(node))
}

/// Without heredocs the instruction ends with its last word, not with the line feed.
fn trim_end(node: &mut Node, whole: Cut<'_>) {
    if node.heredocs.is_empty() {
        node.span = whole.trim().span();
    }
}

fn bodies(node: &mut Node, line: Cut<'_>, reader: &mut Reader<'_>) -> Result<(), Box<Diagnostic>> {
    if !line.text().contains("<<") {
        return Ok(());
    }
    let announced = if node.takes_heredocs() { heredoc::announced_in(line) } else { Ok(Vec::new()) };
    let announced = announced
        .map_err(|error| Diagnostic::error("the name of this heredoc cannot be read", line.trim().span()).note(error.message))
        .map_err(|error| Box::new(error.help("write a plain word, or one in quotes that are closed: `<<EOF`")))?;
    for one in announced {
        node.heredocs.push(heredoc::body(&one, line, reader)?);
    }
    if node.heredocs.is_empty() {
        node.stray = line.text().split_whitespace().skip(1).find(|word| word.contains("<<")).map(str::to_owned);
    }
    Ok(())
}

/// How deep instructions under ONBUILD are looked at; the decoder rejects the second ONBUILD anyway.
const DEEPEST_ONBUILD: usize = 4;

fn node(line: Cut<'_>, escape: char, depth: usize) -> Result<Node, Box<Diagnostic>> {
    let (keyword, after) = line.trim().split_blank();
    let (flags, rest) = after.map_or((Vec::new(), keyword.from(keyword.text().len())), take_flags);
    let rest = rest.trim();
    let name = name_of(keyword.text());
    let mut node = Node {
        keyword: keyword.word(),
        name,
        flags,
        original: line.text().to_owned(),
        rest: rest.span(),
        span: line.span(),
        ..Node::default()
    };
    fill(&mut node, rest, escape, depth)?;
    Ok(node)
}

/// Reads the rest of the line as the instruction has it.
fn fill(node: &mut Node, rest: Cut<'_>, escape: char, depth: usize) -> Result<(), Box<Diagnostic>> {
    match &*node.name {
        "run" | "cmd" | "entrypoint" | "shell" => json_or(node, rest, |rest| vec![rest.word()]),
        "add" | "copy" | "volume" => json_or(node, rest, words_of),
        "healthcheck" => healthcheck(node, rest),
        "env" | "label" => pairs(node, rest, escape),
        "arg" => {
            node.args = quoted_words(rest, escape).into_iter().map(Cut::word).collect();
            Ok(())
        }
        "expose" | "from" => {
            node.args = if rest.is_empty() { Vec::new() } else { words_of(rest) };
            Ok(())
        }
        "maintainer" | "stopsignal" | "user" | "workdir" => {
            node.args = if rest.is_empty() { Vec::new() } else { vec![rest.word()] };
            Ok(())
        }
        "onbuild" => {
            if !rest.is_empty() && depth < DEEPEST_ONBUILD {
                node.sub = Some(Box::new(self::node(rest, escape, depth + 1)?));
            }
            Ok(())
        }
        _ => {
            node.args = vec![Word::default()];
            Ok(())
        }
    }
}

fn words_of(rest: Cut<'_>) -> Vec<Word> {
    rest.split_blanks().into_iter().map(Cut::word).collect()
}

fn json_or(node: &mut Node, rest: Cut<'_>, other: impl Fn(Cut<'_>) -> Vec<Word>) -> Result<(), Box<Diagnostic>> {
    if rest.is_empty() {
        return Ok(());
    }
    match json_array(rest) {
        Array::Strings(strings) => {
            node.json = true;
            node.args.extend(strings.into_iter().map(|(text, span)| Word { text, span }));
        }
        Array::No if node.args.is_empty() => node.args = other(rest),
        Array::No => node.args.extend(other(rest)),
        Array::NotStrings(span) => {
            let error = Diagnostic::error("an array in JSON may hold only strings here", span).label("not a string");
            return Err(Box::new(error.help("put it in double quotes")));
        }
    }
    Ok(())
}

fn healthcheck(node: &mut Node, rest: Cut<'_>) -> Result<(), Box<Diagnostic>> {
    if rest.is_empty() {
        return Ok(());
    }
    let length = rest.text().find(char::is_whitespace).unwrap_or(rest.text().len());
    node.args.push(rest.part(0, length).word());
    json_or(node, rest.from(length).trim_start(), |rest| vec![rest.word()])
}

/// `key=value …` or the old `key value`; each gives three args: key, value, `=` or nothing.
fn pairs(node: &mut Node, rest: Cut<'_>, escape: char) -> Result<(), Box<Diagnostic>> {
    let words = quoted_words(rest, escape);
    let keyword = node.keyword.text.to_uppercase();
    let Some(first) = words.first() else { return Ok(()) };
    if !first.text().contains('=') {
        let (key, value) = rest.split_blank();
        let Some(value) = value else {
            let error = Diagnostic::error(format!("{keyword} needs a value for `{}`", rest.text()), rest.span()).label("no `=` here");
            return Err(Box::new(error.help(format!("write `{keyword} {}=value`", rest.text()))));
        };
        node.args = vec![key.word(), value.word(), Word::default()];
        return Ok(());
    }
    for word in &words {
        let Some((key, value)) = word.split_at('=') else { return Err(Box::new(stray_word(*word, &words, &keyword))) };
        node.args.extend([key.word(), value.word(), Word { text: "=".to_owned(), span: value.part(0, 0).span() }]);
    }
    Ok(())
}

/// A word without `=` among pairs.
fn stray_word(word: Cut<'_>, words: &[Cut<'_>], keyword: &str) -> Diagnostic {
    let text = word.text();
    let error = Diagnostic::error(format!("`{text}` is not of the form name=value"), word.span()).label("no `=` in it");
    let before = words.iter().position(|other| other.text() == text).and_then(|at| words.get(at.checked_sub(1)?));
    if text.starts_with('#') {
        return error.help("a comment needs a line of its own");
    }
    if words.iter().any(|word| word.text().contains(['“', '”', '‘', '’'])) {
        return error.help("these are typographic quotes; use `\"` or `'`");
    }
    match before {
        Some(before) if before.text().ends_with('=') => error.help(format!("remove the blank after `{}`", before.text())),
        Some(_) => error.help("put a value that has blanks in it in quotes"),
        None => error.help(format!("write `{keyword} name=value`")),
    }
}
