//! Go's `filepath.Match` and the `.dockerignore` matcher, pure.
//!
//! Source: Go `path/filepath/match.go`; moby/patternmatcher (`patternmatcher.go`, `ignorefile.go`).

use thiserror::Error;

/// A pattern that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("syntax error in pattern `{pattern}`")]
pub struct BadPattern {
    /// As it was written.
    pub pattern: String,
}

/// Go's `filepath.Match`: does `name` match the shell pattern? `*` and `?` never match `/`.
pub fn matches(pattern: &[u8], name: &[u8]) -> Result<bool, BadPattern> {
    let _ = name;
    Err(BadPattern { pattern: String::from_utf8_lossy(pattern).into_owned() })
}

/// An ordered list of ignore patterns: the last that matches wins, `!` takes back, a match of a
/// parent counts for what is below it.
#[derive(Debug, Clone, Default)]
pub struct PatternList {}

impl PatternList {
    /// Reads the text of a `.dockerignore` and compiles it.
    pub fn parse_ignorefile(text: &[u8]) -> Result<Self, BadPattern> {
        let _ = text;
        Ok(Self {})
    }

    /// Compiles patterns in order (as `--exclude` gives them).
    pub fn compile(patterns: &[String]) -> Result<Self, BadPattern> {
        let _ = patterns;
        Ok(Self {})
    }

    /// Is the slash-separated relative path matched, itself or by a parent?
    pub fn excludes(&self, path: &[u8]) -> bool {
        let _ = path;
        false
    }

    /// May something below this matched directory be re-included by a `!` pattern? Only then must a walk enter it.
    pub fn may_reinclude_below(&self, dir: &[u8]) -> bool {
        let _ = dir;
        true
    }
}
