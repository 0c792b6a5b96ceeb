//! What a step changed, from its overlay's upper directory and the rows of what is beneath.
//!
//! The upper directory says more than what changed: a file that was opened for writing is copied up though nobody wrote,
//! a directory is there because something in it is. So everything is compared with its row, all of it, and only what
//! differs is a change. An opaque directory becomes a whiteout for each name that is gone.
//!
//! A merged tree that was worked in is compared in the same way, as an upper whose directories are all opaque; what lstat
//! says the same of as before the step is passed over.
//!
//! Source: the kernel's `overlayfs.rst`; image-spec `layer.md`.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, Read as _},
    os::fd::OwnedFd,
    sync::Arc,
};

use super::{
    Change, Changes, Content, Error, Node, Shown, canonical,
    merged::Before,
    upper::{self, Found, Marks},
};
use crate::{
    sys::{
        PathError,
        dir::{self, FileKind},
    },
    tree::{self, Chain, ContentDigest, Kind, Meta, OwnerTable, TreePath, Xattrs},
};

/// The canonical changes that an upper directory stands for.
pub(super) fn diff(upper: &Arc<OwnedFd>, chain: &Chain, stubs: &[TreePath], table: Option<&OwnerTable>) -> Result<Changes, Error> {
    Walk::new(upper, chain, stubs, None, table).finish().map(|(changes, _)| changes)
}

/// The canonical changes of a merged tree since `before`, and every path that was touched, its directory before it.
pub(super) fn diff_merged(
    tree: &Arc<OwnedFd>,
    chain: &Chain,
    stubs: &[TreePath],
    before: &Before,
    table: Option<&OwnerTable>,
) -> Result<(Changes, Vec<TreePath>), Error> {
    Walk::new(tree, chain, stubs, Some(before), table).finish()
}

/// All names of one inode.
struct Group {
    meta: Meta,
    node: Node,
    names: Vec<TreePath>,
}

struct Walk<'a> {
    upper: &'a Arc<OwnedFd>,
    chain: &'a Chain,
    stubs: &'a [TreePath],
    /// Where owners are marks: those of what carries none.
    table: Option<&'a OwnerTable>,
    changes: BTreeMap<TreePath, Change>,
    groups: HashMap<(u64, u64), Group>,
    /// Directories to look at; in an opaque one nothing of the chain shows.
    ahead: Vec<(TreePath, bool)>,
    /// Of a merged tree: what it was.
    before: Option<&'a Before>,
    touched: Vec<TreePath>,
}

impl<'a> Walk<'a> {
    fn new(
        upper: &'a Arc<OwnedFd>,
        chain: &'a Chain,
        stubs: &'a [TreePath],
        before: Option<&'a Before>,
        table: Option<&'a OwnerTable>,
    ) -> Self {
        let ahead = vec![(TreePath::root(), before.is_some())];
        Self { upper, chain, stubs, table, changes: BTreeMap::new(), groups: HashMap::new(), ahead, before, touched: Vec::new() }
    }

    fn finish(mut self) -> Result<(Changes, Vec<TreePath>), Error> {
        while let Some((dir, opaque)) = self.ahead.pop() {
            self.directory(&dir, opaque)?;
        }
        let groups = std::mem::take(&mut self.groups);
        let mut groups: Vec<Group> = groups.into_values().collect();
        groups.sort_by(|left, right| left.names.first().cmp(&right.names.first()));
        for group in groups {
            self.group(group)?;
        }
        Ok((Changes::from(self.changes), self.touched))
    }

    fn directory(&mut self, at: &TreePath, opaque: bool) -> Result<(), Error> {
        let fd = dir::open_dir(self.upper, at.as_os_path())?;
        let mut there = Vec::new();
        for name in dir::names(&fd)? {
            let path = at.join(&name).map_err(|_bad| bad_name(at, "it holds a name that is none"))?;
            if self.stubs.iter().any(|stub| path.is_within(stub)) {
                // The chain does not have it, or it would not have been made.
                self.touched.push(path);
                continue;
            }
            if self.passes_over(&fd, &path)? {
                there.push(name);
                continue;
            }
            let marks = if self.before.is_some() { Marks::NotOurs } else { Marks::Overlay };
            let Some(found) = upper::look(&fd, &path, marks, self.table)? else { continue };
            match found.stat.kind {
                // A socket is nothing, but what it replaced is gone all the same.
                upper::WHITEOUT | FileKind::Socket => self.gone(path),
                FileKind::Dir => {
                    there.push(name);
                    self.enter(path, found, opaque)?;
                }
                FileKind::File | FileKind::Symlink | FileKind::Char { .. } | FileKind::Block { .. } | FileKind::Fifo => {
                    there.push(name);
                    self.leaf(&fd, path, found)?;
                }
            }
        }
        if opaque {
            for name in self.chain.names(at) {
                if there.binary_search(&name).is_err()
                    && let Ok(path) = at.join(&name)
                    // A device that the kernel would not make was never there.
                    && self.before.is_none_or(|before| before.has(&path))
                {
                    self.gone(path);
                }
            }
        }
        Ok(())
    }

