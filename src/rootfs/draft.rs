//! A stage's tree with changes on top, as data.
//!
//! What is pending is held by path; a path that is not pending is what the chain has there, unless something pending above
//! it hides that. [`Draft::finish`] compares: an entry is a change if and only if its row differs from the chain's.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Error, laid::Laid};
use crate::{
    layer::{self, Change, Changes, Content, Node, Puts},
    tree::{Chain, ContentDigest, Entry, Kind, Meta, Step, TreePath, Xattrs, resolve_with},
};

/// A stage's tree with changes on top, not yet a layer.
#[derive(Debug)]
pub struct Draft {
    pub(super) chain: Chain,
    pending: BTreeMap<TreePath, Pending>,
    /// Pending paths below which nothing of the chain is seen: what is gone, and what is no directory where the chain has one.
    hiding: BTreeSet<TreePath>,
    next_group: u64,
    /// A file was put at the destination itself, under the name that it gives.
    pub(super) exact: Option<TreePath>,
    /// What a directory held that is copied, while nothing else was: below its destination nothing is pending.
    pub(super) laid: Option<Laid>,
}

/// What a path becomes.
#[derive(Debug)]
enum Pending {
    Put(Meta, Put),
    Gone,
}

/// What is put.
#[derive(Debug, Clone)]
pub(super) enum Put {
    File { size: u64, digest: ContentDigest, content: Content, group: Option<Group> },
    Dir,
    Symlink(Vec<u8>),
    Char(u32, u32),
    Block(u32, u32),
    Fifo,
}

/// Files of one group are names of one inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Group(u64);

/// What a draft has at a path.
#[derive(Debug)]
pub(super) struct View {
    pub(super) meta: Meta,
    pub(super) kind: ViewKind,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ViewKind {
    File,
    Dir,
    Symlink(Vec<u8>),
    Other,
}

/// Whose tree is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The chain's with the changes on top.
    Chain,
    /// The changes alone, as if there were no layer below: `--link`.
    Nothing,
}

/// Who owns what is made on the way, and how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Making {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) now: i64,
}

impl Draft {
    /// The tree as the chain has it.
    pub fn new(chain: Chain) -> Self {
        Self { chain, pending: BTreeMap::new(), hiding: BTreeSet::new(), next_group: 0, exact: None, laid: None }
    }

    /// WORKDIR: makes the directory and what is missing above it, links followed, with mode 0755 and this owner; gives the
    /// path with its links followed. What is there keeps its owner and mode. `now`: seconds since 1970.
    pub fn make_dir(&mut self, path: &TreePath, owner: (u32, u32), now: i64) -> Result<TreePath, Error> {
        self.take_up()?;
        let at = self.resolve(path, true, Over::Chain)?;
        self.make_dirs(&at, Making { mode: 0o755, owner, now }, Over::Chain)?;
        Ok(at)
    }

    /// What changed against the chain: canonical.
    pub fn finish(self) -> Changes {
        let groups = self.groups();
        Changes::of(Arc::new(Finished { draft: self, groups }))
    }

    /// Has nothing been changed yet?
    pub(super) fn is_untouched(&self) -> bool {
        self.pending.is_empty() && self.laid.is_none()
    }

    /// The names of each group that has more than one.
    fn groups(&self) -> BTreeMap<Group, Names> {
        let mut groups: BTreeMap<Group, Vec<TreePath>> = BTreeMap::new();
        for (path, pending) in &self.pending {
            if let Pending::Put(_, put) = pending
                && let Some(group) = group_of(put)
            {
                groups.entry(group).or_default().push(path.clone());
            }
        }
        groups.retain(|_, names| names.len() > 1);
        let named = |names: Vec<TreePath>| Names {
            are_as_before: self.is_group_as_before(&names),
            first: names.into_iter().next().unwrap_or_default(),
        };
        groups.into_iter().map(|(group, names)| (group, named(names))).collect()
    }

    /// Has the chain the same at this path, by itself?
    fn is_as_before(&self, path: &TreePath, meta: &Meta, put: &Put) -> bool {
        self.chain_at(path).is_some_and(|found| found.link.is_none() && put.is_same(meta, &found.entry))
    }

    /// Has the chain the same names as links of one inode?
    fn is_group_as_before(&self, names: &[TreePath]) -> bool {
        let Some(layer) = names.first().and_then(|first| self.chain_at(first)).map(|found| found.layer) else { return false };
        names.iter().all(|name| {
            let first = names.first().filter(|first| *first != name);
            matches!((self.chain_at(name), self.pending.get(name)), (Some(found), Some(Pending::Put(meta, put)))
                if found.layer == layer && found.link.as_ref() == first && put.is_same(meta, &found.entry))
        })
    }

