//! A tar stream on its way into a blob: digested, compressed by other threads, digested again.
//!
//! ```text
//! producer ─blocks┬─ SHA-256 of the tar
//!                 └─ crew: gzip, each block by itself ─ in their order ─ SHA-256 of the blob, file
//! ```
//!
//! zstd has threads of its own below one that feeds it; plain bytes have one digest, as the tar is the blob. What fits into one
//! block starts no thread. A compressor sees whole blocks and a rest, however the tar was written, and its bytes are the same for
//! any number of threads.

use std::{
    io::{self, Write},
    mem::replace,
    panic::resume_unwind,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, Scope, ScopedJoinHandle},
};

use flate2::Crc;
use sha2::{Digest as _, Sha256};

use super::{
    Compression, Error,
    crew::{Buffer, Crew},
    gzip::{self, BLOCK, Block, Form, WINDOW},
};
use crate::{
    oci::{Descriptor, DiffId, Digest, media_type},
    store::{BlobWriter, Store},
    sys::PathError,
};

/// What a thread of zstd takes at once. Left to zstd it grows with the level, and memory with it.
const ZSTD_JOB: u32 = 1 << 20;

impl Compression {
    /// What a blob of this compression is remembered under: all that its bytes depend on. A new version of a compressor
    /// may give other bytes; a test holds them, and says to change this name.
    pub fn id(self) -> String {
        match self {
            Self::Gzip(level) => format!("gzip-zlib-rs-2-level-{level}-block-{BLOCK}-window-{WINDOW}-noise-1"),
            Self::Zstd(level) => format!("zstd-mt-2-level-{level}-feed-{BLOCK}-job-{ZSTD_JOB}"),
            Self::Uncompressed => "uncompressed".to_owned(),
        }
    }

    /// The media type of a layer's blob.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Gzip(_) => media_type::LAYER_GZIP,
            Self::Zstd(_) => media_type::LAYER_ZSTD,
            Self::Uncompressed => media_type::LAYER,
        }
    }
}

/// When a blob is sure to outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lasting {
    /// At once.
    Now,
    /// After the next [`Store::sync`].
    Synced,
}

/// Runs `produce` on a stream whose bytes become a blob of the store. Nothing is there if it fails.
pub(super) fn pack<T>(
    store: &Store,
    (compression, lasting): (Compression, Lasting),
    produce: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<(T, DiffId, Descriptor), Error> {
    pack_with(Crew::common(), store, (compression, lasting), produce)
}

/// The same for a tar whose digest is found out elsewhere: it is not taken again.
pub(super) fn pack_digested<T>(
    store: &Store,
    (compression, lasting): (Compression, Lasting),
    produce: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<(T, Descriptor), Error> {
    let packed = Packing { crew: Crew::common(), compression, digests: false }.run(store, lasting, produce)?;
    Ok((packed.produced, packed.blob))
}

/// A plain tar as a blob, by the digest that `produce` knows it by: of the very bytes that it writes, which are not digested again. The
/// blob outlives a power cut after the next [`Store::sync`].
pub(super) fn keep(store: &Store, produce: impl FnOnce(&mut dyn Write) -> Result<DiffId, Error>) -> Result<Descriptor, Error> {
    let mut blob = store.undigested_blob()?;
    let DiffId(digest) = produce(&mut blob)?;
    let size = blob.commit_as(&digest)?;
    Ok(Descriptor::new(Compression::Uncompressed.media_type(), digest, size))
}

fn pack_with<T>(
    crew: &Crew,
    store: &Store,
    (compression, lasting): (Compression, Lasting),
    produce: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<(T, DiffId, Descriptor), Error> {
    // A plain tar is its own blob.
    let digests = compression != Compression::Uncompressed;
    let Done { produced, tar, blob } = Packing { crew, compression, digests }.run(store, lasting, produce)?;
    Ok((produced, DiffId(tar.unwrap_or(blob.digest)), blob))
}

/// How a stream is made a blob.
#[derive(Clone, Copy)]
struct Packing<'env> {
    crew: &'env Crew,
    compression: Compression,
    /// Is the tar's digest wanted?
    digests: bool,
}

struct Done<T> {
    produced: T,
    tar: Option<Digest>,
    blob: Descriptor,
}

impl Packing<'_> {
    fn run<T>(self, store: &Store, lasting: Lasting, produce: impl FnOnce(&mut dyn Write) -> Result<T, Error>) -> Result<Done<T>, Error> {
        let blob = store.blob_writer()?;
        let (produced, packed) = thread::scope(|scope| {
            let mut feed = Feed::new(scope, self, blob);
            let produced = produce(&mut feed);
            (produced, feed.finish())
        });
        // If the packing failed, that is why the producer could not write.
        let (tar, blob) = packed.map_err(PathError::new("write", "layer"))?;
        let produced = produced?;
        let (digest, size) = match lasting {
            Lasting::Now => blob.commit(None)?,
            Lasting::Synced => blob.commit_unsynced()?,
        };
        Ok(Done { produced, tar, blob: Descriptor::new(self.compression.media_type(), digest, size) })
    }
}

/// Plain bytes of one block, and those before them.
#[derive(Debug)]
struct Full {
    buffer: Buffer,
    window: usize,
}

impl Full {
    fn block(&self) -> Block<'_> {
        let (window, plain) = self.buffer.bytes.split_at_checked(self.window).unwrap_or_default();
        Block { window, plain }
    }

    fn plain(&self) -> &[u8] {
        self.block().plain
    }
}

