//! The tar that an image archive is: few regular files, deterministic headers.
//!
//! Names are ours, short and plain; times are 0, owners 0:0. A size beyond ustar's 8 GiB is written base-256, as GNU tar
//! and Go do.

use std::io::{Read, Write};

use crate::{oci::Descriptor, store::Store};

use super::Error;

/// Writes members one after the other.
pub(super) struct Archive<'a> {
    to: &'a mut dyn Write,
}

impl<'a> Archive<'a> {
    pub(super) fn new(to: &'a mut dyn Write) -> Self {
        Self { to }
    }

    pub(super) fn dir(&mut self, name: &str) -> Result<(), Error> {
        self.header(name, ::tar::EntryType::Directory, 0o755, 0)
    }

    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        self.header(name, ::tar::EntryType::Regular, 0o444, bytes.len() as u64)?;
        self.to.write_all(bytes).map_err(Error::Stream)?;
        self.pad(bytes.len() as u64)
    }

    /// A blob of the store under its place in an OCI layout.
    pub(super) fn blob(&mut self, store: &Store, blob: &Descriptor) -> Result<(), Error> {
        self.header(&blob_name(blob), ::tar::EntryType::Regular, 0o444, blob.size)?;
        copy_blob(store, blob, &mut |bytes| self.to.write_all(bytes).map_err(Error::Stream))?;
        self.pad(blob.size)
    }

    pub(super) fn finish(self) -> Result<(), Error> {
        self.to.write_all(&[0; 1024]).map_err(Error::Stream)
    }

    fn header(&mut self, name: &str, kind: ::tar::EntryType, mode: u32, size: u64) -> Result<(), Error> {
        let mut header = ::tar::Header::new_ustar();
        header.set_path(name).map_err(Error::Stream)?;
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_cksum();
        self.to.write_all(header.as_bytes()).map_err(Error::Stream)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        let short = usize::try_from((512 - size % 512) % 512).unwrap_or(0);
        self.to.write_all(&[0; 512][..short]).map_err(Error::Stream)
    }
}

/// `blobs/sha256/<hex>`
pub(super) fn blob_name(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

/// Hands on a blob of the store, verified: neither more nor fewer bytes than its descriptor says.
pub(super) fn copy_blob(store: &Store, blob: &Descriptor, each: &mut dyn FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
    let mut reader = store.open_blob(blob)?.ok_or_else(|| Error::Missing(vec![blob.clone()]))?;
    let broken = |source| Error::Blob { digest: blob.digest, source };
    let mut left = blob.size;
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(broken(error)),
        };
        left = left.checked_sub(count as u64).ok_or_else(|| broken(std::io::ErrorKind::InvalidData.into()))?;
        each(buffer.get(..count).unwrap_or_default())?;
    }
    if left == 0 { Ok(()) } else { Err(broken(std::io::ErrorKind::UnexpectedEof.into())) }
}
