//! The Dockerfile's and the ignore file's text: bounded, regular files only, wherever their names lead.
//! A link in the context leads nowhere outside of it.

use std::{
    fs::OpenOptions,
    io::Read,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use super::Context;
use crate::{
    diag::Source,
    error::{Error, Kind},
    layer::archive,
};

/// The largest Dockerfile and the largest ignore file that are read, in bytes.
pub const LIMIT: u64 = 16 << 20;
/// The ignore file of a context.
pub(super) const IGNORE: &str = ".dockerignore";
/// The usual names of a Dockerfile, the first that is there.
const USUAL: [&str; 2] = ["Dockerfile", "dockerfile"];

/// Where the Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileFrom {
    /// In the context, under its usual name.
    Usual,
    /// In the context, under this path. In a context that is a directory of the user's, [`DockerfileFrom::File`] is meant.
    Inside(String),
    /// In a file of the user's.
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
pub fn read(from: &DockerfileFrom, context: &Context) -> Result<Text, Error> {
    let (name, path, bytes) = match (from, context.directory()) {
        (DockerfileFrom::Text(bytes), _) => ("<stdin>".to_owned(), None, bytes.clone()),
        (DockerfileFrom::File(path), dir) => {
            let name = path.display().to_string();
            let bytes = match dir.and_then(|dir| Some((dir, within(path, dir)?))) {
                Some((dir, inner)) => beneath(dir, &inner, path, context)?,
                None => required(path)?,
            };
            (name, Some(path.clone()), bytes)
        }
        (DockerfileFrom::Usual, Some(dir)) => {
            let [usual, lower] = USUAL.map(|name| dir.join(name));
            let path = if !usual.exists() && lower.exists() { lower } else { usual };
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let bytes = beneath(dir, &name, &path, context)?;
            (name, Some(path), bytes)
        }
        (DockerfileFrom::Inside(path), Some(dir)) => {
            let there = dir.join(path);
            (path.clone(), Some(there.clone()), beneath(dir, path, &there, context)?)
        }
        (DockerfileFrom::Usual, None) => inside(context.alone.as_ref().map_or(&USUAL, std::slice::from_ref), context)?,
        (DockerfileFrom::Inside(path), None) if context.alone.is_some() => {
            return Err(Error::new(Kind::Request, format!("the URL has a Dockerfile, and `-f {}` names another one", path.escape_debug()))
                .help("leave `-f` out, or give the URL of an archive, in which `-f` names a file"));
        }
        (DockerfileFrom::Inside(path), None) => inside(&[path], context)?,
    };
    let text = String::from_utf8(bytes).map_err(|error| {
        let line = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default().split(|byte| *byte == b'\n').count();
        Error::new(Kind::Request, format!("{name}:{line}: the Dockerfile is not UTF-8 text")).help("save it as UTF-8")
    })?;
    Ok(Text { source: Source { name, text }, path })
}

/// The first of these names in a context that somebody else made: no link leads out of it.
fn inside(names: &[&str], context: &Context) -> Result<(String, Option<PathBuf>, Vec<u8>), Error> {
    for name in names {
        if let Some(bytes) = context.small_file(name)? {
            return Ok(((*name).to_owned(), None, bytes));
        }
    }
    let name = names.first().copied().unwrap_or_default();
    Err(Error::new(Kind::Request, format!("there is no Dockerfile at `{}` in the context", name.escape_debug()))
        .help("name it with `-f PATH`, from the context's top"))
}

/// The path inside of a context that is a directory, if it is in there.
fn within(path: &Path, dir: &Path) -> Option<String> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let holder = std::fs::canonicalize(parent).ok()?;
    holder.strip_prefix(dir).ok()?.join(path.file_name()?).to_str().map(str::to_owned)
}

/// A Dockerfile in the user's directory. A link is followed inside of it: one who wrote what is built there does not
/// choose which file of the user is read, and shown where it is no Dockerfile.
///
/// Source: GHSA-vp35-85q5-9f25 (moby).
fn beneath(dir: &Path, inner: &str, path: &Path, context: &Context) -> Result<Vec<u8>, Error> {
    // What is no link, or nothing, has the messages of a file.
    if !std::fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink()) {
        return required(path);
    }
    context.small_file(inner)?.ok_or_else(|| {
        let help = match std::fs::canonicalize(path) {
            Ok(there) => format!("name what it leads to: `-f {}`", there.display()),
            Err(_) => "it leads to nothing at all".to_owned(),
        };
        Error::new(Kind::Request, format!("`{}` is a link that leads to no file of the context `{}`", path.display(), dir.display()))
            .help(help)
    })
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

/// The complete path of a directory that is a context.
pub(super) fn directory(dir: &Path) -> Result<PathBuf, Error> {
    let unreadable = |error: std::io::Error| {
        Error::new(Kind::Request, format!("cannot read the context `{}`", dir.display()))
            .because(&error)
            .help("the last argument names a directory; for this one it is `.`")
    };
    if !std::fs::metadata(dir).map_err(unreadable)?.is_dir() {
        let help = if is_archive(dir) {
            format!("send what it holds: `lapstrake build - < {}`", dir.display())
        } else {
            "name the directory; the Dockerfile is named with `-f`".to_owned()
        };
        return Err(Error::new(Kind::Request, format!("the context `{}` is not a directory", dir.display())).help(help));
    }
    std::fs::canonicalize(dir).map_err(unreadable)
}

/// Does a regular file begin as an archive does?
fn is_archive(path: &Path) -> bool {
    let mut head = Vec::new();
    let regular = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let read = || std::fs::File::open(path)?.take(archive::BEGINNING as u64).read_to_end(&mut head);
    regular && { read }().is_ok() && archive::begins(&head)
}
