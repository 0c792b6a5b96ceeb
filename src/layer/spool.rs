//! A tar on its way from who writes it to who compresses it, so that the writer need not wait.
//!
//! ```text
//! writer ─ SHA-256 ─ blocks in memory ─┬─ if the reader is behind: a file without a name ─┬─ reader
//!                                      └───────────────────────────────────────────────────┘
//! ```
//!
//! A block is in memory only while the file is empty, so that their order is that of the stream. The file has a limit, beyond which
//! the writer waits, as it does when the disk is full.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use sha2::{Digest as _, Sha256};

use crate::{
    oci::{DiffId, Digest},
    store::Store,
};

/// What is handed on at once.
const BLOCK: usize = 128 * 1024;
/// How many blocks wait in memory.
const IN_MEMORY: usize = 8;
/// How many bytes wait on the disk.
pub(super) const ON_DISK: u64 = 1 << 30;
/// A reader looks so often whether anybody wants it to go on.
const PATIENCE: Duration = Duration::from_millis(100);

/// A stream's two ends. At most `limit` bytes wait on the disk.
pub(super) fn spool(store: &Store, limit: u64) -> (Writer, Reader) {
    let shared = Arc::new(Shared { state: Mutex::default(), moved: Condvar::new(), store: store.clone(), limit });
    let writer = Writer { shared: Arc::clone(&shared), digest: Sha256::new(), block: Vec::new() };
    (writer, Reader { shared })
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    moved: Condvar,
    store: Store,
    limit: u64,
}

#[derive(Debug, Default)]
struct State {
    blocks: VecDeque<Vec<u8>>,
    file: Option<File>,
    /// How much of the file is written, and how much of that is read.
    written: u64,
    read: u64,
    /// What the writer left behind when it went.
    end: Option<End>,
    /// Nobody reads any more.
    deaf: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, block: Vec<u8>) -> io::Result<()> {
        let mut state = self.state();
        loop {
            if state.deaf {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if state.read == state.written && state.blocks.len() < IN_MEMORY {
                state.blocks.push_back(block);
                break;
            }
            if state.written < self.limit && state.spill(&self.store, &block).is_ok() {
                break;
            }
            state = self.moved.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.moved.notify_all();
        Ok(())
    }

    fn end(&self, end: End) {
        let _first = self.state().end.get_or_insert(end);
        self.moved.notify_all();
    }
}

impl State {
    /// Puts a block behind what is in the file. What an attempt that fails has written is written over.
    fn spill(&mut self, store: &Store, block: &[u8]) -> io::Result<()> {
        if self.read == self.written && self.written > 0 {
            // Gives the space back.
            (self.read, self.written, self.file) = (0, 0, None);
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(store.nameless_file().map_err(io::Error::other)?),
        };
        file.write_all_at(block, self.written)?;
        self.written += block.len() as u64;
        Ok(())
    }

    /// The next bytes, if there are some.
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(block) = self.blocks.pop_front() {
            return Ok(Some(block));
        }
        let left = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
        let Some(file) = self.file.as_ref().filter(|_| left > 0) else { return Ok(None) };
        let mut block = vec![0; left.min(BLOCK)];
        file.read_exact_at(&mut block, self.read)?;
        self.read += block.len() as u64;
        Ok(Some(block))
    }
}

/// Where the tar is written to. Dropped before its end, the reader fails.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    digest: Sha256,
    block: Vec<u8>,
}

impl Writer {
    fn hand_on(&mut self) -> io::Result<()> {
        let block = std::mem::take(&mut self.block);
        self.digest.update(&block);
        self.shared.push(block)
    }

    /// That was all of it.
    pub(super) fn finish(mut self) -> io::Result<DiffId> {
        if !self.block.is_empty() {
            self.hand_on()?;
        }
        self.shared.end(End::Whole);
        Ok(DiffId(Digest::from_bytes(std::mem::take(&mut self.digest).finalize().into())))
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.get(..bytes.len().min(BLOCK - self.block.len())).unwrap_or_default();
        self.block.extend_from_slice(some);
        if self.block.len() == BLOCK {
            self.hand_on()?;
        }
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.shared.end(End::Broken);
    }
}

