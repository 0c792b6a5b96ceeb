//! The text of a `.dockerignore`, and one of its patterns as a machine over characters.
//!
//! Source: moby/patternmatcher `ignorefile.go` and `patternmatcher.go`. Ours is a set of states that is stepped
//! through a path once: at each slash it is known whether the parent matched, so "a match of a parent
//! counts" costs nothing, and no pattern can take more than `pattern × path` steps.

use super::glob::{Code, Glob, Item, SLASH, codes};

/// The patterns that the text of an ignore file holds, cleaned, `!` in front where it stood.
pub fn read_ignorefile(text: &[u8]) -> Vec<Vec<u8>> {
    read_lines(text).map(|(_, pattern)| pattern).collect()
}

/// The same, each with its line, from 1.
pub(super) fn read_lines(text: &[u8]) -> impl Iterator<Item = (usize, Vec<u8>)> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    text.split(|byte| *byte == b'\n').enumerate().filter_map(|(index, line)| Some((index + 1, read_line(line)?)))
}

fn read_line(line: &[u8]) -> Option<Vec<u8>> {
    if line.starts_with(b"#") {
        return None;
    }
    let line = trim(line);
    let (inverted, pattern) = match line.strip_prefix(b"!") {
        Some(rest) => (true, trim(rest)),
        None => (false, line),
    };
    if line.is_empty() {
        return None;
    }
    let mut out = if inverted { vec![b'!'] } else { Vec::new() };
    if !pattern.is_empty() {
        let cleaned = clean(pattern);
        let relative = cleaned.strip_prefix(b"/").filter(|rest| !rest.is_empty());
        out.extend_from_slice(relative.unwrap_or(&cleaned));
    }
    Some(out)
}

/// Without white space at both ends, as Go's `strings.TrimSpace` sees it.
pub(super) fn trim(text: &[u8]) -> &[u8] {
    // Only valid UTF-8 can hold white space that is not ASCII.
    match std::str::from_utf8(text) {
        Ok(text) => text.trim().as_bytes(),
        Err(_) => text.trim_ascii(),
    }
}

/// Go's `filepath.Clean` for slashes.
pub(super) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => match parts.last() {
                Some(last) if *last != b".." => drop(parts.pop()),
                None if rooted => {}
                Some(_) | None => parts.push(part),
            },
            _ => parts.push(part),
        }
    }
    let joined = parts.join(&b'/');
    match (rooted, joined.is_empty()) {
        (true, _) => [b"/".as_slice(), &joined].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => joined,
    }
}

/// The cleaned parent of a path; empty if it has none.
pub(super) fn clean_parent(path: &[u8]) -> Vec<u8> {
    let end = path.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
    let parent = clean(path.get(..end).unwrap_or_default());
    if parent == b"." { Vec::new() } else { parent }
}

/// A step of the machine.
#[derive(Debug, Clone)]
enum Step {
    /// One character.
    One(Item),
    /// Any number of such characters: `*`.
    Many(Item),
    /// `**` before something: nothing, or anything up to and with a slash.
    Dirs,
    /// Anything at all: `**` at the end.
    All,
    /// Only at the head of the path: `^` where a star or the like stands beside it.
    Head,
}

impl Step {
    /// Does it, after `before`, match what `before` alone does? Thousands of stars cost as much as one.
    fn repeats(&self, before: &Self) -> bool {
        match (self, before) {
            (Self::Dirs, Self::Dirs) | (Self::All, Self::All) => true,
            (Self::Many(one), Self::Many(other)) => one == other,
            _ => false,
        }
    }
}

/// One pattern of a list.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// Written with `!`: takes back what earlier patterns matched.
    pub(super) exception: bool,
    steps: Vec<Step>,
}

impl Pattern {
    /// Compiles a pattern of a list; `Ok(None)` for a blank one, `Err` for one that cannot be read.
    pub(super) fn compile(text: &[u8]) -> Result<Option<Self>, ()> {
        let text = trim(text);
        if text.is_empty() {
            return Ok(None);
        }
        let cleaned = clean(text);
        let (exception, body) = match cleaned.strip_prefix(b"!") {
            Some([]) => return Err(()),
            Some(rest) => (true, rest),
            None => (false, cleaned.as_slice()),
        };
        let body = codes(body);
        if rejected_by_go(&body) {
            return Err(());
        }
        let mut steps = steps(&body).ok_or(())?;
        steps.dedup_by(|next, step| next.repeats(step));
        Ok(Some(Self { exception, steps }))
    }

