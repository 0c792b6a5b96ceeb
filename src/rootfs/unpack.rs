//! ADD of an archive: its members are laid over the draft as `tar -x` in a chroot of the destination would, and their bytes
//! go to a spool.
//!
//! - every name is resolved in the data with the destination as the root: links inside lead nowhere else, also those that an
//!   earlier member made; a name that climbs out with `..` is an error
//! - a member replaces what is there, whole directories too; only a directory over a directory leaves what that holds
//! - `./` says nothing about the destination itself; directories that are only implied are root's, 0755
//! - links to files of the archive, or of the tree below, become names of one inode
//!
//! Source: docs/reference.md (ADD); moby go-archive `Unpack`, as BuildKit calls it, by behaviour.

use std::{
    cell::Cell,
    io::{self, Read, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{
    Error, Placement, Source as _, Tree,
    draft::{Draft, Making, Over, Put, ViewKind},
};
use crate::{
    layer::{
        self, Bundle, Content, Shown,
        archive::{self, Body, Entries, Member, MemberKind},
    },
    sys::{PathError, dir},
    tree::{ContentDigest, Meta, Step, TreePath, resolve_with},
};

/// A member of at most this size gets no file of its own.
const SMALL: u64 = 64 << 10;
/// The kernel's limits for a path and a component.
const LONGEST: (usize, usize) = (4096, 255);
/// More members than any file system would like to hold.
const MOST_MEMBERS: u64 = 8_000_000;
/// Names, attributes and targets, which are kept in memory: half of what a base's layer may have.
const MOST_WEIGHT: usize = 256 << 20;
/// What is more than either.
const TOO_MANY: &str = "is one too many";

/// Where the bytes of unpacked files wait to be written into a layer. It is to outlive the changes that come of it.
#[derive(Debug)]
pub struct Spool {
    dir: Arc<OwnedFd>,
    below: Option<Tree>,
    files: AtomicU64,
    /// Of the small ones.
    bundle: Mutex<Bundle>,
}

impl Spool {
    /// Writes its files into this directory, which is the caller's and empty.
    pub fn new(dir: Arc<OwnedFd>) -> Self {
        let bundle = Mutex::new(Bundle::within(Arc::clone(&dir)));
        Self { dir, below: None, files: AtomicU64::new(0), bundle }
    }

    /// With the extracted trees of the draft's chain, for archives that link to files in them.
    #[must_use]
    pub fn over(self, tree: Tree) -> Self {
        Self { below: Some(tree), ..self }
    }

    /// Takes a member's bytes.
    fn keep(&self, body: &mut impl Read, size: u64, shown: String) -> Result<(Content, ContentDigest), Error> {
        if size <= SMALL {
            let mut bytes = Vec::new();
            let _read = body.read_to_end(&mut bytes).map_err(|error| unreadable(error, &shown))?;
            let part = self.bundle.lock().unwrap_or_else(PoisonError::into_inner).put(&bytes)?;
            return Ok((Content::Bundled(part), ContentDigest::of(&bytes)));
        }
        let name = self.files.fetch_add(1, Ordering::Relaxed).to_string();
        let mut file = dir::create_file(&*self.dir, name.as_bytes())?;
        let mut hasher = blake3::Hasher::new();
        let mut chunk = vec![0; 128 * 1024];
        loop {
            let length = match body.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error, &shown)),
            };
            let read = chunk.get(..length).unwrap_or_default();
            let _: &mut blake3::Hasher = hasher.update(read);
            file.write_all(read).map_err(PathError::new("write", &shown))?;
        }
        let path = TreePath::parse(name.as_bytes())?;
        let content = Content::Below { dir: Arc::clone(&self.dir), path, shown: Shown::As(shown) };
        Ok((content, ContentDigest(*hasher.finalize().as_bytes())))
    }
}

/// A member's bytes that cannot be had: the kernel has numbers for what the disk does, the archive has none.
fn unreadable(error: io::Error, shown: &str) -> Error {
    if error.raw_os_error().is_some() {
        return PathError::new("unpack", shown)(error).into();
    }
    Error::refused(
        format!("`{shown}` cannot be unpacked: {error}"),
        "make the archive again, or copy it as it is with `ADD --unpack=false`",
    )
}

/// An archive that is to be unpacked.
pub(super) struct Archive<'a> {
    /// What messages call it.
    pub(super) shown: &'a str,
    pub(super) content: &'a Content,
    /// What its bytes must be.
    pub(super) digest: ContentDigest,
}

