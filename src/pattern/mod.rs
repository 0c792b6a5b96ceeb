//! Go's `filepath.Match` and the `.dockerignore` matcher, pure.
//!
//! Paths and patterns are bytes: a name that is not UTF-8 is matched too.
//!
//! Source: Go `path/filepath/match.go`; moby/patternmatcher (`patternmatcher.go`, `ignorefile.go`).

mod glob;
mod ignore;
mod inside;

use thiserror::Error;

pub use ignore::read_ignorefile;
pub use inside::Inside;

/// A pattern that cannot be read. BuildKit notices some of these only when it comes to a path that they might match; here
/// the whole list is rejected at once.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("syntax error in pattern `{pattern}`")]
pub struct BadPattern {
    /// As it was written.
    pub pattern: String,
    /// The line of the ignore file, from 1.
    pub line: Option<usize>,
}

/// A pattern of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// As it holds: cleaned, `!` in front where it stood.
    pub pattern: String,
    /// Its line, from 1.
    pub line: usize,
}

impl BadPattern {
    fn new(pattern: &[u8]) -> Self {
        Self { pattern: String::from_utf8_lossy(pattern).into_owned(), line: None }
    }
}

/// Go's `filepath.Match`: does `name` match the shell pattern? `*` and `?` never match `/`.
pub fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let glob = glob::Glob::compile(&glob::codes(pattern)).ok_or_else(|| BadPattern::new(pattern))?;
    Ok(glob.matches(&glob::codes(name)))
}

/// An ordered list of ignore patterns: the last that matches wins, `!` takes back, a match of a
/// parent counts for what is below it.
#[derive(Debug, Clone, Default)]
pub struct PatternList {
    patterns: Vec<ignore::Pattern>,
    /// Of an ignore file: what each of them is and where.
    rules: Vec<Rule>,
    /// Does one of them match everything at the top?
    covers_root: bool,
}

impl PatternList {
    /// Reads the text of a `.dockerignore` and compiles it.
    pub fn parse_ignorefile(text: &[u8]) -> Result<Self, BadPattern> {
        let mut list = Self::default();
        for (line, text) in ignore::read_lines(text) {
            let at = |error: BadPattern| BadPattern { line: Some(line), ..error };
            if list.push(&text).map_err(at)? {
                list.rules.push(Rule { pattern: String::from_utf8_lossy(&text).into_owned(), line });
            }
        }
        Ok(list)
    }

    /// Compiles patterns in order (as `--exclude` gives them).
    pub fn compile(patterns: &[String]) -> Result<Self, BadPattern> {
        let mut list = Self::default();
        for text in patterns {
            let _blank: bool = list.push(text.as_bytes())?;
        }
        Ok(list)
    }

    /// False: it was blank.
    fn push(&mut self, text: &[u8]) -> Result<bool, BadPattern> {
        let compiled = ignore::Pattern::compile(text).map_err(|()| BadPattern::new(text))?;
        let is_one = compiled.is_some();
        self.covers_root |= matches!(text, b"*" | b"**" | b"**/*");
        self.patterns.extend(compiled);
        Ok(is_one)
    }

    /// Is there no pattern at all?
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Does a pattern take back what others exclude?
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// Does a pattern exclude everything at the top?
    pub fn covers_root(&self) -> bool {
        self.covers_root
    }

    /// Is the slash-separated relative path matched, itself or by a parent?
    pub fn excludes(&self, path: &[u8]) -> bool {
        self.decisive(path).and_then(|at| self.patterns.get(at)).is_some_and(|pattern| !pattern.exception)
    }

    /// The rule of the ignore file that excludes the path.
    pub fn rule(&self, path: &[u8]) -> Option<&Rule> {
        let at = self.decisive(path)?;
        self.rules.get(at).filter(|_| self.patterns.get(at).is_some_and(|pattern| !pattern.exception))
    }

    /// The number of the pattern that decides.
    fn decisive(&self, path: &[u8]) -> Option<usize> {
        // The last match wins, so the first one from behind decides.
        let decides = |matches: &dyn Fn(&ignore::Pattern) -> bool| self.patterns.iter().rposition(matches);
        let codes = glob::codes(path);
        if !path.split(|byte| *byte == b'/').any(|part| matches!(part, b"" | b"." | b"..")) {
            return decides(&|pattern| pattern.matches(&codes));
        }
        // A path that is not clean is compared as it is, its parents are cleaned.
        let parent = glob::codes(&ignore::clean_parent(path));
        decides(&|pattern| pattern.matches_whole(&codes) || (!parent.is_empty() && pattern.matches(&parent)))
    }

    /// May something below this matched directory be re-included by a `!` pattern? Only then must a walk enter it.
    pub fn may_reinclude_below(&self, dir: &[u8]) -> bool {
        if !self.has_exceptions() {
            return false;
        }
        let dir = glob::codes(dir);
        self.patterns.iter().any(|pattern| pattern.exception && pattern.reaches_below(&dir))
    }
}
