//! What is under `tmp/`: files and directories that exist for one process, locked while it uses them.
//!
//! The lock is what tells life from leftovers: whoever can take it may delete. A maker that loses its new file to a
//! sweeper between creating and locking it notices (the name no longer leads to its inode) and makes another.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::{Error, remove::remove_all};
use crate::sys::PathError;

/// A file that gets its name when it is whole. Dropped before, it never was.
#[derive(Debug)]
pub(super) struct TempFile {
    file: File,
    path: PathBuf,
    kept: bool,
}

impl TempFile {
    /// An empty file under the directory `tmp`.
    pub(super) fn create(tmp: &Path) -> Result<Self, Error> {
        loop {
            let path = tmp.join(fresh_name()?);
            let mut options = File::options();
            options.write(true).create_new(true).mode(0o600);
            let file = match options.open(&path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(PathError::new("create", path)(error).into()),
            };
            if owned(&file, &path)? {
                return Ok(Self { file, path, kept: false });
            }
        }
    }

    /// The file, whatever its name.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Its path, for messages.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Writes and renames: the file at `to` is the old one or the whole new one. With `durable`, after a power cut too.
    pub(super) fn persist(self, to: &Path, durable: bool) -> Result<(), Error> {
        self.persist_with(to, durable, |rename| rename())
    }

    /// The same, where `commit` does the renaming, when the bytes are written and before the directory is.
    pub(super) fn persist_with(
        mut self,
        to: &Path,
        durable: bool,
        commit: impl FnOnce(&mut dyn FnMut() -> Result<(), Error>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if durable {
            self.file.sync_all().map_err(PathError::new("sync", &self.path))?;
        }
        commit(&mut || self.rename(to))?;
        if durable { sync_dir(to.parent().unwrap_or(to)) } else { Ok(()) }
    }

    fn rename(&mut self, to: &Path) -> Result<(), Error> {
        let mut renamed = fs::rename(&self.path, to);
        if renamed.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::IsADirectory) {
            // A directory in the place of a file is nobody's.
            remove_all(to)?;
            renamed = fs::rename(&self.path, to);
        }
        renamed.map_err(PathError::new("rename", to))?;
        self.kept = true;
        Ok(())
    }

    /// As [`TempFile::persist`], but what is already at `to` stays; was it ours that got the name?
    pub(super) fn persist_new(self, to: &Path) -> Result<bool, Error> {
        self.file.sync_all().map_err(PathError::new("sync", &self.path))?;
        match fs::hard_link(&self.path, to) {
            Ok(()) => sync_dir(to.parent().unwrap_or(to)).map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(PathError::new("link", to)(error).into()),
        }
    }
}

impl Write for TempFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if !self.kept {
            drop(fs::remove_file(&self.path));
        }
    }
}

/// An empty file without a name, gone when it is closed.
pub(super) fn nameless(tmp: &Path) -> Result<File, Error> {
    let flags = rustix::fs::OFlags::TMPFILE | rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(tmp, flags, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR) {
        return Ok(file.into());
    }
    // Not every file system makes one.
    let named = TempFile::create(tmp)?;
    File::options().read(true).write(true).open(named.path()).map_err(|error| PathError::new("open", named.path())(error).into())
}

/// A directory under `tmp/` that is locked while the value lives, and removed with all it holds when dropped.
///
/// Files of ids that this process does not have stay (without a word): the next one that opens the store with the
/// right to them removes them.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    // Held for its lock; closed after the directory is gone.
    _lock: File,
}

impl Scratch {
    pub(super) fn create(tmp: &Path) -> Result<Self, Error> {
        loop {
            let path = tmp.join(fresh_name()?);
            match fs::DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(PathError::new("create", path)(error).into()),
            }
            let lock = match File::open(&path) {
                Ok(lock) => lock,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(PathError::new("open", path)(error).into()),
            };
            if owned(&lock, &path)? {
                return Ok(Self { path, _lock: lock });
            }
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(remove_all(&self.path));
    }
}

/// Deletes what is in `dir` and nobody has locked; what cannot be deleted stays without a word.
pub(super) fn sweep(dir: &Path) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let mut options = File::options();
        // A fifo or a link in our own directory is nobody's: neither is waited for nor followed.
        let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
        options.read(true).custom_flags(flags.bits().cast_signed());
        match options.open(&path) {
            Ok(file) => {
                // The same still: a lock's name may be another holder's file by now.
                if file.try_lock().is_ok() && same(&file, &path) {
                    drop(remove_all(&path));
                }
            }
            // Its maker gives modes that its maker can open.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(_) => drop(remove_all(&path)),
        }
    }
}

/// Locks what was just made. `false`: a sweeper came in between.
pub(super) fn owned(file: &File, path: &Path) -> Result<bool, Error> {
    match file.try_lock() {
        Ok(()) => Ok(same(file, path)),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(PathError::new("lock", path)(error).into()),
    }
}

/// Does the name still lead to this very file?
pub(super) fn same(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Makes the names in a directory survive a power cut.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|file| file.sync_all());
    synced.map_err(|error| PathError::new("sync", dir)(error).into())
}

/// 16 hex digits that nobody has.
pub(super) fn fresh_name() -> Result<String, Error> {
    Ok(format!("{:016x}", u64::from_ne_bytes(random()?)))
}

/// Bytes of the kernel's generator.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty()).map_err(PathError::new("read", "getrandom"))?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_use_is_not_swept_and_what_was_left_is() {
        let dir = tempfile::tempdir().unwrap();
        let scratch = Scratch::create(dir.path()).unwrap();
        fs::write(scratch.path().join("file"), "x").unwrap();
        let temp = TempFile::create(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("left/work/work")).unwrap();
        fs::write(dir.path().join("left-file"), "x").unwrap();
        std::os::unix::fs::symlink("/nowhere", dir.path().join("left-link")).unwrap();
        sweep(dir.path());
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        assert_eq!(names.len(), 2);
        assert!(names.contains(&scratch.path().to_owned()) && names.contains(&temp.path().to_owned()));
        drop((scratch, temp));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_without_a_name_can_be_written_and_read() {
        use std::io::{Read as _, Seek as _};
        let dir = tempfile::tempdir().unwrap();
        let mut file = nameless(dir.path()).unwrap();
        file.write_all(b"bytes").unwrap();
        file.rewind().unwrap();
        let mut text = String::new();
        let _read = file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "bytes");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn makers_and_sweepers_at_once_do_not_lose_a_scratch() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            let _sweeper = scope.spawn(|| (0..200).for_each(|_| sweep(dir.path())));
            for _ in 0..3 {
                let _maker = scope.spawn(|| {
                    for _ in 0..100 {
                        let scratch = Scratch::create(dir.path()).unwrap();
                        fs::write(scratch.path().join("file"), "x").unwrap();
                        assert_eq!(fs::read(scratch.path().join("file")).unwrap(), b"x");
                    }
                });
            }
        });
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
