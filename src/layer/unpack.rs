//! An archive of files: an index that says what each entry is, and their bytes in a directory.
//!
//! On disk every file is the caller's own, with the mode 0600, in directories of the mode 0700: what an entry's mode, time
//! and attributes are stands in the index alone, as do links, devices and pipes. So a file that nobody may read can be
//! unpacked and read again, and nothing on the disk is a link that could lead somewhere.
//!
//! Source: moby go-archive `Unpack`, as BuildKit calls it for a context, by behaviour; owners as for a directory's files.

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
};

use super::{
    Error, Owners, archive,
    extract::Disk,
    read::{self, Below, Form, Sink, bad, unreadable},
};
use crate::tree::{Chain, Entry, Index, Meta, TreePath};

/// All bytes of all files: a small archive can ask for more than any disk has.
const MOST_BYTES: u64 = 64 << 30;
/// What may follow the end mark: writers fill up their last block.
const MOST_TRAILING: u64 = 64 << 20;

/// Unpacks an archive, compressed or not, into an empty directory. It is read to its end. On an error the directory may hold a part
/// of it; [`Error::BadLayer`] says what is wrong with the archive.
pub fn unpack<'a>(archive: impl Read + Send + 'a, into: &OwnedFd) -> Result<Index, Error> {
    let mut plain = archive::decompress(archive).map_err(|error| unreadable(&error))?;
    let mut bytes = Bytes { disk: Disk::new(into, &[], Owners::Real)?, left: MOST_BYTES };
    let index = read::read(&mut plain, Form::Files, Below::Chain(&Chain::default()), &mut bytes)?;
    // A decompressor checks its sum at the end, and a writer on the other end of a pipe may still be writing.
    let trailing = io::copy(&mut plain.take(MOST_TRAILING + 1), &mut io::sink()).map_err(|error| unreadable(&error))?;
    if trailing > MOST_TRAILING { Err(bad("it goes on after its end")) } else { Ok(index) }
}

/// Files' bytes, and the directories that hold them.
struct Bytes<'a> {
    disk: Disk<'a>,
    left: u64,
}

impl Sink for Bytes<'_> {
    fn dir(&mut self, path: &TreePath) -> Result<(), Error> {
        self.disk.dir(path)
    }

    fn file(&mut self, path: &TreePath, _meta: &Meta, body: &mut dyn Read) -> Result<(), Error> {
        let mut counted = body.take(self.left.saturating_add(1));
        drop(self.disk.pour(path, &mut counted)?);
        let spent = self.left.saturating_add(1) - counted.limit();
        match self.left.checked_sub(spent) {
            Some(left) => self.left = left,
            None => return Err(bad(format!("its files have more than {} GiB", MOST_BYTES >> 30))),
        }
        Ok(())
    }

    fn other(&mut self, _path: &TreePath, _entry: &Entry) -> Result<(), Error> {
        Ok(())
    }

    fn link(&mut self, first: &TreePath, path: &TreePath) -> Result<(), Error> {
        self.disk.link(first, path)
    }

    fn copy(&mut self, _layer: usize, from: &TreePath, path: &TreePath, _entry: &Entry) -> Result<(), Error> {
        Err(bad(format!("`{path}` is a link to `{from}`, which is not there")))
    }

    fn remove(&mut self, path: &TreePath) -> Result<(), Error> {
        self.disk.remove(path)
    }

    fn finish(&mut self, _index: &Index) -> Result<(), Error> {
        Ok(())
    }
}