    /// What the chain has at a path, unless something pending hides it from there.
    fn chain_at(&self, path: &TreePath) -> Option<crate::tree::Found> {
        if !self.hiding.is_empty() && path.ancestors().iter().any(|above| self.hiding.contains(above)) {
            return None;
        }
        self.chain.look_up(path)
    }

    /// What is at a path, no link followed. The root is always a directory.
    pub(super) fn look_up(&self, path: &TreePath, over: Over) -> Option<View> {
        match self.pending.get(path) {
            Some(Pending::Gone) => return None,
            Some(Pending::Put(meta, put)) => return Some(View { meta: meta.clone(), kind: put.view() }),
            None => {}
        }
        let found = if over == Over::Chain { self.chain_at(path) } else { None };
        match found {
            Some(found) => Some(View { meta: found.entry.meta.clone(), kind: view(&found.entry.kind) }),
            None if path.is_root() => {
                let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
                Some(View { meta, kind: ViewKind::Dir })
            }
            None => None,
        }
    }

    /// The path with links followed inside the tree.
    pub(super) fn resolve(&self, path: &TreePath, follow_last: bool, over: Over) -> Result<TreePath, Error> {
        let step = |at: &TreePath| {
            Some(match self.look_up(at, over)?.kind {
                ViewKind::Dir => Step::Dir,
                ViewKind::Symlink(target) => Step::Link(target),
                ViewKind::File | ViewKind::Other => Step::Other,
            })
        };
        Ok(resolve_with(path, follow_last, step)?)
    }

    /// Makes a directory and what is missing above it; the path is resolved.
    pub(super) fn make_dirs(&mut self, path: &TreePath, making: Making, over: Over) -> Result<(), Error> {
        if self.look_up(path, over).is_some_and(|view| view.kind == ViewKind::Dir) {
            return Ok(());
        }
        for at in path.ancestors().iter().chain([path]) {
            match self.look_up(at, over).map(|view| view.kind) {
                Some(ViewKind::Dir) => {}
                Some(_) => return Err(Error::refused(format!("mkdir {at}: not a directory"), super::place::OCCUPIED)),
                None => {
                    let meta =
                        Meta { mode: making.mode, uid: making.owner.0, gid: making.owner.1, mtime: making.now, xattrs: Xattrs::new() };
                    self.put(at.clone(), meta, Put::Dir, over);
                }
            }
        }
        Ok(())
    }

    /// Puts something at a resolved path whose parent is a directory, in place of what is there. A directory over a directory
    /// keeps what that holds.
    pub(super) fn put(&mut self, path: TreePath, meta: Meta, put: Put, over: Over) {
        let was_dir = self.look_up(&path, over).is_some_and(|view| view.kind == ViewKind::Dir);
        self.put_over(was_dir, path, meta, put, over);
    }

    /// The same for somebody who knows whether a directory is there.
    pub(super) fn put_over(&mut self, was_dir: bool, path: TreePath, meta: Meta, put: Put, over: Over) {
        let is_dir = matches!(put, Put::Dir);
        if was_dir && !is_dir {
            self.forget_below(&path);
        }
        // `--link` never looks below: its directories are laid over what is there.
        if over == Over::Chain && self.chain_at(&path).is_some_and(|found| found.entry.kind == Kind::Dir) {
            if is_dir && !was_dir {
                // What the chain holds there was hidden and must not come back.
                let _: bool = self.hiding.remove(&path);
                for child in self.chain.names(&path).iter().filter_map(|name| path.join(name).ok()) {
                    if !self.pending.contains_key(&child) {
                        let _: bool = self.hiding.insert(child.clone());
                        drop(self.pending.insert(child, Pending::Gone));
                    }
                }
            } else if !is_dir {
                let _: bool = self.hiding.insert(path.clone());
            }
        }
        drop(self.pending.insert(path, Pending::Put(meta, put)));
    }

    /// A group that no file has yet.
    pub(super) fn new_group(&mut self) -> Group {
        self.next_group += 1;
        Group(self.next_group)
    }

    /// What is at a path, if it can be put again: pending, or of the chain and without bytes.
    pub(super) fn node_at(&self, path: &TreePath, over: Over) -> Option<Put> {
        match self.pending.get(path) {
            Some(Pending::Put(_, put)) => return Some(put.clone()),
            Some(Pending::Gone) => return None,
            None if over == Over::Nothing => return None,
            None => {}
        }
        match &self.chain_at(path)?.entry.kind {
            Kind::Symlink { target } => Some(Put::Symlink(target.clone())),
            Kind::Char { major, minor } => Some(Put::Char(*major, *minor)),
            Kind::Block { major, minor } => Some(Put::Block(*major, *minor)),
            Kind::Fifo => Some(Put::Fifo),
            Kind::File { .. } | Kind::Dir => None,
        }
    }

