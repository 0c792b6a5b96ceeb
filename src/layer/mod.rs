//! Layers: what changed, as a canonical list; that list as a tar, digested and compressed in one pass; a layer's
//! tar read back, hostile until verified, into an index and a tree.
//!
//! Source: image-spec `layer.md`; containerd `pkg/archive/tar.go`; POSIX pax; the kernel's `overlayfs.rst`.

pub mod archive;
mod blob;
mod block;
mod bundle;
mod canonical;
mod crew;
mod diff;
mod extract;
mod gzip;
mod header;
#[cfg(test)]
mod hostile_tests;
mod intact;
mod merged;
mod noise;
#[cfg(test)]
mod overlay_tests;
mod packing;
mod pax;
mod read;
mod recompress;
mod redate;
mod seal;
mod sparse;
mod spool;
#[cfg(test)]
mod tests;
mod unpack;
mod upper;
mod verified;
mod whole;
mod write;

pub use archive::decompress;
pub use bundle::{Bundle, Part};
pub use crew::employ;
pub(crate) use header::{END, Header, format as format_header, padding};
pub use intact::is_intact;
pub use merged::{Before, Merged, Worked, copy_part};
pub use recompress::recompress;
pub use redate::{Dating, redate};
pub use spool::{Reader, Writer};
pub use unpack::unpack;
pub use whole::is_whole;

use std::{cell::Cell, collections::BTreeMap, fmt, io, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use crate::{
    oci::{Descriptor, DiffId},
    store::{self, Store},
    sys::PathError,
    tree::{Chain, ContentDigest, Entry, Index, Kind, Meta, Owner, OwnerTable, Row, TreePath},
};

/// Where a file's bytes are. They are digested again while they are read.
#[derive(Debug, Clone)]
pub enum Content {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// Beside those of others.
    Bundled(Part),
    /// Below a directory; opened without following any link and without leaving it.
    Below {
        /// The directory.
        dir: Arc<OwnedFd>,
        /// Below it.
        path: TreePath,
        /// For messages.
        shown: Shown,
    },
}

/// What the user calls a file. Most have no words of their own, which are as long as their paths.
#[derive(Debug, Clone)]
pub enum Shown {
    /// By its path, as it is written below a context.
    Below,
    /// By its path, as it is in an image.
    Inside,
    /// In these words.
    As(String),
}

impl Shown {
    /// The words, of a file at this path.
    pub fn words(&self, path: &TreePath) -> String {
        match self {
            Self::Below => path.relative(),
            Self::Inside => path.to_string(),
            Self::As(words) => words.clone(),
        }
    }
}

/// What a path becomes.
#[derive(Debug, Clone)]
pub enum Node {
    /// A regular file.
    File {
        /// In bytes.
        size: u64,
        /// Where its bytes are.
        content: Content,
        /// What they must be; `None`: found out while writing.
        digest: Option<ContentDigest>,
    },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// Another name of a file that is put in the same changes under the path given, which is earlier in the order. Its metadata are
    /// that one's, whatever is said here.
    HardLink(TreePath),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// The path is this now.
    Put(Meta, Node),
    /// The path is gone, and what was below it.
    Whiteout,
}

/// What a layer changes against the chain below it: canonical, i.e. an entry is here if and only if its row differs
/// from the chain's (a directory's own time does not count), and every whiteout removes something.
#[derive(Debug, Clone, Default)]
pub struct Changes {
    listed: BTreeMap<TreePath, Change>,
    held: Option<Arc<dyn Puts>>,
}

/// Changes that are made anew each time that they are asked for: a million files need not be in memory to become a layer.
pub trait Puts: fmt::Debug + Send + Sync {
    /// Hands on each, in the order of paths.
    fn each(&self, take: &mut dyn FnMut(&TreePath, &Change) -> Result<(), Error>) -> Result<(), Error>;

    /// What of them is a whiteout, in the order of paths.
    fn whiteouts(&self) -> Vec<TreePath>;
}

impl From<BTreeMap<TreePath, Change>> for Changes {
    fn from(listed: BTreeMap<TreePath, Change>) -> Self {
        Self { listed, held: None }
    }
}

impl Changes {
    /// Those that something else holds.
    pub fn of(puts: Arc<dyn Puts>) -> Self {
        Self { listed: BTreeMap::new(), held: Some(puts) }
    }

    /// Hands on each, in the order of paths.
    pub fn each(&self, take: &mut dyn FnMut(&TreePath, &Change) -> Result<(), Error>) -> Result<(), Error> {
        self.listed.iter().try_for_each(|(path, change)| take(path, change))?;
        self.held.as_ref().map_or(Ok(()), |puts| puts.each(take))
    }

    /// All of them in memory.
    pub fn all(&self) -> Result<BTreeMap<TreePath, Change>, Error> {
        let mut all = self.listed.clone();
        if let Some(puts) = &self.held {
            puts.each(&mut |path, change| {
                drop(all.insert(path.clone(), change.clone()));
                Ok(())
            })?;
        }
        Ok(all)
    }

    fn whiteouts(&self) -> Vec<TreePath> {
        let listed = self.listed.iter().filter(|(_, change)| matches!(change, Change::Whiteout)).map(|(path, _)| path.clone());
        listed.chain(self.held.iter().flat_map(|puts| puts.whiteouts())).collect()
    }
}

/// A finished layer: its blob and its index are in the store.
#[derive(Debug, Clone)]
pub struct Layer {
    /// Of the uncompressed tar.
    pub diff_id: DiffId,
    /// The blob.
    pub blob: Descriptor,
    /// What it holds.
    pub index: Arc<Index>,
}

/// How a layer's blob is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Compression {
    /// gzip at a level 0 to 9.
    Gzip(u32),
    /// zstd at a level.
    Zstd(i32),
    /// A plain tar.
    Uncompressed,
}