impl Archive<'_> {
    /// Is it one, by its first bytes?
    pub(super) fn is_one(&self) -> Result<bool, Error> {
        Ok(archive::is_archive(self.open()?))
    }

    fn open(&self) -> Result<Box<dyn Read + Send + '_>, Error> {
        Ok(match self.content {
            Content::Bytes(bytes) => Box::new(&bytes[..]),
            Content::Bundled(part) => Box::new(part.reader()),
            Content::Below { dir, path, shown } => {
                let named = |error: PathError| PathError { path: PathBuf::from(shown.words(path)), ..error };
                Box::new(dir::open_file(&**dir, path.as_os_path()).map_err(named)?)
            }
        })
    }

    fn failed(&self, error: &archive::Error) -> Error {
        let mut text = format!("`{}` cannot be unpacked: {error}", self.shown);
        let mut source = std::error::Error::source(error);
        while let Some(next) = source {
            text.push_str(": ");
            text.push_str(&next.to_string());
            source = next.source();
        }
        Error::refused(text, "make the archive again, or copy it as it is with `ADD --unpack=false`")
    }

    fn refused(&self, member: &Member, why: &str) -> Error {
        let what = format!("`{}` cannot be unpacked: its entry `{}` {why}", self.shown, shown(&member.name));
        Error::refused(what, "make the archive without it, or copy it as it is with `ADD --unpack=false`")
    }
}

/// Hashes what is read.
struct Hashing<R> {
    from: R,
    hasher: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let length = self.from.read(into)?;
        let _: &mut blake3::Hasher = self.hasher.update(into.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// One unpacking.
struct Unpacking<'a> {
    archive: &'a Archive<'a>,
    spool: &'a Spool,
    /// The destination, which is the root for all names.
    root: TreePath,
    chown: Option<(u32, u32)>,
    now: i64,
    over: Over,
    /// Of names, attributes and targets so far, in bytes.
    weight: Cell<usize>,
}

impl Draft {
    /// Unpacks an archive into the destination, which becomes a directory.
    pub(super) fn unpack(&mut self, archive: &Archive<'_>, spool: &Spool, placement: &Placement, over: Over) -> Result<(), Error> {
        if placement.chmod.is_some() {
            let what = format!("--chmod cannot change what the archive `{}` holds", archive.shown);
            return Err(Error::refused(what, "leave `--chmod` out, or copy the archive as it is with `--unpack=false`"));
        }
        let dest = TreePath::clean(placement.dest.as_bytes())?;
        let root = self.resolve(&dest, true, over)?;
        self.make_dirs(&root, placement.making(), over)?;
        let unpacking = Unpacking { archive, spool, root, chown: placement.chown, now: placement.now, over, weight: Cell::new(0) };
        let mut raw = Hashing { from: archive.open()?, hasher: blake3::Hasher::new() };
        {
            let plain = layer::decompress(&mut raw).map_err(|error| archive.failed(&error.into()))?;
            let mut entries = Entries::new(plain);
            let mut count = 0;
            while let Some(member) = entries.next_member().map_err(|error| archive.failed(&error))? {
                count += 1;
                if count > MOST_MEMBERS {
                    return Err(archive.refused(&member, TOO_MANY));
                }
                let target = if let MemberKind::Symlink(target) = &member.kind { target.len() } else { 0 };
                unpacking.weigh(&member, &member.meta, target)?;
                self.lay(&unpacking, &member, &mut entries.body())?;
            }
        }
        // What follows the archive's end belongs to the file whose digest is in the key.
        let _left = io::copy(&mut raw, &mut io::sink()).map_err(PathError::new("read", archive.shown))?;
        if *raw.hasher.finalize().as_bytes() != archive.digest.0 {
            return Err(layer::Error::Changed { shown: archive.shown.to_owned() }.into());
        }
        Ok(())
    }

    fn lay<R: Read>(&mut self, at: &Unpacking<'_>, member: &Member, body: &mut Body<'_, R>) -> Result<(), Error> {
        let below = at.path(member, &member.name)?;
        if below.is_root() {
            let what = "would replace the destination";
            return if member.kind == MemberKind::Dir { Ok(()) } else { Err(at.archive.refused(member, what)) };
        }
        let path = self.inside(at, &below, true)?;
        let put = match &member.kind {
            MemberKind::Dir => Put::Dir,
            MemberKind::File { size } => {
                let (content, digest) = at.spool.keep(body, *size, format!("{} in {}", shown(&member.name), at.archive.shown))?;
                Put::File { size: *size, digest, content, group: None }
            }
            MemberKind::Symlink(target) if target.is_empty() || target.len() >= LONGEST.0 || target.contains(&0) => {
                return Err(at.archive.refused(member, "is a link to something that is no path"));
            }
            MemberKind::Symlink(target) => Put::Symlink(target.clone()),
            MemberKind::HardLink(target) => return self.lay_link(at, member, target, &path),
            MemberKind::Char { major, minor } => Put::Char(*major, *minor),
            MemberKind::Block { major, minor } => Put::Block(*major, *minor),
            MemberKind::Fifo => Put::Fifo,
        };
        self.put(path, at.meta(member), put, at.over);
        Ok(())
    }

