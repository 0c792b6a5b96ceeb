//! Word expansion: variables, quotes and escapes, as a pure function.
//!
//! It reads a word once, from left to right. Nested substitutions are bounded in depth and every result in size, because
//! `ENV A=$A$A` doubles a value with each line.
//!
//! Source: BuildKit `frontend/dockerfile/shell/lex.go`; quirks kept.

use std::collections::BTreeSet;
use std::iter::Peekable;
use std::str::Chars;

use super::shell_pattern::ShellPattern;
use super::{ExpandError, Expanded, Mode};

/// The largest value in bytes. The kernel takes no variable above 128 KiB.
pub(super) const LARGEST: usize = 1 << 20;
/// How deep `${a:-${b:-…}}` may go.
const DEEPEST: usize = 64;

/// What a word is expanded with.
type LookUp<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Expands one word (BuildKit's `ProcessWord`). `look_up` gives a variable's value.
pub fn expand(word: &str, escape: char, mode: Mode, look_up: &dyn Fn(&str) -> Option<String>) -> Result<Expanded, ExpandError> {
    let mut lexer = Lexer::new(word, escape, mode, look_up);
    let text = lexer.until(None, mode.raw_escapes).map_err(|error| error.of(word))?;
    Ok(Expanded { text, unset: lexer.unset.into_iter().collect(), used: lexer.used.into_iter().collect() })
}

/// Expands and splits at unquoted blanks (BuildKit's `ProcessWords`).
pub fn expand_words(text: &str, escape: char, mode: Mode, look_up: &dyn Fn(&str) -> Option<String>) -> Result<Vec<String>, ExpandError> {
    let mut lexer = Lexer::new(text, escape, mode, look_up);
    lexer.until(None, mode.raw_escapes).map_err(|error| error.of(text))?;
    Ok(lexer.words.finish())
}

/// The error of a value that grew beyond [`LARGEST`].
pub(super) fn too_large() -> ExpandError {
    ExpandError::new(format!("the value is larger than {} KiB", LARGEST / 1024))
        .help("a variable that holds itself twice doubles with each line")
}

impl ExpandError {
    fn of(self, word: &str) -> Self {
        Self { message: format!("failed to process {word:?}: {}", self.message), ..self }
    }
}

const NOT_CLOSED: &str = "syntax error: missing '}'";
/// What to do about it.
const CLOSE: &str = "close it with `}`";

/// What may follow a name in braces.
const OPERATORS: &str = "after the name may stand `:-`, `:+`, `:?`, `-`, `+`, `?`, `#`, `%` or `/`";

fn error<T>(message: impl Into<String>, help: &str) -> Result<T, ExpandError> {
    Err(ExpandError::new(message).help(help))
}

/// What stands after the name in braces and is no operator; `None`: the text ends there.
fn unsupported<T>(shown_modifier: &str, modifier: Option<char>) -> Result<T, ExpandError> {
    error(format!("unsupported modifier ({shown_modifier}) in substitution"), if modifier.is_none() { CLOSE } else { OPERATORS })
}

/// A variable that must be set and is not.
fn must_be_set<T>(name: &str, words: &str) -> Result<T, ExpandError> {
    let help = format!("give it a value: `ARG {name}=…`, `ENV {name}=…`, or `ARG {name}` and `--build-arg {name}=…`");
    Err(ExpandError { unset: Some(name.to_owned()), ..ExpandError::new(format!("{name}: {words}")).help(help) })
}

/// A character, or what Go prints for the end of the text.
fn shown(ch: Option<char>) -> char {
    ch.unwrap_or(char::REPLACEMENT_CHARACTER)
}

/// Collects words; blanks split only where they are not raw.
#[derive(Default)]
struct Words {
    word: String,
    words: Vec<String>,
}

impl Words {
    fn push(&mut self, ch: char) {
        if !ch.is_whitespace() {
            self.word.push(ch);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    /// Adds a piece; a raw one is not split.
    fn add(&mut self, piece: &str, raw: bool) {
        if raw {
            self.word.push_str(piece);
        } else {
            piece.chars().for_each(|ch| self.push(ch));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

struct Lexer<'a> {
    chars: Peekable<Chars<'a>>,
    escape: char,
    mode: Mode,
    /// Of the part that is being read; patterns keep their escapes.
    raw_escapes: bool,
    look_up: LookUp<'a>,
    depth: usize,
    words: Words,
    used: BTreeSet<String>,
    unset: BTreeSet<String>,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str, escape: char, mode: Mode, look_up: LookUp<'a>) -> Self {
        let chars = text.chars().peekable();
        Self {
            chars,
            escape,
            mode,
            raw_escapes: mode.raw_escapes,
            look_up,
            depth: 0,
            words: Words::default(),
            used: BTreeSet::new(),
            unset: BTreeSet::new(),
        }
    }

    /// Reads up to `stop`, which is taken, or to the end of the text if there is none.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<String, ExpandError> {
        if self.depth > DEEPEST {
            return error(format!("substitutions are nested more than {DEEPEST} deep"), "set a variable to a part of it, and use that");
        }
        // BuildKit's levels share one buffer for the unfinished word: a substitution loses what stands before it. Only
        // where a text is split into words (EXPOSE) does it show.
        self.words.word.clear();
        let before = std::mem::replace(&mut self.raw_escapes, raw_escapes);
        self.depth += 1;
        let result = self.read(stop);
        self.depth -= 1;
        self.raw_escapes = before;
        result
    }

    fn read(&mut self, stop: Option<char>) -> Result<String, ExpandError> {
        let mut result = String::new();
        while let Some(&ch) = self.chars.peek() {
            if result.len() > LARGEST {
                return Err(too_large());
            }
            if Some(ch) == stop {
                self.chars.next();
                return Ok(result);
            }
            let from = result.len();
            let raw = match ch {
                '$' => {
                    result.push_str(&self.dollar()?);
                    false
                }
                '\'' | '"' if self.mode.skip_quotes => self.plain(ch, &mut result),
                '\'' => self.single_quoted(&mut result)?,
                '"' => self.double_quoted(&mut result)?,
                '<' => self.heredoc_mark(&mut result),
                _ => self.plain(ch, &mut result),
            };
            if self.depth == 1 {
                let added = result.get(from..).unwrap_or_default();
                self.words.add(added, raw);
            }
        }
        match stop {
            Some(stop) => {
                error(format!("unexpected end of statement while looking for matching {stop}"), &format!("close it with `{stop}`"))
            }
            None => Ok(result),
        }
    }

    /// A character without a meaning, or an escape and what it escapes; true if that must not split.
    fn plain(&mut self, ch: char, out: &mut String) -> bool {
        self.chars.next();
        if ch != self.escape {
            out.push(ch);
            return false;
        }
        out.extend(Some(ch).filter(|_| self.raw_escapes));
        out.extend(self.chars.next());
        true
    }

    /// `<`, or `<<` with the blanks after it: they belong to the word that follows.
    fn heredoc_mark(&mut self, out: &mut String) -> bool {
        out.extend(self.chars.next());
        if let Some(second) = self.chars.next_if_eq(&'<') {
            out.push(second);
            while let Some(blank) = self.chars.next_if(|ch| ch.is_whitespace()) {
                out.push(blank);
            }
        }
        true
    }

    fn single_quoted(&mut self, out: &mut String) -> Result<bool, ExpandError> {
        let quote = self.chars.next();
        out.extend(quote.filter(|_| self.mode.raw_quotes));
        for ch in self.chars.by_ref() {
            if ch == '\'' {
                out.extend(quote.filter(|_| self.mode.raw_quotes));
                return Ok(true);
            }
            out.push(ch);
        }
        error("unexpected end of statement while looking for matching single-quote", "close it with `'`, or put the whole in double quotes")
    }

    fn double_quoted(&mut self, out: &mut String) -> Result<bool, ExpandError> {
        let quote = self.chars.next();
        out.extend(quote.filter(|_| self.mode.raw_quotes));
        while let Some(&ch) = self.chars.peek() {
            if out.len() > LARGEST {
                return Err(too_large());
            }
            if ch == '$' {
                out.push_str(&self.dollar()?);
                continue;
            }
            self.chars.next();
            if ch == '"' {
                out.extend(quote.filter(|_| self.mode.raw_quotes));
                return Ok(true);
            }
            if ch != self.escape {
                out.push(ch);
                continue;
            }
            if self.raw_escapes {
                out.push(ch);
            }
            match self.chars.peek().copied() {
                // An escape at the end of the word means nothing.
                None => {}
                Some(next) if next == '"' || next == '$' || next == self.escape => out.extend(self.chars.next()),
                Some(_) => out.push(ch),
            }
        }
        error(
            "unexpected end of statement while looking for matching double-quote",
            "close it with `\"`, or write `\\\"` for the character itself",
        )
    }

    /// `$name`, `${name}` and `${name…}`.
    fn dollar(&mut self) -> Result<String, ExpandError> {
        self.chars.next();
        if self.chars.peek() != Some(&'{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".to_owned());
            }
            let value = self.value(&name);
            return Ok(value.unwrap_or_else(|| if self.mode.skip_unset { format!("${name}") } else { String::new() }));
        }
        self.chars.next();
        match self.chars.peek() {
            None => return error(NOT_CLOSED, CLOSE),
            Some('{' | '}' | ':') => return error("syntax error: bad substitution", "a name must follow `${`"),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            Some('}') => {
                let value = self.value(&name);
                Ok(value.unwrap_or_else(|| if self.mode.skip_unset { format!("${{{name}}}") } else { String::new() }))
            }
            Some(':') => {
                let modifier = self.chars.next();
                if matches!(modifier, Some('#' | '%')) {
                    return unsupported(&format!(":{}", shown(modifier)), modifier);
                }
                self.modified(&name, modifier, true)
            }
            modifier @ Some('+' | '-' | '?' | '#' | '%') => self.modified(&name, modifier, false),
            Some('/') => self.replaced(&name),
            other => unsupported(&shown(other).to_string(), other),
        }
    }

    /// A name: letters, digits and `_`; or digits alone; or one special character.
    fn name(&mut self) -> String {
        let mut name = String::new();
        if self.chars.peek().is_some_and(|ch| ch.is_numeric()) {
            while let Some(digit) = self.chars.next_if(|ch| ch.is_numeric()) {
                name.push(digit);
            }
            return name;
        }
        if let Some(special) = self.chars.next_if(|ch| matches!(ch, '@' | '*' | '#' | '?' | '-' | '$' | '!')) {
            return special.to_string();
        }
        while let Some(ch) = self.chars.next_if(|ch| ch.is_alphanumeric() || *ch == '_') {
            name.push(ch);
        }
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        let value = (self.look_up)(name);
        let names = if value.is_some() { &mut self.used } else { &mut self.unset };
        if !names.contains(name) {
            names.insert(name.to_owned());
        }
        value
    }

    /// The text up to `stop` inside braces; running out of text has its own words.
    fn inner(&mut self, stop: char, raw_escapes: bool, (missing, help): (&str, &str)) -> Result<String, ExpandError> {
        let result = self.until(Some(stop), raw_escapes);
        result.or_else(|inner| if self.chars.peek().is_none() { error(missing, help) } else { Err(inner) })
    }

    /// `${name:-word}` and its kin; `null` is the colon.
    fn modified(&mut self, name: &str, modifier: Option<char>, null: bool) -> Result<String, ExpandError> {
        let trims = matches!(modifier, Some('#' | '%'));
        let word = self.inner('}', trims, (NOT_CLOSED, CLOSE))?;
        let value = self.value(name);
        let shown_modifier = format!("{}{}", if null { ":" } else { "" }, shown(modifier));
        if value.is_none() && self.mode.skip_unset {
            return Ok(format!("${{{name}{shown_modifier}{word}}}"));
        }
        let present = value.as_ref().filter(|value| !(null && value.is_empty()));
        match modifier {
            Some('-') => Ok(present.cloned().unwrap_or(word)),
            Some('+') => Ok(if present.is_some() { word } else { String::new() }),
            Some('?') => match present {
                Some(value) => Ok(value.clone()),
                None if !word.is_empty() => must_be_set(name, &word),
                None if value.is_some() => must_be_set(name, "is not allowed to be empty"),
                None => must_be_set(name, "is not allowed to be unset"),
            },
            Some(side @ ('#' | '%')) => trim(&word, &value.unwrap_or_default(), side),
            _ => unsupported(&shown_modifier, modifier),
        }
    }

    /// `${name/pattern/replacement}` and with `//` all of them.
    fn replaced(&mut self, name: &str) -> Result<String, ExpandError> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.inner('/', true, ("syntax error: missing '/' in ${}", "write `${name/pattern/replacement}`"))?;
        let replacement = self.inner('}', true, (NOT_CLOSED, CLOSE))?;
        let value = self.value(name);
        if value.is_none() && self.mode.skip_unset {
            return Ok(format!("${{{name}/{pattern}/{replacement}}}"));
        }
        let text: Vec<char> = value.unwrap_or_default().chars().collect();
        let compiled = compile(&pattern, &pattern.chars().collect::<Vec<_>>(), true)?;
        if all {
            return compiled.replace_all(&text, &replacement);
        }
        let Some((start, end)) = compiled.find(&text)? else { return Ok(text.into_iter().collect()) };
        let part = |from, to| text.get(from..to).unwrap_or_default().iter().collect::<String>();
        Ok(part(0, start) + &replacement + &part(end, text.len()))
    }
}

fn compile(shown: &str, pattern: &[char], greedy: bool) -> Result<ShellPattern, ExpandError> {
    ShellPattern::new(pattern, greedy)
        .map_err(|message| ExpandError::new(format!("invalid pattern ({shown}) in substitution: {message}")))
        .map_err(|error| error.help("a pattern knows `*`, `?`, and `\\*`, `\\?`, `\\\\` for the characters themselves"))
}

/// `${v#p}`, `${v##p}`, `${v%p}`, `${v%%p}`.
fn trim(word: &str, value: &str, side: char) -> Result<String, ExpandError> {
    let longest = word.strip_prefix(side);
    let pattern = longest.unwrap_or(word);
    let mut pattern: Vec<char> = pattern.chars().collect();
    let mut text: Vec<char> = value.chars().collect();
    if side == '%' {
        // The shortest suffix is the shortest prefix of it all turned round.
        pattern = reversed(&pattern);
        text.reverse();
    }
    let shown: String = pattern.iter().collect();
    let end = compile(&shown, &pattern, longest.is_some())?.prefix(&text)?.unwrap_or(0);
    let mut rest = text.split_off(end.min(text.len()));
    if side == '%' {
        rest.reverse();
    }
    Ok(rest.into_iter().collect())
}

/// Turned round, but an escape stays before what it escapes.
fn reversed(pattern: &[char]) -> Vec<char> {
    let mut out = Vec::with_capacity(pattern.len());
    let mut chars = pattern.iter().copied().peekable();
    while let Some(ch) = chars.next() {
        match (ch, chars.peek().copied()) {
            ('\\', Some(escaped)) => {
                chars.next();
                out.extend([escaped, '\\']);
            }
            _ => out.push(ch),
        }
    }
    out.reverse();
    out
}
