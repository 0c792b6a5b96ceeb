//! What COPY may see of a directory: its files less the ignored ones, never anything outside of it.

use std::path::Path;

use crate::{
    layer::Content,
    pattern::PatternList,
    sys::PathError,
    tree::{ContentDigest, TreePath},
};

/// Why a context could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// A directory as a context.
#[derive(Debug)]
pub struct Context {}

impl Context {
    /// Opens it. Paths that `ignore` excludes are not there.
    pub fn open(dir: &Path, ignore: PatternList) -> Result<Self, Error> {
        let _ = (dir, ignore);
        unimplemented!("context")
    }

    /// The digest of a file's bytes, with the check that it did not change meanwhile.
    pub fn digest(&self, path: &TreePath) -> Result<ContentDigest, Error> {
        let _ = path;
        unimplemented!("context")
    }

    /// Where a file's bytes are.
    pub fn content(&self, path: &TreePath) -> Content {
        let _ = path;
        unimplemented!("context")
    }
}