    /// Does it match the path or one of its parents?
    pub(super) fn matches(&self, path: &[Code]) -> bool {
        let mut states = States::start(&self.steps);
        for code in path {
            if *code == SLASH && states.accept() {
                return true;
            }
            states.advance(*code);
            if states.dead() {
                return false;
            }
        }
        states.accept()
    }

    /// Does it match the path itself?
    pub(super) fn matches_whole(&self, path: &[Code]) -> bool {
        let mut states = States::start(&self.steps);
        for code in path {
            states.advance(*code);
        }
        states.accept()
    }

    /// What is left of it below a directory; `None`: it matches the directory or one above it.
    pub(super) fn below(&self, dir: &[Code]) -> Option<States<'_>> {
        let mut states = States::start(&self.steps);
        for code in dir {
            if *code == SLASH && states.accept() {
                return None;
            }
            states.advance(*code);
            if states.dead() {
                return Some(states);
            }
        }
        if dir.is_empty() {
            return Some(states);
        }
        if states.accept() {
            return None;
        }
        states.advance(SLASH);
        Some(states)
    }

    /// Could it match something below this directory?
    pub(super) fn reaches_below(&self, dir: &[Code]) -> bool {
        let mut states = States::start(&self.steps);
        for code in dir.iter().chain([&SLASH]) {
            states.advance(*code);
            if states.dead() {
                return false;
            }
        }
        true
    }
}

/// Would Go's `filepath.Match(pattern, ".")` call it malformed? It looks no further than it matches.
fn rejected_by_go(pattern: &[Code]) -> bool {
    let mut rest = pattern;
    loop {
        let stars = rest.iter().take_while(|code| **code == '*' as Code).count();
        let (_, after) = rest.split_at_checked(stars).unwrap_or((rest, &[]));
        let length = chunk_length(after);
        let (chunk, next) = after.split_at_checked(length).unwrap_or((after, &[]));
        let Some(glob) = Glob::compile(chunk) else { return true };
        if chunk.is_empty() || next.is_empty() || rest.len() != pattern.len() || !glob.matches(&[DOT]) {
            return false;
        }
        rest = next;
    }
}

const DOT: Code = '.' as Code;
const STAR: Code = '*' as Code;
const OPEN: Code = '[' as Code;
const CLOSE: Code = ']' as Code;
const CARET: Code = '^' as Code;
const DASH: Code = '-' as Code;
const BACKSLASH: Code = '\\' as Code;

/// How far it is to the next star outside brackets.
fn chunk_length(pattern: &[Code]) -> usize {
    let mut inside = false;
    let mut at = 0;
    while let Some(code) = pattern.get(at) {
        match *code {
            BACKSLASH => at += 1,
            OPEN => inside = true,
            CLOSE => inside = false,
            STAR if !inside => break,
            _ => {}
        }
        at += 1;
    }
    at.min(pattern.len())
}

/// The regular expression that patternmatcher would write, as characters and whether they stand for themselves.
#[derive(Default)]
struct Expression {
    text: Vec<(Code, bool)>,
    /// Had the pattern something with a meaning? Else it is compared as text.
    special: bool,
}

impl Expression {
    fn literal(&mut self, code: Code) {
        self.text.push((code, true));
    }

    fn raw(&mut self, text: &str) {
        self.text.extend(text.chars().map(|ch| (Code::from(ch), false)));
    }
}

/// Translates. `**/name` and `**name` are a test of the end of the path, `name/**` one of its head.
fn steps(pattern: &[Code]) -> Option<Vec<Step>> {
    let expression = expression(pattern);
    if expression.special {
        return read_expression(&expression.text);
    }
    let is = |code: &Code| Step::One(Item::Is(*code));
    let mut steps = Vec::new();
    let mut body = pattern;
    if let Some(after) = body.strip_prefix(&[STAR, STAR]) {
        body = after.strip_prefix(&[SLASH]).unwrap_or(after);
        steps.push(if body.len() < after.len() { Step::Dirs } else { Step::All });
    }
    let head = body.strip_suffix(&[STAR, STAR]);
    steps.extend(head.unwrap_or(body).iter().map(is));
    steps.extend(head.map(|_| Step::All));
    Some(steps)
}

