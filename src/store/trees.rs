//! Extracted trees: `trees/<domain>/<diff-id hex>/`, complete when they have their name, immutable after.
//!
//! Their files are not synced one by one. A new tree has a mark beside it, the symbolic link
//! `<diff-id hex>.unsynced` → the boot id (a link, because its target is metadata: it cannot be there empty), which is made
//! before the tree gets its name and removed after a syncfs. A mark of another boot says that the machine went
//! down in between: such a tree is deleted and counts as missing. A third name, `<diff-id hex>.size`, says how large it is.

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, symlink},
    path::{Path, PathBuf},
    sync::PoisonError,
};

use rustix::fs::{CWD, RenameFlags};

use super::{
    Error, Store,
    measure::{measure, note, note_of},
    pin::Pin,
    remove::remove_all,
    sealed::file_name,
    size::Size,
    temp::{Scratch, fresh_name, nameless},
};
use crate::{oci::DiffId, sys::PathError, tree::Index};

impl Store {
    /// The tree of a layer in an ownership domain, if it is there whole.
    pub fn tree(&self, domain: &str, layer: &DiffId) -> Option<PathBuf> {
        self.pin(Pin::Layer(*layer));
        let path = self.tree_path(domain, layer);
        if !is_dir(&path) {
            return None;
        }
        if self.is_sound(&path) {
            return Some(path);
        }
        // Under the lock, because another process may have deleted it and made a new one since.
        let _lock = self.internal_lock(&path.to_string_lossy()).ok()?;
        if !self.is_sound(&path) {
            self.bury(&path).ok()?;
        }
        is_dir(&path).then_some(path)
    }

    /// Removes a tree that is not what its index says. A build that has it mounted keeps its files until it ends.
    pub fn remove_tree(&self, domain: &str, layer: &DiffId) -> Result<(), Error> {
        let path = self.tree_path(domain, layer);
        let _lock = self.internal_lock(&path.to_string_lossy())?;
        if is_dir(&path) { self.bury(&path) } else { Ok(()) }
    }

    /// Takes the name from a tree, then deletes what is in it.
    fn bury(&self, path: &Path) -> Result<(), Error> {
        self.unname(path).map(drop)
    }

    /// Takes the name from a directory; what is in it is deleted with the grave. Without a place for one, at once.
    pub(super) fn unname(&self, path: &Path) -> Result<Option<Scratch>, Error> {
        let grave = Scratch::create(&self.tmp()).ok();
        let moved = grave.as_ref().is_some_and(|grave| fs::rename(path, grave.path().join("tree")).is_ok());
        if !moved {
            remove_all(path)?;
        }
        drop(fs::remove_file(mark(path)));
        drop(fs::remove_file(note_of(path)));
        Ok(grave)
    }

    /// Remembers how large the tree of a layer is, for when it is committed.
    pub(super) fn learn_size(&self, layer: &DiffId, index: &Index) {
        let mut sizes = self.shared.sizes.lock().unwrap_or_else(PoisonError::into_inner);
        let _same = sizes.insert(*layer, Size::of_tree(index));
    }

    /// How large a tree is: as its index says, else as it is. It is noted beside it.
    pub(super) fn measured(&self, layer: Option<&DiffId>, tree: &Path) -> Size {
        let index = layer.and_then(|layer| self.index_of(layer));
        let size = index.map_or_else(|| measure(tree), |index| Size::of_tree(&index));
        note(tree, size);
        size
    }

    /// The directory of a cache mount. If it is not there, `make` makes it at the path that it is given, which gets its
    /// name when it is complete. `name` tells it from others of the domain; any text will do.
    pub fn cache_mount<E: From<Error>>(&self, domain: &str, name: &str, make: impl FnOnce(&Path) -> Result<(), E>) -> Result<PathBuf, E> {
        let below = format!("mounts/{}/{}", file_name(domain), file_name(name));
        let path = self.root.join(&below);
        self.pin(Pin::Directory(below));
        let _lock = self.internal_lock(&path.to_string_lossy())?;
        if is_dir(&path) {
            return Ok(path);
        }
        make_dir(path.parent().unwrap_or(&self.root))?;
        let scratch = self.scratch()?;
        let fresh = scratch.path().join("mount");
        make(&fresh)?;
        fs::rename(&fresh, &path).map_err(PathError::new("rename", &path)).map_err(Error::from)?;
        Ok(path)
    }

