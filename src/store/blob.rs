//! Blobs: `blobs/sha256/<hex>`, written once and never changed.
//!
//! A blob is hashed while it is written (temp → fsync → rename → fsync of the directory) and again while it is
//! read: the read that would hand out its last bytes fails instead if the digest or the size is wrong. A damaged
//! blob is deleted, so that the next build finds it missing.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{self, BufWriter, Read, Seek as _, Write},
    path::PathBuf,
    sync::{Arc, mpsc::channel},
};

use sha2::{Digest as _, Sha256};

use super::{
    Error, Store,
    digesting::Digesting,
    pin::Pin,
    sealed::{discard, open_regular},
    temp::{TempFile, same},
    written::Stamp,
};
use crate::{
    oci::{Descriptor, Digest},
    sys::{PathError, WriteBack},
};

/// How much the kernel copies at once.
const SPELL: u64 = 8 << 20;
/// What is smaller is digested by who writes it.
const WORTH_A_THREAD: u64 = 1 << 20;

impl Store {
    /// Begins a blob; nothing is there before [`BlobWriter::commit`].
    pub fn blob_writer(&self) -> Result<BlobWriter, Error> {
        let digesting = Digesting::new(|block: &Arc<Vec<u8>>| block.as_slice());
        Ok(BlobWriter { bytes: self.undigested_blob()?, digesting, under_way: VecDeque::new() })
    }

    /// Begins a blob whose bytes who writes it digests anyway.
    pub fn undigested_blob(&self) -> Result<Undigested, Error> {
        let file = BufWriter::with_capacity(128 * 1024, TempFile::create(&self.tmp())?);
        Ok(Undigested { file, size: 0, disk: WriteBack::from(0), store: self.clone(), cleared: false })
    }

    /// Puts bytes in memory: configs and manifests. What is there already is not written, and so not synced, again.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.has_blob(&digest, bytes.len() as u64) && self.blob(&digest, bytes.len() as u64)?.is_some() {
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).map_err(PathError::new("write", self.blobs()))?;
        Ok(writer.commit(None)?.0)
    }

    /// A small blob, verified, at most `limit` bytes (a larger one is [`Error::Mismatch`]). `None`: missing or damaged (then it is deleted).
    pub fn blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        self.pin(Pin::Blob(*digest));
        let path = self.blob_path(digest);
        let Some(file) = open_regular(&path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        let _read = (&file).take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(PathError::new("read", &path))?;
        if bytes.len() as u64 > limit {
            let size = file.metadata().map_err(PathError::new("stat", &path))?.len();
            return Err(mismatch(digest, format!("at most {limit} bytes"), format!("{size} bytes")));
        }
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        discard(&file, &path);
        Ok(None)
    }

    /// A stream of a blob; the digest and size are checked when its end is read, and a mismatch is a read error. `None`: missing.
    pub fn open_blob(&self, descriptor: &Descriptor) -> Result<Option<BlobReader>, Error> {
        self.pin(Pin::Blob(descriptor.digest));
        let path = self.blob_path(&descriptor.digest);
        let Some(file) = open_regular(&path)? else { return Ok(None) };
        if file.metadata().map_err(PathError::new("stat", &path))?.len() != descriptor.size {
            // Which of the two is wrong? Only a file that does not have its own digest may go.
            return match self.verified_size(&descriptor.digest)? {
                None => Ok(None),
                Some(size) => Err(mismatch(&descriptor.digest, format!("{} bytes", descriptor.size), format!("{size} bytes"))),
            };
        }
        let (hasher, ours) = (Some(Sha256::new()), self.stamp(&descriptor.digest));
        Ok(Some(BlobReader { file, path, digest: descriptor.digest, left: descriptor.size, hasher, ours }))
    }

    /// Is it there and whole? It is read to its end, and is gone after that if it is damaged.
    pub fn has_whole_blob(&self, descriptor: &Descriptor) -> bool {
        self.open_blob(descriptor).ok().flatten().is_some_and(|blob| blob.finish().is_ok())
    }

    /// Is it there with that size? Does not read it.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> bool {
        self.pin(Pin::Blob(*digest));
        self.is_there(digest, size)
    }

    pub(super) fn is_there(&self, digest: &Digest, size: u64) -> bool {
        fs::symlink_metadata(self.blob_path(digest)).is_ok_and(|found| found.is_file() && found.len() == size)
    }

    /// Reads a blob whole. `None`: missing or damaged (then it is deleted).
    pub(super) fn verified_size(&self, digest: &Digest) -> Result<Option<u64>, Error> {
        let path = self.blob_path(digest);
        let Some(file) = open_regular(&path)? else { return Ok(None) };
        match Digest::of_stream(&file) {
            Ok((found, size)) if found == *digest => Ok(Some(size)),
            // What the disk does not give back is not there.
            Ok(_) | Err(_) => {
                discard(&file, &path);
                Ok(None)
            }
        }
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("blobs/sha256")
    }

    pub(super) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs().join(digest.hex())
    }
}