/// A block, compressed. It holds on to its plain bytes until it is written: what is under way is counted by them.
struct Packed {
    full: Arc<Full>,
    form: Form,
    out: Buffer,
    sum: Crc,
}

impl Packed {
    fn new(full: Arc<Full>, mut out: Buffer, level: u32) -> io::Result<Self> {
        let form = gzip::deflate(full.block(), level, &mut out.bytes)?;
        let sum = gzip::sum(full.plain());
        Ok(Self { full, form, out, sum })
    }

    fn write(&self, to: &mut impl Write) -> io::Result<()> {
        match self.form {
            Form::Deflated => to.write_all(&self.out.bytes),
            Form::Stored => gzip::store(self.full.plain(), to),
        }
    }
}

/// Where the producer writes to: cuts the stream into blocks.
struct Feed<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    packing: Packing<'env>,
    filling: Full,
    stage: Stage<'scope>,
}

enum Stage<'scope> {
    /// No more than one block yet.
    Begun(Box<BlobWriter>),
    /// Threads are at it.
    Line(Line<'scope>),
    /// Between the two.
    Moving,
}

/// The threads of one layer.
struct Line<'scope> {
    digest: Option<(Sender<Arc<Full>>, ScopedJoinHandle<'scope, Digest>)>,
    blocks: Blocks,
    writer: ScopedJoinHandle<'scope, io::Result<BlobWriter>>,
}

/// What the writer's thread is sent.
enum Blocks {
    /// What the crew will have done, in the order of the blocks.
    Done(u32, Sender<Receiver<io::Result<Packed>>>),
    Plain(Sender<Arc<Full>>),
}

impl<'scope, 'env> Feed<'scope, 'env> {
    fn new(scope: &'scope Scope<'scope, 'env>, packing: Packing<'env>, blob: BlobWriter) -> Self {
        let filling = Full { buffer: packing.crew.buffer(WINDOW + BLOCK), window: 0 };
        Self { scope, packing, filling, stage: Stage::Begun(Box::new(blob)) }
    }

    fn room(&self) -> usize {
        BLOCK - self.filling.plain().len()
    }

    /// Hands on the block that is full, or the last one, and begins the next.
    fn hand_on(&mut self) -> io::Result<()> {
        let crew = self.packing.crew;
        let mut next = crew.buffer(WINDOW + BLOCK);
        let plain = self.filling.plain();
        if let Compression::Gzip(_) = self.packing.compression {
            next.bytes.extend_from_slice(plain.get(plain.len().saturating_sub(WINDOW)..).unwrap_or_default());
        }
        let window = next.bytes.len();
        let Full { buffer, window } = replace(&mut self.filling, Full { buffer: next, window });
        let full = Arc::new(Full { buffer: crew.admit(buffer), window });
        self.stage = match replace(&mut self.stage, Stage::Moving) {
            Stage::Begun(blob) => Stage::Line(Line::start(self.scope, self.packing, *blob)),
            stage @ (Stage::Line(_) | Stage::Moving) => stage,
        };
        let Stage::Line(line) = &self.stage else { return Ok(()) };
        line.put(crew, full)
    }

