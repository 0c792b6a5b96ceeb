//! The tree of a stage or an image as a source: looked up in its chain, bytes in the trees of its layers. Nothing is hashed:
//! the indexes have the digests.

use std::{
    collections::BTreeSet,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
};

use super::{Error, Inode, Seen, Shape, Source};
use crate::{
    layer::{Content, Shown},
    tree::{Chain, ContentDigest, Entry, Found, Index, Kind, TreePath, Xattrs},
};

/// What to do when an index and the files of its layer do not agree.
const GONE: &str = "build again: a damaged layer is then made anew";

/// A chain, and one directory per layer.
#[derive(Debug, Clone)]
pub struct Tree {
    chain: Chain,
    dirs: Vec<Arc<OwnedFd>>,
    name: String,
    /// For each layer, the first names of inodes that have more.
    linked: Arc<OnceLock<Vec<BTreeSet<TreePath>>>>,
}

impl Tree {
    /// For a key: what is selected from it has digests and no bytes.
    pub fn indexed(chain: Chain, name: impl Into<String>) -> Self {
        Self { chain, dirs: Vec::new(), name: name.into(), linked: Arc::default() }
    }

    /// With the directories of the layers' trees, base first, one for each layer of the chain.
    pub fn extracted(chain: Chain, dirs: Vec<Arc<OwnedFd>>, name: impl Into<String>) -> Self {
        Self { chain, dirs, name: name.into(), linked: Arc::default() }
    }

    /// The chain.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Which inode a file is, if it has several names.
    fn inode(&self, found: &Found, path: &TreePath) -> Option<Inode> {
        let firsts = |index: &Arc<Index>| index.rows().filter_map(|(_, row)| row.into_link()).collect();
        let linked = self.linked.get_or_init(|| self.chain.layers().iter().map(firsts).collect());
        let first = found.link.as_ref().unwrap_or(path);
        let several = linked.get(found.layer).is_some_and(|linked| linked.contains(first));
        several.then(|| Inode::Layer(found.layer, first.clone()))
    }

    /// Of a regular file.
    pub(super) fn size_and_digest(&self, path: &TreePath) -> Result<(u64, ContentDigest), Error> {
        match &self.found(path)?.entry.kind {
            Kind::File { size, content } => Ok((*size, *content)),
            Kind::Dir | Kind::Symlink { .. } | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => {
                Err(Error::refused(format!("`{path}` in {} is not a regular file", self.name), GONE))
            }
        }
    }

    fn found(&self, path: &TreePath) -> Result<Found, Error> {
        self.chain.look_up(path).ok_or_else(|| Error::refused(format!("`{path}` is not in {}", self.name), GONE))
    }
}

impl Source for Tree {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn look_up(&self, path: &TreePath) -> Result<Option<Seen>, Error> {
        let Some(found) = self.chain.look_up(path) else {
            let root = Seen { mode: 0o755, uid: 0, gid: 0, mtime: 0, shape: Shape::Dir };
            return Ok(path.is_root().then_some(root));
        };
        let Entry { meta, kind } = &found.entry;
        let shape = match kind {
            Kind::File { size, .. } => Shape::File { size: *size, inode: self.inode(&found, path) },
            Kind::Dir => Shape::Dir,
            Kind::Symlink { target } => Shape::Symlink(target.clone()),
            Kind::Char { major, minor } => Shape::Char(*major, *minor),
            Kind::Block { major, minor } => Shape::Block(*major, *minor),
            Kind::Fifo => Shape::Fifo,
        };
        Ok(Some(Seen { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, shape }))
    }

    fn names(&self, dir: &TreePath) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.chain.names(dir))
    }

    fn read(&self, path: &TreePath) -> Result<(ContentDigest, Xattrs), Error> {
        let (_, digest) = self.size_and_digest(path)?;
        Ok((digest, self.found(path)?.entry.meta.xattrs.clone()))
    }

    fn attributes(&self, dir: &TreePath) -> Result<Xattrs, Error> {
        Ok(self.chain.look_up(dir).map(|found| found.entry.meta.xattrs.clone()).unwrap_or_default())
    }

    fn content(&self, path: &TreePath) -> Result<Option<Content>, Error> {
        let found = self.found(path)?;
        let content = self.dirs.get(found.layer).map(|dir| Content::Below {
            dir: Arc::clone(dir),
            path: found.link.unwrap_or_else(|| path.clone()),
            shown: Shown::As(format!("{path} in {}", self.name)),
        });
        Ok(content)
    }
}
