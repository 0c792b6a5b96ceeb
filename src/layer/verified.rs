//! A layer's blob as a plain tar, verified to its last byte: the blob's digest and size by the store's reader, the diff
//! id here. A second thread decompresses and a third digests while the first one reads the tar.

use std::{
    io::{self, Read, Write},
    panic::resume_unwind,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, SyncSender, channel, sync_channel},
    },
    thread,
};

use sha2::{Digest as _, Sha256};

use super::{Error, archive::decompress, read::bad};
use crate::{
    oci::{Descriptor, DiffId, Digest},
    store::{Digesting, Store},
    sys::PathError,
};

const CHUNK: usize = 256 * 1024;
const AHEAD: usize = 8;
/// A layer may be this large whatever its blob is, and beyond that as large as gzip can make it.
const LARGE: u64 = 64 << 30;
const GZIP_RATIO: u64 = 1032;

/// Hands the plain tar of a blob to `consume`. What that returns counts only if every byte was as promised.
pub(super) fn with_tar<T>(
    store: &Store,
    blob: &Descriptor,
    diff_id: &DiffId,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, Error>,
) -> Result<T, Error> {
    let named = |error| match error {
        Error::BadLayer { reason, .. } => Error::BadLayer { layer: blob.digest.to_string(), reason },
        Error::Path(_) | Error::Store(_) | Error::Changed { .. } | Error::BadName { .. } => error,
    };
    let from = store.open_blob(blob)?.ok_or_else(|| named(bad("its blob is not in the store")))?;
    let limit = LARGE.saturating_add(blob.size.saturating_mul(GZIP_RATIO));
    let (consumed, digest) = thread::scope(|scope| {
        let (full, chunks) = sync_channel(AHEAD);
        let (used, empty) = channel();
        let unpacker = scope.spawn(move || unpack(from, limit, &full, &empty));
        let mut tar = Tar { chunks, used, chunk: Arc::default(), at: 0 };
        let consumed = consume(&mut tar).and_then(|consumed| {
            // What follows the tar's end mark is digested too.
            let _rest = io::copy(&mut tar, &mut io::sink()).map_err(|error| super::read::unreadable(&error))?;
            Ok(consumed)
        });
        drop(tar);
        (consumed, unpacker.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    let consumed = consumed.map_err(named)?;
    match digest {
        Some(found) if found == *diff_id => Ok(consumed),
        found => Err(named(bad(format!("its tar should be {diff_id} and is {}", found.map_or("cut off".into(), |id| id.to_string()))))),
    }
}

/// The same for a tar that a second thread writes.
pub(super) fn with_emitted<T>(
    diff_id: &DiffId,
    emit: impl FnOnce(&mut dyn io::Write) -> Result<(), Error> + Send,
    consume: impl FnOnce(&mut dyn Read) -> Result<T, Error>,
) -> Result<T, Error> {
    let (from, to) = io::pipe().map_err(PathError::new("create", "pipe"))?;
    let (consumed, emitted) = thread::scope(|scope| {
        let emitter = scope.spawn(move || {
            let mut summing = Summing { to: io::BufWriter::with_capacity(CHUNK, to), digest: Sha256::new() };
            emit(&mut summing)?;
            summing.to.flush().map_err(PathError::new("write", "layer"))?;
            Ok(DiffId(Digest::from_bytes(summing.digest.finalize().into())))
        });
        let mut from = io::BufReader::with_capacity(CHUNK, from);
        let consumed = consume(&mut from).and_then(|consumed| {
            let _rest = io::copy(&mut from, &mut io::sink()).map_err(|error| super::read::unreadable(&error))?;
            Ok(consumed)
        });
        drop(from);
        (consumed, emitter.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // If the emitter failed, that is why the consumer found no end; if nobody read on, that is why it failed.
    match (consumed, emitted) {
        (Ok(consumed), Ok(found)) if found == *diff_id => Ok(consumed),
        (Ok(_), Ok(_)) => Err(Error::Changed { shown: "a file of the layer".to_owned() }),
        (Err(error), Ok(_) | Err(Error::Path(_))) | (_, Err(error)) => Err(error),
    }
}

struct Summing<W> {
    to: W,
    digest: Sha256,
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.to.write(bytes)?;
        self.digest.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// What the threads share of the tar.
type Chunk = Arc<Vec<u8>>;

/// The second thread. `None`: it failed, or nobody listened to the end.
fn unpack(from: impl Read + Send, limit: u64, full: &SyncSender<io::Result<Chunk>>, empty: &Receiver<Chunk>) -> Option<DiffId> {
    let mut digest = Digesting::new(|chunk: &Chunk| chunk.as_slice());
    let mut left = limit;
    let mut plain = match decompress(from) {
        Ok(plain) => plain,
        Err(error) => {
            drop(full.send(Err(error)));
            return None;
        }
    };
    loop {
        // What is digested still is not taken again.
        let mut chunk = empty.try_recv().ok().and_then(Arc::into_inner).unwrap_or_default();
        chunk.resize(CHUNK, 0);
        match fill(&mut plain, &mut chunk) {
            Ok(0) => return Some(DiffId(digest.finish())),
            Ok(read) if read as u64 <= left => {
                left -= read as u64;
                if read == CHUNK {
                    // There may be more of them.
                    digest.go_beside();
                }
                chunk.truncate(read);
                let chunk = Arc::new(chunk);
                digest.update(Arc::clone(&chunk));
                full.send(Ok(chunk)).ok()?;
            }
            Ok(_more) => {
                drop(full.send(Err(io::Error::other("it unpacks to more than any layer may hold"))));
                return None;
            }
            Err(error) => {
                drop(full.send(Err(error)));
                return None;
            }
        }
    }
}

fn fill(from: &mut impl Read, chunk: &mut [u8]) -> io::Result<usize> {
    let mut have = 0;
    while let Some(rest) = chunk.get_mut(have..).filter(|rest| !rest.is_empty()) {
        match from.read(rest) {
            Ok(0) => break,
            Ok(read) => have += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(have)
}

/// The first thread's end.
struct Tar {
    chunks: Receiver<io::Result<Chunk>>,
    used: Sender<Chunk>,
    chunk: Chunk,
    at: usize,
}

impl Read for Tar {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.at == self.chunk.len() {
            let Ok(next) = self.chunks.recv() else { return Ok(0) };
            // The other thread may have ended; then nobody needs it.
            drop(self.used.send(std::mem::replace(&mut self.chunk, next?)));
            self.at = 0;
        }
        let have = self.chunk.get(self.at..).unwrap_or_default();
        let some = have.len().min(into.len());
        if let (Some(into), Some(have)) = (into.get_mut(..some), have.get(..some)) {
            into.copy_from_slice(have);
        }
        self.at += some;
        Ok(some)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(packed: &[u8], limit: u64) -> (io::Result<usize>, Option<DiffId>) {
        let (full, chunks) = sync_channel(1000);
        let (_used, empty) = channel();
        let id = unpack(packed, limit, &full, &empty);
        drop(full);
        (chunks.iter().map(|chunk| chunk.map(|chunk| chunk.len())).sum(), id)
    }

    #[test]
    fn a_bomb_is_put_out_at_the_limit() {
        let zeros = vec![0; 10 << 20];
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        gzip.write_all(&zeros).unwrap();
        for bomb in [gzip.finish().unwrap(), zstd::encode_all(zeros.as_slice(), 3).unwrap()] {
            assert!(bomb.len() < zeros.len() / 500);
            let (read, id) = unpacked(&bomb, 1 << 20);
            assert!(read.unwrap_err().to_string().contains("more than any layer"));
            assert_eq!(id, None);
            let (read, id) = unpacked(&bomb, 10 << 20);
            assert_eq!((read.unwrap(), id), (10 << 20, Some(DiffId(Digest::of(&zeros)))));
        }
    }

    #[test]
    fn a_window_larger_than_128_mib_is_refused() {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(30).unwrap();
        encoder.write_all(&vec![7; 1 << 20]).unwrap();
        encoder.write_all(&(0..1 << 20).map(|at: u32| u8::try_from(at % 251).unwrap()).collect::<Vec<_>>()).unwrap();
        let packed = encoder.finish().unwrap();
        assert!(unpacked(&packed, u64::MAX).0.is_err());
    }
}
