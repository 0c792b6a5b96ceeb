//! A file that appears whole or not at all.
//!
//! It is written under another name beside its place and renamed when finished; dropped before that, it is gone. A
//! link at the place is followed first, so that it goes on pointing to the file.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, ErrorKind, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::sys::{self, PathError};

use super::Error;

/// A file being written.
#[derive(Debug)]
pub(super) struct PendingFile {
    file: BufWriter<File>,
    /// Under which name it is now, and where it goes; `None`: it is no regular file and is written in place.
    rename: Option<(Temporary, PathBuf)>,
    shown: PathBuf,
}

/// A path that is removed when dropped.
#[derive(Debug)]
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed away, or nothing more can be done.
        drop(fs::remove_file(&self.0));
    }
}

impl PendingFile {
    /// Begins the file that is to be at `place`.
    pub(super) fn create(place: &Path) -> Result<Self, Error> {
        let real = match fs::metadata(place) {
            Ok(found) if found.is_dir() => return Err(Error::dest(place, "it is a directory")),
            Ok(found) if !found.is_file() => {
                let file = OpenOptions::new().write(true).open(place).map_err(PathError::new("open", place))?;
                return Ok(Self { file: BufWriter::with_capacity(1 << 16, file), rename: None, shown: place.to_owned() });
            }
            Ok(_) => fs::canonicalize(place).map_err(PathError::new("resolve", place))?,
            Err(error) if error.kind() == ErrorKind::NotFound => place.to_owned(),
            Err(error) => return Err(PathError::new("look at", place)(error).into()),
        };
        let dir = holder(&real);
        if !dir.is_dir() {
            return Err(Error::dest(place, format!("the directory `{}` does not exist", dir.display())));
        }
        Self::create_exactly(&real)
    }

    /// Begins the file that replaces whatever name is at `place`, a link included.
    pub(super) fn create_exactly(place: &Path) -> Result<Self, Error> {
        let (file, path) = beside(place, |path| OpenOptions::new().write(true).create_new(true).open(path))?;
        let file = BufWriter::with_capacity(1 << 16, file);
        Ok(Self { file, rename: Some((Temporary(path), place.to_owned())), shown: place.to_owned() })
    }

    /// The file itself, with all that was written in it.
    pub(super) fn flushed(&mut self) -> io::Result<&File> {
        self.file.flush()?;
        Ok(self.file.get_ref())
    }

    /// Puts it in its place.
    pub(super) fn commit(self) -> Result<(), Error> {
        let Self { file, rename, shown } = self;
        let file = file.into_inner().map_err(|error| PathError::new("write", &shown)(error.into_error()))?;
        let Some((temporary, place)) = rename else { return Ok(()) };
        file.sync_all().map_err(PathError::new("sync", &shown))?;
        fs::rename(&temporary.0, &place).map_err(PathError::new("rename to", &place))?;
        sync_dir(holder(&place))
    }
}

impl Write for PendingFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Makes something under a fresh name beside `place`.
pub(super) fn beside<T>(place: &Path, make: impl Fn(&Path) -> io::Result<T>) -> Result<(T, PathBuf), Error> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = place.file_name().ok_or_else(|| Error::dest(place, "it has no name of its own"))?;
    let seed = sys::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    loop {
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mut fresh = std::ffi::OsString::from(".");
        // A name as long as a file system allows leaves no room: only its beginning is repeated.
        fresh.push(name.to_string_lossy().chars().take(60).collect::<String>());
        fresh.push(format!(".{}-{seed}-{count}", std::process::id()));
        let path = holder(place).join(fresh);
        match make(&path) {
            Ok(opened) => return Ok((opened, path)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            Err(error) => return Err(PathError::new("create", path)(error).into()),
        }
    }
}

/// The directory that holds a path.
pub(super) fn holder(path: &Path) -> &Path {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    }
}

/// Makes renames in a directory last.
pub(super) fn sync_dir(dir: &Path) -> Result<(), Error> {
    Ok(File::open(dir).and_then(|dir| dir.sync_all()).map_err(PathError::new("sync", dir))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_committed_leaves_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("out.tar");
        fs::write(&place, "old").unwrap();
        let mut file = PendingFile::create(&place).unwrap();
        file.write_all(b"new").unwrap();
        drop(file);
        assert_eq!(fs::read(&place).unwrap(), b"old");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_committed_file_replaces_what_a_link_points_to() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("real"), "old").unwrap();
        std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
        let mut file = PendingFile::create(&dir.path().join("link")).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert_eq!(fs::read(dir.path().join("real")).unwrap(), b"new");
        assert!(fs::symlink_metadata(dir.path().join("link")).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_device_is_written_to_and_stays_a_device() {
        let mut file = PendingFile::create(Path::new("/dev/null")).unwrap();
        file.write_all(b"new").unwrap();
        file.commit().unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
    }

    #[test]
    fn a_directory_that_does_not_exist_is_named() {
        let error = PendingFile::create(Path::new("/nonexistent-dir/x.tar")).unwrap_err();
        assert_eq!(error.to_string(), "cannot write to `/nonexistent-dir/x.tar`: the directory `/nonexistent-dir` does not exist");
    }
}