fn expression(pattern: &[Code]) -> Expression {
    let mut out = Expression::default();
    let mut stars_first = false;
    let mut rest = pattern;
    while let Some((first, after)) = rest.split_first() {
        let begins = rest.len() == pattern.len();
        rest = after;
        match char::from_u32(*first) {
            Some('*') if after.first() == Some(&STAR) => {
                let after = after.get(1..).unwrap_or_default();
                // `**` and the slash after it are one.
                rest = after.strip_prefix(&[SLASH]).unwrap_or(after);
                if rest.is_empty() {
                    // A test of the head alone needs no expression.
                    out.special |= stars_first;
                    out.raw(".*");
                } else {
                    out.special |= !begins;
                    out.raw("(.*/)?");
                }
                stars_first |= begins;
            }
            Some('*') => {
                out.raw("[^/]*");
                out.special = true;
            }
            Some('?') => {
                out.raw("[^/]");
                out.special = true;
            }
            Some('\\') => {
                if let Some((escaped, after)) = after.split_first() {
                    out.literal(*escaped);
                    out.special = true;
                    rest = after;
                } else {
                    // It escapes the `$` that closes the expression: a dollar, and the end is free.
                    out.literal(Code::from('$'));
                    out.raw(".*");
                }
            }
            Some('[' | ']') => {
                out.text.push((*first, false));
                out.special = true;
            }
            Some('^' | '-') => out.text.push((*first, false)),
            _ => out.literal(*first),
        }
    }
    out
}

/// Reads the expression back; `None` where Go could not compile it.
fn read_expression(text: &[(Code, bool)]) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = text;
    while let Some(((code, literal), after)) = rest.split_first() {
        rest = after;
        let raw = if *literal { None } else { char::from_u32(*code) };
        match raw {
            // What `raw` wrote: `(.*/)?` and `.*`.
            Some('(') => {
                steps.push(Step::Dirs);
                rest = after.get("(.*/)?".len() - 1..)?;
            }
            Some('.') => {
                steps.push(Step::All);
                rest = after.get(1..)?;
            }
            Some('^') => steps.push(Step::Head),
            Some('[') => {
                let (item, after) = read_class(after)?;
                let many = after.first() == Some(&(STAR, false));
                rest = if many { after.get(1..)? } else { after };
                steps.push(if many { Step::Many(item) } else { Step::One(item) });
            }
            _ => steps.push(Step::One(Item::Is(*code))),
        }
    }
    Some(steps)
}

/// The inside of `[…]` as Go's regular expressions have it: a `]` that comes first is a character.
fn read_class(text: &[(Code, bool)]) -> Option<(Item, &[(Code, bool)])> {
    let negated = text.first() == Some(&(CARET, false));
    let mut rest = if negated { text.get(1..)? } else { text };
    let mut ranges = Vec::new();
    loop {
        let (&(low, literal), after) = rest.split_first()?;
        if (low, literal) == (CLOSE, false) && !ranges.is_empty() {
            return Some((Item::Class(ranges, negated), after));
        }
        rest = after;
        let mut high = low;
        if let [(DASH, false), (end, literal), after @ ..] = rest
            && (*end, *literal) != (CLOSE, false)
        {
            high = *end;
            rest = after;
        }
        if high < low {
            return None;
        }
        ranges.push((low, high));
    }
}

/// What the rest of a pattern has to be where a name stands alone.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Rest {
    /// This name.
    Name(Vec<u8>),
    /// A head, anything, a tail.
    Around(Vec<u8>, Vec<u8>),
    /// Something that only the states tell.
    States,
}