/// A blob being written: counts and hashes what passes. Dropped without a commit, it never was.
#[derive(Debug)]
pub struct BlobWriter {
    bytes: Undigested,
    digesting: Digesting<Arc<Vec<u8>>>,
    /// Blocks that may still be on their way to the digest, the oldest first.
    under_way: VecDeque<Arc<Vec<u8>>>,
}

/// The same, hashed by who writes it.
#[derive(Debug)]
pub struct Undigested {
    file: BufWriter<TempFile>,
    size: u64,
    disk: WriteBack,
    store: Store,
    /// Was room made for it already?
    cleared: bool,
}

impl Undigested {
    /// Does it, and once more if the file system was full and has some room now.
    fn with_room<T>(&mut self, mut work: impl FnMut(&mut BufWriter<TempFile>) -> io::Result<T>) -> io::Result<T> {
        match work(&mut self.file) {
            Err(error) if is_full(&error) && !self.cleared && !self.store.make_room().is_nothing() => {
                self.cleared = true;
                work(&mut self.file)
            }
            result => result,
        }
    }

    /// Finishes it under the digest that was taken of the very bytes that were written; its size. It lasts as after
    /// [`BlobWriter::commit_unsynced`].
    pub fn commit_as(self, digest: &Digest) -> Result<u64, Error> {
        self.finish(digest, false)
    }

    fn finish(mut self, digest: &Digest, durable: bool) -> Result<u64, Error> {
        let path = self.store.blob_path(digest);
        self.with_room(Write::flush).map_err(PathError::new("write", self.store.blobs()))?;
        let file = self.file.into_inner().map_err(|error| PathError::new("write", &path)(error.into_error()))?;
        let again = file.file().try_clone();
        // An older file of that name is replaced even so: this one is known to be right.
        let (store, size) = (self.store, self.size);
        file.persist_with(&path, durable, |rename| store.commit_file(&path, size, Some(Pin::Blob(*digest)), rename))?;
        if let Ok(file) = again {
            store.note_written(digest, &file);
        }
        Ok(size)
    }
}

impl BlobWriter {
    /// Writes a block, and gives memory for the next one in return, with anything in it. Of a large blob another thread takes the digest
    /// meanwhile.
    pub fn write_block(&mut self, block: Vec<u8>) -> io::Result<Vec<u8>> {
        self.bytes.write_all(&block)?;
        if let Some(digest) = self.digesting.itself() {
            digest.update(&block);
            if self.bytes.size >= WORTH_A_THREAD {
                self.digesting.go_beside();
            }
            return Ok(block);
        }
        let block = Arc::new(block);
        self.digesting.update(Arc::clone(&block));
        self.under_way.push_back(block);
        Ok(match self.under_way.pop_front().map(Arc::try_unwrap) {
            Some(Ok(free)) => free,
            Some(Err(busy)) => {
                self.under_way.push_front(busy);
                Vec::new()
            }
            None => Vec::new(),
        })
    }

    /// Finishes it; with `expected`, only if digest and size are those.
    pub fn commit(self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), Error> {
        self.finish(expected, true)
    }

