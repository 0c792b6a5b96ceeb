//! The merged tree in a directory, as the user who runs the program.
//!
//! - A new directory is made beside its place and renamed when it is complete. One that is there is merged into, as `BuildKit`
//!   does: what the image has replaces files of that name, each at once; everything else stays. A directory is never
//!   replaced by a file.
//! - No link that is in the destination is followed: every path is opened from the destination's own descriptor, without links.
//!   A link where the image has a directory is replaced.
//! - Only root gives files their owners; others own what they write, so setuid and setgid bits are dropped.
//! - Devices, which only real root can make, are left out with a note.

use std::{
    cell::Cell,
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use crate::{
    image::Image,
    store::Store,
    sys::{
        PathError,
        dir::{self, FileKind},
    },
    tree::{Entry, Kind, Meta, TreePath},
};

use super::{
    Error,
    dated::Dated,
    flatten::{Receiver, flatten},
    pending,
};

/// How many left-out paths a note names.
const NAMED: usize = 3;

/// Writes an image's root file system into the directory at `dest`; directories above it are made. With an epoch, all that is
/// written has that time. Gives notes for the user.
pub fn local(store: &Store, image: &Image, epoch: Option<i64>, dest: &Path) -> Result<Vec<String>, Error> {
    match fs::metadata(dest) {
        Ok(found) if found.is_dir() => return fill(store, image, epoch, dest),
        Ok(_) => return Err(Error::dest(dest, "it is no directory")),
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(PathError::new("open", dest)(error).into()),
    }
    let holder = pending::holder(dest);
    fs::create_dir_all(holder).map_err(PathError::new("create", holder))?;
    let ((), beside) = pending::beside(dest, |path| fs::create_dir(path))?;
    let made = Unfinished(beside);
    let notes = fill(store, image, epoch, &made.0)?;
    fs::rename(&made.0, dest).map_err(PathError::new("rename to", dest))?;
    Ok(notes)
}

/// A directory that is removed when dropped, unless it was renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        let Some(name) = self.0.file_name() else { return };
        // Nothing more can be done about what cannot be removed.
        drop(dir::open_root(pending::holder(&self.0)).and_then(|holder| dir::remove_tree(holder, name.as_bytes())));
    }
}

fn fill(store: &Store, image: &Image, epoch: Option<i64>, dest: &Path) -> Result<Vec<String>, Error> {
    let root = dir::open_root(dest)?;
    let owners = Owners { root: rustix::process::geteuid().is_root(), refused: Cell::new(false) };
    let mut tree = Tree { root, shown: dest, owners: &owners, dirs: Vec::new(), left_out: Vec::new(), count: 0 };
    flatten(store, image, &mut Dated { to: &mut tree, epoch })?;
    tree.finish()
}

/// May files get their owners?
struct Owners {
    root: bool,
    /// Root of a user namespace without that id.
    refused: Cell<bool>,
}

impl Owners {
    /// Says whether it was done.
    fn give(&self, change: impl FnOnce() -> Result<(), PathError>) -> Result<bool, PathError> {
        if !self.root {
            return Ok(false);
        }
        match change() {
            Err(error) if matches!(error.source.kind(), ErrorKind::PermissionDenied | ErrorKind::InvalidInput) => {
                self.refused.set(true);
                Ok(false)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(true),
        }
    }
}

struct Tree<'a> {
    root: OwnedFd,
    shown: &'a Path,
    owners: &'a Owners,
    /// Directories get their metadata last: one without the right to write could not be filled.
    dirs: Vec<(TreePath, Meta)>,
    left_out: Vec<TreePath>,
    count: u64,
}

