//! A layer's entries as files: an overlay lower, with a character device 0:0 for each whiteout and `user.overlay.opaque`
//! on opaque directories.
//!
//! Every file is named by an open directory and one component, and every directory is opened beneath the root through no
//! link, so that nothing a layer holds leads out of it. Metadata of directories comes last: making something in a
//! directory changes its time, and its mode may forbid it.

use std::{
    collections::{BTreeSet, VecDeque},
    fs::File,
    io::{Read, Write as _},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    rc::Rc,
};

use super::{
    Error, Lower, Owners,
    read::{Sink, bad, unreadable},
};
use crate::{
    sys::{
        PathError,
        dir::{self, FileKind},
    },
    tree::{Entry, Index, Kind, MARK, Meta, Owner, Row, TreePath, Xattrs},
};

/// Overlay's mark of an opaque directory.
pub(super) const OPAQUE: &[u8] = b"user.overlay.opaque";
/// Overlay's other mark of a whiteout: on an empty file, in a directory that is marked as opaque with an `x` (Linux 6.7).
pub(super) const WHITEOUT: &[u8] = b"user.overlay.whiteout";
/// How many directories are held open.
const OPEN: usize = 64;

/// Writes a layer's entries below a directory.
pub(super) struct Disk<'a> {
    root: &'a OwnedFd,
    lowers: &'a [Lower],
    owners: Owners,
    /// The last used first.
    open: VecDeque<(TreePath, Rc<OwnedFd>)>,
    buffer: Vec<u8>,
}

impl<'a> Disk<'a> {
    /// Into an empty directory.
    pub(super) fn new(root: &'a OwnedFd, lowers: &'a [Lower], owners: Owners) -> Result<Self, Error> {
        if !dir::names(root)?.is_empty() {
            return Err(Error::Path(PathError::new("extract into", ".")(std::io::Error::other("the directory is not empty"))));
        }
        Ok(Self { root, lowers, owners, open: VecDeque::new(), buffer: vec![0; 256 * 1024] })
    }

    /// The directory that holds a path.
    fn parent(&mut self, path: &TreePath) -> Result<Rc<OwnedFd>, Error> {
        let parent = path.parent().unwrap_or_default();
        if let Some(at) = self.open.iter().position(|(have, _)| *have == parent)
            && let Some(found) = self.open.remove(at)
        {
            let fd = Rc::clone(&found.1);
            self.open.push_front(found);
            return Ok(fd);
        }
        // One step from its own parent if that is open: a walk from the root would make deep trees slow.
        let near = parent.parent().and_then(|above| self.open.iter().find(|(have, _)| *have == above)).map(|(_, fd)| Rc::clone(fd));
        let fd = Rc::new(match near {
            Some(near) => dir::open_dir(near, std::path::Path::new(std::ffi::OsStr::from_bytes(parent.name())))?,
            None => dir::open_dir(self.root, parent.as_os_path())?,
        });
        self.open.push_front((parent, Rc::clone(&fd)));
        self.open.truncate(OPEN);
        Ok(fd)
    }

    /// Writes a new file and gives it its metadata.
    fn fill(&mut self, path: &TreePath, meta: &Meta, body: &mut dyn Read) -> Result<(), Error> {
        let owners = self.owners;
        dress(self.pour(path, body)?, path, meta, owners)
    }

    /// Writes a new file with the mode 0600.
    pub(super) fn pour(&mut self, path: &TreePath, body: &mut dyn Read) -> Result<File, Error> {
        let parent = self.parent(path)?;
        let mut file = dir::create_file(&parent, path.name())?;
        loop {
            let read = match body.read(&mut self.buffer) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(&error)),
            };
            file.write_all(self.buffer.get(..read).unwrap_or_default()).map_err(PathError::new("write", path.as_os_path()))?;
        }
        Ok(file)
    }
}

/// Owner first: changing it takes away capabilities and setuid bits.
pub(super) fn dress(fd: impl AsFd, path: &TreePath, meta: &Meta, owners: Owners) -> Result<(), Error> {
    let at = |error| at(error, path, meta);
    match owners {
        Owners::Real => dir::set_owner_open(&fd, meta.uid, meta.gid).map_err(at)?,
        Owners::Marked => mark(&fd, Owner { uid: meta.uid, gid: meta.gid }).map_err(at)?,
    }
    for (name, value) in &meta.xattrs {
        dir::set_attribute(&fd, name, value).map_err(at)?;
    }
    dir::set_mode_open(&fd, meta.mode).map_err(at)?;
    dir::set_times_open(&fd, meta.mtime).map_err(at)
}

/// Says whose a file or directory is. Root's has no mark.
fn mark(fd: impl AsFd, owner: Owner) -> Result<(), PathError> {
    match owner {
        Owner::ROOT => dir::remove_attribute(fd, MARK.as_bytes()),
        _ => dir::set_attribute(fd, MARK.as_bytes(), &owner.mark()),
    }
}

