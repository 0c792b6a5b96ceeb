//! Which ignore file counts, and reading it. `<Dockerfile>.dockerignore` beside the Dockerfile replaces the
//! `.dockerignore` of the context. Either may be a link, and is then followed inside its own directory: a context of
//! foreign origin cannot make the engine read a file of the host.
//!
//! Source: docs/build/concepts/context.md (filename and location); BuildKit `frontend/dockerui/context.go`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, path::Path};

use super::{Context, Error};
use crate::{
    pattern::{PatternList, Rule},
    sys::PathError,
    tree::TreePath,
};

/// Longer ones are refused: every path of the context is held against every pattern.
const LIMIT: u64 = 1 << 20;

/// The patterns that hold for a context directory, and the name of their file. `dockerfile` is the Dockerfile's path on the host, if it
/// is a file.
pub fn ignore_patterns(context: &Path, dockerfile: Option<&Path>) -> Result<Ignored, Error> {
    if let Some((dir, name)) = dockerfile.and_then(|file| Some((file.parent()?, file.file_name()?))) {
        let mut own = OsString::from(name);
        own.push(".dockerignore");
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        if let Some(patterns) = read(dir, own.as_bytes())? {
            return Ok(patterns);
        }
    }
    Ok(read(context, b".dockerignore")?.unwrap_or_default())
}

/// What is not there for COPY.
#[derive(Debug, Clone, Default)]
pub struct Ignored {
    /// What messages call the file: `.dockerignore`.
    pub file: String,
    /// Its patterns.
    pub patterns: PatternList,
}

/// Why a path is not there for COPY.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The ignore file.
    pub file: String,
    /// The pattern in it that excludes the path.
    pub rule: Rule,
}

fn read(dir: &Path, name: &[u8]) -> Result<Option<Ignored>, Error> {
    let shown = || String::from_utf8_lossy(name).escape_debug().to_string();
    let all = match Context::open(dir, PatternList::default()) {
        // A Dockerfile that is not there is somebody else's error.
        Err(Error::Path(PathError { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let Some(text) = all.small_file(&TreePath::root().join(name)?, LIMIT)? else { return Ok(None) };
    match PatternList::parse_ignorefile(&text) {
        Ok(patterns) => Ok(Some(Ignored { file: shown(), patterns })),
        Err(source) => Err(Error::IgnoreFile { file: source.line.map_or_else(shown, |line| format!("{}:{line}", shown())), source }),
    }
}
