//! From physical lines to logical ones.
//!
//! A logical line is what BuildKit's scanner joins: the first physical line without its leading blanks, and as long
//! as an escape character ends it, the next ones as they are; comments and blank lines in between are
//! dropped. Every byte of it knows where it came from ([`Logical::source`]), so that a word in the middle of a
//! continued line can still be underlined.
//!
//! Source: BuildKit `frontend/dockerfile/parser/parser.go` (`Parse`, `scanLines`, `trimContinuationCharacter`).

use std::borrow::Cow;

use crate::diag::Span;

use super::ast::Word;

/// The longest physical line, without its line feed (Go's `bufio.Scanner` stops there).
pub(super) const LONGEST_LINE: usize = 65_535;

/// A physical line; offsets into the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Physical<'t> {
    /// Without line feed and carriage returns.
    pub(super) text: &'t str,
    /// With them.
    pub(super) raw: &'t str,
    /// Where it begins.
    pub(super) start: usize,
    /// 1-based.
    pub(super) number: u32,
}

impl<'t> Physical<'t> {
    /// Does a `#` come first?
    pub(super) fn is_comment(&self) -> bool {
        self.text.trim_start().starts_with('#')
    }

    /// The line's place, without its line feed.
    pub(super) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.text.len())
    }

    /// Is it longer than BuildKit reads?
    pub(super) fn too_long(&self) -> bool {
        self.raw.len() - usize::from(self.raw.ends_with('\n')) > LONGEST_LINE
    }

    /// The text before the escape character that continues the line, if there is one.
    fn continued(&self, escape: char) -> Option<&'t str> {
        let before = self.text.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
        (!before.ends_with(escape)).then_some(before)
    }
}

/// Does a comment follow the escape character that was meant to continue the line?
pub fn is_cut_by_comment(line: &str, escape: char) -> bool {
    // Most lines have none: those that continue are joined.
    if !line.contains(escape) {
        return false;
    }
    let mut quote = None;
    let mut before = ' ';
    for (at, letter) in line.char_indices() {
        match (quote, letter) {
            (Some(open), _) if open == letter => quote = None,
            (None, '"' | '\'') if before != escape => quote = Some(letter),
            (None, _) if letter == escape && before.is_whitespace() => {
                let rest = line.get(at + letter.len_utf8()..).unwrap_or_default();
                if rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#') {
                    return true;
                }
            }
            _ => {}
        }
        before = letter;
    }
    false
}

/// Hands out the physical lines of a text.
#[derive(Debug)]
pub(super) struct Reader<'t> {
    text: &'t str,
    at: usize,
    number: u32,
}

impl<'t> Reader<'t> {
    /// At the beginning, past a byte order mark.
    pub(super) fn new(text: &'t str) -> Self {
        let at = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { text, at, number: 0 }
    }

    /// How many lines were handed out.
    pub(super) fn line(&self) -> u32 {
        self.number
    }

    /// Where the next line begins.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The next line.
    pub(super) fn next(&mut self) -> Option<Physical<'t>> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let raw = rest.split_inclusive('\n').next()?;
        let start = self.at;
        self.at += raw.len();
        self.number = self.number.saturating_add(1);
        Some(Physical { text: raw.trim_end_matches(['\r', '\n']), raw, start, number: self.number })
    }
}

/// A joined line with the way back to the text.
#[derive(Debug, Default)]
pub(super) struct Logical<'t> {
    /// Continuations joined; most lines have none, and are not copied.
    pub(super) text: Cow<'t, str>,
    /// Where the first piece begins in the source.
    first: usize,
    /// (offset here, offset in the source) where each other piece begins; sorted.
    others: Vec<(usize, usize)>,
    /// Where the last piece ends in the source.
    end: usize,
    /// The first blank line inside.
    pub(super) blank: Option<Span>,
    /// The first over-long physical line in it.
    pub(super) too_long: Option<(u32, Span)>,
}

impl<'t> Logical<'t> {
    /// Joins `first` with what continues it.
    pub(super) fn join(first: Physical<'t>, escape: char, reader: &mut Reader<'t>) -> Self {
        let mut line = Self::default();
        line.note_length(&first);
        let indent = first.text.len() - first.text.trim_start().len();
        let mut physical = first;
        let mut skip = indent;
        loop {
            let before = physical.continued(escape);
            let text = before.unwrap_or(physical.text);
            line.push(text.get(skip..).unwrap_or_default(), physical.start + skip);
            if before.is_none() {
                return line;
            }
            skip = 0;
            physical = loop {
                let Some(next) = reader.next() else { return line };
                line.note_length(&next);
                if next.is_comment() {
                    continue;
                }
                if next.text.trim_start().is_empty() {
                    line.blank.get_or_insert(Span::new(next.start, next.start + next.raw.len()));
                    continue;
                }
                break next;
            };
        }
    }

