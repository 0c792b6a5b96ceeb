//! Which ignore file counts, and reading it. `<Dockerfile>.dockerignore` beside the Dockerfile replaces the
//! `.dockerignore` of the context. Either may be a link, and is then followed inside its own directory: a context of
//! foreign origin cannot make the engine read a file of the host.
//!
//! Source: docs/build/concepts/context.md (filename and location); BuildKit `frontend/dockerui/context.go`.

use std::{ffi::OsString, os::unix::ffi::OsStrExt as _, path::Path};

use super::{Context, Error};
use crate::{pattern::PatternList, sys::PathError, tree::TreePath};

/// Longer ones are refused: every path of the context is held against every pattern.
const LIMIT: u64 = 1 << 20;

/// The patterns that hold for a context directory. `dockerfile` is the Dockerfile's path on the host, if it is a file.
pub fn ignore_patterns(context: &Path, dockerfile: Option<&Path>) -> Result<PatternList, Error> {
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

fn read(dir: &Path, name: &[u8]) -> Result<Option<PatternList>, Error> {
    let shown = || String::from_utf8_lossy(name).escape_debug().to_string();
    let all = match Context::open(dir, PatternList::default()) {
        // A Dockerfile that is not there is somebody else's error.
        Err(Error::Path(PathError { source, .. })) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let Some(text) = all.small_file(&TreePath::root().join(name)?, LIMIT)? else { return Ok(None) };
    PatternList::parse_ignorefile(&text).map(Some).map_err(|source| Error::IgnoreFile { file: shown(), source })
}