/// Where the tar is read from. Dropped before its end, the writer fails.
#[derive(Debug)]
pub struct Reader {
    shared: Arc<Shared>,
}

impl Reader {
    /// All of it. An error if the writer ended early, or as soon as `cancelled` says so.
    pub(super) fn copy_to(&self, to: &mut dyn Write, cancelled: &dyn Fn() -> bool) -> io::Result<()> {
        while let Some(block) = self.next(cancelled)? {
            self.shared.moved.notify_all();
            to.write_all(&block)?;
        }
        Ok(())
    }

    fn next(&self, cancelled: &dyn Fn() -> bool) -> io::Result<Option<Vec<u8>>> {
        let mut state = self.shared.state();
        loop {
            if cancelled() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if let Some(block) = state.next()? {
                return Ok(Some(block));
            }
            match state.end {
                Some(End::Whole) => return Ok(None),
                Some(End::Broken) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
            (state, _) = self.shared.moved.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shared.state().deaf = true;
        self.shared.moved.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        (dir, store)
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|at| u8::try_from((at / 7 + at / 100_003) % 251).unwrap()).collect()
    }

    #[test]
    fn who_writes_need_not_wait_for_who_reads() {
        let (dir, store) = store();
        for length in [0, 1, BLOCK, BLOCK * IN_MEMORY + 1, BLOCK * 40 + 77] {
            let (mut writer, reader) = spool(&store, ON_DISK);
            let bytes = sample(length);
            for part in bytes.chunks(1000) {
                writer.write_all(part).unwrap();
            }
            assert_eq!(writer.finish().unwrap().0, Digest::of(&bytes));
            let mut read = Vec::new();
            reader.copy_to(&mut read, &|| false).unwrap();
            assert!(read == bytes, "{length}");
        }
        assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0);
    }

    #[test]
    fn who_may_not_run_ahead_waits_and_writes_nothing_to_the_disk() {
        let (_dir, store) = store();
        let (mut writer, reader) = spool(&store, 0);
        let bytes = sample(BLOCK * 40 + 77);
        let read = std::thread::scope(|scope| {
            let writing = scope.spawn(|| {
                writer.write_all(&bytes).unwrap();
                writer.finish().unwrap()
            });
            std::thread::sleep(Duration::from_millis(30));
            assert!(!writing.is_finished() && reader.shared.state().file.is_none());
            let mut read = Vec::new();
            reader.copy_to(&mut read, &|| false).unwrap();
            assert_eq!(writing.join().unwrap().0, Digest::of(&bytes));
            read
        });
        assert!(read == bytes && reader.shared.state().file.is_none());
    }

    #[test]
    fn the_order_is_kept_while_both_are_at_it() {
        let (_dir, store) = store();
        let (mut writer, reader) = spool(&store, ON_DISK);
        let bytes = sample(BLOCK * 100);
        let read = std::thread::scope(|scope| {
            let reading = scope.spawn(|| {
                let mut slow = Slow(Vec::new());
                reader.copy_to(&mut slow, &|| false).map(|()| slow.0)
            });
            for (number, part) in bytes.chunks(50_000).enumerate() {
                writer.write_all(part).unwrap();
                if number % 20 == 0 {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let _diff_id = writer.finish().unwrap();
            reading.join().unwrap().unwrap()
        });
        assert!(read == bytes);
    }

    struct Slow(Vec<u8>);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            if (self.0.len() / BLOCK).is_multiple_of(10) {
                std::thread::sleep(Duration::from_millis(2));
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn each_end_is_told_when_the_other_one_goes() {
        let (_dir, store) = store();
        let (mut writer, reader) = spool(&store, ON_DISK);
        writer.write_all(b"some").unwrap();
        drop(writer);
        assert_eq!(reader.copy_to(&mut Vec::new(), &|| false).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        let (mut writer, reader) = spool(&store, ON_DISK);
        drop(reader);
        assert_eq!(writer.write_all(&sample(BLOCK)).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let (_writer, reader) = spool(&store, ON_DISK);
        assert_eq!(reader.copy_to(&mut Vec::new(), &|| true).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