    fn note_length(&mut self, physical: &Physical<'_>) {
        if physical.too_long() && self.too_long.is_none() {
            self.too_long = Some((physical.number, physical.span()));
        }
    }

    fn push(&mut self, text: &'t str, source: usize) {
        if self.end == 0 {
            // A piece ends behind where the text begins, so that this is the first one, or nothing stands before it.
            (self.text, self.first) = (Cow::Borrowed(text), source);
        } else {
            self.others.push((self.text.len(), source));
            self.text.to_mut().push_str(text);
        }
        self.end = source + text.len();
    }

    /// Where the byte at `offset` came from.
    fn source(&self, offset: usize) -> usize {
        let index = self.others.partition_point(|(here, _)| *here <= offset);
        let (here, source) = index.checked_sub(1).and_then(|index| self.others.get(index)).copied().unwrap_or((0, self.first));
        source + offset.saturating_sub(here)
    }

    /// The place of `start..end`.
    fn span(&self, start: usize, end: usize) -> Span {
        let from = self.source(start);
        if end <= start {
            return Span::new(from, from);
        }
        // The end belongs to the piece of the last byte, not to the piece that begins there.
        Span::new(from, self.source(end - 1) + 1)
    }

    /// All of it.
    pub(super) fn whole(&self) -> Cut<'_> {
        Cut { line: self, start: 0, end: self.text.len() }
    }
}

/// A part of a logical line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cut<'l> {
    line: &'l Logical<'l>,
    start: usize,
    end: usize,
}

/// What `reWhitespace` splits at: the blanks of ASCII, no line feed.
pub(super) fn is_blank(byte: char) -> bool {
    matches!(byte, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

impl<'l> Cut<'l> {
    /// The text.
    pub(super) fn text(self) -> &'l str {
        self.line.text.get(self.start..self.end).unwrap_or_default()
    }

    /// Is nothing in it?
    pub(super) fn is_empty(self) -> bool {
        self.start >= self.end
    }

    /// The place in the source.
    pub(super) fn span(self) -> Span {
        self.line.span(self.start, self.end)
    }

    /// As a word.
    pub(super) fn word(self) -> Word {
        Word { text: self.text().to_owned(), span: self.span() }
    }

    /// The part from `from` to `to`, relative to this one.
    pub(super) fn part(self, from: usize, to: usize) -> Self {
        let clamp = |offset: usize| (self.start + offset).min(self.end);
        Self { start: clamp(from), end: clamp(to), ..self }
    }

    /// The part from `from` on.
    pub(super) fn from(self, from: usize) -> Self {
        self.part(from, self.end - self.start)
    }

    /// Without white space at the head.
    pub(super) fn trim_start(self) -> Self {
        let text = self.text();
        self.from(text.len() - text.trim_start().len())
    }

    /// Without white space at both ends.
    pub(super) fn trim(self) -> Self {
        let head = self.trim_start();
        head.part(0, head.text().trim_end().len())
    }

    /// Splits at the first run of blanks.
    pub(super) fn split_blank(self) -> (Self, Option<Self>) {
        let text = self.text();
        let Some(at) = text.find(is_blank) else { return (self, None) };
        let tail = self.from(at);
        let blanks = tail.text().len() - tail.text().trim_start_matches(is_blank).len();
        (self.part(0, at), Some(tail.from(blanks)))
    }

    /// Splits at every run of blanks, as Go's `Split` does: a blank at an end gives an empty part.
    pub(super) fn split_blanks(self) -> Vec<Self> {
        let mut parts = Vec::new();
        let mut rest = self;
        while let (head, Some(tail)) = rest.split_blank() {
            parts.push(head);
            rest = tail;
        }
        parts.push(rest);
        parts
    }

    /// Splits at the first `mark`, which is in neither part.
    pub(super) fn split_at(self, mark: char) -> Option<(Self, Self)> {
        let at = self.text().find(mark)?;
        Some((self.part(0, at), self.from(at + mark.len_utf8())))
    }
}
