//! One shell pattern as Go's `path/filepath/match.go` reads it, compiled to chunks.
//!
//! Invariant: a [`Glob`] that exists is well formed; matching it never fails and costs at most
//! `pattern × name` steps, because only the last star is ever taken back.

/// A character as a number: a Unicode scalar, or `0x11_0000` + the byte where the text is not UTF-8.
pub(super) type Code = u32;

/// The slash.
pub(super) const SLASH: Code = '/' as Code;

/// A text as codes; bytes that are not UTF-8 stay distinct.
pub(super) fn codes(text: &[u8]) -> Vec<Code> {
    let mut out = Vec::with_capacity(text.len());
    for chunk in text.utf8_chunks() {
        out.extend(chunk.valid().chars().map(u32::from));
        out.extend(chunk.invalid().iter().map(|byte| 0x11_0000 + u32::from(*byte)));
    }
    out
}

/// What matches one character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// That character.
    Is(Code),
    /// `?`: any but the slash.
    Any,
    /// `[…]`: ranges, and whether they are negated. The slash is a character like others in it.
    Class(Vec<(Code, Code)>, bool),
}

impl Item {
    /// Does it match `code`?
    pub(super) fn takes(&self, code: Code) -> bool {
        match self {
            Self::Is(own) => *own == code,
            Self::Any => code != SLASH,
            Self::Class(ranges, negated) => ranges.iter().any(|(low, high)| (*low..=*high).contains(&code)) != *negated,
        }
    }
}

/// A run of items, with a star before it or not.
#[derive(Debug, Clone)]
struct Chunk {
    star: bool,
    items: Vec<Item>,
}

/// A compiled pattern.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    chunks: Vec<Chunk>,
}

impl Glob {
    /// Compiles; `None` where Go says `ErrBadPattern`.
    pub(super) fn compile(pattern: &[Code]) -> Option<Self> {
        let mut chunks = Vec::new();
        let mut rest = pattern;
        while !rest.is_empty() {
            let stars = rest.iter().take_while(|code| **code == '*' as Code).count();
            let mut chunk = Chunk { star: stars > 0, items: Vec::new() };
            rest = rest.get(stars..).unwrap_or_default();
            while let Some(first) = rest.first()
                && *first != '*' as Code
            {
                let (item, after) = read_item(rest)?;
                chunk.items.push(item);
                rest = after;
            }
            chunks.push(chunk);
        }
        Some(Self { chunks })
    }

    /// Does it match the whole name?
    pub(super) fn matches(&self, name: &[Code]) -> bool {
        let mut rest = name;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let last = index + 1 == self.chunks.len();
            if chunk.star && chunk.items.is_empty() {
                return !rest.contains(&SLASH);
            }
            let Some(after) = chunk.find(rest, last) else { return false };
            rest = after;
        }
        rest.is_empty()
    }
}

impl Chunk {
    /// The rest after the first place where the chunk fits; the last chunk must reach the end.
    fn find<'n>(&self, name: &'n [Code], last: bool) -> Option<&'n [Code]> {
        let mut at = 0;
        loop {
            let tail = name.get(at..)?;
            if let Some(after) = self.fits(tail)
                && (!last || after.is_empty())
            {
                return Some(after);
            }
            if !self.star || tail.first().is_none_or(|code| *code == SLASH) {
                return None;
            }
            at += 1;
        }
    }

    fn fits<'n>(&self, name: &'n [Code]) -> Option<&'n [Code]> {
        let (head, tail) = name.split_at_checked(self.items.len())?;
        self.items.iter().zip(head).all(|(item, code)| item.takes(*code)).then_some(tail)
    }
}

/// One item from the head of a pattern that does not begin with a star.
fn read_item(pattern: &[Code]) -> Option<(Item, &[Code])> {
    let (first, rest) = pattern.split_first()?;
    match char::from_u32(*first) {
        Some('[') => read_class(rest),
        Some('?') => Some((Item::Any, rest)),
        Some('\\') => rest.split_first().map(|(code, after)| (Item::Is(*code), after)),
        _ => Some((Item::Is(*first), rest)),
    }
}

/// The inside of `[…]`.
fn read_class(pattern: &[Code]) -> Option<(Item, &[Code])> {
    let negated = pattern.first() == Some(&('^' as Code));
    let mut rest = if negated { pattern.get(1..)? } else { pattern };
    let mut ranges = Vec::new();
    loop {
        if rest.first() == Some(&(']' as Code)) && !ranges.is_empty() {
            return Some((Item::Class(ranges, negated), rest.get(1..)?));
        }
        let (low, after) = class_end(rest)?;
        rest = after;
        let mut high = low;
        if rest.first() == Some(&('-' as Code)) {
            (high, rest) = class_end(rest.get(1..)?)?;
        }
        ranges.push((low, high));
    }
}

/// One end of a range; something must follow it.
fn class_end(pattern: &[Code]) -> Option<(Code, &[Code])> {
    let (first, rest) = pattern.split_first()?;
    let (code, rest) = match char::from_u32(*first) {
        Some('-' | ']') | None => return None,
        Some('\\') => rest.split_first().map(|(code, after)| (*code, after))?,
        Some(_) => (*first, rest),
    };
    (!rest.is_empty() && code < 0x11_0000).then_some((code, rest))
}