impl Tree<'_> {
    /// The directory that holds a path, and the path's name in it.
    fn open_holder<'p>(&self, path: &'p TreePath) -> Result<(OwnedFd, &'p [u8]), Error> {
        Ok((dir::open_dir(&self.root, path.parent().unwrap_or_default().as_os_path()).map_err(|error| self.at(path, error))?, path.name()))
    }

    /// Makes something under a name of ours and moves it to its place.
    fn place(&mut self, path: &TreePath, make: impl FnOnce(&OwnedFd, &[u8]) -> Result<(), PathError>) -> Result<(), Error> {
        let (holder, name) = self.open_holder(path)?;
        if matches!(dir::stat(&holder, name), Ok(Some(found)) if found.kind == FileKind::Dir) {
            return Err(Error::dest(self.host(path), "it is a directory, and the image has something else there"));
        }
        let temporary = Temporary { name: format!(".lapstrake-{}-{}", std::process::id(), self.count).into_bytes(), dir: holder };
        self.count += 1;
        make(&temporary.dir, &temporary.name)
            .and_then(|()| dir::rename(&temporary.dir, &temporary.name, &temporary.dir, name))
            .map_err(|error| self.at(path, error))
    }

    fn make_dir(&self, path: &TreePath) -> Result<(), Error> {
        let (holder, name) = self.open_holder(path)?;
        let fail = |error| self.at(path, error);
        match dir::stat(&holder, name).map_err(fail)? {
            Some(found) if found.kind == FileKind::Dir => return Ok(()),
            Some(_) => dir::remove_file(&holder, name).map_err(fail)?,
            None => {}
        }
        dir::make_dir(&holder, name).map_err(fail)
    }

    fn host(&self, path: &TreePath) -> PathBuf {
        self.shown.join(path.as_os_path())
    }

    /// The error with the whole path that it is about.
    fn at(&self, path: &TreePath, error: PathError) -> Error {
        Error::Path(PathError { path: self.host(path), ..error })
    }

    fn finish(self) -> Result<Vec<String>, Error> {
        for (path, meta) in self.dirs.iter().rev() {
            let fd = dir::open_dir(&self.root, path.as_os_path()).map_err(|error| self.at(path, error))?;
            dress(fd, meta, self.owners).map_err(|error| self.at(path, error))?;
        }
        let mut notes = Vec::new();
        let shown = self.shown.display();
        if self.owners.refused.get() {
            notes.push(format!("some files in `{shown}` do not have the image's owners, which this user namespace lacks"));
        }
        if !self.left_out.is_empty() {
            let names: Vec<String> = self.left_out.iter().take(NAMED).map(|path| format!("`{path}`")).collect();
            let more = if self.left_out.len() > NAMED { ", …" } else { "" };
            let count = self.left_out.len();
            notes.push(format!("{count} device nodes were left out of `{shown}`, only root can make them: {}{more}", names.join(", ")));
        }
        Ok(notes)
    }
}

/// Metadata of an open file or directory: the owner first, since it clears bits of the mode, and the times last.
fn dress(fd: impl AsFd, meta: &Meta, owners: &Owners) -> Result<(), PathError> {
    let kept = owners.give(|| dir::set_owner_open(&fd, meta.uid, meta.gid))?;
    for (name, value) in &meta.xattrs {
        // A file system without attributes, or a capability that only root may give.
        drop(dir::set_attribute(&fd, name, value));
    }
    dir::set_mode_open(&fd, if kept { meta.mode } else { meta.mode & 0o1777 })?;
    dir::set_times_open(&fd, meta.mtime)
}