/// The same for what cannot be opened: a link, a pipe, a device. None of them can carry a mark.
pub(super) fn dress_name(parent: impl AsFd, path: &TreePath, entry: &Entry, owners: Owners) -> Result<(), Error> {
    let (name, meta) = (path.name(), &entry.meta);
    let at = |error| at(error, path, meta);
    if owners == Owners::Real {
        dir::set_owner(&parent, name, meta.uid, meta.gid).map_err(at)?;
    }
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        dir::set_mode(&parent, name, meta.mode).map_err(at)?;
    }
    dir::set_times(&parent, name, meta.mtime).map_err(at)
}

/// Says where it happened, and what `EINVAL` means for an owner.
fn at(error: PathError, path: &TreePath, meta: &Meta) -> Error {
    let unmapped = error.op == "chown" && error.source.kind() == std::io::ErrorKind::InvalidInput;
    let owner = || std::io::Error::other(format!("its owner {}:{} has no id in this user namespace", meta.uid, meta.gid));
    PathError { path: path.as_os_path().to_owned(), source: if unmapped { owner() } else { error.source }, ..error }.into()
}

/// Is it the kernel's refusal to make a device in a user namespace?
pub(super) fn is_not_permitted(error: &PathError) -> bool {
    error.source.kind() == std::io::ErrorKind::PermissionDenied
}

impl Sink for Disk<'_> {
    fn dir(&mut self, path: &TreePath) -> Result<(), Error> {
        Ok(dir::make_dir(self.parent(path)?, path.name())?)
    }

    fn file(&mut self, path: &TreePath, meta: &Meta, body: &mut dyn Read) -> Result<(), Error> {
        self.fill(path, meta, body)
    }

    fn other(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let parent = self.parent(path)?;
        let node = match &entry.kind {
            Kind::Symlink { target } => {
                dir::make_symlink(&parent, path.name(), target)?;
                return dress_name(&parent, path, entry, self.owners);
            }
            Kind::Char { major, minor } => FileKind::Char { major: *major, minor: *minor },
            Kind::Block { major, minor } => FileKind::Block { major: *major, minor: *minor },
            Kind::Fifo => FileKind::Fifo,
            Kind::File { .. } | Kind::Dir => return Err(bad(format!("`{path}` is of the wrong kind"))),
        };
        match dir::make_node(&parent, path.name(), node) {
            // In a user namespace there are no devices: it is in the index alone.
            Err(error) if node != FileKind::Fifo && is_not_permitted(&error) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => dress_name(&parent, path, entry, self.owners),
        }
    }

    fn link(&mut self, first: &TreePath, path: &TreePath) -> Result<(), Error> {
        let (from, to) = (self.parent(first)?, self.parent(path)?);
        match dir::make_hard_link(&from, first.name(), &to, path.name()) {
            // A device that could not be made has no other names either.
            Err(error) if error.source.kind() == std::io::ErrorKind::NotFound && dir::stat(&from, first.name())?.is_none() => Ok(()),
            other => Ok(other?),
        }
    }

    fn copy(&mut self, layer: usize, from: &TreePath, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let lower = self.lowers.get(layer).ok_or_else(|| bad(format!("`{path}` is a copy of `{from}` in a layer that is not there")))?;
        let mut body: File = dir::open_file(dir::open_root(&lower.dir)?, from.as_os_path())?;
        self.fill(path, &entry.meta, &mut body)
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), Error> {
        let parent = self.parent(path)?;
        self.open.retain(|(have, _)| !have.is_within(path));
        Ok(dir::remove_tree(&parent, path.name())?)
    }

    fn finish(&mut self, index: &Index) -> Result<(), Error> {
        let mut marked = BTreeSet::new();
        for (path, _) in index.rows().filter(|(_, row)| *row == Row::Whiteout) {
            let parent = self.parent(&path)?;
            let above = path.parent().unwrap_or_default();
            match dir::make_node(&parent, path.name(), FileKind::Char { major: 0, minor: 0 }) {
                // Overlayfs refuses it as an upper's own mark.
                Err(error) if is_not_permitted(&error) => {
                    if !matches!(index.row(&above), Some(Row::Put { opaque: true, .. })) {
                        dir::set_attribute(dir::create_file(&parent, path.name())?, WHITEOUT, b"")?;
                        let _: bool = marked.insert(above);
                    }
                }
                made => made?,
            }
        }
        for path in marked {
            dir::set_attribute(dir::open_dir(self.root, path.as_os_path())?, OPAQUE, b"x")?;
        }
        self.open.clear();
        let mut root = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
        for (path, row) in index.rows_back() {
            match row {
                Row::Put { entry, .. } if path.is_root() => root = entry.meta,
                Row::Put { entry: Entry { meta, kind: Kind::Dir }, opaque, .. } => {
                    let fd = dir::open_dir(self.root, path.as_os_path())?;
                    if opaque {
                        dir::set_attribute(&fd, OPAQUE, b"y")?;
                    }
                    dress(&fd, &path, &meta, self.owners)?;
                }
                Row::Put { .. } | Row::Whiteout => {}
            }
        }
        dress(self.root, &TreePath::root(), &root, self.owners)
    }
}
