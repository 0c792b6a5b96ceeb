//! The text of a `.dockerignore`, and one of its patterns as a machine over characters.
//!
//! Source: moby/patternmatcher `ignorefile.go` and `patternmatcher.go`. Ours is a set of states that is stepped
//! through a path once: at each slash it is known whether the parent matched, so "a match of a parent
//! counts" costs nothing, and no pattern can take more than `pattern × path` steps.

use super::glob::{Code, Glob, Item, SLASH, codes, read_item};

/// The patterns that the text of an ignore file holds, cleaned, `!` in front where it stood.
pub fn read_ignorefile(text: &[u8]) -> Vec<Vec<u8>> {
    let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
    text.split(|byte| *byte == b'\n').filter_map(read_line).collect()
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
                Some(_) => parts.push(part),
                None if rooted => {}
                None => parts.push(part),
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

/// A step of the machine.
#[derive(Debug, Clone)]
enum Step {
    /// One character.
    One(Item),
    /// `*`: any number of characters but the slash.
    Star,
    /// `**` before something: nothing, or anything up to and with a slash.
    Dirs,
    /// Anything at all: `**` at the end.
    All,
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
        Glob::compile(&body).ok_or(())?;
        let steps = steps(&body).ok_or(())?;
        Ok(Some(Self { exception, steps }))
    }

    /// Does it match the path or one of its parents?
    pub(super) fn matches(&self, path: &[Code]) -> bool {
        let mut states = States::start(&self.steps);
        for code in path {
            if *code == SLASH && states.accept() {
                return true;
            }
            states = states.after(*code);
            if states.dead() {
                return false;
            }
        }
        states.accept()
    }

    /// Could it match something below this directory?
    pub(super) fn reaches_below(&self, dir: &[Code]) -> bool {
        let mut states = States::start(&self.steps);
        for code in dir.iter().chain([&SLASH]) {
            states = states.after(*code);
            if states.dead() {
                return false;
            }
        }
        true
    }
}

/// Translates; the pattern was already checked by [`Glob::compile`].
fn steps(pattern: &[Code]) -> Option<Vec<Step>> {
    const STAR: Code = '*' as Code;
    let mut steps = Vec::new();
    let mut rest = pattern;
    while !rest.is_empty() {
        match rest {
            [STAR, STAR, after @ ..] => {
                // `**` and the slash after it are one.
                let slashless = after.strip_prefix(&[SLASH]).unwrap_or(after);
                // `**name` at the head is a suffix match: BuildKit does not ask for a slash before it.
                let suffix = steps.is_empty() && after.first() != Some(&SLASH) && plain(after);
                steps.push(if slashless.is_empty() || suffix { Step::All } else { Step::Dirs });
                rest = slashless;
            }
            [STAR, after @ ..] => {
                steps.push(Step::Star);
                rest = after;
            }
            _ => {
                let (item, after) = read_item(rest)?;
                steps.push(Step::One(item));
                rest = after;
            }
        }
    }
    Some(steps)
}

/// Has it no character with a meaning?
fn plain(pattern: &[Code]) -> bool {
    !pattern.iter().any(|code| matches!(char::from_u32(*code), Some('*' | '?' | '[' | ']' | '\\')))
}

/// Which steps may come next; the number of steps stands for "all done".
struct States<'p> {
    steps: &'p [Step],
    /// Sorted, without doubles; those steps whose turn it is before the next character.
    active: Vec<usize>,
    /// Inside these `Dirs`, waiting for a slash.
    inside: Vec<usize>,
}

impl<'p> States<'p> {
    fn start(steps: &'p [Step]) -> Self {
        let mut states = Self { steps, active: Vec::new(), inside: Vec::new() };
        states.enter(0);
        states
    }

    /// A step's turn has come, and that of those after it that may be empty.
    fn enter(&mut self, step: usize) {
        let mut step = step;
        while !self.active.contains(&step) {
            self.active.push(step);
            match self.steps.get(step) {
                Some(Step::Star | Step::All) => {}
                Some(Step::Dirs) => {
                    if !self.inside.contains(&step) {
                        self.inside.push(step);
                    }
                }
                Some(Step::One(_)) | None => return,
            }
            step += 1;
        }
    }

    fn after(&self, code: Code) -> Self {
        let mut next = Self { steps: self.steps, active: Vec::new(), inside: Vec::new() };
        for step in &self.active {
            match self.steps.get(*step) {
                Some(Step::One(item)) if item.takes(code) => next.enter(step + 1),
                Some(Step::Star) if code != SLASH => next.enter(*step),
                Some(Step::All) => next.enter(*step),
                Some(_) | None => {}
            }
        }
        for step in &self.inside {
            if !next.inside.contains(step) {
                next.inside.push(*step);
            }
            if code == SLASH {
                next.enter(step + 1);
            }
        }
        next
    }

    fn accept(&self) -> bool {
        self.active.contains(&self.steps.len())
    }

    fn dead(&self) -> bool {
        self.active.is_empty() && self.inside.is_empty()
    }
}