/// Outer errors are the file's, inner ones the content's.
fn copy(from: &mut dyn Read, to: &mut File, size: u64, path: &TreePath) -> Result<Result<(), std::io::Error>, PathError> {
    let mut buffer = vec![0; 128 * 1024];
    let mut left = size;
    while left > 0 {
        let some = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        match from.read(buffer.get_mut(..some).unwrap_or_default()) {
            Ok(0) => return Ok(Err(ErrorKind::UnexpectedEof.into())),
            Ok(count) => {
                to.write_all(buffer.get(..count).unwrap_or_default()).map_err(PathError::new("write", path.as_os_path()))?;
                left -= count as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
    Ok(Ok(()))
}

/// A name that is removed when dropped; after a rename it is gone already, but for a hard link renamed onto itself.
struct Temporary {
    dir: OwnedFd,
    name: Vec<u8>,
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(dir::remove_file(&self.dir, &self.name));
    }
}

impl Receiver for Tree<'_> {
    fn plain(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let owners = self.owners;
        let meta = &entry.meta;
        let dress_name = move |at: &OwnedFd, name: &[u8], mode: bool| {
            let _kept = owners.give(|| dir::set_owner(at, name, meta.uid, meta.gid))?;
            if mode {
                dir::set_mode(at, name, meta.mode & 0o1777)?;
            }
            dir::set_times(at, name, meta.mtime)
        };
        let kind = match &entry.kind {
            Kind::Dir => {
                self.make_dir(path)?;
                self.dirs.push((path.clone(), meta.clone()));
                return Ok(());
            }
            Kind::Symlink { target } => {
                return self.place(path, |at, name| {
                    dir::make_symlink(at, name, target)?;
                    dress_name(at, name, false)
                });
            }
            Kind::Char { major, minor } => FileKind::Char { major: *major, minor: *minor },
            Kind::Block { major, minor } => FileKind::Block { major: *major, minor: *minor },
            Kind::Fifo => FileKind::Fifo,
            Kind::File { .. } => return self.file(path, entry, 0, &mut std::io::empty()),
        };
        let device = kind != FileKind::Fifo;
        let made = if device && !owners.root {
            Ok(false)
        } else {
            let mut refused = false;
            let placed = self.place(path, |at, name| match dir::make_node(at, name, kind) {
                // Root of a user namespace, or of a container without the capability.
                Err(error) if device && error.source.kind() == ErrorKind::PermissionDenied => {
                    refused = true;
                    Err(error)
                }
                Err(error) => Err(error),
                Ok(()) => dress_name(at, name, true),
            });
            if refused { Ok(false) } else { placed.map(|()| true) }
        };
        if !made? {
            self.left_out.push(path.clone());
        }
        Ok(())
    }

    fn file(&mut self, path: &TreePath, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let mut broken = None;
        let (owners, meta) = (self.owners, &entry.meta);
        let placed = self.place(path, |at, name| {
            let mut file = dir::create_file(at, name)?;
            if let Err(error) = copy(content, &mut file, size, path)? {
                broken = Some(error);
                return Err(PathError { op: "read", path: PathBuf::new(), source: ErrorKind::InvalidData.into() });
            }
            dress(&file, meta, owners)
        });
        match broken {
            Some(source) => Err(Error::Path(PathError { op: "read the layer's file", path: path.as_os_path().to_owned(), source })),
            None => placed,
        }
    }

    fn link(&mut self, path: &TreePath, _entry: &Entry, first: &TreePath) -> Result<(), Error> {
        let (from, old) = self.open_holder(first)?;
        self.place(path, |at, name| dir::make_hard_link(&from, old, at, name))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    use super::*;
    use crate::image::fixture;

    fn text(path: impl AsRef<Path>) -> String {
        fs::read_to_string(path).unwrap()
    }

    #[test]
    fn a_new_directory_holds_the_merged_tree() {
        let (dir, store) = fixture::store();
        let layers: &[&[(&str, &str)]] = &[
            &[("d/", ""), ("d/a", "1"), ("d/b", "1"), ("h", "=>d/a"), ("l", "->d/a"), ("null", "!")],
            &[("d/", ""), ("d/.wh.b", ""), ("e", "")],
        ];
        let image = fixture::image_of(&store, layers);
        let out = dir.path().join("new/out");
        let notes = local(&store, &image, None, &out).unwrap();
        assert_eq!((text(out.join("d/a")), text(out.join("h"))), ("1".into(), "1".into()));
        assert!(!out.join("d/b").exists() && out.join("e").exists());
        assert_eq!(fs::read_link(out.join("l")).unwrap(), Path::new("d/a"));
        let found = fs::metadata(out.join("d/a")).unwrap();
        assert_eq!((found.nlink(), found.mtime()), (2, 7));
        assert_eq!(fs::metadata(out.join("d")).unwrap().mtime(), 7);
        if rustix::process::geteuid().is_root() {
            assert_eq!((found.uid(), found.mode() & 0o7777), (1000, 0o4644));
        } else {
            assert_eq!(found.mode() & 0o7777, 0o644);
            assert!(notes[0].contains("1 device nodes were left out"), "{notes:?}");
        }
        let left: Vec<_> = fs::read_dir(dir.path().join("new")).unwrap().collect();
        assert_eq!(left.len(), 1);
    }

    #[test]
    fn no_link_of_the_destination_is_followed() {
        let (dir, store) = fixture::store();
        let image = fixture::image_of(&store, &[&[("d/", ""), ("d/f", "new"), ("g", "new")]]);
        let (out, outside) = (dir.path().join("out"), dir.path().join("outside"));
        fs::create_dir(&out).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("f"), "old").unwrap();
        symlink(&outside, out.join("d")).unwrap();
        symlink(outside.join("f"), out.join("g")).unwrap();
        local(&store, &image, None, &out).unwrap();
        assert_eq!(text(outside.join("f")), "old");
        assert_eq!((text(out.join("d/f")), text(out.join("g"))), ("new".into(), "new".into()));
        assert!(!fs::symlink_metadata(out.join("d")).unwrap().is_symlink());
    }

    #[test]
    fn what_else_is_in_a_directory_stays_and_a_second_time_changes_nothing() {
        let (dir, store) = fixture::store();
        let image = fixture::image_of(&store, &[&[("d/", ""), ("d/f", "new"), ("h", "=>d/f")]]);
        let out = dir.path().join("out");
        fs::create_dir_all(out.join("d")).unwrap();
        fs::write(out.join("d/mine"), "mine").unwrap();
        for _time in 0..2 {
            local(&store, &image, None, &out).unwrap();
            assert_eq!((text(out.join("d/mine")), text(out.join("d/f"))), ("mine".into(), "new".into()));
            let names: Vec<_> = dir::names(dir::open_root(&out).unwrap()).unwrap();
            assert_eq!(names, [b"d", b"h"]);
        }
    }

    #[test]
    fn a_directory_is_never_replaced_by_a_file() {
        let (dir, store) = fixture::store();
        let image = fixture::image_of(&store, &[&[("x", "file")]]);
        let out = dir.path().join("out");
        fs::create_dir_all(out.join("x")).unwrap();
        fs::write(out.join("x/mine"), "mine").unwrap();
        let error = local(&store, &image, None, &out).unwrap_err();
        assert!(error.to_string().contains("it is a directory, and the image has something else there"), "{error}");
        assert_eq!(text(out.join("x/mine")), "mine");
    }

    #[test]
    fn a_failure_leaves_no_new_directory() {
        let (dir, store) = fixture::store();
        let image = fixture::image_of(&store, &[&[("a", "1")], &[("b", "2")]]);
        fs::remove_file(store.root().join(super::super::archive::blob_name(&image.layers[1]))).unwrap();
        local(&store, &image, None, &dir.path().join("out")).unwrap_err();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|each| each.unwrap().file_name()).collect();
        assert_eq!(left, ["store"]);
    }

    #[test]
    fn directories_without_the_right_to_write_are_filled() {
        let (dir, store) = fixture::store();
        let image = fixture::image_of(&store, &[&[("d/", ""), ("d/f", "1")]]);
        let out = dir.path().join("out");
        local(&store, &image, None, &out).unwrap();
        assert_eq!(fs::metadata(out.join("d")).unwrap().permissions().mode() & 0o7777, 0o755);
    }
}