    /// Finishes it; it lasts when [`Store::sync`] has come back. After a power cut before that it may be missing or cut short, and
    /// counts as missing then: one call for all layers of a build costs less than one for each.
    pub fn commit_unsynced(self) -> Result<(Digest, u64), Error> {
        self.finish(None, false)
    }

    fn finish(self, expected: Option<(&Digest, u64)>, durable: bool) -> Result<(Digest, u64), Error> {
        let digest = self.digesting.finish();
        if let Some((wanted, size)) = expected {
            if self.bytes.size != size {
                return Err(mismatch(wanted, format!("{size} bytes"), format!("{} bytes", self.bytes.size)));
            }
            if digest != *wanted {
                return Err(mismatch(wanted, wanted.to_string(), digest.to_string()));
            }
        }
        Ok((digest, self.bytes.finish(&digest, durable)?))
    }

    /// How many bytes it has so far.
    pub fn size(&self) -> u64 {
        self.bytes.size
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

impl Write for Undigested {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.with_room(|file| file.write(bytes))?;
        self.size += count as u64;
        self.disk.written(self.file.get_ref().file(), self.size);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.bytes.write(bytes)?;
        let written = bytes.get(..count).unwrap_or_default();
        match self.digesting.itself() {
            Some(digest) => digest.update(written),
            None => self.digesting.update(Arc::new(written.to_vec())),
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.bytes.flush()
    }
}

/// What became of a copy: the file has the blob only if both went well.
#[derive(Debug)]
pub struct Copied {
    /// Is the blob what it should be?
    pub verified: io::Result<()>,
    /// Could it be written?
    pub written: io::Result<()>,
}

/// A blob being read; the read that would complete it fails if the digest or size is wrong.
#[derive(Debug)]
pub struct BlobReader {
    file: File,
    path: PathBuf,
    digest: Digest,
    left: u64,
    /// Gone when the end was verified.
    hasher: Option<Sha256>,
    /// How the file looks if it is as this build has written it.
    ours: Option<Stamp>,
}

impl BlobReader {
    /// Reads what is left, so that all of the blob was verified: a decoder may stop before the last byte.
    pub fn finish(mut self) -> io::Result<()> {
        let mut buffer = vec![0; usize::try_from(self.left).unwrap_or(usize::MAX).clamp(1, 256 * 1024)];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Writes what is left of it at a file's position. The kernel copies, so that file systems that can share blocks do. Another
    /// thread reads and verifies meanwhile, unless this build has written the blob itself and nobody has touched it since.
    pub fn copy_into(mut self, to: &File) -> Copied {
        let size = self.left;
        let from = self.again();
        if self.is_ours() {
            let written = from.and_then(|from| copy(&from, to, size));
            if self.is_ours() {
                return Copied { verified: Ok(()), written };
            }
            return Copied { verified: self.finish(), written };
        }
        std::thread::scope(|scope| {
            let verifier = scope.spawn(move || self.finish());
            let written = from.and_then(|from| copy(&from, to, size));
            Copied { verified: verifier.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), written }
        })
    }

    /// Is it the very file that this build has written, as it was then?
    fn is_ours(&self) -> bool {
        self.ours.is_some_and(|ours| Stamp::of(&self.file).is_ok_and(|stamp| stamp == ours))
    }

    /// The same file with a position of its own, which is the same for now.
    fn again(&mut self) -> io::Result<File> {
        let again = open_regular(&self.path).map_err(io::Error::other)?.ok_or(io::ErrorKind::NotFound)?;
        if !(same(&self.file, &self.path) && same(&again, &self.path)) {
            return Err(io::Error::other("another file has its name now"));
        }
        let _at = (&again).seek(io::SeekFrom::Start(self.file.stream_position()?))?;
        Ok(again)
    }

    fn damaged(&self, what: &str) -> io::Error {
        discard(&self.file, &self.path);
        io::Error::new(io::ErrorKind::InvalidData, format!("the blob {} {what}", self.digest))
    }

    /// All bytes are hashed: is it the right file, and is that its end?
    fn verify(&mut self) -> io::Result<()> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if Digest::from_bytes(hasher.finalize().into()) != self.digest {
            return Err(self.damaged("is damaged: its bytes have another digest"));
        }
        match (&self.file).read(&mut [0])? {
            0 => Ok(()),
            _ => Err(self.damaged("is longer than it should be")),
        }
    }
}

impl Read for BlobReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 {
            return self.verify().map(|()| 0);
        }
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        let Some(window) = bytes.get_mut(..room).filter(|window| !window.is_empty()) else { return Ok(0) };
        let count = self.file.read(window)?;
        if count == 0 {
            return Err(self.damaged("is cut short"));
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(window.get(..count).unwrap_or_default());
        }
        self.left -= count as u64;
        if self.left == 0 {
            self.verify()?;
        }
        Ok(count)
    }
}

