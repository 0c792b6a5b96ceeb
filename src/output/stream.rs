//! Where the bytes of an archive go: a file that the kernel can copy blobs into, or whatever takes bytes.

use std::io::{self, BufWriter, Read as _, Write};

use crate::{oci::Descriptor, store::Store};

use super::{Error, pending::PendingFile};

/// Below this a second thread and a call for the kernel's copy cost more than they save.
const LARGE: u64 = 1 << 20;

/// Takes bytes, and blobs.
pub(super) enum Stream<'a> {
    /// A file.
    File(PendingFile),
    /// A pipe, standard output.
    Other(BufWriter<&'a mut dyn Write>),
}

impl Stream<'_> {
    /// A blob of the store, verified: neither more nor fewer bytes than its descriptor says.
    pub(super) fn blob(&mut self, store: &Store, blob: &Descriptor) -> Result<(), Error> {
        match self {
            Self::File(file) => file.blob(store, blob),
            Self::Other(stream) => copy_blob(store, blob, stream),
        }
    }

    /// All of it is where it belongs.
    pub(super) fn end(self) -> Result<(), Error> {
        match self {
            Self::File(file) => file.commit(),
            Self::Other(mut stream) => stream.flush().map_err(Error::Stream),
        }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::File(file) => file.write(bytes),
            Self::Other(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::File(file) => file.flush(),
            Self::Other(stream) => stream.flush(),
        }
    }
}

impl PendingFile {
    /// As [`Stream::blob`].
    pub(super) fn blob(&mut self, store: &Store, blob: &Descriptor) -> Result<(), Error> {
        if blob.size < LARGE {
            return copy_blob(store, blob, self);
        }
        let file = self.flushed().map_err(Error::Stream)?;
        let reader = store.open_blob(blob)?.ok_or_else(|| Error::Missing(vec![blob.clone()]))?;
        let copied = reader.copy_into(file);
        copied.verified.map_err(|source| Error::Blob { digest: blob.digest, source })?;
        copied.written.map_err(Error::Stream)
    }
}

/// Byte by byte through our memory.
fn copy_blob(store: &Store, blob: &Descriptor, to: &mut dyn Write) -> Result<(), Error> {
    let mut reader = store.open_blob(blob)?.ok_or_else(|| Error::Missing(vec![blob.clone()]))?;
    let broken = |source| Error::Blob { digest: blob.digest, source };
    let mut left = blob.size;
    let mut buffer = vec![0; usize::try_from(blob.size).unwrap_or(usize::MAX).clamp(1, 1 << 18)];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        left = left.checked_sub(count as u64).ok_or_else(|| broken(io::ErrorKind::InvalidData.into()))?;
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(Error::Stream)?;
    }
    if left == 0 { Ok(()) } else { Err(broken(io::ErrorKind::UnexpectedEof.into())) }
}