/// Why a layer could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel refused.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file is not what it was when its digest was taken.
    #[error("`{shown}` changed while it was read")]
    Changed {
        /// What the user calls it.
        shown: String,
    },
    /// A name that would mean something else in a layer.
    #[error("`{path}` cannot be in a layer: {reason}")]
    BadName {
        /// The path.
        path: String,
        /// Why.
        reason: &'static str,
    },
    /// The layer's bytes are not sound.
    #[error("the layer {layer} is damaged or hostile: {reason}")]
    BadLayer {
        /// Its digest.
        layer: String,
        /// What was found.
        reason: String,
    },
}

/// How a tree on disk says who owns what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// As every file does.
    Real,
    /// By marks ([`crate::tree::MARK`]): to the kernel all is root's. What can carry no mark is in a table.
    Marked,
}

/// Whose links, pipes and devices are that are not root's, where they cannot say so themselves.
pub fn unmarked(chain: &Chain, owners: Owners) -> Vec<(TreePath, Owner)> {
    if owners == Owners::Real {
        return Vec::new();
    }
    let mut all = Vec::new();
    for (number, index) in chain.layers().iter().enumerate() {
        for (path, row) in index.rows() {
            let Row::Put { entry: Entry { meta, kind: Kind::Symlink { .. } | Kind::Fifo }, .. } = row else { continue };
            let owner = Owner { uid: meta.uid, gid: meta.gid };
            if owner != Owner::ROOT && chain.look_up(&path).is_some_and(|found| found.layer == number) {
                all.push((path, owner));
            }
        }
    }
    all
}

/// Writes changes as a layer into the store, in one pass: tar → SHA-256 → compress → SHA-256. The chain gives
/// the directories above each change, which are emitted before it even if they did not change. The blob outlives a power cut
/// after the next [`Store::sync`].
pub fn write(store: &Store, changes: &Changes, chain: &Chain, compression: Compression) -> Result<Layer, Error> {
    let (index, diff_id, blob) = blob::pack(store, (compression, blob::Lasting::Synced), |out| write::emit(changes, chain, out))?;
    store.put_index(&diff_id, &index)?;
    store.put_layer_blob(&diff_id, &compression.id(), &blob)?;
    Ok(Layer { diff_id, blob, index: Arc::new(index) })
}

/// A layer whose tar and index are known. Its blob may be on its way.
#[derive(Debug, Clone)]
pub struct Tarred {
    /// Of the tar.
    pub diff_id: DiffId,
    /// What it holds.
    pub index: Arc<Index>,
}

/// A way for a tar from who writes it to who compresses it. With `ahead` the writer need not wait: what is not compressed yet waits on
/// the disk. Without, or if nothing is to be compressed, only what memory holds: a tar is written to its blob as fast as to anywhere.
pub fn spool(store: &Store, compression: Compression, ahead: bool) -> (Writer, Reader) {
    spool::spool(store, if ahead && compression != Compression::Uncompressed { spool::ON_DISK } else { 0 })
}

/// The first half of [`write`]: changes as a tar. Nothing is in the store yet.
pub fn tar(changes: &Changes, chain: &Chain, mut to: Writer) -> Result<Tarred, Error> {
    let index = write::emit(changes, chain, &mut to)?;
    let diff_id = to.finish().map_err(PathError::new("write", "layer"))?;
    Ok(Tarred { diff_id, index: Arc::new(index) })
}

/// The second half: a tar as a blob, on another thread. An error if the tar was not written to its end, or as soon as `cancelled` says so.
/// The blob outlives a power cut after the next [`Store::sync`].
pub fn pack(store: &Store, from: &Reader, compression: Compression, cancelled: &dyn Fn() -> bool) -> Result<Descriptor, Error> {
    let copy = |out: &mut dyn io::Write| Ok(from.copy_to(out, cancelled).map_err(PathError::new("read", "layer"))?);
    match compression {
        Compression::Uncompressed => blob::keep(store, copy),
        Compression::Gzip(_) | Compression::Zstd(_) => {
            blob::pack_digested(store, (compression, blob::Lasting::Synced), copy).map(|(_diff_id, blob)| blob)
        }
    }
}