    /// A member's path in the draft: links above it followed below the destination, missing directories made.
    fn inside(&mut self, at: &Unpacking<'_>, below: &TreePath, make: bool) -> Result<TreePath, Error> {
        let parent = below.parent().unwrap_or_default();
        let resolved = resolve_with(&parent, true, |path| {
            Some(match self.look_up(&at.root.join_path(path), at.over)?.kind {
                ViewKind::Dir => Step::Dir,
                ViewKind::Symlink(target) => Step::Link(target),
                ViewKind::File | ViewKind::Other => Step::Other,
            })
        })?;
        let holder = at.root.join_path(&resolved);
        if make {
            self.make_dirs(&holder, Making { mode: 0o755, owner: (0, 0), now: at.now }, at.over)?;
        }
        Ok(holder.join(below.name())?)
    }

    /// A second name for what is there under the first.
    fn lay_link(&mut self, at: &Unpacking<'_>, member: &Member, target: &[u8], path: &TreePath) -> Result<(), Error> {
        let below = at.path(member, target)?;
        let first = if below.is_root() { at.root.clone() } else { self.inside(at, &below, false)? };
        if first == *path {
            return Ok(());
        }
        let Some(view) = self.look_up(&first, at.over) else {
            return Err(at.archive.refused(member, &format!("is a link to `{}`, which is not there", shown(target))));
        };
        let (meta, put) = match view.kind {
            ViewKind::Dir => return Err(at.archive.refused(member, "is a hard link to a directory")),
            ViewKind::File => self.linked(at, &first, view.meta)?,
            // Links to links and devices are names of one inode too, but nothing can tell.
            ViewKind::Symlink(target) => (view.meta, Put::Symlink(target)),
            ViewKind::Other => match self.node_at(&first, at.over) {
                Some(put) => (view.meta, put),
                None => return Err(at.archive.refused(member, "is a link to something that is not there")),
            },
        };
        // A name that has all that its first one has.
        at.weigh(member, &meta, if let Put::Symlink(target) = &put { target.len() } else { 0 })?;
        self.put(path.clone(), meta, put, at.over);
        Ok(())
    }

    /// The file at a path, made pending and member of a group that another name can join.
    fn linked(&mut self, at: &Unpacking<'_>, first: &TreePath, meta: Meta) -> Result<(Meta, Put), Error> {
        let put = if let Some(Put::File { size, digest, content, group }) = self.node_at(first, at.over) {
            let group = group.unwrap_or_else(|| self.new_group());
            Put::File { size, digest, content, group: Some(group) }
        } else {
            let needed = || Error::NeedsTrees { path: first.clone() };
            let tree = at.spool.below.as_ref().ok_or_else(needed)?;
            let content = tree.content(first)?.ok_or_else(needed)?;
            let (size, digest) = tree.size_and_digest(first)?;
            Put::File { size, digest, content, group: Some(self.new_group()) }
        };
        self.put(first.clone(), meta.clone(), put.clone(), at.over);
        Ok((meta, put))
    }
}

impl Unpacking<'_> {
    /// Counts what is kept of a member, which is refused if that is too much.
    fn weigh(&self, member: &Member, meta: &Meta, target: usize) -> Result<(), Error> {
        let attributes: usize = meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.weight.set(self.weight.get() + member.name.len() + attributes + target);
        if self.weight.get() > MOST_WEIGHT { Err(self.archive.refused(member, TOO_MANY)) } else { Ok(()) }
    }

    /// A name below the destination.
    fn path(&self, member: &Member, name: &[u8]) -> Result<TreePath, Error> {
        let mut depth = 0_usize;
        for part in name.split(|byte| *byte == b'/') {
            depth = match part {
                b"" | b"." => depth,
                b".." => depth.checked_sub(1).ok_or_else(|| self.archive.refused(member, "leads out of the destination"))?,
                _ if part.len() > LONGEST.1 => return Err(self.archive.refused(member, "has a name longer than 255 bytes")),
                _ => depth + 1,
            };
        }
        if name.len() >= LONGEST.0 {
            return Err(self.archive.refused(member, "has a path longer than 4095 bytes"));
        }
        Ok(TreePath::clean(name)?)
    }

    fn meta(&self, member: &Member) -> Meta {
        let (uid, gid) = self.chown.unwrap_or((member.meta.uid, member.meta.gid));
        let mode = if matches!(member.kind, MemberKind::Symlink(_)) { 0o777 } else { member.meta.mode };
        Meta { mode, uid, gid, ..member.meta.clone() }
    }
}

/// A foreign name for a message: printable and of a readable length.
fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name).escape_debug().to_string();
    match text.char_indices().nth(200) {
        Some((cut, _)) => format!("{}…", text.get(..cut).unwrap_or_default()),
        None => text,
    }
}

#[cfg(test)]
mod tests;
