//! A layer's tar, read into an index and, if there is one, a tree.
//!
//! All that a name means is decided here, on rows: links in a path lead inside the layer and what lies beneath it, never
//! to a file of the host. What reaches the [`Sink`] are paths whose directories are directories.
//!
//! Source: image-spec `layer.md`. Where it says nothing (a path through a link, a directory that has no entry, two entries
//! of a name) it is as containerd's `pkg/archive` lays a layer over the merged tree: links are followed inside the root, a
//! missing directory is as it was, the last entry wins. Where containerd and GNU tar differ on a hard link's metadata,
//! the first name's counts. An archive of plain files is read by the same rules; only a name that begins with `.wh.` is one
//! as any other there.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::{self, Read},
    sync::Arc,
};

use super::{
    Error,
    archive::{Entries, Member, MemberKind},
    canonical::{self, Keeper, OPAQUE, Sort, WHITEOUT},
};
use crate::tree::{Chain, ContentDigest, Entry, Found, Index, IndexWriter, Kind, Meta, Row, Step, TreePath, Unfit, Xattrs, resolve_with};

/// No layer that people use is near these; they bound what a small blob can make us hold.
const MAX_ROWS: usize = 4_000_000;
const MAX_WEIGHT: usize = 512 << 20;

/// What an archive's names mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// A layer: names that begin with `.wh.` take away what is beneath.
    Layer,
    /// Files, all root's: a build context. `..` may climb, but not out.
    Files,
}

/// Where a layer's entries go.
pub(super) trait Sink {
    /// A directory, for now with any metadata.
    fn dir(&mut self, path: &TreePath) -> Result<(), Error>;
    /// A regular file; `body` ends with it.
    fn file(&mut self, path: &TreePath, meta: &Meta, body: &mut dyn Read) -> Result<(), Error>;
    /// A symbolic link, a device or a pipe.
    fn other(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error>;
    /// Another name of what is at `first`.
    fn link(&mut self, first: &TreePath, path: &TreePath) -> Result<(), Error>;
    /// A copy of a file of a lower layer, which is counted from the base.
    fn copy(&mut self, layer: usize, from: &TreePath, path: &TreePath, entry: &Entry) -> Result<(), Error>;
    /// The path and all below it are gone.
    fn remove(&mut self, path: &TreePath) -> Result<(), Error>;
    /// Whiteouts and the metadata of directories.
    fn finish(&mut self, index: &Index) -> Result<(), Error>;
}

/// What lies beneath a layer.
#[derive(Clone, Copy)]
pub(super) enum Below<'a> {
    /// These layers.
    Chain(&'a Chain),
    /// It is not known yet: most layers can be read without it. Who must ask is told off, and this is set.
    Unknown(&'a Cell<bool>),
}

impl Below<'_> {
    fn look_up(self, path: &TreePath) -> Option<Found> {
        match self {
            Self::Chain(chain) => chain.look_up(path),
            Self::Unknown(asked) => {
                asked.set(true);
                None
            }
        }
    }

    fn names(self) -> Vec<Vec<u8>> {
        match self {
            Self::Chain(chain) => chain.names(&TreePath::root()),
            Self::Unknown(asked) => {
                asked.set(true);
                Vec::new()
            }
        }
    }

    /// An error if what was found out so far may be wrong.
    fn answered(self) -> Result<(), Error> {
        match self {
            Self::Unknown(asked) if asked.get() => Err(bad("what it holds depends on the layers below")),
            Self::Unknown(_) | Self::Chain(_) => Ok(()),
        }
    }
}

/// For the index alone.
pub(super) struct Nowhere;

impl Sink for Nowhere {
    fn dir(&mut self, _path: &TreePath) -> Result<(), Error> {
        Ok(())
    }
    fn file(&mut self, _path: &TreePath, _meta: &Meta, body: &mut dyn Read) -> Result<(), Error> {
        io::copy(body, &mut io::sink()).map(drop).map_err(|error| unreadable(&error))
    }
    fn other(&mut self, _path: &TreePath, _entry: &Entry) -> Result<(), Error> {
        Ok(())
    }
    fn link(&mut self, _first: &TreePath, _path: &TreePath) -> Result<(), Error> {
        Ok(())
    }
    fn copy(&mut self, _layer: usize, _from: &TreePath, _path: &TreePath, _entry: &Entry) -> Result<(), Error> {
        Ok(())
    }
    fn remove(&mut self, _path: &TreePath) -> Result<(), Error> {
        Ok(())
    }
    fn finish(&mut self, _index: &Index) -> Result<(), Error> {
        Ok(())
    }
}

/// The layer's name is put in where it is known.
pub(super) fn bad(reason: impl Into<String>) -> Error {
    Error::BadLayer { layer: String::new(), reason: reason.into() }
}

pub(super) fn unreadable(error: &io::Error) -> Error {
    bad(error.to_string())
}

impl From<super::archive::Error> for Error {
    fn from(error: super::archive::Error) -> Self {
        match error {
            super::archive::Error::Damaged(reason) => bad(reason),
            super::archive::Error::Io(error) => unreadable(&error),
        }
    }
}

/// Reads all entries of a plain tar.
pub(super) fn read(tar: impl Read, form: Form, below: Below<'_>, sink: &mut dyn Sink) -> Result<Index, Error> {
    let mut unpacker = Unpacker {
        form,
        below,
        sink,
        slots: BTreeMap::new(),
        inodes: Vec::new(),
        kept: BTreeMap::new(),
        keeper: Keeper::new(),
        hides_all: false,
        hidden: RefCell::default(),
        weight: 0,
    };
    let mut entries = Entries::new(tar);
    while let Some(member) = entries.next_member()? {
        let done = unpacker.member(&member, &mut entries.body());
        below.answered()?;
        done?;
    }
    unpacker.finish()
}

/// What the layer says of a path so far.
#[derive(Clone, Copy)]
enum Slot {
    Put { inode: usize, opaque: bool },
    Whiteout,
}

struct Unpacker<'a> {
    form: Form,
    below: Below<'a>,
    sink: &'a mut dyn Sink,
    /// Every directory above a path that is here is here too.
    slots: BTreeMap<TreePath, Slot>,
    inodes: Vec<Entry>,
    kept: BTreeMap<TreePath, Vec<u8>>,
    keeper: Keeper,
    /// The root is marked opaque.
    hides_all: bool,
    /// The last answer of `is_hidden`: a walk along a deep path asks for one directory after the other.
    hidden: RefCell<Option<(TreePath, bool)>>,
    weight: usize,
}