/// What a step left in an overlay's upper directory, against the chain it ran on. `stubs` are mountpoints that
/// were made for the step: they and what is below them are not changes. `table` has the owners of what carries no mark; it
/// is `None` where owners are real.
pub fn diff(upper: &Arc<OwnedFd>, chain: &Chain, stubs: &[TreePath], table: Option<&OwnerTable>) -> Result<Changes, Error> {
    diff::diff(upper, chain, stubs, table)
}

/// Makes the upper directory equal to what extracting the layer of that index would give, so that it can be a lower.
pub fn seal(upper: &Arc<OwnedFd>, index: &Index, stubs: &[TreePath], owners: Owners) -> Result<(), Error> {
    seal::seal(upper, index, stubs, owners)
}

/// Where an extracted lower layer's files are.
#[derive(Debug, Clone)]
pub struct Lower {
    /// What it holds.
    pub index: Arc<Index>,
    /// Its tree.
    pub dir: PathBuf,
}

/// Extracts a layer's blob into an empty directory in the form of an overlay lower (userxattr marks), verifying
/// both digests. `below`, base first, is consulted when a hard link names a file of a lower layer, or a path leads through
/// a directory or link of one. Real owners are set as they are, so every id must be mapped into this process's user namespace. On
/// an error the directory may hold a part of the layer.
pub fn extract(
    store: &Store,
    blob: &Descriptor,
    diff_id: &DiffId,
    into: &OwnedFd,
    below: &[Lower],
    owners: Owners,
) -> Result<Arc<Index>, Error> {
    let chain = Chain::new(below.iter().map(|lower| Arc::clone(&lower.index)).collect());
    let mut disk = extract::Disk::new(into, below, owners)?;
    let index = verified::with_tar(store, blob, diff_id, |tar| read::read(tar, read::Form::Layer, read::Below::Chain(&chain), &mut disk))?;
    store.put_index(diff_id, &index)?;
    Ok(Arc::new(index))
}

/// The same, before the layers below are there. `None`: what the layer holds depends on them; then the directory may hold a part of it.
pub fn extract_alone(
    store: &Store,
    blob: &Descriptor,
    diff_id: &DiffId,
    into: &OwnedFd,
    owners: Owners,
) -> Result<Option<Arc<Index>>, Error> {
    let mut disk = extract::Disk::new(into, &[], owners)?;
    alone(store, blob, diff_id, &mut disk)
}

/// As [`index`], before the layers below are known. `None`: what the layer holds depends on them.
pub fn index_alone(store: &Store, blob: &Descriptor, diff_id: &DiffId) -> Result<Option<Arc<Index>>, Error> {
    alone(store, blob, diff_id, &mut read::Nowhere)
}

fn alone(store: &Store, blob: &Descriptor, diff_id: &DiffId, sink: &mut dyn read::Sink) -> Result<Option<Arc<Index>>, Error> {
    let asked = Cell::new(false);
    let read = verified::with_tar(store, blob, diff_id, |tar| read::read(tar, read::Form::Layer, read::Below::Unknown(&asked), sink));
    if asked.get() {
        return Ok(None);
    }
    let index = read?;
    store.put_index(diff_id, &index)?;
    Ok(Some(Arc::new(index)))
}

/// The same as [`extract`] for a layer whose blob is on its way: from the changes that it was made of, whose files are read again.
pub fn lay_out(changes: &Changes, chain: &Chain, diff_id: &DiffId, into: &OwnedFd, below: &[Lower], owners: Owners) -> Result<(), Error> {
    let mut disk = extract::Disk::new(into, below, owners)?;
    verified::with_emitted(
        diff_id,
        |out| write::emit(changes, chain, out).map(drop),
        |tar| read::read(tar, read::Form::Layer, read::Below::Chain(chain), &mut disk),
    )
    .map(drop)
}

/// Reads a layer's blob and nothing of it, verifying both digests.
pub fn verify(store: &Store, blob: &Descriptor, diff_id: &DiffId) -> Result<(), Error> {
    verified::with_tar(store, blob, diff_id, |_tar| Ok(()))
}

/// Reads a layer's blob for its index alone, verifying both digests.
pub fn index(store: &Store, blob: &Descriptor, diff_id: &DiffId, below: &Chain) -> Result<Arc<Index>, Error> {
    let index =
        verified::with_tar(store, blob, diff_id, |tar| read::read(tar, read::Form::Layer, read::Below::Chain(below), &mut read::Nowhere))?;
    store.put_index(diff_id, &index)?;
    Ok(Arc::new(index))
}