impl Rest {
    /// `None`: no name matches, only a path does.
    fn of(steps: &[Step]) -> Option<Self> {
        let slash = |step: &Step| matches!(step, Step::One(Item::Is(code)) if *code == SLASH);
        if steps.is_empty() || steps.iter().any(slash) {
            return None;
        }
        let literal = |step: &Step| if let Step::One(Item::Is(code)) = step { char::from_u32(*code) } else { None };
        let anything = |step: &Step| match step {
            Step::All => true,
            Step::Many(Item::Class(ranges, negated)) => *negated && ranges.as_slice() == [(SLASH, SLASH)],
            Step::Many(_) | Step::One(_) | Step::Dirs | Step::Head => false,
        };
        let head: String = steps.iter().map_while(literal).collect();
        let Some((_, rest)) = steps.split_at_checked(head.chars().count()).filter(|(_, rest)| !rest.is_empty()) else {
            return Some(Self::Name(head.into_bytes()));
        };
        let tail: Option<String> = rest.iter().skip(1).map(literal).collect();
        match tail {
            Some(tail) if rest.first().is_some_and(anything) => Some(Self::Around(head.into_bytes(), tail.into_bytes())),
            _ => Some(Self::States),
        }
    }
}

/// Which steps may come next; the number of steps stands for "all done".
#[derive(Debug, Clone)]
pub(super) struct States<'p> {
    steps: &'p [Step],
    /// Sorted, without doubles; those steps whose turn it is before the next character.
    active: Vec<usize>,
    /// Inside these `Dirs`, waiting for a slash.
    inside: Vec<usize>,
    /// The buffers of the step before.
    spare: (Vec<usize>, Vec<usize>),
}

impl<'p> States<'p> {
    fn start(steps: &'p [Step]) -> Self {
        let mut states = Self { steps, active: Vec::new(), inside: Vec::new(), spare: (Vec::new(), Vec::new()) };
        states.enter(0, true);
        states
    }

    /// A step's turn has come, and that of those after it that may be empty.
    fn enter(&mut self, step: usize, head: bool) {
        let mut step = step;
        while !self.active.contains(&step) {
            self.active.push(step);
            match self.steps.get(step) {
                Some(Step::Many(_) | Step::All) => {}
                Some(Step::Head) if head => {}
                Some(Step::Dirs) => {
                    if !self.inside.contains(&step) {
                        self.inside.push(step);
                    }
                }
                Some(Step::One(_) | Step::Head) | None => return,
            }
            step += 1;
        }
    }

    /// Takes a character; the buffers of the step before are used again, because this runs for every character of every
    /// path of a context.
    fn advance(&mut self, code: Code) {
        let active = std::mem::take(&mut self.active);
        let inside = std::mem::take(&mut self.inside);
        std::mem::swap(&mut self.active, &mut self.spare.0);
        std::mem::swap(&mut self.inside, &mut self.spare.1);
        self.active.clear();
        self.inside.clear();
        for step in &active {
            match self.steps.get(*step) {
                Some(Step::One(item)) if item.takes(code) => self.enter(step + 1, false),
                Some(Step::Many(item)) if item.takes(code) => self.enter(*step, false),
                Some(Step::All) => self.enter(*step, false),
                Some(_) | None => {}
            }
        }
        for step in &inside {
            if !self.inside.contains(step) {
                self.inside.push(*step);
            }
            if code == SLASH {
                self.enter(step + 1, false);
            }
        }
        self.spare = (active, inside);
    }

    /// The states after this text.
    pub(super) fn take(&self, text: &[Code]) -> Self {
        let mut states = self.clone();
        for code in text {
            if states.dead() {
                break;
            }
            states.advance(*code);
        }
        states
    }

    /// What a name may be that is matched from here.
    pub(super) fn rests(&self) -> Vec<Rest> {
        // What may be empty has let the next step in; a star speaks for it.
        let speaks = |step: usize| matches!(self.steps.get(step), Some(Step::Many(_) | Step::All)) && self.active.contains(&step);
        let silent = |step: usize| matches!(self.steps.get(step), Some(Step::Dirs | Step::Head)) || step.checked_sub(1).is_some_and(speaks);
        self.active.iter().filter(|step| !silent(**step)).filter_map(|step| Rest::of(self.steps.get(*step..)?)).collect()
    }

    /// Does `**` stand open, so that any directory leads on?
    pub(super) fn waits_for_any_directory(&self) -> bool {
        !self.inside.is_empty()
    }

    pub(super) fn accept(&self) -> bool {
        self.active.contains(&self.steps.len())
    }

    pub(super) fn dead(&self) -> bool {
        self.active.is_empty() && self.inside.is_empty()
    }
}
