//! Changes as a canonical tar, and the index of it, in one pass.
//!
//! The order is that of paths; a directory's whiteouts come right after it, before all else in it. Directories above a
//! change are emitted before it, as the chain has them. The root itself is not emitted.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    sync::Arc,
};

use super::{
    Change, Changes, Content, Error, Node,
    canonical::{self, Keeper, Sort},
    header::{self, Header},
};
use crate::{
    sys::{PathError, dir},
    tree::{Chain, ContentDigest, Entry, Index, IndexWriter, Kind, Meta, Row, TreePath, Xattrs},
};

/// How much is read of a file at once.
const READ: usize = 256 * 1024;

/// Writes the tar of the changes, its end mark included.
pub(super) fn emit(changes: &Changes, chain: &Chain, out: &mut dyn Write) -> Result<Index, Error> {
    let mut whiteouts: BTreeMap<TreePath, Vec<TreePath>> = BTreeMap::new();
    for path in changes.whiteouts() {
        if let Some(parent) = path.parent() {
            whiteouts.entry(parent).or_default().push(path);
        }
    }
    let mut emitter =
        Emitter { out, chain, whiteouts, entered: Vec::new(), index: IndexWriter::default(), keeper: Keeper::new(), buffer: Vec::new() };
    changes.each(&mut |path, change| {
        if let Some(reason) = canonical::refusal(path) {
            return Err(bad_name(path, reason));
        }
        match change {
            _ if path.is_root() => Ok(()),
            Change::Whiteout => emitter.enter(&path.parent().unwrap_or_default()),
            Change::Put(meta, node) => {
                emitter.enter(&path.parent().unwrap_or_default())?;
                emitter.put(path, meta, node)
            }
        }
    })?;
    emitter.raw(&header::END)?;
    Ok(emitter.index.finish())
}

fn bad_name(path: &TreePath, reason: &'static str) -> Error {
    Error::BadName { path: path.to_string(), reason }
}

struct Emitter<'a> {
    out: &'a mut dyn Write,
    chain: &'a Chain,
    whiteouts: BTreeMap<TreePath, Vec<TreePath>>,
    /// The directories above what was written last, that one too if it is one.
    entered: Vec<TreePath>,
    index: IndexWriter,
    keeper: Keeper,
    /// Of one file after the other.
    buffer: Vec<u8>,
}

