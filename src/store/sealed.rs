//! Small files that check themselves: a line with what it is and a BLAKE3, then the payload.
//!
//! ```text
//! lapstrake <kind> 1 <64 hex digits>\n<payload>
//! ```
//!
//! The digest covers the kind, the name and the payload: a file that was cut, changed or put in another's place is
//! damaged, which is the same as missing, and it is deleted.

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use super::{
    Error, Store,
    pin::Pin,
    remove::remove_all,
    temp::{TempFile, same},
};
use crate::sys::PathError;

/// What kind of file, how large it may be, and whether it must survive a power cut.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sealed {
    /// One word.
    pub(super) kind: &'static str,
    /// The payload's greatest size.
    pub(super) limit: u64,
    /// Is it synced before it gets its name?
    pub(super) durable: bool,
}

impl Sealed {
    /// Writes it whole or not at all, counted as the store's. `name` is what it is bound to.
    pub(super) fn put(self, store: &Store, path: &Path, name: &str, payload: &[u8], pin: Option<Pin>) -> Result<(), Error> {
        let length = self.length(payload);
        let temp = self.temp(&store.tmp(), name, payload)?;
        temp.persist_with(path, self.durable, |rename| store.commit_file(path, length, pin, rename))
    }

    /// How long the file of a payload is.
    fn length(self, payload: &[u8]) -> u64 {
        (payload.len() + "lapstrake  1 \n".len() + self.kind.len() + 64) as u64
    }

    /// As [`Sealed::put`], uncounted, but what is already there stays.
    pub(super) fn write_new(self, tmp: &Path, path: &Path, name: &str, payload: &[u8]) -> Result<bool, Error> {
        self.temp(tmp, name, payload)?.persist_new(path)
    }

    fn temp(self, tmp: &Path, name: &str, payload: &[u8]) -> Result<TempFile, Error> {
        let mut file = TempFile::create(tmp)?;
        let written = file.write_all(self.head(name, payload).as_bytes()).and_then(|()| file.write_all(payload));
        written.map_err(PathError::new("write", file.path()))?;
        Ok(file)
    }

    /// The payload. `None`: missing or damaged; damaged is deleted.
    pub(super) fn read(self, path: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
        let Some(file) = open_regular(path)? else { return Ok(None) };
        let size = file.metadata().map_err(PathError::new("stat", path))?.len();
        let room = self.limit + 128;
        if size <= room {
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            // What a disk does not give back is as bad as what it gives back changed.
            if (&file).take(room + 1).read_to_end(&mut bytes).is_ok()
                && let Some(payload) = self.payload(name, bytes)
            {
                return Ok(Some(payload));
            }
        }
        discard(&file, path);
        Ok(None)
    }

    fn payload(self, name: &str, mut bytes: Vec<u8>) -> Option<Vec<u8>> {
        let head = bytes.iter().take(128).position(|byte| *byte == b'\n')? + 1;
        // Moved, not copied: it may be as large as all else in memory.
        let said: Vec<u8> = bytes.drain(..head).collect();
        (said == self.head(name, &bytes).as_bytes()).then_some(bytes)
    }

    fn head(self, name: &str, payload: &[u8]) -> String {
        let mut hasher = blake3::Hasher::new_derive_key("lapstrake store: a sealed file, version 1");
        for part in [self.kind.as_bytes(), name.as_bytes(), payload] {
            let _chain = hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        format!("lapstrake {} 1 {}\n", self.kind, hasher.finalize().to_hex())
    }
}

/// What opening a link is refused with.
const LINK: i32 = rustix::io::Errno::LOOP.raw_os_error();

/// Opens a regular file without following a link at its place. `None`: there is nothing. Something else, or a file that may
/// not be read, is none of ours: it is removed.
pub(super) fn open_regular(path: &Path) -> Result<Option<File>, Error> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    match File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path) {
        Ok(file) => {
            let regular = file.metadata().map_err(PathError::new("stat", path))?.is_file();
            if !regular {
                drop(remove_all(path));
            }
            Ok(regular.then_some(file))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.raw_os_error() == Some(LINK) || error.kind() == io::ErrorKind::PermissionDenied => {
            drop(remove_all(path));
            Ok(None)
        }
        Err(error) => Err(PathError::new("open", path)(error).into()),
    }
}

/// Deletes a damaged file, unless another process has put a new one in its place. That it stays is no error.
pub(super) fn discard(file: &File, path: &Path) {
    if same(file, path) {
        drop(fs::remove_file(path));
    }
}

/// Letters, digits, `.`, `_` and `-` as they are, all else as `%hh`: a safe file name. Long ones become a digest.
pub(super) fn file_name(text: &str) -> String {
    use std::fmt::Write as _;
    let mut name = String::with_capacity(text.len());
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-') || (byte == b'.' && !name.is_empty());
        if plain {
            name.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ignored = write!(name, "%{byte:02x}");
        }
    }
    if name.is_empty() || name.len() > 200 { format!("%{}", blake3::hash(text.as_bytes()).to_hex()) } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTE: Sealed = Sealed { kind: "note", limit: 100, durable: false };

    #[test]
    fn every_truncation_and_every_flipped_bit_is_seen_and_the_file_deleted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        NOTE.temp(dir.path(), "n", b"payload").unwrap().persist(&path, false).unwrap();
        let good = fs::read(&path).unwrap();
        assert_eq!(NOTE.read(&path, "n").unwrap().unwrap(), b"payload");
        for at in 0..good.len() {
            fs::write(&path, &good[..at]).unwrap();
            assert_eq!(NOTE.read(&path, "n").unwrap(), None, "cut at {at}");
            assert!(!path.exists());
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[at] ^= 1 << bit;
                fs::write(&path, &bad).unwrap();
                assert_eq!(NOTE.read(&path, "n").unwrap(), None, "bit {bit} of {at}");
                assert!(!path.exists());
            }
        }
    }

    #[test]
    fn a_file_in_the_place_of_another_is_damaged() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        NOTE.temp(dir.path(), "n", b"payload").unwrap().persist(&path, false).unwrap();
        assert_eq!(NOTE.read(&path, "m").unwrap(), None);
        NOTE.temp(dir.path(), "n", b"payload").unwrap().persist(&path, false).unwrap();
        assert_eq!(Sealed { kind: "other", ..NOTE }.read(&path, "n").unwrap(), None);
        NOTE.temp(dir.path(), "n", &[7; 300]).unwrap().persist(&path, false).unwrap();
        assert_eq!(NOTE.read(&path, "n").unwrap(), None, "larger than its kind may be");
    }

    #[test]
    fn names_of_files_are_safe_and_different() {
        assert_eq!(file_name("gzip-6.1"), "gzip-6.1");
        assert_eq!(file_name("../a b"), "%2e.%2fa%20b");
        assert_ne!(file_name(".."), "..");
        assert!(file_name(&"x/".repeat(500)).len() < 100);
    }
}
