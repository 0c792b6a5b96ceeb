//! What COPY may see of a directory: its files less the ignored ones, never anything outside of it.
//!
//! A [`Context`] lists a directory when it is first asked for and remembers what it saw: two COPY of one build see the
//! same files. Every file is opened below the root's descriptor and through no link; links are followed as data, by
//! [`Context::resolve`], inside the root. What is no regular file is never opened.
//!
//! Invariants: owners of the host are not told (COPY makes them 0:0); a digest is of bytes that did not change while they
//! were read; nothing that `.dockerignore` excludes is there, but a directory that holds something taken back with `!`.
//!
//! Source: BuildKit `client/solve.go` (`resetUIDAndGID`), `frontend/dockerui/context.go` (`.dockerignore`); fsutil `filter.go`.

mod ignorefile;
mod learned;
mod stats;
mod unpacked;

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Read as _,
    os::fd::OwnedFd,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

pub use ignorefile::{Ignored, Reason, ignore_patterns};
pub use stats::Stats;
pub use unpacked::Unpacked;

use crate::{
    layer::{Content, Shown},
    pattern::{BadPattern, PatternList},
    sys::{
        PathError,
        dir::{self, DirEntry, FileKind, Stat},
    },
    tree::{BadPath, ContentDigest, Step, TreePath, Unresolved, Xattrs, resolve_with},
};

/// Read at once while digesting.
const CHUNK: usize = 256 * 1024;

/// Why a context could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused; the path is the one below the context that the user sees.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A file is not what it was when the context was listed.
    #[error("`{shown}` changed while it was read")]
    Changed {
        /// What the user calls it.
        shown: String,
    },
    /// A path that leads nowhere.
    #[error(transparent)]
    Unresolved(#[from] Unresolved),
    /// A name that cannot be a path.
    #[error(transparent)]
    Name(#[from] BadPath),
    /// An ignore file with a pattern that cannot be read.
    #[error("`{file}` is not usable")]
    IgnoreFile {
        /// Which, and its line.
        file: String,
        /// The pattern.
        #[source]
        source: BadPattern,
    },
    /// A file that has a limit, and is longer.
    #[error("`{file}` is longer than {limit} bytes")]
    TooLong {
        /// Which.
        file: String,
        /// In bytes.
        limit: u64,
    },
    /// An archive that can be no context.
    #[error("the archive cannot be a build context: {reason}")]
    Archive {
        /// What was found.
        reason: String,
    },
}

/// What the context has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// As lstat gave it when the directory was listed.
    pub stat: Stat,
    /// Of a symbolic link.
    pub target: Option<Vec<u8>>,
}

/// A directory as it was when it was listed.
#[derive(Debug)]
struct Listing {
    /// Its names that are not ignored.
    names: BTreeMap<Vec<u8>, Listed>,
    attributes: Xattrs,
}

/// Directories that were listed.
#[derive(Debug, Default)]
struct Listings {
    all: BTreeMap<TreePath, Arc<Listing>>,
    /// How many names they have together.
    names: usize,
}

impl Listings {
    /// More names are not remembered. In a larger context a directory that a second COPY asks for is listed again.
    const MOST: usize = 50_000;

    fn keep(&mut self, path: TreePath, listing: Arc<Listing>) {
        if self.names + listing.names.len() > Self::MOST {
            // A walk comes back to the directories above only.
            self.all.retain(|other, _| path.is_within(other));
            self.names = self.all.values().map(|listing| listing.names.len()).sum();
        }
        self.names += listing.names.len();
        drop(self.all.insert(path, listing));
    }
}

/// A directory as a context.
#[derive(Debug)]
pub struct Context {
    root: Arc<OwnedFd>,
    name: String,
    ignore: PatternList,
    ignorefile: String,
    listings: Mutex<Listings>,
    /// Of ignored directories: is something below it taken back?
    held: Mutex<BTreeMap<TreePath, bool>>,
    stats: Option<Arc<Stats>>,
}

impl Context {
    /// Opens it. Paths that `ignore` excludes are not there.
    pub fn open(dir: &Path, ignore: PatternList) -> Result<Self, Error> {
        Ok(Self::of(Arc::new(dir::open_root(dir)?), ignore))
    }

