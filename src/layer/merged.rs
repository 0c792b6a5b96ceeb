//! A plain directory that holds what a chain of layers shows merged, for steps where nothing can be mounted.
//!
//! It is made from the layers' indexes, bytes from their trees. Names that are linked in a layer get an inode each, as a
//! write would give them under overlay. What a step changed is found by comparing each lstat with the one from before the
//! step: whatever changes an inode changes its ctime, which no program can set, if the clock has moved on between.
//! [`Merged::settle`] makes the tree what a new one of the longer chain would be, so that the next step can work in it.
//!
//! Source: inode(7) (ctime), `ioctl_ficlone(2)`, `copy_file_range(2)`.

use std::{
    collections::{
        BTreeSet, HashMap,
        hash_map::Entry::{Occupied, Vacant},
    },
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
};

use super::{
    Changes, Error, Lower, Owners, diff,
    extract::{dress, dress_name, is_not_permitted},
    seal, upper,
};
use crate::{
    sys::{
        PathError,
        dir::{self, FileKind, Stat},
    },
    tree::{Chain, Entry, Index, Kind, Meta, OwnerTable, TreePath, Xattrs},
};

/// A directory and the chain that it holds.
#[derive(Debug)]
pub struct Merged {
    root: Arc<OwnedFd>,
    chain: Chain,
    owners: Owners,
}

/// What lstat said of everything before a step.
#[derive(Debug)]
pub struct Before(HashMap<TreePath, Stat>);

impl Before {
    pub(super) fn has(&self, path: &TreePath) -> bool {
        self.0.contains_key(path)
    }

    pub(super) fn is_as_it_was(&self, path: &TreePath, stat: &Stat) -> bool {
        self.0.get(path) == Some(stat)
    }
}

/// What a step did to a tree.
#[derive(Debug)]
pub struct Worked {
    /// As a layer has it.
    pub changes: Changes,
    /// All that is there and is not as it was, changed or not, a directory before what is in it.
    touched: Vec<TreePath>,
}

impl Merged {
    /// An empty directory holds the chain without layers.
    pub fn new(root: OwnedFd, owners: Owners) -> Result<Self, Error> {
        if !dir::names(&root)?.is_empty() {
            return Err(Error::Path(PathError::new("copy into", ".")(std::io::Error::other("the directory is not empty"))));
        }
        Ok(Self { root: Arc::new(root), chain: Chain::default(), owners })
    }

    /// How many layers it holds, if they are the first of this chain.
    pub fn begins(&self, chain: &Chain) -> Option<usize> {
        let held = self.chain.layers().len();
        (self.common(chain) == held).then_some(held)
    }

    /// How many layers, from the base, it has in common with a chain.
    fn common(&self, chain: &Chain) -> usize {
        self.chain.layers().iter().zip(chain.layers()).take_while(|(have, want)| is_same(have, want)).count()
    }

    /// Makes it hold these layers, base first. What it holds of them already stays. After an error it holds nothing known.
    pub fn fit(&mut self, lowers: &[Lower]) -> Result<(), Error> {
        let held = self.chain.layers();
        let is_held = held.len() == lowers.len() && held.iter().zip(lowers).all(|(have, want)| is_same(have, &want.index));
        // The common case from step to step: all rows need not be gone through to find that out.
        if is_held && !held.is_empty() {
            return Ok(());
        }
        self.fit_part(lowers, &TreePath::root())
    }

    /// At, above and below a path it becomes what these layers show there; nothing else is made.
    fn fit_part(&mut self, lowers: &[Lower], part: &TreePath) -> Result<(), Error> {
        let chain = Chain::new(lowers.iter().map(|lower| Arc::clone(&lower.index)).collect());
        let roots = roots(lowers)?;
        let (common, ahead, dress) = (self.common(&chain), vec![TreePath::root()], BTreeSet::new());
        let mut fit = Fit { owners: self.owners, part, old: &self.chain, new: &chain, common, roots: &roots, ahead, dress };
        while let Some(at) = fit.ahead.pop() {
            let fd = dir::open_dir(&self.root, at.as_os_path())?;
            fit.directory(&fd, &at)?;
        }
        let dirs = fit.dress;
        self.chain = chain;
        self.dress(&dirs)
    }

    /// Remembers how everything looks. When this returns, whatever changes from then on gets another ctime.
    pub fn before(&self) -> Result<Before, Error> {
        let mut all = HashMap::new();
        let mut ahead = vec![TreePath::root()];
        while let Some(at) = ahead.pop() {
            let fd = dir::open_dir(&self.root, at.as_os_path())?;
            for name in dir::names(&fd)? {
                let Ok(path) = at.join(&name) else { continue };
                let Some(stat) = dir::stat(&fd, &name)? else { continue };
                if stat.kind == FileKind::Dir {
                    ahead.push(path.clone());
                }
                let _: Option<Stat> = all.insert(path, stat);
            }
        }
        // The root's own times count in no layer.
        if dir::let_the_clock_move_on(&self.root)? {
            return Ok(Before(all));
        }
        let still = std::io::Error::other("the clock of its file system stands still, so that changes could not be told");
        Err(Error::Path(PathError::new("watch", ".")(still)))
    }

