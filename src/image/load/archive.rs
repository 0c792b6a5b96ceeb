//! One pass over an image archive: what is named by a digest is verified and put into the store, documents are kept in
//! memory, everything else goes into the store under its own digest and is remembered by its name.
//!
//! What turns out not to belong to any image is garbage in the store like any other.

use std::{collections::BTreeMap, io::Read};

use crate::{
    layer::{
        self,
        archive::{Entries, MemberKind},
    },
    oci::Digest,
    store::Store,
    tree::TreePath,
};

use super::{Error, keep};

/// How many members an archive may have.
const MEMBERS: usize = 200_000;
/// How many of them may be files that neither a digest nor a document's name explains: layers and configs of old docker archives.
const STRAYS: usize = 16_384;
/// How deep a file may lie: `blobs/sha256/<hex>`.
const DEPTH: usize = 3;
/// The largest document, in bytes.
const DOCUMENT: u64 = 8 << 20;
/// How much may follow the end mark and be read without harm.
const PADDING: u64 = 1 << 20;
/// How many links are followed from a name to its file.
const HOPS: usize = 8;

/// What was in an archive.
#[derive(Debug, Default)]
pub(super) struct Unpacked {
    /// `index.json`
    pub(super) index: Option<Vec<u8>>,
    /// `manifest.json`
    pub(super) manifest: Option<Vec<u8>>,
    files: BTreeMap<TreePath, Stored>,
}

#[derive(Debug)]
enum Stored {
    Blob(Digest, u64),
    /// Another name, from the archive's root.
    Link(TreePath),
    /// A document that is of no use to us.
    Skipped,
}

impl Unpacked {
    /// The blob that a name leads to.
    pub(super) fn file(&self, name: &str) -> Option<(Digest, u64)> {
        let mut path = TreePath::parse(name.as_bytes()).ok()?;
        for _ in 0..HOPS {
            match self.files.get(&path)? {
                Stored::Blob(digest, size) => return Some((*digest, *size)),
                Stored::Link(target) => path = target.clone(),
                Stored::Skipped => return None,
            }
        }
        None
    }

    pub(super) fn digest(&self, name: &str) -> Option<Digest> {
        self.file(name).map(|(digest, _)| digest)
    }

    pub(super) fn has(&self, name: &str) -> bool {
        TreePath::parse(name.as_bytes()).is_ok_and(|path| self.files.contains_key(&path))
    }
}

/// Reads an archive to its end.
pub(super) fn unpack(store: &Store, stream: &mut (dyn Read + Send), what: &str) -> Result<Unpacked, Error> {
    let broken = |source| Error::Stream { what: what.to_owned(), source };
    let mut entries = Entries::new(layer::decompress(stream).map_err(broken)?);
    let mut reading = Reading { store, what, unpacked: Unpacked::default(), strays: 0 };
    let mut members = 0;
    while let Some(member) = entries.next_member().map_err(|source| Error::Archive { what: what.to_owned(), source })? {
        members += 1;
        if members > MEMBERS {
            return Err(Error::bad(what, "it has too many members to be an image archive"));
        }
        let name = TreePath::parse(&member.name).map_err(|error| Error::bad(what, error.to_string()))?;
        reading.member(name, &member.kind, &mut entries.body())?;
    }
    // Who writes into our pipe pads the end, and should not be killed for it.
    let _drained = std::io::copy(&mut entries.into_inner().take(PADDING), &mut std::io::sink()).map_err(broken)?;
    Ok(reading.unpacked)
}

struct Reading<'a> {
    store: &'a Store,
    what: &'a str,
    unpacked: Unpacked,
    strays: usize,
}

impl Reading<'_> {
    fn member(&mut self, path: TreePath, kind: &MemberKind, content: &mut dyn Read) -> Result<(), Error> {
        let strange =
            |why: &str| Error::bad(self.what, format!("`{path}` {why}, so it is no image archive; `import` reads root file systems"));
        let stored = match kind {
            MemberKind::Dir => return Ok(()),
            MemberKind::Char { .. } | MemberKind::Block { .. } | MemberKind::Fifo => return Err(strange("is a device or a pipe")),
            MemberKind::Symlink(target) => Stored::Link(beside(&path, target).ok_or_else(|| strange("is a link that leads nowhere"))?),
            MemberKind::HardLink(target) => Stored::Link(TreePath::parse(target).map_err(|_bad| strange("is a link that leads nowhere"))?),
            MemberKind::File { .. } if path.components().count() > DEPTH => return Err(strange("lies too deep")),
            MemberKind::File { size } if self.document(&path, *size, content)? => Stored::Skipped,
            MemberKind::File { size } => {
                let named = named_digest(&path);
                self.strays += usize::from(named.is_none());
                if self.strays > STRAYS {
                    return Err(Error::bad(self.what, "it has too many files to be an image archive"));
                }
                let (digest, size) = keep(self.store, named.map(|digest| (digest, *size)), content, self.what)?;
                Stored::Blob(digest, size)
            }
        };
        drop(self.unpacked.files.insert(path, stored));
        Ok(())
    }

    /// Keeps what is a document. `true`: it was one, or one that nobody needs.
    fn document(&mut self, path: &TreePath, size: u64, content: &mut dyn Read) -> Result<bool, Error> {
        let place = match path.as_bytes() {
            b"index.json" => &mut self.unpacked.index,
            b"manifest.json" => &mut self.unpacked.manifest,
            b"oci-layout" | b"repositories" => return Ok(true),
            _ => return Ok(matches!(path.name(), b"VERSION" | b"json")),
        };
        if size > DOCUMENT {
            return Err(Error::bad(self.what, format!("`{path}` has {size} bytes")));
        }
        let mut bytes = Vec::new();
        let read = content.take(DOCUMENT).read_to_end(&mut bytes);
        let _count = read.map_err(|source| Error::Stream { what: self.what.to_owned(), source })?;
        if place.replace(bytes).is_some() {
            return Err(Error::bad(self.what, format!("`{path}` is there twice")));
        }
        Ok(true)
    }
}

/// The digest that a blob of a layout is named by.
fn named_digest(path: &TreePath) -> Option<Digest> {
    let text = std::str::from_utf8(path.as_bytes()).ok()?;
    format!("sha256:{}", text.strip_prefix("blobs/sha256/")?).parse().ok()
}

/// Where a link leads; never out of the archive.
fn beside(link: &TreePath, target: &[u8]) -> Option<TreePath> {
    if target.starts_with(b"/") {
        return TreePath::parse(target).ok();
    }
    TreePath::clean(&[link.parent()?.as_bytes(), b"/", target].concat()).ok()
}
