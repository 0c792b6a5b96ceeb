//! How the rest of a line is cut into words, before any variable is expanded.
//!
//! Source: BuildKit `parser/line_parsers.go` (`parseWords`, `parseJSON`) and `parser/split_command.go`.

use crate::diag::Span;

use super::lines::Cut;

/// Cuts at white space outside quotes; quotes and escapes stay in the words.
pub(super) fn quoted_words(rest: Cut<'_>, escape: char) -> Vec<Cut<'_>> {
    let text = rest.text();
    let mut words = Vec::new();
    let mut start = None;
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, ch)) = chars.next() {
        if quote.is_none() && ch.is_whitespace() {
            words.extend(start.take().map(|from| rest.part(from, at)));
            continue;
        }
        let from = *start.get_or_insert(at);
        if quote == Some(ch) {
            quote = None;
        } else if quote.is_none() && matches!(ch, '\'' | '"') {
            quote = Some(ch);
        } else if ch == escape && quote != Some('\'') && chars.next().is_none() {
            // An escape character at the very end is dropped.
            if at > from {
                words.push(rest.part(from, at));
            }
            return words;
        }
    }
    words.extend(start.map(|from| rest.from(from)));
    words
}

/// A builder flag: `--name=value` at the head of an instruction.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Flag {
    /// Without its quotes and escapes.
    pub(super) text: String,
    /// As written.
    pub(super) span: Span,
    /// What stands after the `=`; the whole flag where there is none.
    pub(super) value: Span,
}

/// Takes the flags from the head; what is left is not yet trimmed.
pub(super) fn take_flags(rest: Cut<'_>) -> (Vec<Flag>, Cut<'_>) {
    let mut flags = Vec::new();
    let mut rest = rest.trim_start();
    while rest.text().starts_with("--") {
        let (text, length) = unquote(rest.text());
        let after = rest.from(length);
        if text == "--" {
            return (flags, after);
        }
        let written = rest.part(0, length);
        let value = written.split_at('=').map_or(written, |(_, value)| value);
        flags.push(Flag { text, span: written.span(), value: value.span() });
        rest = after.trim_start();
    }
    (flags, rest)
}

/// The first word without quotes and escapes, and its length as written. The escape character is always `\` here.
fn unquote(text: &str) -> (String, usize) {
    let mut out = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text.char_indices();
    while let Some((at, ch)) = chars.next() {
        match (quote, ch) {
            (None, _) if ch.is_whitespace() => return (out, at),
            (None, '\'' | '"') => quote = Some(ch),
            (Some(own), _) if own == ch => quote = None,
            (_, '\\') => out.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => out.push(ch),
        }
    }
    (out, text.len())
}

/// What an attempt to read the exec form gives.
#[derive(Debug)]
pub(super) enum Array {
    /// The strings, with their places, quotes included.
    Strings(Vec<(String, Span)>),
    /// An array, but this element is not a string.
    NotStrings(Span),
    /// Not JSON: the shell form.
    No,
}

/// Nesting that Go's decoder accepts.
const DEEPEST: usize = 10_000;

/// Reads `rest` as a JSON array; with anything but blanks after it, it is none.
pub(super) fn json_array(rest: Cut<'_>) -> Array {
    let rest = rest.trim_start();
    if !rest.text().starts_with('[') {
        return Array::No;
    }
    let mut scan = Scan { cut: rest, bytes: rest.text().as_bytes(), at: 1 };
    scan.array().unwrap_or(Array::No)
}

/// A reader of JSON that keeps places and never recurses.
struct Scan<'l> {
    cut: Cut<'l>,
    bytes: &'l [u8],
    at: usize,
}

