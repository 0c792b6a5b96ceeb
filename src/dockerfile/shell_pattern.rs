//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, nothing else.
//!
//! BuildKit translates them to regular expressions; ours finds the same match (leftmost, the wildcards greedy or not in
//! the order they stand) with a bounded search. In a replacement of `//` a `$1`, `${name}` or `$0` is a
//! group of the regular expression: that quirk is kept, files rely on what they see.
//!
//! Source: BuildKit `frontend/dockerfile/shell/lex.go` (`convertShellPatternToRegex`, `trimPrefix`, `trimSuffix`).

use super::ExpandError;

/// The most steps one search may take; far beyond any real value.
const MOST_STEPS: usize = 1 << 24;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Is(char),
    One,
    Star,
}

/// A pattern that was read.
#[derive(Debug)]
pub(super) struct ShellPattern {
    parts: Vec<Part>,
    greedy: bool,
}

impl ShellPattern {
    /// Reads; `Err` holds BuildKit's words.
    pub(super) fn new(pattern: &[char], greedy: bool) -> Result<Self, String> {
        let mut parts = Vec::with_capacity(pattern.len());
        let mut chars = pattern.iter().copied().peekable();
        while let Some(ch) = chars.next() {
            parts.push(match ch {
                '*' => Part::Star,
                '?' => Part::One,
                '\\' => match chars.peek() {
                    // Escaped only for the braces around: the escape is not part of the pattern.
                    Some('}' | '/') => continue,
                    Some(&own @ ('*' | '?' | '\\')) => {
                        chars.next();
                        Part::Is(own)
                    }
                    other => return Err(format!("invalid escape '\\{}'", other.copied().unwrap_or(char::REPLACEMENT_CHARACTER))),
                },
                _ => Part::Is(ch),
            });
        }
        Ok(Self { parts, greedy })
    }

    /// Where a match that begins at the start of `text` ends.
    pub(super) fn prefix(&self, text: &[char]) -> Result<Option<usize>, ExpandError> {
        Search::new(self, text)?.end_from(0)
    }

    /// The first match.
    pub(super) fn find(&self, text: &[char]) -> Result<Option<(usize, usize)>, ExpandError> {
        Search::new(self, text)?.find(0)
    }

    /// Replaces every match, as Go's `ReplaceAllString` does.
    pub(super) fn replace_all(&self, text: &[char], replacement: &str) -> Result<String, ExpandError> {
        let mut search = Search::new(self, text)?;
        let mut out = String::new();
        let (mut copied, mut from) = (0, 0);
        while let Some((start, end)) = search.find(from)? {
            out.extend(text.get(copied..start).unwrap_or_default());
            // An empty match right after another one does not count.
            if end > copied || start == 0 {
                let whole: String = text.get(start..end).unwrap_or_default().iter().collect();
                push_template(&mut out, replacement, &whole);
            }
            copied = end;
            from = end.max(from + 1);
            if out.len() > super::expand::LARGEST {
                return Err(super::expand::too_large());
            }
            if from > text.len() {
                break;
            }
        }
        out.extend(text.get(copied..).unwrap_or_default());
        Ok(out)
    }
}

/// Appends a replacement with its `$` groups; there is one group, `$0`, the match.
fn push_template(out: &mut String, template: &str, whole: &str) {
    let mut rest = template;
    while let Some((plain, after)) = rest.split_once('$') {
        out.push_str(plain);
        if let Some(tail) = after.strip_prefix('$') {
            out.push('$');
            rest = tail;
            continue;
        }
        let is_name = |ch: char| ch.is_alphanumeric() || ch == '_';
        let braced = after
            .strip_prefix('{')
            .and_then(|inner| inner.split_once('}'))
            .filter(|(name, _)| !name.is_empty() && name.chars().all(is_name));
        let (name, tail) = braced.unwrap_or_else(|| {
            let length = after.find(|ch| !is_name(ch)).unwrap_or(after.len());
            after.split_at_checked(length).unwrap_or((after, ""))
        });
        if name.is_empty() {
            out.push('$');
            rest = after;
            continue;
        }
        if !name.is_empty() && name.chars().all(|ch| ch == '0') && name.len() == 1 {
            out.push_str(whole);
        }
        rest = tail;
    }
    out.push_str(rest);
}

/// One search: a walk over (part, position) that never takes the same state twice.
struct Search<'p> {
    pattern: &'p ShellPattern,
    text: &'p [char],
    seen: Vec<u64>,
    steps: usize,
}

impl<'p> Search<'p> {
    fn new(pattern: &'p ShellPattern, text: &'p [char]) -> Result<Self, ExpandError> {
        let states = (pattern.parts.len() + 1).saturating_mul(text.len() + 1);
        // Without a star no state can be met twice: the table is not needed.
        let table = if pattern.parts.contains(&Part::Star) { states } else { 0 };
        if table > MOST_STEPS {
            return Err(too_much());
        }
        Ok(Self { pattern, text, seen: vec![0; table.div_ceil(64)], steps: 0 })
    }

    fn find(&mut self, from: usize) -> Result<Option<(usize, usize)>, ExpandError> {
        for start in from..=self.text.len() {
            if let Some(end) = self.end_from(start)? {
                return Ok(Some((start, end)));
            }
        }
        Ok(None)
    }

    /// The end of the preferred match that begins at `start`.
    fn end_from(&mut self, start: usize) -> Result<Option<usize>, ExpandError> {
        let mut marked = Vec::new();
        let mut stack = vec![(0, start)];
        while let Some((part, at)) = stack.pop() {
            self.steps += 1;
            if self.steps > MOST_STEPS {
                return Err(too_much());
            }
            if !self.mark(part, at, &mut marked) {
                continue;
            }
            let next = self.text.get(at).copied();
            // As in a regular expression, a wildcard does not take a line feed.
            let takes = next.is_some_and(|ch| ch != '\n');
            match self.pattern.parts.get(part) {
                None => {
                    // What was marked on the way did not fail.
                    for state in marked {
                        self.forget(state);
                    }
                    return Ok(Some(at));
                }
                Some(Part::Is(own)) => stack.extend((next == Some(*own)).then_some((part + 1, at + 1))),
                Some(Part::One) => stack.extend(takes.then_some((part + 1, at + 1))),
                Some(Part::Star) => {
                    let (more, on) = (takes.then_some((part, at + 1)), Some((part + 1, at)));
                    let (preferred, other) = if self.pattern.greedy { (more, on) } else { (on, more) };
                    stack.extend(other);
                    stack.extend(preferred);
                }
            }
        }
        Ok(None)
    }

    /// Marks a state; false if it was met before.
    fn mark(&mut self, part: usize, at: usize, marked: &mut Vec<usize>) -> bool {
        let state = part * (self.text.len() + 1) + at;
        let Some(word) = self.seen.get_mut(state / 64) else { return true };
        let bit = 1 << (state % 64);
        let fresh = *word & bit == 0;
        *word |= bit;
        if fresh {
            marked.push(state);
        }
        fresh
    }

    fn forget(&mut self, state: usize) {
        if let Some(word) = self.seen.get_mut(state / 64) {
            *word &= !(1 << (state % 64));
        }
    }
}

fn too_much() -> ExpandError {
    ExpandError::new("the pattern of a substitution is too much work for so long a value").help("write it with fewer `*`")
}