    fn forget_below(&mut self, dir: &TreePath) {
        let below: Vec<TreePath> = self
            .pending
            .range(dir.clone()..)
            .map(|(path, _)| path)
            .take_while(|path| path.is_within(dir))
            .filter(|path| *path != dir)
            .cloned()
            .collect();
        for path in below {
            drop(self.pending.remove(&path));
            let _: bool = self.hiding.remove(&path);
        }
    }
}

/// A draft that nothing is laid over any more. What it holds is compared with the chain when it is asked for: a second list of it would be
/// as large.
#[derive(Debug)]
struct Finished {
    draft: Draft,
    groups: BTreeMap<Group, Names>,
}

/// The names of a group that has more than one.
#[derive(Debug)]
struct Names {
    /// The others are links to it.
    first: TreePath,
    are_as_before: bool,
}

impl Finished {
    fn change(&self, path: &TreePath, pending: &Pending) -> Option<Change> {
        let Pending::Put(meta, put) = pending else {
            return self.draft.chain_at(path).map(|_| Change::Whiteout);
        };
        let names = group_of(put).and_then(|group| self.groups.get(&group));
        if names.map_or_else(|| self.draft.is_as_before(path, meta, put), |names| names.are_as_before) {
            return None;
        }
        let first = names.map(|names| &names.first).filter(|first| *first != path);
        Some(Change::Put(meta.clone(), first.map_or_else(|| put.node(), |first| Node::HardLink(first.clone()))))
    }
}

impl Puts for Finished {
    fn each(&self, take: &mut dyn FnMut(&TreePath, &Change) -> Result<(), layer::Error>) -> Result<(), layer::Error> {
        for (path, pending) in &self.draft.pending {
            if let Some(change) = self.change(path, pending) {
                take(path, &change)?;
            }
        }
        // It lies behind all that is pending.
        self.draft.laid.as_ref().map_or(Ok(()), |laid| laid.each(take))
    }

    fn whiteouts(&self) -> Vec<TreePath> {
        let gone =
            self.draft.pending.iter().filter(|(path, pending)| matches!(pending, Pending::Gone) && self.draft.chain_at(path).is_some());
        gone.map(|(path, _)| path.clone()).collect()
    }
}

impl Put {
    fn view(&self) -> ViewKind {
        match self {
            Self::File { .. } => ViewKind::File,
            Self::Dir => ViewKind::Dir,
            Self::Symlink(target) => ViewKind::Symlink(target.clone()),
            Self::Char(..) | Self::Block(..) | Self::Fifo => ViewKind::Other,
        }
    }

    pub(super) fn node(&self) -> Node {
        match self.clone() {
            Self::File { size, digest, content, .. } => Node::File { size, content, digest: Some(digest) },
            Self::Dir => Node::Dir,
            Self::Symlink(target) => Node::Symlink(target),
            Self::Char(major, minor) => Node::Char { major, minor },
            Self::Block(major, minor) => Node::Block { major, minor },
            Self::Fifo => Node::Fifo,
        }
    }

    /// Is it what the entry says? A directory's own time does not count.
    pub(super) fn is_same(&self, meta: &Meta, entry: &Entry) -> bool {
        let kind = match self.clone() {
            Self::File { size, digest, .. } => Kind::File { size, content: digest },
            Self::Dir => return entry.kind == Kind::Dir && Meta { mtime: entry.meta.mtime, ..meta.clone() } == entry.meta,
            Self::Symlink(target) => Kind::Symlink { target },
            Self::Char(major, minor) => Kind::Char { major, minor },
            Self::Block(major, minor) => Kind::Block { major, minor },
            Self::Fifo => Kind::Fifo,
        };
        *meta == entry.meta && kind == entry.kind
    }
}

fn group_of(put: &Put) -> Option<Group> {
    match put {
        Put::File { group, .. } => *group,
        Put::Dir | Put::Symlink(_) | Put::Char(..) | Put::Block(..) | Put::Fifo => None,
    }
}

pub(super) fn view(kind: &Kind) -> ViewKind {
    match kind {
        Kind::File { .. } => ViewKind::File,
        Kind::Dir => ViewKind::Dir,
        Kind::Symlink { target } => ViewKind::Symlink(target.clone()),
        Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => ViewKind::Other,
    }
}