    /// The same of an open directory.
    pub fn of(root: Arc<OwnedFd>, ignore: PatternList) -> Self {
        let name = "the build context".to_owned();
        let ignorefile = ".dockerignore".to_owned();
        Self { root, name, ignore, ignorefile, listings: Mutex::default(), held: Mutex::default(), stats: None }
    }

    /// Calls it something else than "the build context" in messages: ``the context `assets` ``.
    #[must_use]
    pub fn called(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// Calls the file of the patterns something else than `.dockerignore`.
    #[must_use]
    pub fn ignoring_by(self, ignorefile: impl Into<String>) -> Self {
        Self { ignorefile: ignorefile.into(), ..self }
    }

    /// Files that are what they were when their digest was taken are not read again.
    #[must_use]
    pub fn remembering(self, stats: Arc<Stats>) -> Self {
        Self { stats: Some(stats), ..self }
    }

    /// What messages call it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is at a path, no link followed. `None`: nothing, or ignored.
    pub fn look_up(&self, path: &TreePath) -> Result<Option<Listed>, Error> {
        let Some(parent) = path.parent() else {
            return Ok(Some(Listed { stat: dir::stat_open(&*self.root)?, target: None }));
        };
        Ok(self.listing(&parent)?.and_then(|listing| listing.names.get(path.name()).cloned()))
    }

    /// The names in a directory, sorted; none for what is no directory.
    pub fn names(&self, dir: &TreePath) -> Result<Vec<Vec<u8>>, Error> {
        Ok(self.listing(dir)?.map(|listing| listing.names.keys().cloned().collect()).unwrap_or_default())
    }

    /// Why what is there cannot be seen, if the ignore file hides it.
    pub fn hidden_by(&self, path: &TreePath) -> Option<Reason> {
        let above = path.ancestors();
        let mut places = above.iter().chain([path]).filter(|at| !at.is_root());
        let rule = places.find_map(|at| self.ignore.rule(at.as_bytes()))?.clone();
        let there = dir::stat_beneath(&*self.root, path.as_os_path()).is_ok_and(|found| found.is_some());
        there.then(|| Reason { file: self.ignorefile.clone(), rule })
    }

    /// The path with links followed inside the context; see [`crate::tree::Chain::resolve`].
    pub fn resolve(&self, path: &TreePath, follow_last: bool) -> Result<TreePath, Error> {
        let failed = RefCell::new(None);
        let resolved = resolve_with(path, follow_last, |at| match self.look_up(at) {
            Ok(found) => found.map(|listed| match (listed.stat.kind, listed.target) {
                (FileKind::Dir, _) => Step::Dir,
                (FileKind::Symlink, Some(target)) => Step::Link(target),
                _ => Step::Other,
            }),
            Err(error) => {
                drop(failed.replace(Some(error)));
                None
            }
        });
        match failed.into_inner() {
            Some(error) => Err(error),
            None => Ok(resolved?),
        }
    }

    /// The digest of a file's bytes and its attributes, with the check that it did not change since it was listed.
    pub fn read(&self, path: &TreePath) -> Result<(ContentDigest, Xattrs), Error> {
        let changed = || Error::Changed { shown: path.relative() };
        let listed = self.look_up(path)?.ok_or_else(changed)?;
        if let Some(known) = self.recalled(path, &listed) {
            return Ok(known);
        }
        let began = stats::now();
        let (mut file, before) = match dir::open_file_stat(&*self.root, path.as_os_path()) {
            // It was there when the directory was listed.
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => return Err(changed()),
            opened => opened.map_err(|error| refused("read", path, error))?,
        };
        let digest = digest(&mut file, before.size).map_err(PathError::new("read", path.as_os_path()))?;
        let xattrs = kept_attributes(dir::attributes(&file).map_err(|error| refused("read attributes of", path, error))?);
        let after = dir::stat_open(&file).map_err(|error| refused("read", path, error))?;
        if !is_same(&before, &after) || !is_same(&before, &listed.stat) {
            return Err(changed());
        }
        if let Some(stats) = &self.stats {
            stats.learn(path, &listed.stat, began, digest, &xattrs);
        }
        Ok((digest, xattrs))
    }

    /// The same without reading the file: what it had in an earlier build, if it is as it was.
    pub fn recall(&self, path: &TreePath) -> Result<Option<(ContentDigest, Xattrs)>, Error> {
        Ok(self.look_up(path)?.and_then(|listed| self.recalled(path, &listed)))
    }

    fn recalled(&self, path: &TreePath, listed: &Listed) -> Option<(ContentDigest, Xattrs)> {
        self.stats.as_ref().and_then(|stats| stats.recall(path, &listed.stat))
    }

    /// The attributes of a directory.
    pub fn attributes(&self, dir: &TreePath) -> Result<Xattrs, Error> {
        Ok(self.listing(dir)?.map(|listing| listing.attributes.clone()).unwrap_or_default())
    }

    /// Where a file's bytes are.
    pub fn content(&self, path: &TreePath) -> Content {
        Content::Below { dir: Arc::clone(&self.root), path: path.clone(), shown: Shown::Below }
    }

    /// The permission bits of a regular file, links followed inside the context. `None`: there is none.
    pub fn mode(&self, path: &str) -> Result<Option<u32>, Error> {
        let at = self.resolve(&TreePath::clean(path.as_bytes())?, true)?;
        Ok(self.look_up(&at)?.filter(|listed| listed.stat.kind == FileKind::File).map(|listed| listed.stat.mode & 0o7777))
    }

    /// A small file whole, links followed inside the context. `None`: it is not there.
    pub fn small_file(&self, path: &TreePath, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let at = self.resolve(path, true)?;
        if self.look_up(&at)?.is_none() {
            return Ok(None);
        }
        let file = dir::open_file(&*self.root, at.as_os_path()).map_err(|error| refused("open", path, error))?;
        bounded(file, path, limit).map(Some)
    }

    /// `None`: no directory there.
    fn listing(&self, path: &TreePath) -> Result<Option<Arc<Listing>>, Error> {
        let known = |path: &TreePath| self.listings.lock().unwrap_or_else(PoisonError::into_inner).all.get(path).cloned();
        if let Some(listing) = known(path) {
            return Ok(Some(listing));
        }
        // Only what is not known yet, from the top: a walk asks for a directory after the one that holds it.
        let mut missing = vec![path.clone()];
        while let Some(parent) = missing.last().and_then(TreePath::parent).filter(|parent| known(parent).is_none()) {
            missing.push(parent);
        }
        let mut last = None;
        for at in missing.into_iter().rev() {
            if !at.is_root() && self.look_up(&at)?.is_none_or(|listed| listed.stat.kind != FileKind::Dir) {
                return Ok(None);
            }
            let listing = Arc::new(self.list(&at)?);
            self.listings.lock().unwrap_or_else(PoisonError::into_inner).keep(at, Arc::clone(&listing));
            last = Some(listing);
        }
        Ok(last)
    }

    fn list(&self, path: &TreePath) -> Result<Listing, Error> {
        let fd = dir::open_dir(&*self.root, path.as_os_path()).map_err(|error| refused("open", path, error))?;
        let ignore = self.ignore.inside(path.as_bytes());
        let attributes = kept_attributes(dir::attributes(&fd).map_err(|error| refused("read attributes of", path, error))?);
        let mut listing = Listing { names: BTreeMap::new(), attributes };
        for DirEntry { name, is_dir } in dir::entries_ahead(&fd).map_err(|error| refused("list", path, error))? {
            let excluded = ignore.excludes(&name);
            if excluded && (is_dir == Some(false) || !ignore.may_reinclude_below(&name)) {
                continue;
            }
            // What went away since the names were read was never there.
            let at = || path.join(&name).unwrap_or_default();
            let Some(stat) = dir::stat(&fd, &name).map_err(|error| refused("stat", &at(), error))? else { continue };
            if excluded && !(stat.kind == FileKind::Dir && self.holds_something(&path.join(&name)?)?) {
                continue;
            }
            let target = if stat.kind == FileKind::Symlink {
                Some(dir::read_link(&fd, &name).map_err(|error| refused("read link", &at(), error))?)
            } else {
                None
            };
            drop(listing.names.insert(name, Listed { stat, target }));
        }
        Ok(listing)
    }

    /// Is anything below this ignored directory taken back with `!`? Each directory is looked at once.
    fn holds_something(&self, dir: &TreePath) -> Result<bool, Error> {
        let known = self.held.lock().unwrap_or_else(PoisonError::into_inner).get(dir).copied();
        if let Some(known) = known {
            return Ok(known);
        }
        let fd = dir::open_dir(&*self.root, dir.as_os_path()).map_err(|error| refused("open", dir, error))?;
        let ignore = self.ignore.inside(dir.as_bytes());
        let mut below = dir::entries_ahead(&fd).map_err(|error| refused("list", dir, error))?;
        let mut found = below.iter().any(|entry| !ignore.excludes(&entry.name));
        below.retain(|entry| !found && entry.is_dir != Some(false) && ignore.may_reinclude_below(&entry.name));
        for entry in below.iter_mut().filter(|entry| entry.is_dir.is_none()) {
            let stat = dir::stat(&fd, &entry.name).map_err(|error| refused("stat", dir, error))?;
            entry.is_dir = Some(stat.is_some_and(|stat| stat.kind == FileKind::Dir));
        }
        // A path is long, and deep: not one descriptor for each of its directories.
        drop(fd);
        for entry in below.iter().filter(|entry| entry.is_dir == Some(true)) {
            found = found || self.holds_something(&dir.join(&entry.name)?)?;
        }
        let _before: Option<bool> = self.held.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.clone(), found);
        Ok(found)
    }
}