    /// The digest of the tar, if it is not the blob's, and the blob.
    fn finish(mut self) -> io::Result<(Option<Digest>, BlobWriter)> {
        match replace(&mut self.stage, Stage::Moving) {
            Stage::Begun(blob) => alone(self.packing, self.filling, *blob),
            Stage::Line(line) => {
                self.stage = Stage::Line(line);
                let handed = self.hand_on();
                let Stage::Line(line) = self.stage else { return Err(io::ErrorKind::BrokenPipe.into()) };
                let done = line.finish();
                // Why a thread ended says more than that it did.
                done.and_then(|done| handed.map(|()| done))
            }
            Stage::Moving => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }
}

impl Write for Feed<'_, '_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.room() == 0 && !bytes.is_empty() {
            self.hand_on()?;
        }
        let some = bytes.get(..bytes.len().min(self.room())).unwrap_or_default();
        self.filling.buffer.bytes.extend_from_slice(some);
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The whole stream was one block: no thread is worth its start.
fn alone(packing: Packing<'_>, full: Full, blob: BlobWriter) -> io::Result<(Option<Digest>, BlobWriter)> {
    let Packing { crew, compression, digests } = packing;
    let tar = digests.then(|| Digest::of(full.plain()));
    let (send, blocks) = channel();
    let full = (!full.plain().is_empty()).then(|| Arc::new(full));
    let blob = match compression {
        Compression::Gzip(level) => {
            if let Some(full) = full {
                let (done, reply) = channel();
                drop(done.send(Packed::new(full, crew.buffer(BLOCK), level)));
                drop(send.send(reply));
            }
            drop(send);
            write_gzip(&blocks, blob)
        }
        Compression::Zstd(_) | Compression::Uncompressed => {
            let (send, blocks) = channel();
            drop(full.map(|full| send.send(full)));
            drop(send);
            write_stream(&blocks, blob, compression, 1)
        }
    };
    Ok((tar, blob?))
}

impl<'scope> Line<'scope> {
    fn start<'env>(scope: &'scope Scope<'scope, 'env>, packing: Packing<'env>, blob: BlobWriter) -> Self {
        let Packing { crew, compression, digests } = packing;
        let (blocks, writer) = match compression {
            Compression::Gzip(level) => {
                let (send, blocks) = channel();
                (Blocks::Done(level, send), scope.spawn(move || write_gzip(&blocks, blob)))
            }
            Compression::Zstd(_) | Compression::Uncompressed => {
                let (send, blocks) = channel();
                (Blocks::Plain(send), scope.spawn(move || write_stream(&blocks, blob, compression, crew.threads())))
            }
        };
        let digest = digests.then(|| {
            let (send, blocks) = channel::<Arc<Full>>();
            (send, scope.spawn(move || digest(&blocks)))
        });
        Self { digest, blocks, writer }
    }

    /// An error says that a thread has ended.
    fn put(&self, crew: &Crew, full: Arc<Full>) -> io::Result<()> {
        let ended = || io::Error::from(io::ErrorKind::BrokenPipe);
        if let Some((digest, _)) = &self.digest {
            digest.send(Arc::clone(&full)).map_err(|_closed| ended())?;
        }
        match &self.blocks {
            Blocks::Plain(blocks) => blocks.send(full).map_err(|_closed| ended()),
            Blocks::Done(level, blocks) => {
                let (done, reply) = channel();
                blocks.send(reply).map_err(|_closed| ended())?;
                let (level, out) = (*level, crew.buffer(BLOCK));
                // Who waits for it may have failed; then nobody needs it.
                crew.employ(Box::new(move || drop(done.send(Packed::new(full, out, level)))));
                Ok(())
            }
        }
    }

    fn finish(self) -> io::Result<(Option<Digest>, BlobWriter)> {
        drop(self.blocks);
        let blob = self.writer.join().unwrap_or_else(|panic| resume_unwind(panic));
        let digest = self.digest.map(|(blocks, thread)| {
            drop(blocks);
            thread.join().unwrap_or_else(|panic| resume_unwind(panic))
        });
        Ok((digest, blob?))
    }
}

fn digest(blocks: &Receiver<Arc<Full>>) -> Digest {
    let mut digest = Sha256::new();
    for full in blocks {
        digest.update(full.plain());
    }
    Digest::from_bytes(digest.finalize().into())
}