/// Copies so many bytes from where the one file stands to where the other does.
fn copy(from: &File, to: &File, size: u64) -> io::Result<()> {
    // What is no regular file has no place, and no disk behind it.
    let start = (&*to).stream_position().ok();
    std::thread::scope(|scope| {
        let (done, told) = channel();
        let _disk = start.filter(|_| size > 2 * SPELL).map(|start| {
            scope.spawn(move || {
                let mut disk = WriteBack::from(start);
                for done in told {
                    disk.written(to, start + done);
                }
            })
        });
        let mut copied = 0;
        while copied < size {
            match io::copy(&mut from.take(SPELL.min(size - copied)), &mut &*to)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                some => copied += some,
            }
            // Nobody listens where there is no disk.
            let _told = done.send(copied);
        }
        Ok(())
    })
}

fn mismatch(digest: &Digest, expected: String, found: String) -> Error {
    Error::Mismatch { what: format!("the blob {digest}"), expected, found }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    fn read(store: &Store, digest: Digest, size: u64) -> io::Result<Option<Vec<u8>>> {
        let reader = store.open_blob(&Descriptor::new("x/y", digest, size)).map_err(io::Error::other)?;
        let Some(mut reader) = reader else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map(|_| Some(bytes))
    }

    #[test]
    fn a_blob_is_copied_to_where_a_file_stands_and_verified() {
        let (dir, store) = store();
        let bytes = b"0123456789abcdef".repeat(100_000);
        let digest = store.put_blob(&bytes).unwrap();
        let blob = Descriptor::new("x/y", digest, bytes.len() as u64);
        let path = dir.path().join("out");
        let copy = || {
            let mut out = File::create(&path).unwrap();
            out.write_all(b"before").unwrap();
            let copied = store.open_blob(&blob).unwrap().unwrap().copy_into(&out);
            out.write_all(b"after").unwrap();
            copied
        };
        let copied = copy();
        assert!(copied.verified.is_ok() && copied.written.is_ok());
        assert!(fs::read(&path).unwrap() == [b"before", bytes.as_slice(), b"after"].concat());
        let mut damaged = bytes.clone();
        damaged[1_000_000] ^= 1;
        fs::write(store.blob_path(&digest), damaged).unwrap();
        assert!(copy().verified.unwrap_err().to_string().contains("is damaged"));
        assert!(!store.has_blob(&digest, blob.size));
    }

    #[test]
    fn what_is_written_is_read() {
        let (_dir, store) = store();
        for bytes in [&b""[..], b"one", &vec![7; 300_000]] {
            let digest = store.put_blob(bytes).unwrap();
            assert_eq!(digest, Digest::of(bytes));
            assert!(store.has_blob(&digest, bytes.len() as u64) && !store.has_blob(&digest, 9));
            assert_eq!(read(&store, digest, bytes.len() as u64).unwrap().unwrap(), bytes);
            assert_eq!(store.blob(&digest, 300_000).unwrap().unwrap(), bytes);
        }
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
    }

    #[test]
    fn blocks_are_digested_in_their_order_whoever_does_it() {
        let (_dir, store) = store();
        let mut writer = store.blob_writer().unwrap();
        let (mut all, mut memory) = (Vec::new(), Vec::new());
        for number in 0..100_u8 {
            memory.clear();
            memory.resize(50_000 + usize::from(number), number);
            all.extend_from_slice(&memory);
            memory = writer.write_block(memory).unwrap();
            if number.is_multiple_of(7) {
                all.extend_from_slice(b"between");
                writer.write_all(b"between").unwrap();
            }
        }
        assert!(writer.under_way.len() < 10);
        let (digest, size) = writer.commit(Some((&Digest::of(&all), all.len() as u64))).unwrap();
        assert!(read(&store, digest, size).unwrap().unwrap() == all);
    }

    #[test]
    fn a_writer_that_is_dropped_or_promised_something_else_leaves_nothing() {
        let (_dir, store) = store();
        let mut dropped = store.blob_writer().unwrap();
        dropped.write_all(b"half").unwrap();
        drop(dropped);
        for expected in [(Digest::of(b"other"), 4), (Digest::of(b"half"), 5)] {
            let mut writer = store.blob_writer().unwrap();
            writer.write_all(b"half").unwrap();
            assert!(matches!(writer.commit(Some((&expected.0, expected.1))), Err(Error::Mismatch { .. })));
        }
        assert_eq!(fs::read_dir(store.tmp()).unwrap().count(), 0);
        assert_eq!(fs::read_dir(store.blobs()).unwrap().count(), 0);
    }

    #[test]
    fn a_damaged_blob_never_gives_its_last_bytes_and_is_then_missing() {
        let (_dir, store) = store();
        let bytes: Vec<u8> = (0..200_000_u32).map(|at| at.to_le_bytes()[0]).collect();
        let size = bytes.len() as u64;
        let digest = store.put_blob(&bytes).unwrap();
        let mut flipped = bytes.clone();
        flipped[150_000] ^= 1;
        fs::write(store.blob_path(&digest), &flipped).unwrap();
        assert_eq!(read(&store, digest, size).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert!(!store.has_blob(&digest, size));
        for bad in [&bytes[..199_999], &[&bytes[..], b"more"].concat(), &flipped] {
            fs::write(store.blob_path(&digest), bad).unwrap();
            assert!(read(&store, digest, size).map_or(true, |found| found.is_none()));
            assert!(!store.has_blob(&digest, size));
            fs::write(store.blob_path(&digest), bad).unwrap();
            assert_eq!(store.blob(&digest, 1 << 20).unwrap(), None);
            assert!(!store.blob_path(&digest).exists());
        }
    }

    #[test]
    fn a_blob_that_grows_or_shrinks_while_it_is_read_is_an_error() {
        let (_dir, store) = store();
        let bytes = vec![1; 500_000];
        for new_size in [499_999_u64, 500_001] {
            let digest = store.put_blob(&bytes).unwrap();
            let mut reader = store.open_blob(&Descriptor::new("x/y", digest, 500_000)).unwrap().unwrap();
            reader.read_exact(&mut [0; 1000]).unwrap();
            File::options().write(true).open(store.blob_path(&digest)).unwrap().set_len(new_size).unwrap();
            assert_eq!(reader.finish().unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }

    #[test]
    fn a_descriptor_that_lies_about_the_size_does_not_cost_the_blob() {
        let (_dir, store) = store();
        let digest = store.put_blob(b"bytes").unwrap();
        assert!(matches!(store.open_blob(&Descriptor::new("x/y", digest, 4)), Err(Error::Mismatch { .. })));
        assert!(matches!(store.blob(&digest, 4), Err(Error::Mismatch { .. })));
        assert!(store.has_blob(&digest, 5));
    }

    #[test]
    fn something_else_in_the_place_of_a_blob_is_a_missing_blob() {
        let (_dir, store) = store();
        let digest = Digest::of(b"x");
        std::os::unix::fs::symlink("/etc/passwd", store.blob_path(&digest)).unwrap();
        assert_eq!(store.blob(&digest, 100).unwrap(), None);
        assert!(!store.has_blob(&digest, 1));
        assert!(!store.blob_path(&digest).is_symlink(), "it is removed");
        fs::create_dir(store.blob_path(&digest)).unwrap();
        assert_eq!(read(&store, digest, 1).unwrap(), None);
    }
}