/// All bytes of a file that has a limit.
fn bounded(file: std::fs::File, path: &TreePath, limit: u64) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let length = file.take(limit + 1).read_to_end(&mut bytes).map_err(PathError::new("read", path.as_os_path()))?;
    if length as u64 > limit { Err(Error::TooLong { file: path.relative(), limit }) } else { Ok(bytes) }
}

/// A small file below a directory of foreign origin, links followed inside of it. `None`: it is not there.
pub fn small_file(dir: &Path, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
    Context::open(dir, PatternList::default())?.small_file(&TreePath::clean(path.as_bytes())?, limit)
}

/// The kernel's answer with the path that the user knows.
fn refused(op: &'static str, path: &TreePath, error: PathError) -> Error {
    PathError { op, path: path.as_os_path().to_owned(), source: error.source }.into()
}

/// Of all bytes of an open file of about this size.
fn digest(file: &mut std::fs::File, size: u64) -> std::io::Result<ContentDigest> {
    let mut hasher = blake3::Hasher::new();
    // Room for one byte more than there should be: the end shows in the read of the last bytes.
    let mut chunk = vec![0; usize::try_from(size).map_or(CHUNK, |size| CHUNK.min(size + 1))];
    let mut left = size;
    loop {
        match file.read(&mut chunk) {
            Ok(length) => {
                let _same: &mut blake3::Hasher = hasher.update(chunk.get(..length).unwrap_or_default());
                left = left.saturating_sub(length as u64);
                if length == 0 || (left == 0 && length < chunk.len()) {
                    return Ok(ContentDigest(*hasher.finalize().as_bytes()));
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Is it the same inode with the same bytes, by its times?
fn is_same(one: &Stat, other: &Stat) -> bool {
    (one.dev, one.ino, one.size, one.mtime, one.ctime, one.kind) == (other.dev, other.ino, other.size, other.mtime, other.ctime, other.kind)
}

/// The attributes that go into an image: `user.*` but overlayfs's own, and capabilities in the form without a namespace's root.
fn kept_attributes(all: dir::Attributes) -> Xattrs {
    all.into_iter()
        .filter(|(name, _)| name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.")))
        .map(|(name, value)| if name == b"security.capability" { (name, plain_capability(value)) } else { (name, value) })
        .collect()
}

/// Version 3 of `security.capability` is version 2 and the id of a namespace's root: that id means nothing in an image.
///
/// Source: `linux/capability.h` (`vfs_ns_cap_data`).
fn plain_capability(mut value: Vec<u8>) -> Vec<u8> {
    if value.len() == 24 && value.get(3) == Some(&3) {
        value.truncate(20);
        value.iter_mut().skip(3).take(1).for_each(|version| *version = 2);
    }
    value
}

#[cfg(test)]
mod tests;
