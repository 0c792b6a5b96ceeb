//! The tar that an image archive is: few regular files, deterministic headers.
//!
//! Names are ours, short and plain; times are 0, owners 0:0. A size beyond ustar's 8 GiB is written base-256, as GNU tar
//! and Go do.

use std::io::Write as _;

use crate::{oci::Descriptor, store::Store};

use super::{Error, Stream};

/// Writes members one after the other.
pub(super) struct Archive<'a, 'b> {
    to: &'a mut Stream<'b>,
}

impl<'a, 'b> Archive<'a, 'b> {
    pub(super) fn new(to: &'a mut Stream<'b>) -> Self {
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
        self.to.blob(store, blob)?;
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
