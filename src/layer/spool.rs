//! A tar on its way from who writes it to who compresses it, so that the writer need not wait.
//!
//! ```text
//! writer ─ blocks in memory ─┬─ SHA-256
//!                            ├───────────────────────────────────────────────────┬─ reader
//!                            └─ if the reader is behind: a file without a name ──┘
//! ```
//!
//! A block is in memory only while the file is empty, so that their order is that of the stream. The file has a limit, beyond which
//! the writer waits, as it does when the disk is full. What fits into one block is digested without a thread; with one, the only
//! SHA-256 of a plain layer goes on beside its reading and its writing.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt as _,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::crew::{Buffer, Crew};
use crate::{
    oci::DiffId,
    store::{Digesting, Store},
};

/// What is handed on at once.
const BLOCK: usize = 256 * 1024;
/// How many blocks wait in memory for the reader.
const IN_MEMORY: usize = 4;
/// How many bytes wait on the disk.
pub(super) const ON_DISK: u64 = 1 << 30;
/// A reader looks so often whether anybody wants it to go on.
const PATIENCE: Duration = Duration::from_millis(100);

/// A stream's two ends. At most `limit` bytes wait on the disk.
pub(super) fn spool(store: &Store, limit: u64) -> (Writer, Reader) {
    let shared = Arc::new(Shared { state: Mutex::default(), moved: Condvar::new(), store: store.clone(), limit });
    let writer = Writer { shared: Arc::clone(&shared), digesting: digesting(), block: fresh() };
    (writer, Reader { shared })
}

/// Of the tar's blocks.
fn digesting() -> Digesting<Arc<Buffer>> {
    Digesting::new(|block| &block.bytes)
}

/// Memory for one block.
fn fresh() -> Buffer {
    Crew::common().buffer(BLOCK)
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
    blocks: VecDeque<Arc<Buffer>>,
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
    Whole(DiffId),
    Broken,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, block: Arc<Buffer>) -> io::Result<()> {
        let mut state = self.state();
        loop {
            if state.deaf {
                return Err(io::ErrorKind::BrokenPipe.into());
            }
            if state.read == state.written && state.blocks.len() < IN_MEMORY {
                state.blocks.push_back(block);
                break;
            }
            if state.written < self.limit && state.spill(&self.store, &block.bytes).is_ok() {
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
    fn next(&mut self) -> io::Result<Option<Arc<Buffer>>> {
        if let Some(block) = self.blocks.pop_front() {
            return Ok(Some(block));
        }
        let left = usize::try_from(self.written - self.read).unwrap_or(usize::MAX);
        let Some(file) = self.file.as_ref().filter(|_| left > 0) else { return Ok(None) };
        let mut block = fresh();
        block.bytes.resize(left.min(BLOCK), 0);
        file.read_exact_at(&mut block.bytes, self.read)?;
        self.read += block.bytes.len() as u64;
        Ok(Some(Arc::new(block)))
    }
}

/// Where the tar is written to. Dropped before its end, the reader fails.
#[derive(Debug)]
pub struct Writer {
    shared: Arc<Shared>,
    digesting: Digesting<Arc<Buffer>>,
    block: Buffer,
}

impl Writer {
    fn hand_on(&mut self) -> io::Result<()> {
        let block = Arc::new(std::mem::replace(&mut self.block, fresh()));
        self.shared.push(Arc::clone(&block))?;
        self.digesting.update(block);
        Ok(())
    }

    /// That was all of it.
    pub(super) fn finish(mut self) -> io::Result<DiffId> {
        if !self.block.bytes.is_empty() {
            self.hand_on()?;
        }
        let diff_id = DiffId(std::mem::replace(&mut self.digesting, digesting()).finish());
        self.shared.end(End::Whole(diff_id));
        Ok(diff_id)
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.bytes.len() == BLOCK && !bytes.is_empty() {
            // There is more than one block.
            self.digesting.go_beside();
            self.hand_on()?;
        }
        let some = bytes.get(..bytes.len().min(BLOCK - self.block.bytes.len())).unwrap_or_default();
        self.block.bytes.extend_from_slice(some);
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
    /// All of it, and what its digest is. An error if the writer ended early, or as soon as `cancelled` says so.
    pub(super) fn copy_to(&self, to: &mut dyn Write, cancelled: &dyn Fn() -> bool) -> io::Result<DiffId> {
        loop {
            match self.next(cancelled)? {
                Next::Block(block) => {
                    self.shared.moved.notify_all();
                    to.write_all(&block.bytes)?;
                }
                Next::End(diff_id) => return Ok(diff_id),
            }
        }
    }

    fn next(&self, cancelled: &dyn Fn() -> bool) -> io::Result<Next> {
        let mut state = self.shared.state();
        loop {
            if cancelled() {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            if let Some(block) = state.next()? {
                return Ok(Next::Block(block));
            }
            match state.end {
                Some(End::Whole(diff_id)) => return Ok(Next::End(diff_id)),
                Some(End::Broken) => return Err(io::ErrorKind::UnexpectedEof.into()),
                None => {}
            }
            (state, _) = self.shared.moved.wait_timeout(state, PATIENCE).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// What a reader finds.
enum Next {
    Block(Arc<Buffer>),
    End(DiffId),
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
    use crate::oci::Digest;

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
            assert_eq!(reader.copy_to(&mut read, &|| false).unwrap().0, Digest::of(&bytes));
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
            let _diff_id = reader.copy_to(&mut read, &|| false).unwrap();
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
                reader.copy_to(&mut slow, &|| false).map(|_diff_id| slow.0)
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
        assert_eq!(writer.write_all(&sample(BLOCK + 1)).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let (_writer, reader) = spool(&store, ON_DISK);
        assert_eq!(reader.copy_to(&mut Vec::new(), &|| true).unwrap_err().kind(), io::ErrorKind::ConnectionAborted);
    }
}