    /// Is it as it was, as far as lstat says? Then only what is in it needs to be looked at.
    fn passes_over(&mut self, parent: &OwnedFd, path: &TreePath) -> Result<bool, Error> {
        let Some(before) = self.before else { return Ok(false) };
        let Some(stat) = dir::stat(parent, path.name())? else { return Ok(false) };
        if !before.is_as_it_was(path, &stat) {
            self.touched.push(path.clone());
            return Ok(false);
        }
        if stat.kind == FileKind::Dir {
            self.ahead.push((path.clone(), true));
        }
        Ok(true)
    }

    fn gone(&mut self, path: TreePath) {
        if self.chain.look_up(&path).is_some() {
            drop(self.changes.insert(path, Change::Whiteout));
        }
    }

    fn enter(&mut self, path: TreePath, found: Found, opaque: bool) -> Result<(), Error> {
        refuse(&path)?;
        let had = self.chain.look_up(&path).map(|had| had.entry);
        let same = had.is_some_and(|had| had.kind == Kind::Dir && Meta { mtime: found.meta.mtime, ..had.meta.clone() } == found.meta);
        if !same {
            drop(self.changes.insert(path.clone(), Change::Put(found.meta, Node::Dir)));
        }
        self.ahead.push((path, opaque || found.opaque));
        Ok(())
    }

    fn leaf(&mut self, parent: &OwnedFd, path: TreePath, found: Found) -> Result<(), Error> {
        refuse(&path)?;
        let node = match found.stat.kind {
            FileKind::Symlink => Node::Symlink(dir::read_link(parent, path.name())?),
            FileKind::Char { major, minor } => Node::Char { major, minor },
            FileKind::Block { major, minor } => Node::Block { major, minor },
            FileKind::Fifo => Node::Fifo,
            FileKind::File | FileKind::Dir | FileKind::Socket => {
                let content = Content::Below { dir: Arc::clone(self.upper), path: path.clone(), shown: Shown::Inside };
                Node::File { size: found.stat.size, content, digest: None }
            }
        };
        if found.stat.nlink > 1 {
            let group = self.groups.entry((found.stat.dev, found.stat.ino));
            group.or_insert_with(|| Group { meta: found.meta, node, names: Vec::new() }).names.push(path);
            return Ok(());
        }
        if !self.is_same(&path, &found.meta, &node)? {
            drop(self.changes.insert(path, Change::Put(found.meta, node)));
        }
        Ok(())
    }

    /// The names of an inode are changes all together or not at all: a tar links only to what it holds itself.
    fn group(&mut self, mut group: Group) -> Result<(), Error> {
        group.names.sort();
        let mut names = group.names.into_iter();
        let Some(first) = names.next() else { return Ok(()) };
        let names: Vec<TreePath> = names.collect();
        // The names may be linked below as they are here, or some of them may be elsewhere than in the tree.
        let linked = |name: &TreePath| {
            let (had, of) = (self.chain.look_up(name), self.chain.look_up(&first));
            had.zip(of).is_some_and(|(had, of)| {
                had.layer == of.layer && had.link.is_some() && had.link.as_ref().or(Some(name)) == of.link.as_ref().or(Some(&first))
            })
        };
        if names.iter().all(linked) && self.is_same(&first, &group.meta, &group.node)? {
            return Ok(());
        }
        if let Node::File { content: Content::Below { path, .. }, .. } = &mut group.node {
            first.clone_into(path);
        }
        // Attributes may be long and names many: the first has them for all.
        let Meta { mode, uid, gid, mtime, .. } = group.meta;
        for name in names {
            let meta = Meta { mode, uid, gid, mtime, xattrs: Xattrs::new() };
            drop(self.changes.insert(name, Change::Put(meta, Node::HardLink(first.clone()))));
        }
        drop(self.changes.insert(first, Change::Put(group.meta, group.node)));
        Ok(())
    }

    /// Is it, bytes and all, what the chain has?
    fn is_same(&self, path: &TreePath, meta: &Meta, node: &Node) -> Result<bool, Error> {
        let Some(had) = self.chain.look_up(path).map(|found| found.entry).filter(|had| had.meta == *meta) else { return Ok(false) };
        Ok(match (node, &had.kind) {
            (Node::File { size, .. }, Kind::File { size: was, content }) => size == was && digest(self.upper, path)? == *content,
            (Node::Symlink(target), Kind::Symlink { target: was }) => target == was,
            (Node::Char { major, minor }, Kind::Char { major: was_major, minor: was_minor })
            | (Node::Block { major, minor }, Kind::Block { major: was_major, minor: was_minor }) => {
                (major, minor) == (was_major, was_minor)
            }
            (Node::Fifo, tree::Kind::Fifo) => true,
            _ => false,
        })
    }
}

fn bad_name(path: &TreePath, reason: &'static str) -> Error {
    Error::BadName { path: path.to_string(), reason }
}

fn refuse(path: &TreePath) -> Result<(), Error> {
    canonical::refusal(path).map_or(Ok(()), |reason| Err(bad_name(path, reason)))
}

fn digest(upper: &OwnedFd, path: &TreePath) -> Result<ContentDigest, Error> {
    let mut file = dir::open_file(upper, path.as_os_path())?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(ContentDigest(*hasher.finalize().as_bytes())),
            Ok(read) => {
                let _same = hasher.update(buffer.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(PathError::new("read", path.as_os_path())(error).into()),
        }
    }
}