/// Ends when the other end is closed.
fn write_gzip(blocks: &Receiver<Receiver<io::Result<Packed>>>, mut blob: BlobWriter) -> io::Result<BlobWriter> {
    let mut sum = Crc::new();
    blob.write_all(&gzip::HEADER)?;
    for reply in blocks {
        let packed = reply.recv().map_err(|_gone| io::Error::other("a compressing thread failed"))??;
        packed.write(&mut blob)?;
        sum.combine(&packed.sum);
    }
    blob.write_all(&gzip::trailer(&sum))?;
    Ok(blob)
}

/// What needs its bytes one after the other. Ends when the other end is closed.
fn write_stream(blocks: &Receiver<Arc<Full>>, mut blob: BlobWriter, compression: Compression, threads: usize) -> io::Result<BlobWriter> {
    let all = |to: &mut dyn Write| blocks.iter().try_for_each(|full| to.write_all(full.plain()));
    let Compression::Zstd(level) = compression else { return all(&mut blob).map(|()| blob) };
    let mut encoder = zstd::stream::write::Encoder::new(blob, level)?;
    // Without a worker the bytes would be others than with any number of them.
    encoder.multithread(u32::try_from(threads).unwrap_or(1).max(1))?;
    encoder.set_parameter(zstd::zstd_safe::CParameter::JobSize(ZSTD_JOB))?;
    all(&mut encoder)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// Bytes that compress, but not to nothing, then noise, then the first again.
    fn sample() -> Vec<u8> {
        let mut state = 1_u32;
        let text: Vec<u8> = (0..350_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"abcdefgh"[usize::try_from(state >> 29).unwrap()]
            })
            .collect();
        let mut noise = vec![0; 2 * BLOCK];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        [&text, noise.as_slice(), &text].concat()
    }

    fn packed(compression: Compression, chunk: usize) -> (DiffId, Descriptor) {
        packed_by(&Crew::new(2), compression, chunk)
    }

    fn packed_by(crew: &Crew, compression: Compression, chunk: usize) -> (DiffId, Descriptor) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let write = |out: &mut dyn Write| {
            for part in sample().chunks(chunk) {
                out.write_all(part).unwrap();
            }
            Ok(())
        };
        let ((), diff_id, blob) = pack_with(crew, &store, (compression, Lasting::Synced), write).unwrap();
        (diff_id, blob)
    }

    #[test]
    fn bytes_do_not_depend_on_how_they_were_written() {
        for compression in [Compression::Gzip(6), Compression::Zstd(3), Compression::Uncompressed] {
            let (diff_id, blob) = packed(compression, 7_000_000);
            assert_eq!(diff_id.0, Digest::of(&sample()));
            assert_eq!(packed(compression, 777), (diff_id, blob), "{compression:?}");
        }
    }

    #[test]
    fn bytes_do_not_depend_on_how_many_threads_there_are() {
        for compression in [Compression::Gzip(6), Compression::Gzip(1), Compression::Zstd(3), Compression::Uncompressed] {
            let want = packed_by(&Crew::new(1), compression, 10_000);
            for threads in [2, 7] {
                assert_eq!(packed_by(&Crew::new(threads), compression, 33_333), want, "{compression:?} {threads}");
            }
        }
    }

    #[test]
    fn several_layers_at_once_are_as_if_they_were_alone() {
        let crew = Crew::new(2);
        let want = packed(Compression::Gzip(6), 4096);
        thread::scope(|scope| {
            let all: Vec<_> = (0..12).map(|_| scope.spawn(|| packed_by(&crew, Compression::Gzip(6), 4096))).collect();
            for each in all {
                assert_eq!(each.join().unwrap(), want);
            }
        });
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(12))]
        #[test]
        fn any_tar_is_read_back_whatever_the_sizes_of_writes(
            size in 0..4 * BLOCK,
            near in 0_usize..3,
            chunks in proptest::collection::vec(1..2 * BLOCK, 1..5),
            threads in 1_usize..4,
            level in 0_u32..10,
        ) {
            // Half of the cases end close to a block's border.
            let size = if level % 2 == 0 { size.next_multiple_of(BLOCK) + near - near.min(1) } else { size };
            let plain: Vec<u8> = sample().into_iter().cycle().take(size).collect();
            let dir = tempfile::tempdir().unwrap();
            let store = Store::open(&dir.path().join("store")).unwrap();
            for compression in [Compression::Gzip(level), Compression::Zstd(1 + i32::try_from(level % 5).unwrap()), Compression::Uncompressed] {
                let write = |out: &mut dyn Write| {
                    let mut rest = plain.as_slice();
                    for chunk in chunks.iter().cycle() {
                        if rest.is_empty() {
                            break;
                        }
                        let (some, more) = rest.split_at((*chunk).min(rest.len()));
                        out.write_all(some).unwrap();
                        rest = more;
                    }
                    Ok(())
                };
                let ((), diff_id, blob) = pack_with(&Crew::new(threads), &store, (compression, Lasting::Synced), write).unwrap();
                proptest::prop_assert_eq!(diff_id.0, Digest::of(&plain));
                let mut found = Vec::new();
                let packed = store.open_blob(&blob).unwrap().unwrap();
                let _size = super::super::decompress(packed).unwrap().read_to_end(&mut found).unwrap();
                proptest::prop_assert!(found == plain);
            }
        }
    }

    #[test]
    fn the_programs_of_the_system_unpack_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let plain = sample();
        for (compression, program) in [(Compression::Gzip(6), "gzip"), (Compression::Gzip(0), "gzip"), (Compression::Zstd(3), "zstd")] {
            let write = |out: &mut dyn Write| {
                out.write_all(&plain).unwrap();
                Ok(())
            };
            let ((), _, blob) = pack_with(&Crew::new(2), &store, (compression, Lasting::Synced), write).unwrap();
            let file = std::fs::File::open(dir.path().join("store/blobs/sha256").join(blob.digest.hex())).unwrap();
            #[expect(clippy::disallowed_methods, reason = "another implementation is what is asked")]
            let output = std::process::Command::new(program).arg("-dc").stdin(file).output();
            let Ok(output) = output else { continue };
            assert!(output.status.success() && output.stdout == plain, "{compression:?}: {}", String::from_utf8_lossy(&output.stderr));
        }
    }

    /// If this fails because a compressor was updated: raise the number in its [`Compression::id`], then write down the new digests.
    #[test]
    fn the_bytes_of_each_compressor_are_known() {
        let known = [
            (Compression::Gzip(1), "85637f8dbaffdcbcba31d20ae32875a97f3dd4fcf6f3e29270cccaf8ddf5aed8"),
            (Compression::Gzip(6), "e7bef3e63d78dc26265f512785253c567af1465fcb17de4ab50fb7e0145efb62"),
            (Compression::Gzip(9), "dceba66fd45a195afe89e53593803f0c77cacb8b343277660b7caa6c7bc4100b"),
            (Compression::Zstd(3), "623625d41fea8de228a70cbfe3b3696908ca034608cca7aa99f5145612bce289"),
        ];
        let found = known.map(|(compression, _)| (compression, packed(compression, BLOCK).1.digest.hex()));
        assert_eq!(found, known.map(|(compression, digest)| (compression, digest.to_owned())), "raise the number in its id");
    }

    #[test]
    fn a_plain_tar_that_is_digested_on_its_way_is_the_blob_that_is_digested_here() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        for bytes in [Vec::new(), vec![1; 1000], sample()] {
            let (mut to, from) = super::super::spool(&store, Compression::Uncompressed, true);
            let blob = thread::scope(|scope| {
                let packer = scope.spawn(|| super::super::pack(&store, &from, Compression::Uncompressed, &|| false).unwrap());
                to.write_all(&bytes).unwrap();
                let diff_id = to.finish().unwrap();
                let blob = packer.join().unwrap();
                assert_eq!(diff_id.0, blob.digest);
                blob
            });
            assert_eq!((blob.digest, blob.size), (Digest::of(&bytes), bytes.len() as u64));
            assert!(store.has_whole_blob(&blob));
        }
    }

    #[test]
    fn a_producer_that_fails_leaves_no_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let fail = |out: &mut dyn Write| {
            out.write_all(b"some").unwrap();
            Err::<(), _>(Error::Changed { shown: "f".into() })
        };
        assert!(matches!(pack(&store, (Compression::Gzip(1), Lasting::Now), fail), Err(Error::Changed { .. })));
        let blobs = walkdir::WalkDir::new(dir.path().join("store/blobs")).into_iter().flatten().filter(|each| each.file_type().is_file());
        assert_eq!(blobs.count(), 0);
    }
}
