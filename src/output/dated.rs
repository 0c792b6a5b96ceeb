//! A merged tree in which everything has one time, as `BuildKit`'s outputs of files have it under a `SOURCE_DATE_EPOCH`.

use std::{borrow::Cow, io::Read};

use crate::tree::{Entry, Meta, TreePath};

use super::{Error, flatten::Receiver};

/// Hands on what it gets; with an epoch, at that time.
pub(super) struct Dated<'a> {
    pub(super) to: &'a mut dyn Receiver,
    pub(super) epoch: Option<i64>,
}

impl Dated<'_> {
    fn entry<'e>(&self, entry: &'e Entry) -> Cow<'e, Entry> {
        match self.epoch {
            None => Cow::Borrowed(entry),
            Some(mtime) => Cow::Owned(Entry { meta: Meta { mtime, ..entry.meta.clone() }, ..entry.clone() }),
        }
    }
}

impl Receiver for Dated<'_> {
    fn plain(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        self.to.plain(path, &self.entry(entry))
    }

    fn file(&mut self, path: &TreePath, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        self.to.file(path, &self.entry(entry), size, content)
    }

    fn link(&mut self, path: &TreePath, entry: &Entry, first: &TreePath) -> Result<(), Error> {
        self.to.link(path, &self.entry(entry), first)
    }
}
