//! The file `ledger`: what the store holds, so that nobody has to count it. It is changed in place under the store's
//! own lock, a `flock` on its directory.
//!
//! ```text
//! lapstrake ledger 1\n   boot (16)   bytes  inodes  stuck  counted (8 each, little endian)   BLAKE3 of all that (32)
//! ```
//!
//! What is committed is added before it has its name, what is removed is subtracted when it is gone: a killed process
//! leaves too much in it, never too little. Cut, damaged or of another boot it is missing, and the store is counted again.
//! Cache mounts and git repositories change without it: they are counted when the store is.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::size::Size;

const HEAD: &[u8] = b"lapstrake ledger 1\n";
const LENGTH: usize = HEAD.len() + 16 + 4 * 8;

/// What a ledger says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    /// All there is.
    pub(super) used: Size,
    /// If an eviction could not remove enough: how many bytes there were after it.
    pub(super) stuck: u64,
    /// When the store was counted, in seconds since 1970.
    pub(super) counted: u64,
}

/// Reads it. `None`: it is missing, or not one that can be believed.
pub(super) fn read(file: &File, boot: &str) -> Option<Totals> {
    let mut bytes = [0; LENGTH + 32];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let (body, sum) = bytes.split_at_checked(LENGTH)?;
    if blake3::hash(body).as_bytes() != sum {
        return None;
    }
    let (identity, numbers) = body.strip_prefix(HEAD)?.split_at_checked(16)?;
    if identity != identity_of(boot) {
        return None;
    }
    let mut numbers = numbers.chunks_exact(8).map(|number| number.try_into().map_or(0, u64::from_le_bytes));
    let mut next = || numbers.next();
    Some(Totals { used: Size { bytes: next()?, inodes: next()? }, stuck: next()?, counted: next()? })
}

/// Writes it in place. Half of it is damaged, which is missing.
pub(super) fn write(file: &File, boot: &str, totals: &Totals) -> std::io::Result<()> {
    let mut bytes = Vec::with_capacity(LENGTH + 32);
    bytes.extend_from_slice(HEAD);
    bytes.extend_from_slice(&identity_of(boot));
    for number in [totals.used.bytes, totals.used.inodes, totals.stuck, totals.counted] {
        bytes.extend_from_slice(&number.to_le_bytes());
    }
    let sum = blake3::hash(&bytes);
    bytes.extend_from_slice(sum.as_bytes());
    file.write_all_at(&bytes, 0)
}

/// Opens it, or makes an empty one. What stands in its place and is no file is left alone: then there is no ledger.
pub(super) fn open(path: &Path) -> Option<File> {
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK;
    let mut options = File::options();
    options.read(true).write(true).create(true).truncate(false).mode(0o600).custom_flags(flags.bits().cast_signed());
    let opened = options.open(path);
    let opened = opened.or_else(|_refused| std::fs::remove_file(path).and_then(|()| options.open(path)));
    opened.ok().filter(|file| file.metadata().is_ok_and(|found| found.is_file()))
}

fn identity_of(boot: &str) -> [u8; 16] {
    let hash = blake3::hash(boot.as_bytes());
    hash.as_bytes().first_chunk::<16>().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ledger_is_read_as_written_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ledger");
        let file = open(&path).unwrap();
        assert_eq!(read(&file, "boot"), None);
        let totals = Totals { used: Size { bytes: 1 << 40, inodes: 7 }, stuck: 3, counted: 9 };
        write(&file, "boot", &totals).unwrap();
        assert_eq!(read(&file, "boot"), Some(totals));
        assert_eq!(read(&file, "another boot"), None);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, bad).unwrap();
            assert_eq!(read(&open(&path).unwrap(), "boot"), None, "{at}");
        }
        std::fs::write(&path, &good[..good.len() - 1]).unwrap();
        assert_eq!(read(&open(&path).unwrap(), "boot"), None);
    }

    #[test]
    fn what_is_no_file_is_no_ledger() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("ledger")).unwrap();
        assert!(open(&dir.path().join("ledger")).is_some_and(|file| file.metadata().unwrap().len() == 0));
        std::fs::create_dir(dir.path().join("dir")).unwrap();
        assert!(open(&dir.path().join("dir")).is_none());
    }
}