    /// What a step changed since `before`. `stubs` and `table` are as for [`super::diff`].
    pub fn diff(&self, before: &Before, stubs: &[TreePath], table: Option<&OwnerTable>) -> Result<Worked, Error> {
        let (changes, touched) = diff::diff_merged(&self.root, &self.chain, stubs, before, table)?;
        Ok(Worked { changes, touched })
    }

    /// Makes it hold the layer that the changes became, by its index: exactly what [`Merged::fit`] would make.
    pub fn settle(&mut self, worked: &Worked, index: &Arc<Index>) -> Result<(), Error> {
        self.chain = self.chain.with(Arc::clone(index));
        let mut dirs = BTreeSet::from([TreePath::root()]);
        for path in &worked.touched {
            let Some(parent) = path.parent() else { continue };
            let fd = match dir::open_dir(&self.root, parent.as_os_path()) {
                // It has gone with a directory above it.
                Err(error) if error.source.kind() == std::io::ErrorKind::NotFound => continue,
                other => other?,
            };
            match self.chain.look_up(path).map(|found| found.entry) {
                Some(Entry { kind: Kind::Dir, .. }) => {
                    let _: bool = dirs.insert(path.clone());
                }
                Some(entry) => {
                    let new = part(&fd, path, self.owners)?;
                    seal::leaf(&fd, path, &entry, self.owners)?;
                    if new {
                        let _: bool = dirs.insert(parent);
                    }
                }
                None => {
                    dir::remove_tree(&fd, path.name())?;
                    let _: bool = dirs.insert(parent);
                }
            }
        }
        self.dress(&dirs)
    }

    /// Gives directories what their rows say, the deepest first: the mode of one above may lock it.
    fn dress(&self, dirs: &BTreeSet<TreePath>) -> Result<(), Error> {
        let plain = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
        for path in dirs.iter().rev() {
            let found = self.chain.look_up(path);
            let meta = found.as_ref().map_or(&plain, |found| &found.entry.meta);
            let fd = dir::open_dir(&self.root, path.as_os_path())?;
            upper::undress(&fd, &meta.xattrs, self.owners)?;
            dress(&fd, path, meta, self.owners)?;
        }
        Ok(())
    }
}

/// Copies what layers show at a path, and below it, into an empty directory, where it has the same path.
pub fn copy_part(into: OwnedFd, lowers: &[Lower], part: &TreePath, owners: Owners) -> Result<(), Error> {
    Merged::new(into, owners)?.fit_part(lowers, part)
}

/// The open directory of each layer; neighbours may have the same.
fn roots(lowers: &[Lower]) -> Result<Vec<Arc<OwnedFd>>, Error> {
    let mut roots: Vec<Arc<OwnedFd>> = Vec::with_capacity(lowers.len());
    for (number, lower) in lowers.iter().enumerate() {
        let before = number.checked_sub(1).and_then(|before| Some((lowers.get(before)?, roots.get(before)?)));
        let root = match before {
            Some((before, root)) if before.dir == lower.dir => Arc::clone(root),
            _ => Arc::new(dir::open_root(&lower.dir)?),
        };
        roots.push(root);
    }
    Ok(roots)
}

fn is_same(have: &Arc<Index>, want: &Arc<Index>) -> bool {
    Arc::ptr_eq(have, want) || have == want
}

/// Gives a name an inode of its own, with the same bytes. Says whether it had to.
fn part(parent: &OwnedFd, path: &TreePath, owners: Owners) -> Result<bool, Error> {
    let (name, at) = (path.name(), || path.as_os_path());
    let Some(stat) = dir::stat(parent, name)?.filter(|stat| stat.nlink > 1) else { return Ok(false) };
    match stat.kind {
        FileKind::File => {
            let from = dir::open_name(parent, name)?;
            let attributes = dir::attributes(&from)?;
            dir::remove_file(parent, name)?;
            let to = dir::create_file(parent, name)?;
            dir::copy_bytes(&from, &to).map_err(PathError::new("copy", at()))?;
            let ours = attributes.into_iter().filter(|(name, _)| name.starts_with(b"user.") || name == b"security.capability").collect();
            dress(&to, path, &Meta { mode: stat.mode, uid: stat.uid, gid: stat.gid, mtime: stat.mtime.0, xattrs: ours }, owners)?;
        }
        FileKind::Symlink => {
            let target = dir::read_link(parent, name)?;
            dir::remove_file(parent, name)?;
            dir::make_symlink(parent, name, &target)?;
        }
        FileKind::Char { .. } | FileKind::Block { .. } | FileKind::Fifo | FileKind::Socket => {
            dir::remove_file(parent, name)?;
            dir::make_node(parent, name, stat.kind)?;
        }
        FileKind::Dir => return Ok(false),
    }
    Ok(true)
}

/// One tree becomes another.
struct Fit<'a> {
    owners: Owners,
    part: &'a TreePath,
    old: &'a Chain,
    new: &'a Chain,
    /// So many layers are the same in both.
    common: usize,
    roots: &'a [Arc<OwnedFd>],
    ahead: Vec<TreePath>,
    /// Directories whose metadata is to be set.
    dress: BTreeSet<TreePath>,
}