/// Bytes on their way through: digested, and some kept.
struct Tee<'a> {
    from: &'a mut dyn Read,
    hasher: blake3::Hasher,
    kept: Option<Vec<u8>>,
}

impl Read for Tee<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(into)?;
        let bytes = into.get(..read).unwrap_or_default();
        let _same = self.hasher.update(bytes);
        if let Some(kept) = &mut self.kept {
            kept.extend_from_slice(bytes);
        }
        Ok(read)
    }
}

impl Unpacker<'_> {
    fn member(&mut self, member: &Member, body: &mut dyn Read) -> Result<(), Error> {
        let shown = || canonical::shown(&member.name);
        let path = self.path(&member.name).ok_or_else(|| bad(format!("the name `{}` leads outside", shown())))?;
        let parent = path.parent().unwrap_or_default();
        if self.form == Form::Layer {
            // What aufs kept for itself; Docker's own old layers have it.
            if path.components().next().is_some_and(|first| matches!(first, b".wh..wh.aufs" | b".wh..wh.orph" | b".wh..wh.plnk")) {
                return Ok(());
            }
            if let Some(reason) = canonical::refusal(&parent) {
                return Err(bad(format!("the name `{}`: {reason}", shown())));
            }
            if path.name() == OPAQUE {
                return self.opaque(&parent);
            }
            if let Some(name) = path.name().strip_prefix(WHITEOUT) {
                let gone = parent.join(name).ok().filter(|gone| canonical::refusal(gone).is_none());
                return self.whiteout(&gone.ok_or_else(|| bad(format!("the whiteout `{}` names nothing", shown())))?);
            }
        }
        if let Some(reason) = self.refusal(&path) {
            return Err(bad(format!("the name `{}`: {reason}", shown())));
        }
        if path.is_root() {
            return self.root(member);
        }
        let path = self.directory(&parent)?.join(path.name()).map_err(|error| bad(error.to_string()))?;
        if let Some(reason) = self.refusal(&path) {
            return Err(bad(format!("the name `{}` leads to `{path}`: {reason}", shown())));
        }
        self.put(path, member, body)
    }

    /// A name of the archive as a path. `None`: it leads outside.
    fn path(&self, name: &[u8]) -> Option<TreePath> {
        match self.form {
            Form::Layer => TreePath::parse(name).ok(),
            Form::Files => {
                let climbs = name.split(|byte| *byte == b'/').try_fold(0_usize, |depth, part| match part {
                    b"" | b"." => Some(depth),
                    b".." => depth.checked_sub(1),
                    _ => Some(depth + 1),
                });
                climbs.and_then(|_depth| TreePath::clean(name).ok())
            }
        }
    }

    fn refusal(&self, path: &TreePath) -> Option<&'static str> {
        if self.form == Form::Layer { canonical::refusal(path) } else { canonical::too_long(path) }
    }

    fn meta(&self, member: &Member, sort: Sort) -> Meta {
        let meta = canonical::meta(&member.meta, sort);
        if self.form == Form::Layer { meta } else { Meta { uid: 0, gid: 0, ..meta } }
    }

    fn root(&mut self, member: &Member) -> Result<(), Error> {
        if member.kind != MemberKind::Dir {
            return Err(bad("its root is no directory"));
        }
        let entry = Entry { meta: self.meta(member, Sort::Dir), kind: Kind::Dir };
        self.insert(TreePath::root(), entry, false)
    }

    fn put(&mut self, path: TreePath, member: &Member, body: &mut dyn Read) -> Result<(), Error> {
        match &member.kind {
            MemberKind::HardLink(target) => self.hard_link(path, target),
            MemberKind::Dir => {
                let entry = Entry { meta: self.meta(member, Sort::Dir), kind: Kind::Dir };
                if let Some(Slot::Put { inode, .. }) = self.slots.get(&path).copied()
                    && let Some(have) = self.inodes.get_mut(inode).filter(|have| have.kind == Kind::Dir)
                {
                    *have = entry;
                    return Ok(());
                }
                let opaque = self.clear(&path)?;
                self.sink.dir(&path)?;
                self.insert(path, entry, opaque)
            }
            MemberKind::File { size } => {
                let _hidden = self.clear(&path)?;
                let meta = self.meta(member, Sort::File);
                let mut tee = Tee { from: body, hasher: blake3::Hasher::new(), kept: self.keeper.wants(&path, *size) };
                self.sink.file(&path, &meta, &mut tee)?;
                let content = ContentDigest(*tee.hasher.finalize().as_bytes());
                if let Some(bytes) = tee.kept {
                    drop(self.kept.insert(path.clone(), bytes));
                }
                self.insert(path, Entry { meta, kind: Kind::File { size: *size, content } }, false)
            }
            MemberKind::Symlink(target) => {
                if target.is_empty() || target.len() > canonical::MAX_PATH || target.contains(&0) {
                    return Err(bad(format!("the link `{path}` has a target that is no path")));
                }
                self.other(path, Entry { meta: self.meta(member, Sort::Symlink), kind: Kind::Symlink { target: target.clone() } })
            }
            MemberKind::Char { major: 0, minor: 0 } => Err(bad(format!("the device `{path}` would delete another file"))),
            MemberKind::Char { major, minor } => {
                self.other(path, Entry { meta: self.meta(member, Sort::Special), kind: Kind::Char { major: *major, minor: *minor } })
            }
            MemberKind::Block { major, minor } => {
                self.other(path, Entry { meta: self.meta(member, Sort::Special), kind: Kind::Block { major: *major, minor: *minor } })
            }
            MemberKind::Fifo => self.other(path, Entry { meta: self.meta(member, Sort::Special), kind: Kind::Fifo }),
        }
    }

    fn other(&mut self, path: TreePath, entry: Entry) -> Result<(), Error> {
        let _hidden = self.clear(&path)?;
        self.sink.other(&path, &entry)?;
        self.insert(path, entry, false)
    }

    fn hard_link(&mut self, path: TreePath, target: &[u8]) -> Result<(), Error> {
        let shown = canonical::shown(target);
        let nowhere = || bad(format!("the hard link `{path}` names `{shown}`, which is not there"));
        let target = self.path(target).ok_or_else(|| bad(format!("the hard link `{path}` leads outside, to `{shown}`")))?;
        let (parent, name) = (target.parent().ok_or_else(nowhere)?, target.name().to_vec());
        let parent = resolve_with(&parent, true, |at| self.look(at)).map_err(|error| bad(error.to_string()))?;
        let first = parent.join(&name).map_err(|_bad| nowhere())?;
        if first == path {
            // Already what it should be, or never.
            return if matches!(self.slots.get(&path), Some(Slot::Put { .. })) { Ok(()) } else { Err(nowhere()) };
        }
        if path.is_within(&first) || first.is_within(&path) {
            return Err(nowhere());
        }
        match self.slots.get(&first).copied() {
            Some(Slot::Put { inode, .. }) if self.inodes.get(inode).is_some_and(|entry| entry.kind != Kind::Dir) => {
                let _hidden = self.clear(&path)?;
                self.sink.link(&first, &path)?;
                self.weigh(&path, 0)?;
                self.set(path, Slot::Put { inode, opaque: false });
                Ok(())
            }
            Some(Slot::Put { .. } | Slot::Whiteout) => Err(nowhere()),
            None => {
                let below = self.below;
                let found = if self.is_hidden(&first) { None } else { below.look_up(&first) };
                let found = found.filter(|found| found.entry.kind != Kind::Dir).ok_or_else(nowhere)?;
                let _hidden = self.clear(&path)?;
                if let Kind::File { .. } = found.entry.kind {
                    self.sink.copy(found.layer, &first, &path, &found.entry)?;
                } else {
                    self.sink.other(&path, &found.entry)?;
                }
                self.insert(path, found.entry, false)
            }
        }
    }

    fn whiteout(&mut self, path: &TreePath) -> Result<(), Error> {
        let parent = self.directory(&path.parent().unwrap_or_default())?;
        let path = parent.join(path.name()).map_err(|error| bad(error.to_string()))?;
        // It deletes what is beneath the layer, not what the layer itself has.
        drop(self.hidden.take());
        if let Some(Slot::Put { inode, opaque }) = self.slots.get_mut(&path) {
            *opaque |= self.inodes.get(*inode).is_some_and(|entry| entry.kind == Kind::Dir);
            return Ok(());
        }
        self.weigh(&path, 0)?;
        self.set(path, Slot::Whiteout);
        Ok(())
    }

    fn opaque(&mut self, dir: &TreePath) -> Result<(), Error> {
        let dir = self.directory(dir)?;
        drop(self.hidden.take());
        match self.slots.get_mut(&dir) {
            Some(Slot::Put { opaque, .. }) if !dir.is_root() => *opaque = true,
            Some(Slot::Put { .. } | Slot::Whiteout) | None => self.hides_all = true,
        }
        Ok(())
    }

    /// The path without links of a directory, which is there afterwards.
    fn directory(&mut self, path: &TreePath) -> Result<TreePath, Error> {
        if path.is_root() || self.is_dir(path) {
            return Ok(path.clone());
        }
        let path = resolve_with(path, true, |at| self.look(at)).map_err(|error| bad(error.to_string()))?;
        if let Some(reason) = self.refusal(&path) {
            return Err(bad(format!("a link leads to `{path}`: {reason}")));
        }
        let mut hidden = self.hides_all;
        for dir in path.ancestors().into_iter().skip(1).chain([path.clone()]).filter(|dir| !dir.is_root()) {
            match self.slots.get(&dir) {
                Some(Slot::Put { opaque, .. }) if self.is_dir(&dir) => {
                    hidden |= opaque;
                    continue;
                }
                Some(Slot::Put { .. }) => return Err(bad(format!("something is to be in `{dir}`, which is no directory"))),
                Some(Slot::Whiteout) => hidden = true,
                None => {}
            }
            let was = if hidden { None } else { self.below.look_up(&dir) };
            let entry = was
                .map(|found| found.entry.clone())
                .filter(|entry| entry.kind == Kind::Dir)
                .unwrap_or_else(|| Entry { meta: Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() }, kind: Kind::Dir });
            let opaque = self.clear(&dir)?;
            self.sink.dir(&dir)?;
            self.insert(dir, entry, opaque)?;
        }
        Ok(path)
    }

    fn is_dir(&self, path: &TreePath) -> bool {
        matches!(self.slots.get(path), Some(Slot::Put { inode, .. }) if self.inodes.get(*inode).is_some_and(|entry| entry.kind == Kind::Dir))
    }

    /// What a path is in this layer over those below. Something below that is no directory gives way to one of this layer.
    fn look(&self, path: &TreePath) -> Option<Step> {
        let step = |kind: &Kind| match kind {
            Kind::Dir => Step::Dir,
            Kind::Symlink { target } => Step::Link(target.clone()),
            Kind::File { .. } | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => Step::Other,
        };
        match self.slots.get(path) {
            Some(Slot::Put { inode, .. }) => self.inodes.get(*inode).map(|entry| step(&entry.kind)),
            Some(Slot::Whiteout) => None,
            None if self.is_hidden(path) => None,
            None => self.below.look_up(path).map(|found| step(&found.entry.kind)).filter(|step| !matches!(step, Step::Other)),
        }
    }

    /// Does this layer hide what lower ones have at a path that it has no entry for itself?
    fn is_hidden(&self, path: &TreePath) -> bool {
        self.hides_all
            || matches!(self.slots.get(path), Some(Slot::Whiteout))
            || path.parent().is_some_and(|parent| self.hides_within(&parent))
    }

    /// Does this layer hide what lower ones have below a directory?
    fn hides_within(&self, dir: &TreePath) -> bool {
        let Some(parent) = dir.parent() else { return self.hides_all };
        if let Some((known, hidden)) = &*self.hidden.borrow()
            && known == dir
        {
            return *hidden;
        }
        let closed = |at: &TreePath| match self.slots.get(at) {
            Some(Slot::Put { opaque, inode }) => *opaque || self.inodes.get(*inode).is_some_and(|entry| entry.kind != Kind::Dir),
            Some(Slot::Whiteout) => true,
            None => false,
        };
        let above = match &*self.hidden.borrow() {
            Some((known, hidden)) if *known == parent => *hidden,
            Some(_) | None => self.hides_all || parent.ancestors().iter().skip(1).any(closed) || closed(&parent),
        };
        let hidden = above || closed(dir);
        drop(self.hidden.replace(Some((dir.clone(), hidden))));
        hidden
    }

    /// Sets what the layer says of a path.
    fn set(&mut self, path: TreePath, slot: Slot) {
        drop(self.hidden.take());
        let _was = self.slots.insert(path, slot);
    }

    /// Makes room for a new entry. True: what lower layers have there is gone, even if the new entry is a directory.
    fn clear(&mut self, path: &TreePath) -> Result<bool, Error> {
        match self.slots.get(path) {
            None => return Ok(false),
            Some(Slot::Put { .. }) => self.sink.remove(path)?,
            Some(Slot::Whiteout) => {}
        }
        drop(self.hidden.take());
        let gone: Vec<TreePath> = self.slots.range(path.clone()..).map(|(at, _)| at).take_while(|at| at.is_within(path)).cloned().collect();
        for each in gone {
            let _slot = self.slots.remove(&each);
            drop(self.kept.remove(&each));
        }
        Ok(true)
    }

    fn insert(&mut self, path: TreePath, entry: Entry, opaque: bool) -> Result<(), Error> {
        let target = if let Kind::Symlink { target } = &entry.kind { target.len() } else { 0 };
        let xattrs: usize = entry.meta.xattrs.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.weigh(&path, target + xattrs)?;
        let inode = self.inodes.len();
        self.inodes.push(entry);
        self.set(path, Slot::Put { inode, opaque });
        Ok(())
    }

    /// Entries that replace others count too: it is the stream that is bounded.
    fn weigh(&mut self, path: &TreePath, more: usize) -> Result<(), Error> {
        self.weight += path.as_bytes().len() + more;
        if self.slots.len().max(self.inodes.len()) >= MAX_ROWS || self.weight > MAX_WEIGHT {
            return Err(bad("it has more entries than any layer may have"));
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Index, Error> {
        if self.hides_all {
            // A root cannot be opaque: each of its names is gone instead.
            for name in self.below.names() {
                let path = TreePath::root().join(&name).map_err(|error| bad(error.to_string()))?;
                match self.slots.get_mut(&path) {
                    None => {
                        self.set(path, Slot::Whiteout);
                    }
                    Some(Slot::Put { inode, opaque }) => *opaque |= self.inodes.get(*inode).is_some_and(|entry| entry.kind == Kind::Dir),
                    Some(Slot::Whiteout) => {}
                }
            }
            self.below.answered()?;
        }
        // The first names of inodes, of those that have more.
        let (mut seen, mut firsts) = (vec![false; self.inodes.len()], BTreeMap::new());
        for slot in self.slots.values() {
            if let Slot::Put { inode, .. } = slot
                && let Some(seen) = seen.get_mut(*inode)
                && std::mem::replace(seen, true)
            {
                drop(firsts.insert(*inode, None));
            }
        }
        let mut index = IndexWriter::default();
        for (path, slot) in self.slots {
            let unfit = |unfit: Unfit| bad(format!("`{path}`: {}", unfit.reason()));
            let Slot::Put { inode, opaque } = slot else {
                index.whiteout(path.clone()).map_err(unfit)?;
                continue;
            };
            let Some(entry) = self.inodes.get(inode) else { continue };
            let link = match firsts.get_mut(&inode) {
                Some(first @ None) => {
                    *first = Some(path.clone());
                    None
                }
                Some(Some(first)) => Some(first.clone()),
                None => None,
            };
            index.put(&path, &Row::Put { entry: entry.clone(), link, opaque }).map_err(unfit)?;
        }
        for (path, bytes) in self.kept {
            index.keep(path, Arc::from(bytes));
        }
        let index = index.finish();
        self.sink.finish(&index)?;
        Ok(index)
    }
}