impl Emitter<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.out.write_all(bytes).map_err(PathError::new("write", "layer"))?)
    }

    /// Sees to it that a directory and those above it are there, with their whiteouts.
    fn enter(&mut self, dir: &TreePath) -> Result<(), Error> {
        while self.entered.last().is_some_and(|last| !dir.is_within(last)) {
            drop(self.entered.pop());
        }
        if self.entered.last() == Some(dir) {
            return Ok(());
        }
        if let Some(parent) = dir.parent() {
            self.enter(&parent)?;
        }
        if !dir.is_root() {
            match (self.index.row(dir), self.chain.look_up(dir)) {
                (None, Some(found)) if found.entry.kind == Kind::Dir => self.put(dir, &found.entry.meta.clone(), &Node::Dir)?,
                _ => return Err(bad_name(dir, "something is to be in it, and it is no directory")),
            }
        }
        self.open(dir)
    }

    /// Emits the whiteouts of a directory that was just emitted.
    fn open(&mut self, dir: &TreePath) -> Result<(), Error> {
        if self.entered.last() == Some(dir) {
            return Ok(());
        }
        self.entered.push(dir.clone());
        let none = Meta { mode: 0, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
        for path in self.whiteouts.remove(dir).unwrap_or_default() {
            let name = [canonical::WHITEOUT, path.name()].concat();
            let name = if dir.is_root() { name } else { [dir.as_bytes(), b"/", &name].concat() };
            self.header(&path, &Header { name: &name, meta: &none, type_flag: b'0', size: 0, link: b"", device: (0, 0) })?;
            self.index.whiteout(path.clone()).map_err(|unfit| bad_name(&path, unfit.reason()))?;
        }
        Ok(())
    }

    fn header(&mut self, path: &TreePath, header: &Header<'_>) -> Result<(), Error> {
        let blocks = header::format(header).ok_or_else(|| bad_name(path, "an attribute or a device number has no form in a tar"))?;
        self.raw(&blocks)
    }

    fn put(&mut self, path: &TreePath, meta: &Meta, node: &Node) -> Result<(), Error> {
        if let Node::HardLink(first) = node {
            return self.link(path, first);
        }
        let (sort, type_flag, device) = match node {
            Node::File { .. } | Node::HardLink(_) => (Sort::File, b'0', (0, 0)),
            Node::Dir => (Sort::Dir, b'5', (0, 0)),
            Node::Symlink(_) => (Sort::Symlink, b'2', (0, 0)),
            Node::Char { major: 0, minor: 0 } => return Err(bad_name(path, "a character device 0:0 would delete another file")),
            Node::Char { major, minor } => (Sort::Special, b'3', (*major, *minor)),
            Node::Block { major, minor } => (Sort::Special, b'4', (*major, *minor)),
            Node::Fifo => (Sort::Special, b'6', (0, 0)),
        };
        let meta = canonical::meta(meta, sort);
        let mut name = path.as_bytes().to_vec();
        if sort == Sort::Dir {
            name.push(b'/');
        }
        let link: &[u8] = if let Node::Symlink(target) = node { target } else { b"" };
        let size = if let Node::File { size, .. } = node { *size } else { 0 };
        if sort == Sort::Symlink && (link.is_empty() || link.len() > canonical::MAX_PATH || link.contains(&0)) {
            return Err(bad_name(path, "its target is no path"));
        }
        self.header(path, &Header { name: &name, meta: &meta, type_flag, size, link, device })?;
        let (major, minor) = device;
        let kind = match node {
            Node::File { size, content, digest } => Kind::File { size: *size, content: self.body(path, *size, content, *digest)? },
            Node::Dir => Kind::Dir,
            Node::Symlink(target) => Kind::Symlink { target: target.clone() },
            Node::Char { .. } => Kind::Char { major, minor },
            Node::Block { .. } => Kind::Block { major, minor },
            Node::Fifo | Node::HardLink(_) => Kind::Fifo,
        };
        let opened = kind == Kind::Dir;
        self.row(path, &Row::Put { entry: Entry { meta, kind }, link: None, opaque: false })?;
        if opened { self.open(path) } else { Ok(()) }
    }

    /// A further name: its header repeats what the first says, its target is relative to the root.
    fn link(&mut self, path: &TreePath, first: &TreePath) -> Result<(), Error> {
        let entry = match self.index.row(first) {
            Some(Row::Put { entry, link: None, .. }) if entry.kind != Kind::Dir => entry,
            Some(Row::Put { .. } | Row::Whiteout) | None => {
                return Err(bad_name(path, "it is a hard link to nothing that comes before it"));
            }
        };
        // Attributes are the inode's, which has them.
        let plain = Meta { xattrs: Xattrs::new(), ..entry.meta.clone() };
        let header = Header { name: path.as_bytes(), meta: &plain, type_flag: b'1', size: 0, link: first.as_bytes(), device: (0, 0) };
        self.header(path, &header)?;
        self.row(path, &Row::Put { entry, link: Some(first.clone()), opaque: false })
    }

    fn row(&mut self, path: &TreePath, row: &Row) -> Result<(), Error> {
        self.index.put(path, row).map_err(|unfit| bad_name(path, unfit.reason()))
    }

    /// Copies a file's bytes, which must be as many as was said and have the digest that was said.
    fn body(&mut self, path: &TreePath, size: u64, content: &Content, want: Option<ContentDigest>) -> Result<ContentDigest, Error> {
        let (mut from, shown): (Box<dyn Read + '_>, String) = match content {
            Content::Bytes(bytes) => (Box::new(&bytes[..]), path.to_string()),
            Content::Bundled(part) => (Box::new(part.reader()), path.to_string()),
            Content::Below { dir, path, shown } => match dir::open_file(dir, path.as_os_path()) {
                Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => {
                    return Err(Error::Changed { shown: shown.words(path) });
                }
                opened => (Box::new(opened?), shown.words(path)),
            },
        };
        let mut kept = self.keeper.wants(path, size);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        // Room for one byte more than there should be: whether the file has grown shows in the read that its end shows in.
        let room = usize::try_from(size).unwrap_or(usize::MAX).saturating_add(1).min(READ);
        if buffer.len() < room {
            buffer.resize(room, 0);
        }
        let mut left = size;
        loop {
            let read = match from.read(buffer.get_mut(..room).unwrap_or_default()) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                read => read.map_err(PathError::new("read", &shown))?,
            };
            let bytes = buffer.get(..read).unwrap_or_default();
            left = match left.checked_sub(read as u64) {
                Some(left) if read > 0 || left == 0 => left,
                _ => return Err(Error::Changed { shown }),
            };
            let _same = hasher.update(bytes);
            if let Some(kept) = &mut kept {
                kept.extend_from_slice(bytes);
            }
            self.raw(bytes)?;
            if left == 0 && read < room {
                break;
            }
        }
        self.buffer = buffer;
        self.raw(header::END.get(..header::padding(size)).unwrap_or_default())?;
        let digest = ContentDigest(*hasher.finalize().as_bytes());
        if want.is_some_and(|want| want != digest) {
            return Err(Error::Changed { shown });
        }
        if let Some(bytes) = kept {
            self.index.keep(path.clone(), Arc::from(bytes));
        }
        Ok(digest)
    }
}