impl Scan<'_> {
    fn array(&mut self) -> Option<Array> {
        let mut strings = Vec::new();
        let mut odd = None;
        let mut first = true;
        loop {
            self.blanks();
            if first && self.take(b']') {
                break;
            }
            first = false;
            let start = self.at;
            if self.peek() == Some(b'"') {
                let text = self.string()?;
                strings.push((text, self.cut.part(start, self.at).span()));
            } else {
                self.value()?;
                odd.get_or_insert(self.cut.part(start, self.at).span());
            }
            self.blanks();
            if self.take(b']') {
                break;
            }
            if !self.take(b',') {
                return None;
            }
        }
        self.blanks();
        if self.at < self.bytes.len() {
            return None;
        }
        Some(odd.map_or(Array::Strings(strings), Array::NotStrings))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn blanks(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// A string with its quotes; lone surrogates become U+FFFD, as in Go.
    fn string(&mut self) -> Option<String> {
        if !self.take(b'"') {
            return None;
        }
        let mut out = Vec::new();
        loop {
            let byte = self.peek()?;
            self.at += 1;
            match byte {
                b'"' => return String::from_utf8(out).ok(),
                b'\\' => {
                    let ch = self.escape()?;
                    out.extend_from_slice(ch.encode_utf8(&mut [0; 4]).as_bytes());
                }
                0..0x20 => return None,
                _ => out.push(byte),
            }
        }
    }

    fn escape(&mut self) -> Option<char> {
        let byte = self.peek()?;
        self.at += 1;
        Some(match byte {
            b'"' | b'\\' | b'/' => char::from(byte),
            b'b' => '\x08',
            b'f' => '\x0c',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => return self.unicode(),
            _ => return None,
        })
    }

    fn unicode(&mut self) -> Option<char> {
        let high = self.hex()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let back = self.at;
        if self.take(b'\\') && self.take(b'u') {
            let low = self.hex()?;
            if (0xdc00..0xe000).contains(&low) {
                return char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00));
            }
        }
        self.at = back;
        Some(char::REPLACEMENT_CHARACTER)
    }

    fn hex(&mut self) -> Option<u32> {
        let digits = self.bytes.get(self.at..self.at + 4)?;
        self.at += 4;
        digits.iter().try_fold(0, |sum, digit| Some(sum * 16 + char::from(*digit).to_digit(16)?))
    }

    /// Any value that is not a string, for its validity alone.
    fn value(&mut self) -> Option<()> {
        // What is open: `]` or `}`.
        let mut open = Vec::new();
        loop {
            self.blanks();
            match self.peek()? {
                b'[' | b'{' => self.at += 1,
                _ => self.scalar()?,
            }
            // An opening bracket was taken if the byte before is one and no scalar ended there.
            match self.bytes.get(self.at - 1) {
                Some(b'[') => {
                    open.push(b']');
                    self.blanks();
                    if self.peek()? != b']' {
                        continue;
                    }
                }
                Some(b'{') => {
                    open.push(b'}');
                    self.blanks();
                    if self.peek()? != b'}' {
                        self.key()?;
                        continue;
                    }
                }
                _ => {}
            }
            if open.len() >= DEEPEST {
                return None;
            }
            if self.close(&mut open)? {
                return Some(());
            }
        }
    }

    /// After a value: takes what closes and the comma; true when nothing is open any more.
    fn close(&mut self, open: &mut Vec<u8>) -> Option<bool> {
        while let Some(bracket) = open.last() {
            self.blanks();
            if self.take(*bracket) {
                open.pop();
                continue;
            }
            if !self.take(b',') {
                return None;
            }
            if *bracket == b'}' {
                self.blanks();
                self.key()?;
            }
            return Some(false);
        }
        Some(true)
    }

    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.blanks();
        self.take(b':').then_some(())
    }

    fn scalar(&mut self) -> Option<()> {
        if self.peek() == Some(b'"') {
            return self.string().map(drop);
        }
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| !matches!(byte, b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'+' | b'-' | b'.'));
        let text = std::str::from_utf8(rest.get(..length.unwrap_or(rest.len()))?).ok()?;
        self.at += text.len();
        (matches!(text, "true" | "false" | "null") || is_number(text)).then_some(())
    }
}

/// A JSON number that fits a float.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let leading_zero = digits.starts_with('0') && digits.as_bytes().get(1).is_some_and(u8::is_ascii_digit);
    let mantissa = digits.split(['e', 'E']).next().unwrap_or_default();
    let shaped = digits.starts_with(|ch: char| ch.is_ascii_digit()) && !mantissa.ends_with('.');
    shaped && !leading_zero && text.parse::<f64>().is_ok_and(f64::is_finite)
}
