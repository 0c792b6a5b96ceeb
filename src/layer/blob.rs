//! A tar stream on its way into a blob: digested, compressed by a second thread, digested again.

use std::{
    io::{self, Write},
    panic::resume_unwind,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use sha2::{Digest as _, Sha256};

use super::{Compression, Error};
use crate::{
    oci::{Descriptor, DiffId, Digest, media_type},
    store::{BlobWriter, Store},
    sys::PathError,
};

/// A compressor's bytes depend on the sizes of what it is fed, so it is fed blocks of one size.
const FEED: usize = 128 * 1024;
/// Blocks between the two threads.
const AHEAD: usize = 8;

impl Compression {
    /// What a blob of this compression is remembered under: all that its bytes depend on. A new version of a compressor
    /// may give other bytes; a test holds them, and says to change this name.
    pub fn id(self) -> String {
        match self {
            Self::Gzip(level) => format!("gzip-zlib-rs-1-level-{level}-feed-{FEED}"),
            Self::Zstd(level) => format!("zstd-mt-1-level-{level}-feed-{FEED}"),
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

/// Runs `produce` on a stream whose bytes become a blob of the store. Nothing is there if it fails.
pub(super) fn pack<T>(
    store: &Store,
    compression: Compression,
    produce: impl FnOnce(&mut dyn Write) -> Result<T, Error>,
) -> Result<(T, DiffId, Descriptor), Error> {
    let blob = store.blob_writer()?;
    let (produced, packed) = thread::scope(|scope| {
        let (send, receive) = sync_channel(AHEAD);
        let packer = scope.spawn(move || compress(&receive, blob, compression));
        let mut feed = Feed { digest: Sha256::new(), block: Vec::with_capacity(FEED), send };
        let produced = produce(&mut feed).and_then(|produced| Ok((produced, feed.finish().map_err(PathError::new("write", "layer"))?)));
        (produced, packer.join().unwrap_or_else(|panic| resume_unwind(panic)))
    });
    // If the packer failed, that is why the producer could not write.
    let writer = packed.map_err(PathError::new("write", "layer"))?;
    let (produced, diff_id) = produced?;
    let (digest, size) = writer.commit(None)?;
    Ok((produced, diff_id, Descriptor::new(compression.media_type(), digest, size)))
}

/// Digests a tar and hands it to the packer in blocks of one size.
struct Feed {
    digest: Sha256,
    block: Vec<u8>,
    send: SyncSender<Vec<u8>>,
}

impl Feed {
    fn hand_on(&mut self) -> io::Result<()> {
        let block = std::mem::replace(&mut self.block, Vec::with_capacity(FEED));
        self.digest.update(&block);
        self.send.send(block).map_err(|_closed| io::ErrorKind::BrokenPipe.into())
    }

    /// The last block, which may be shorter, and the digest of all.
    fn finish(mut self) -> io::Result<DiffId> {
        if !self.block.is_empty() {
            self.hand_on()?;
        }
        Ok(DiffId(Digest::from_bytes(self.digest.finalize().into())))
    }
}

impl Write for Feed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let some = bytes.get(..bytes.len().min(FEED - self.block.len())).unwrap_or_default();
        self.block.extend_from_slice(some);
        if self.block.len() == FEED {
            self.hand_on()?;
        }
        Ok(some.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The packer's thread: ends when the other end is closed.
fn compress(blocks: &Receiver<Vec<u8>>, blob: BlobWriter, compression: Compression) -> io::Result<BlobWriter> {
    fn all(blocks: &Receiver<Vec<u8>>, to: &mut impl Write) -> io::Result<()> {
        blocks.iter().try_for_each(|block| to.write_all(&block))
    }
    match compression {
        Compression::Gzip(level) => {
            let mut encoder = flate2::GzBuilder::new().mtime(0).operating_system(255).write(blob, flate2::Compression::new(level.min(9)));
            all(blocks, &mut encoder)?;
            encoder.finish()
        }
        Compression::Zstd(level) => {
            let mut encoder = zstd::stream::write::Encoder::new(blob, level)?;
            // Without a worker the bytes would be others than with any number of them.
            encoder.multithread(1)?;
            all(blocks, &mut encoder)?;
            encoder.finish()
        }
        Compression::Uncompressed => {
            let mut blob = blob;
            all(blocks, &mut blob)?;
            Ok(blob)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes that compress, but not to nothing.
    fn sample() -> Vec<u8> {
        let mut state = 1_u32;
        (0..700_000)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                b"abcdefgh"[usize::try_from(state >> 29).unwrap()]
            })
            .collect()
    }

    fn packed(compression: Compression, chunk: usize) -> (DiffId, Descriptor) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let write = |out: &mut dyn Write| {
            for part in sample().chunks(chunk) {
                out.write_all(part).unwrap();
            }
            Ok(())
        };
        let ((), diff_id, blob) = pack(&store, compression, write).unwrap();
        (diff_id, blob)
    }

    #[test]
    fn bytes_do_not_depend_on_how_they_were_written() {
        for compression in [Compression::Gzip(6), Compression::Zstd(3), Compression::Uncompressed] {
            let (diff_id, blob) = packed(compression, 700_000);
            assert_eq!(diff_id.0, Digest::of(&sample()));
            assert_eq!(packed(compression, 777), (diff_id, blob), "{compression:?}");
        }
    }

    /// If this fails because a compressor was updated: raise the number in its [`Compression::id`], then write down the new digests.
    #[test]
    fn the_bytes_of_each_compressor_are_known() {
        for (compression, want) in [
            (Compression::Gzip(6), "992d0cbd2d4b26fcb6e4adf683b01ba0504877a413018bcab4eb8986f1eef51f"),
            (Compression::Gzip(9), "9c182cb696944c32e3b6e6b48ec301e40ef06aea6a40cc02d368989a0afb6464"),
            (Compression::Zstd(3), "86e0ab4e01962e144801dc9706a04136783dec0f8a6afa5f0e42152cb07f1838"),
        ] {
            assert_eq!(packed(compression, FEED).1.digest.hex(), want, "{}", compression.id());
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
        assert!(matches!(pack(&store, Compression::Gzip(1), fail), Err(Error::Changed { .. })));
        let blobs = walkdir::WalkDir::new(dir.path().join("store/blobs")).into_iter().flatten().filter(|each| each.file_type().is_file());
        assert_eq!(blobs.count(), 0);
    }
}