    /// An empty directory under `tmp/`, locked while the value lives, removed when dropped.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        Scratch::create(&self.tmp())
    }

    /// An empty file on the store's file system that has no name and is gone when it is closed.
    pub fn nameless_file(&self) -> Result<fs::File, Error> {
        nameless(&self.tmp())
    }

    /// Makes `dir` (a directory inside a scratch) the tree of a layer: rename, marked unsynced until [`Store::sync`].
    /// If another process was faster, its tree stays and ours is left to the scratch.
    pub fn commit_tree(&self, domain: &str, layer: &DiffId, dir: &Path) -> Result<PathBuf, Error> {
        let path = self.tree_path(domain, layer);
        make_dir(path.parent().unwrap_or(&self.root))?;
        if let Some(there) = self.tree(domain, layer) {
            return Ok(there);
        }
        let known = self.shared.sizes.lock().unwrap_or_else(PoisonError::into_inner).get(layer).copied();
        let size = known.unwrap_or_else(|| measure(dir));
        let _lock = self.internal_lock(&path.to_string_lossy())?;
        let mark = mark(&path);
        if symlink(&self.boot, &mark).is_err() {
            // A link cannot be overwritten, so a new one is renamed onto what an earlier boot has left.
            let scratch = self.scratch()?;
            let fresh = scratch.path().join("mark");
            symlink(&self.boot, &fresh).map_err(PathError::new("create", &fresh))?;
            fs::rename(&fresh, &mark).map_err(PathError::new("rename", &mark))?;
        }
        note(&path, size);
        // The tree, its size and its mark.
        let all = size + Size { bytes: 0, inodes: 2 };
        match self.commit_size(all, Size::default(), Some(Pin::Layer(*layer)), || rename_new(dir, &path)) {
            Ok(()) => Ok(path),
            Err(error) if matches!(error.kind(), io::ErrorKind::AlreadyExists | io::ErrorKind::DirectoryNotEmpty) && is_dir(&path) => {
                Ok(path)
            }
            Err(error) => {
                drop(fs::remove_file(&mark));
                Err(PathError::new("rename", path)(error).into())
            }
        }
    }

    /// One syncfs; the trees that were unsynced are sound afterwards.
    pub fn sync(&self) -> Result<(), Error> {
        // Only trees that have their name by now were written before the syncfs.
        let marks: Vec<PathBuf> =
            self.unsynced().into_iter().filter(|(tree, _)| is_dir(tree) && self.is_sound(tree)).map(|(_, mark)| mark).collect();
        let root = fs::File::open(&self.root).map_err(PathError::new("open", &self.root))?;
        rustix::fs::syncfs(&root).map_err(PathError::new("sync", &self.root))?;
        for mark in marks {
            match fs::remove_file(&mark) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(PathError::new("remove", mark)(error).into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// Trees with a mark, and their marks.
    fn unsynced(&self) -> Vec<(PathBuf, PathBuf)> {
        let Ok(domains) = fs::read_dir(self.root.join("trees")) else { return Vec::new() };
        let entries = domains.flatten().filter_map(|domain| fs::read_dir(domain.path()).ok()).flat_map(Iterator::flatten);
        entries
            .filter(|entry| entry.path().extension().is_some_and(|end| end == "unsynced"))
            .map(|entry| (entry.path().with_extension(""), entry.path()))
            .collect()
    }

    /// Has it no mark, or one of this boot?
    fn is_sound(&self, tree: &Path) -> bool {
        match fs::read_link(mark(tree)) {
            Ok(boot) => boot.as_os_str() == self.boot.as_str(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }

    fn tree_path(&self, domain: &str, layer: &DiffId) -> PathBuf {
        self.root.join("trees").join(file_name(domain)).join(layer.0.hex())
    }
}

fn mark(tree: &Path) -> PathBuf {
    tree.with_extension("unsynced")
}

fn is_dir(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())
}

/// Renames a directory, never onto another one, not even an empty one.
fn rename_new(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without the flag: what is not empty is not replaced even so.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => fs::rename(from, to),
        renamed => renamed.map_err(io::Error::from),
    }
}

/// Makes a directory that is the user's alone, if it is not there.
pub(super) fn make_dir(path: &Path) -> Result<(), Error> {
    let made = fs::DirBuilder::new().mode(0o700).recursive(true).create(path);
    made.map_err(|error| PathError::new("create", path)(error).into())
}

/// What tells this boot of the machine from others. Without /proc every mark is of another boot.
pub(super) fn boot_id() -> Result<String, Error> {
    let mut text = String::new();
    let read = fs::File::open("/proc/sys/kernel/random/boot_id").and_then(|file| file.take(64).read_to_string(&mut text));
    match read {
        Ok(_) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
        _ => fresh_name(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{oci::Digest, store::tests::store};

    fn layer() -> DiffId {
        DiffId(Digest::of(b"tar"))
    }

    fn commit(store: &Store, content: &str) -> PathBuf {
        let scratch = store.scratch().unwrap();
        let dir = scratch.path().join("tree");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), content).unwrap();
        store.commit_tree("single", &layer(), &dir).unwrap()
    }

    #[test]
    fn a_tree_is_marked_until_it_is_synced() {
        let (_dir, store) = store();
        assert_eq!(store.tree("single", &layer()), None);
        let path = commit(&store, "x");
        assert_eq!(store.tree("single", &layer()), Some(path.clone()));
        assert!(fs::read_link(mark(&path)).is_ok());
        store.sync().unwrap();
        assert!(fs::read_link(mark(&path)).is_err());
        assert_eq!(store.tree("single", &layer()), Some(path));
        assert_eq!(store.tree("other", &layer()), None);
    }

    #[test]
    fn a_tree_that_another_boot_left_unsynced_is_deleted() {
        let (_dir, store) = store();
        let path = commit(&store, "x");
        fs::remove_file(mark(&path)).unwrap();
        symlink("another-boot", mark(&path)).unwrap();
        store.sync().unwrap();
        assert!(fs::read_link(mark(&path)).is_ok(), "a sync does not make it sound");
        assert_eq!(store.tree("single", &layer()), None);
        assert!(!path.exists());
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
        assert_eq!(commit(&store, "new"), path);
        assert_eq!(fs::read(path.join("file")).unwrap(), b"new");
    }

    #[test]
    fn the_second_of_two_commits_leaves_the_tree_of_the_first() {
        let (_dir, store) = store();
        let path = commit(&store, "first");
        assert_eq!(commit(&store, "second"), path);
        assert_eq!(fs::read(path.join("file")).unwrap(), b"first");
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn many_stores_commit_and_sync_the_same_tree_at_once() {
        let (dir, _store) = store();
        std::thread::scope(|scope| {
            for name in 0..4 {
                let root = dir.path().join("store");
                let _thread = scope.spawn(move || {
                    let store = Store::open(&root).unwrap();
                    for _ in 0..20 {
                        let path = commit(&store, &name.to_string());
                        assert!(path.join("file").exists());
                        store.sync().unwrap();
                        assert_eq!(store.tree("single", &layer()), Some(path));
                    }
                });
            }
        });
    }
}
