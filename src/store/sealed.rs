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
    tape::Tape,
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

/// What a file holds.
#[derive(Debug, Clone, Copy)]
pub(super) enum Payload<'a> {
    Bytes(&'a [u8]),
    Tape(&'a Tape),
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Bytes(bytes)
    }
}

impl<'a> From<&'a Tape> for Payload<'a> {
    fn from(tape: &'a Tape) -> Self {
        Self::Tape(tape)
    }
}

impl Payload<'_> {
    fn len(self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Tape(tape) => tape.len(),
        }
    }

    fn each(self, mut hand_on: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => hand_on(bytes),
            Self::Tape(tape) => tape.each(hand_on),
        }
    }
}

impl Sealed {
    /// Writes it whole or not at all, counted as the store's. `name` is what it is bound to.
    pub(super) fn put<'a>(
        self,
        store: &Store,
        path: &Path,
        name: &str,
        payload: impl Into<Payload<'a>>,
        pin: Option<Pin>,
    ) -> Result<(), Error> {
        let payload = payload.into();
        let length = payload.len() + self.length_of_head();
        let temp = self.temp(&store.tmp(), name, payload)?;
        temp.persist_with(path, self.durable, |rename| store.commit_file(path, length, pin, rename))
    }

    /// As [`Sealed::put`], uncounted, but what is already there stays.
    pub(super) fn write_new(self, tmp: &Path, path: &Path, name: &str, payload: &[u8]) -> Result<bool, Error> {
        self.temp(tmp, name, Payload::Bytes(payload))?.persist_new(path)
    }

    fn temp(self, tmp: &Path, name: &str, payload: Payload<'_>) -> Result<TempFile, Error> {
        let mut file = TempFile::create(tmp)?;
        let head = self.head(name, payload)?;
        let written = file.write_all(head.as_bytes()).and_then(|()| payload.each(|bytes| file.write_all(bytes)));
        written.map_err(PathError::new("write", file.path()))?;
        Ok(file)
    }

    /// The payload. `None`: missing or damaged; damaged is deleted.
    pub(super) fn read(self, path: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.read_onto(Tape::default(), path, name)?.map(Tape::into_bytes))
    }

    /// The same on a tape, which is empty.
    pub(super) fn read_onto(self, mut tape: Tape, path: &Path, name: &str) -> Result<Option<Tape>, Error> {
        let Some(file) = open_regular(path)? else { return Ok(None) };
        let size = file.metadata().map_err(PathError::new("stat", path))?.len();
        // What a disk does not give back is as bad as what it gives back changed.
        if let Some(payload) = size.checked_sub(self.length_of_head()).filter(|length| *length <= self.limit)
            && self.holds(&file, payload, &mut tape, name)?
        {
            return Ok(Some(tape));
        }
        discard(&file, path);
        Ok(None)
    }

    /// Reads a file of that payload's length; is it whole?
    fn holds(self, mut file: &File, length: u64, tape: &mut Tape, name: &str) -> Result<bool, Error> {
        let mut head = vec![0; usize::try_from(self.length_of_head()).unwrap_or(0)];
        if file.read_exact(&mut head).is_err() {
            return Ok(false);
        }
        tape.reserve(length);
        let mut hasher = self.hasher(name, length);
        let (mut piece, mut left) = (vec![0; usize::try_from(length).unwrap_or(PIECE).clamp(1, PIECE)], length);
        loop {
            match file.read(&mut piece) {
                Ok(0) => break,
                Ok(read) => {
                    let bytes = piece.get(..read).unwrap_or_default();
                    let Some(less) = left.checked_sub(read as u64) else { return Ok(false) };
                    left = less;
                    let _same: &mut blake3::Hasher = hasher.update(bytes);
                    tape.append(bytes)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return Ok(false),
            }
        }
        Ok(left == 0 && head == self.line(&hasher).as_bytes())
    }

    fn head(self, name: &str, payload: Payload<'_>) -> Result<String, Error> {
        let mut hasher = self.hasher(name, payload.len());
        let read = payload.each(|bytes| {
            let _same: &mut blake3::Hasher = hasher.update(bytes);
            Ok(())
        });
        read.map_err(PathError::new("read", "a temporary file"))?;
        Ok(self.line(&hasher))
    }

    /// What a payload of that length is hashed with.
    fn hasher(self, name: &str, length: u64) -> blake3::Hasher {
        let mut hasher = blake3::Hasher::new_derive_key("lapstrake store: a sealed file, version 1");
        for part in [self.kind.as_bytes(), name.as_bytes()] {
            let _chain = hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let _chain = hasher.update(&length.to_le_bytes());
        hasher
    }

    fn line(self, hasher: &blake3::Hasher) -> String {
        format!("lapstrake {} 1 {}\n", self.kind, hasher.finalize().to_hex())
    }

    fn length_of_head(self) -> u64 {
        ("lapstrake  1 \n".len() + self.kind.len() + 64) as u64
    }
}

/// How much is read at once.
const PIECE: usize = 64 * 1024;

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
        NOTE.temp(dir.path(), "n", Payload::Bytes(b"payload")).unwrap().persist(&path, false).unwrap();
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
        NOTE.temp(dir.path(), "n", Payload::Bytes(b"payload")).unwrap().persist(&path, false).unwrap();
        assert_eq!(NOTE.read(&path, "m").unwrap(), None);
        NOTE.temp(dir.path(), "n", Payload::Bytes(b"payload")).unwrap().persist(&path, false).unwrap();
        assert_eq!(Sealed { kind: "other", ..NOTE }.read(&path, "n").unwrap(), None);
        NOTE.temp(dir.path(), "n", Payload::Bytes(&[7; 300])).unwrap().persist(&path, false).unwrap();
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
