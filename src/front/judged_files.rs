//! The files of the build context as the rules see them. What cannot be read is not known: the build itself will say why.

use std::path::Path;

use super::Context;
use crate::{context, engine, lint::Files, pattern::PatternList};

/// The context of a build.
pub(super) struct JudgedFiles {
    ignore: PatternList,
    all: context::Context,
}

impl JudgedFiles {
    /// Of a context that is a directory of the user's; of another, nothing is excluded and nobody chose the modes.
    pub(super) fn of(context: &Context, dockerfile: Option<&Path>) -> Option<Self> {
        let Ok(Some(engine::Files::Directory { dir, dockerfile })) = context.files(dockerfile) else { return None };
        let ignore = context::ignore_patterns(&dir, dockerfile.as_deref()).ok()?.patterns;
        Some(Self { all: context::Context::open(&dir, ignore.clone()).ok()?, ignore })
    }
}

impl Files for JudgedFiles {
    fn is_excluded(&self, path: &str) -> Option<bool> {
        if self.ignore.is_empty() || self.ignore.has_exceptions() || (matches!(path, "." | "/") && !self.ignore.covers_root()) {
            return None;
        }
        Some(self.ignore.excludes(path.as_bytes()))
    }

    fn mode(&self, path: &str) -> Option<u32> {
        self.all.mode(path).ok()?
    }
}