impl Fit<'_> {
    fn directory(&mut self, fd: &OwnedFd, at: &TreePath) -> Result<(), Error> {
        let (there, mut wanted) = (dir::names(fd)?, self.new.names(at));
        wanted.retain(|name| at.join(name).is_ok_and(|path| path.is_within(self.part) || self.part.is_within(&path)));
        let mut changed = false;
        for name in there.iter().filter(|name| wanted.binary_search(name).is_err()) {
            dir::remove_tree(fd, name)?;
            changed = true;
        }
        // One open directory of each layer for all files here.
        let mut sources: HashMap<usize, OwnedFd> = HashMap::new();
        for name in wanted {
            let Ok(path) = at.join(&name) else { continue };
            let Some(found) = self.new.look_up(&path) else { continue };
            let old = self.old.look_up(&path);
            let same = old.as_ref().is_some_and(|old| old.layer == found.layer && old.layer < self.common);
            let is_there = there.binary_search(&name).is_ok();
            if found.entry.kind == Kind::Dir {
                let stays = is_there && old.is_some_and(|old| old.entry.kind == Kind::Dir);
                if !stays {
                    dir::remove_tree(fd, &name)?;
                    dir::make_dir(fd, &name)?;
                    changed = true;
                }
                if !(stays && same) {
                    let _: bool = self.dress.insert(path.clone());
                }
                self.ahead.push(path);
            } else if !same {
                dir::remove_tree(fd, &name)?;
                let source = match (&found.entry.kind, self.roots.get(found.layer)) {
                    (Kind::File { .. }, Some(root)) => Some(match sources.entry(found.layer) {
                        Occupied(have) => have.into_mut(),
                        Vacant(none) => none.insert(dir::open_dir(root, at.as_os_path())?),
                    }),
                    _ => None,
                };
                put(fd, source.as_deref(), &path, &found.entry, self.owners)?;
                changed = true;
            }
        }
        if changed {
            let _: bool = self.dress.insert(at.clone());
        }
        Ok(())
    }
}

/// Makes what a row says; a file's bytes are those of the same name in `source`.
fn put(parent: &OwnedFd, source: Option<&OwnedFd>, path: &TreePath, entry: &Entry, owners: Owners) -> Result<(), Error> {
    let name = path.name();
    let node = match &entry.kind {
        Kind::File { .. } => {
            let source =
                source.ok_or_else(|| PathError::new("copy", path.as_os_path())(std::io::Error::from(std::io::ErrorKind::NotFound)))?;
            let from = dir::open_name(source, name)?;
            let to = dir::create_file(parent, name)?;
            dir::copy_bytes(&from, &to).map_err(PathError::new("copy", path.as_os_path()))?;
            return dress(to.as_fd(), path, &entry.meta, owners);
        }
        Kind::Symlink { target } => {
            dir::make_symlink(parent, name, target)?;
            return dress_name(parent, path, entry, owners);
        }
        Kind::Char { major, minor } => FileKind::Char { major: *major, minor: *minor },
        Kind::Block { major, minor } => FileKind::Block { major: *major, minor: *minor },
        Kind::Fifo => FileKind::Fifo,
        Kind::Dir => {
            return Err(Error::Path(PathError::new("create", path.as_os_path())(std::io::Error::from(std::io::ErrorKind::IsADirectory))));
        }
    };
    match dir::make_node(parent, name, node) {
        // In a user namespace there are no devices: it is in the index alone.
        Err(error) if node != FileKind::Fifo && is_not_permitted(&error) => Ok(()),
        Err(error) => Err(error.into()),
        Ok(()) => dress_name(parent, path, entry, owners),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_the_same_only_if_all_of_lstat_is() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), "x").unwrap();
        let merged = Merged { root: Arc::new(dir::open_root(scratch.path()).unwrap()), chain: Chain::default(), owners: Owners::Real };
        let path = TreePath::parse(b"f").unwrap();
        let before = merged.before().unwrap();
        let stat = || dir::stat(&merged.root, b"f").unwrap().unwrap();
        assert!(before.is_as_it_was(&path, &stat()));
        // The same bytes, and every time that a program can set set back.
        let was = stat();
        std::fs::write(scratch.path().join("f"), "y").unwrap();
        let file = std::fs::File::options().write(true).open(scratch.path().join("f")).unwrap();
        let back = std::time::UNIX_EPOCH + std::time::Duration::new(u64::try_from(was.mtime.0).unwrap(), was.mtime.1);
        file.set_modified(back).unwrap();
        assert_eq!((stat().mtime, stat().size, stat().ino), (was.mtime, was.size, was.ino));
        assert!(!before.is_as_it_was(&path, &stat()));
    }

    #[test]
    fn a_directory_that_holds_something_is_not_copied_into() {
        let scratch = tempfile::tempdir().unwrap();
        std::fs::write(scratch.path().join("f"), "x").unwrap();
        assert!(Merged::new(dir::open_root(scratch.path()).unwrap(), Owners::Real).is_err());
    }
}
