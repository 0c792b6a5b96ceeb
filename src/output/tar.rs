//! The merged tree as one tar: PAX, owners as numbers, whole seconds, no root entry. The same image gives the same bytes.

use std::io::{Read, Write};

use crate::{
    image::Image,
    layer,
    store::Store,
    tree::{Entry, Kind, Meta, TreePath, Xattrs},
};

use super::{
    Dest, Error,
    flatten::{Receiver, flatten},
};

/// Writes an image's root file system as a tar.
pub fn tar(store: &Store, image: &Image, dest: Dest<'_>) -> Result<(), Error> {
    dest.fill(|stream| {
        let mut writer = Writer { to: stream };
        flatten(store, image, &mut writer)?;
        writer.raw(&layer::END)
    })
}

struct Writer<'a> {
    to: &'a mut dyn Write,
}

impl Writer<'_> {
    fn raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.to.write_all(bytes).map_err(Error::Stream)
    }

    fn header(&mut self, path: &TreePath, header: &layer::Header<'_>) -> Result<(), Error> {
        let reason = "an attribute or a device number has no form in a tar";
        let blocks = layer::format_header(header).ok_or_else(|| layer::Error::BadName { path: path.to_string(), reason })?;
        self.raw(&blocks)
    }
}

impl Receiver for Writer<'_> {
    fn plain(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error> {
        let mut name = path.as_bytes().to_vec();
        let (type_flag, link, device): (u8, &[u8], (u32, u32)) = match &entry.kind {
            Kind::Dir => (b'5', b"", (0, 0)),
            Kind::Symlink { target } => (b'2', target, (0, 0)),
            Kind::Char { major, minor } => (b'3', b"", (*major, *minor)),
            Kind::Block { major, minor } => (b'4', b"", (*major, *minor)),
            Kind::Fifo => (b'6', b"", (0, 0)),
            Kind::File { .. } => (b'0', b"", (0, 0)),
        };
        if type_flag == b'5' {
            name.push(b'/');
        }
        self.header(path, &layer::Header { name: &name, meta: &entry.meta, type_flag, size: 0, link, device })
    }

    fn file(&mut self, path: &TreePath, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let name = path.as_bytes();
        self.header(path, &layer::Header { name, meta: &entry.meta, type_flag: b'0', size, link: b"", device: (0, 0) })?;
        let mut buffer = vec![0; 128 * 1024];
        let mut left = size;
        while left > 0 {
            let some = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let count = content.read(buffer.get_mut(..some).unwrap_or_default()).map_err(Error::Stream)?;
            if count == 0 {
                return Err(Error::Stream(std::io::ErrorKind::UnexpectedEof.into()));
            }
            self.raw(buffer.get(..count).unwrap_or_default())?;
            left -= count as u64;
        }
        self.raw(layer::END.get(..layer::padding(size)).unwrap_or_default())
    }

    fn link(&mut self, path: &TreePath, entry: &Entry, first: &TreePath) -> Result<(), Error> {
        // Attributes are the inode's, which has them.
        let meta = Meta { xattrs: Xattrs::new(), ..entry.meta.clone() };
        let (name, link) = (path.as_bytes(), first.as_bytes());
        self.header(path, &layer::Header { name, meta: &meta, type_flag: b'1', size: 0, link, device: (0, 0) })
    }
}
