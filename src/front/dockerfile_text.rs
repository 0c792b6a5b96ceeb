//! The Dockerfile's and the ignore file's text: bounded, regular files only, wherever their names lead.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::{
    diag::Source,
    engine::Directory,
    error::{Error, Kind},
};

/// The largest Dockerfile and the largest ignore file that are read.
const LIMIT: u64 = 16 << 20;

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileFrom {
    /// In the context, under its usual name.
    Context(PathBuf),
    /// In a file.
    File(PathBuf),
    /// Already read, from standard input.
    Text(Vec<u8>),
}

/// A Dockerfile's text.
#[derive(Debug, Clone)]
pub struct Text {
    /// The text, with the name that messages show.
    pub source: Source,
    /// Where it was read from, for its own ignore file; `None`: standard input.
    pub path: Option<PathBuf>,
}

/// Reads it.
pub fn read(from: &DockerfileFrom) -> Result<Text, Error> {
    let (name, path, bytes) = match from {
        DockerfileFrom::Text(bytes) => ("<stdin>".to_owned(), None, bytes.clone()),
        DockerfileFrom::File(path) => (path.display().to_string(), Some(path.clone()), required(path)?),
        DockerfileFrom::Context(dir) => {
            let usual = dir.join("Dockerfile");
            let lower = dir.join("dockerfile");
            let path = if !usual.exists() && lower.exists() { lower } else { usual };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, Some(path.clone()), required(&path)?)
        }
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default().split(|byte| *byte == b'\n').count();
        Error::new(Kind::Request, format!("{name}:{line}: the Dockerfile is not UTF-8 text")).help("save it as UTF-8")
    })?;
    Ok(Text { source: Source { name, text }, path })
}

fn required(path: &Path) -> Result<Vec<u8>, Error> {
    bounded(path)?.ok_or_else(|| {
        Error::new(Kind::Request, format!("there is no Dockerfile at `{}`", path.display()))
            .help("name it with `-f PATH`, or give the directory that holds it")
    })
}

/// The bytes of a regular file of bounded size; `None`: it is not there.
fn bounded(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let refused = |error: std::io::Error| Error::new(Kind::Request, format!("cannot read `{}`", path.display())).because(&error);
    // Not blocking: the name may lead to a pipe that nobody writes to.
    let nonblock = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
    let file = match OpenOptions::new().read(true).custom_flags(nonblock).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error)),
    };
    if !file.metadata().map_err(refused)?.is_file() {
        return Err(Error::new(Kind::Request, format!("`{}` is not a regular file", path.display())));
    }
    let mut bytes = Vec::new();
    let length = file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(refused)?;
    if length as u64 > LIMIT {
        return Err(Error::new(Kind::Request, format!("`{}` is larger than {LIMIT} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// A directory as a context, with its complete path.
pub(super) fn directory(dir: &Path, dockerfile: Option<&Path>) -> Result<Directory, Error> {
    let unreadable = |error: std::io::Error| {
        Error::new(Kind::Request, format!("cannot read the context `{}`", dir.display()))
            .because(&error)
            .help("the last argument names a directory; for this one it is `.`")
    };
    if !std::fs::metadata(dir).map_err(unreadable)?.is_dir() {
        return Err(Error::new(Kind::Request, format!("the context `{}` is not a directory", dir.display()))
            .help("name the directory; the Dockerfile is named with `-f`"));
    }
    let dockerfile = dockerfile.map(std::path::absolute).transpose().map_err(unreadable)?;
    Ok(Directory { dir: std::fs::canonicalize(dir).map_err(unreadable)?, dockerfile })
}
