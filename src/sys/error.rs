//! An operation on a path that the kernel refused.

use std::{io, path::PathBuf};

/// Operation, object, errno: what the fence says of a failed call.
#[derive(Debug, thiserror::Error)]
#[error("{op} `{}`", path.display())]
pub struct PathError {
    /// A verb: `open`, `read`, `create`.
    pub op: &'static str,
    /// The object.
    pub path: PathBuf,
    /// What the kernel said.
    #[source]
    pub source: io::Error,
}

impl PathError {
    /// For `map_err`: `.map_err(PathError::new("open", &path))`.
    pub fn new<E: Into<io::Error>>(op: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self { op, path, source: source.into() }
    }
}
