//! The merged tree of an image, streamed from its layers' blobs without a tree on disk.
//!
//! The indexes say which layer each path's bytes come from; then every layer that has some is read once. Directories come
//! first, then all else that has no bytes, then files in the order of the layers, each followed by its other names. A file whose
//! first name a higher layer hid lives on under the first that is left.
//!
//! A name in a layer's tar need not be the path it ends at (it may lead through a link), and a hard link may name a file of a lower
//! layer. Files that the first reading did not find are therefore looked for by their bytes in a second one.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Read, Seek, Write},
    sync::Arc,
};

use crate::{
    image::Image,
    layer::{
        self,
        archive::{Entries, MemberKind},
    },
    oci::{Descriptor, DiffId},
    store::Store,
    sys::{self, PathError},
    tree::{Chain, ContentDigest, Entry, Index, Kind, Row, TreePath},
};

use super::Error;

/// A file up to this size is checked before it is handed on; a larger one while it is.
const SMALL: u64 = 1 << 20;

/// What takes a merged tree. A directory comes before what it holds; every path comes once.
pub(super) trait Receiver {
    /// Anything that has no bytes: a directory, a link, a device, a pipe.
    fn plain(&mut self, path: &TreePath, entry: &Entry) -> Result<(), Error>;
    /// A regular file; `content` ends after `size` bytes, or fails.
    fn file(&mut self, path: &TreePath, entry: &Entry, size: u64, content: &mut dyn Read) -> Result<(), Error>;
    /// Another name of a file that came already.
    fn link(&mut self, path: &TreePath, entry: &Entry, first: &TreePath) -> Result<(), Error>;
}

/// Hands the merged tree of an image to a receiver. The root itself is not part of it.
pub(super) fn flatten(store: &Store, image: &Image, to: &mut dyn Receiver) -> Result<(), Error> {
    let layers: Vec<(Descriptor, DiffId)> = image.layers.iter().cloned().zip(image.config.rootfs.diff_ids.iter().copied()).collect();
    let chain = chain(store, &layers)?;
    let mut wanted = Wanted::default();
    walk(&chain, &mut wanted, to)?;
    for (at, (blob, _)) in layers.iter().enumerate() {
        if let (Some(groups), Some(index)) = (wanted.by_layer.get_mut(&at), chain.layers().get(at)) {
            by_name(store, blob, index, groups, to)?;
        }
    }
    wanted.by_layer.values_mut().for_each(|groups| groups.retain(|_, group| !group.done));
    for (blob, _) in layers.iter().rev() {
        if wanted.by_layer.values().flat_map(BTreeMap::values).all(|group| group.done) {
            return Ok(());
        }
        by_bytes(store, blob, &mut wanted, to)?;
    }
    match wanted.by_layer.values().flat_map(BTreeMap::values).find(|group| !group.done) {
        Some(group) => Err(damaged(image.manifest.digest.to_string(), &group.names, "its bytes are in no layer")),
        None => Ok(()),
    }
}

fn damaged(layer: String, names: &[TreePath], reason: &str) -> Error {
    let name = names.first().map(ToString::to_string).unwrap_or_default();
    layer::Error::BadLayer { layer, reason: format!("`{name}`: {reason}") }.into()
}

fn chain(store: &Store, layers: &[(Descriptor, DiffId)]) -> Result<Chain, Error> {
    let mut chain = Chain::default();
    for (blob, id) in layers {
        let index = match store.index(id)? {
            Some(index) => Arc::new(index),
            None if !store.has_blob(&blob.digest, blob.size) => return Err(Error::Missing(vec![blob.clone()])),
            None => layer::index(store, blob, id, &chain)?,
        };
        chain = chain.with(index);
    }
    Ok(chain)
}

/// One file of the result: an inode of a layer.
struct Group {
    entry: Entry,
    size: u64,
    content: ContentDigest,
    /// Those that no higher layer hides, sorted.
    names: Vec<TreePath>,
    done: bool,
}

impl Group {
    fn emit(&mut self, content: &mut dyn Read, to: &mut dyn Receiver) -> Result<(), Error> {
        let Some((first, others)) = self.names.split_first() else { return Ok(()) };
        to.file(first, &self.entry, self.size, content)?;
        self.done = true;
        others.iter().try_for_each(|name| to.link(name, &self.entry, first))
    }
}

/// The files that are still to come, by layer and by the first name that their inode has there.
#[derive(Default)]
struct Wanted {
    by_layer: BTreeMap<usize, BTreeMap<TreePath, Group>>,
}

fn walk(chain: &Chain, wanted: &mut Wanted, to: &mut dyn Receiver) -> Result<(), Error> {
    let mut dirs = vec![TreePath::root()];
    let mut others = Vec::new();
    while let Some(dir) = dirs.pop() {
        let mut below = Vec::new();
        for name in chain.names(&dir) {
            let Ok(path) = dir.join(&name) else { continue };
            let Some(found) = chain.look_up(&path) else { continue };
            match &found.entry.kind {
                Kind::Dir => {
                    to.plain(&path, found.entry)?;
                    below.push(path);
                }
                Kind::File { size, content } => {
                    let leader = found.link.unwrap_or(&path).clone();
                    let group = wanted.by_layer.entry(found.layer).or_default().entry(leader).or_insert_with(|| Group {
                        entry: found.entry.clone(),
                        size: *size,
                        content: *content,
                        names: Vec::new(),
                        done: false,
                    });
                    group.names.push(path);
                }
                Kind::Symlink { .. } | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => others.push((path, found.entry)),
            }
        }
        dirs.extend(below.into_iter().rev());
    }
    others.iter().try_for_each(|(path, entry)| to.plain(path, entry))?;
    for groups in wanted.by_layer.values_mut() {
        for group in groups.values_mut() {
            group.names.sort();
            if group.size == 0 {
                group.emit(&mut io::empty(), to)?;
            }
        }
        groups.retain(|_, group| !group.done);
    }
    wanted.by_layer.retain(|_, groups| !groups.is_empty());
    Ok(())
}

/// Takes a regular file's name, size and bytes.
type EachFile<'a> = dyn FnMut(&[u8], u64, &mut dyn Read) -> Result<(), Error> + 'a;

/// Reads a layer's blob to its end.
fn members(store: &Store, blob: &Descriptor, each: &mut EachFile<'_>) -> Result<(), Error> {
    let broken = |source| Error::Blob { digest: blob.digest, source };
    let reader = store.open_blob(blob)?.ok_or_else(|| Error::Missing(vec![blob.clone()]))?;
    let mut entries = Entries::new(layer::decompress(reader).map_err(broken)?);
    let bad = |error: layer::archive::Error| layer::Error::BadLayer { layer: blob.digest.to_string(), reason: error.to_string() };
    while let Some(member) = entries.next_member().map_err(bad)? {
        if let MemberKind::File { size } = member.kind {
            each(&member.name, size, &mut entries.body())?;
        }
    }
    // The store verifies a blob when its end is read.
    let _drained = io::copy(&mut entries.into_inner(), &mut io::sink()).map_err(broken)?;
    Ok(())
}

/// Takes the files that are in the tar under a name that the index has.
fn by_name(
    store: &Store,
    blob: &Descriptor,
    index: &Index,
    groups: &mut BTreeMap<TreePath, Group>,
    to: &mut dyn Receiver,
) -> Result<(), Error> {
    let broken = |source| Error::Blob { digest: blob.digest, source };
    members(store, blob, &mut |name, size, body| {
        let Ok(path) = TreePath::parse(name) else { return Ok(()) };
        let leader = match index.row(&path) {
            Some(Row::Put { link: Some(first), .. }) => first,
            Some(Row::Put { .. }) => &path,
            Some(Row::Whiteout) | None => return Ok(()),
        };
        let Some(group) = groups.get_mut(leader).filter(|group| !group.done && group.size == size) else { return Ok(()) };
        if size <= SMALL {
            let mut bytes = Vec::new();
            let _count = body.read_to_end(&mut bytes).map_err(broken)?;
            // Of two entries of a name the last counts.
            return if ContentDigest::of(&bytes) == group.content { group.emit(&mut bytes.as_slice(), to) } else { Ok(()) };
        }
        let want = group.content;
        group.emit(&mut Checked { from: body, left: size, hasher: blake3::Hasher::new(), want }, to)
    })
}

/// Takes the files whose bytes are in the tar under whatever name.
fn by_bytes(store: &Store, blob: &Descriptor, wanted: &mut Wanted, to: &mut dyn Receiver) -> Result<(), Error> {
    let missing =
        |wanted: &Wanted| wanted.by_layer.values().flat_map(BTreeMap::values).filter(|group| !group.done).map(|group| group.size).collect();
    let mut sizes: BTreeSet<u64> = missing(wanted);
    let scratch = store.scratch()?;
    let dir = sys::dir::open_root(scratch.path())?;
    let mut count = 0_u64;
    members(store, blob, &mut |_name, size, body| {
        if !sizes.contains(&size) {
            return Ok(());
        }
        count += 1;
        let mut file = sys::dir::create_file(&dir, count.to_string().as_bytes())?;
        sys::dir::remove_file(&dir, count.to_string().as_bytes())?;
        let digest = spool(body, &mut file).map_err(|source| Error::Blob { digest: blob.digest, source })?;
        for group in wanted.by_layer.values_mut().flat_map(BTreeMap::values_mut).filter(|group| !group.done && group.content == digest) {
            file.rewind().map_err(PathError::new("rewind", "scratch file"))?;
            let mut back = io::BufReader::new(&file).take(size);
            group.emit(&mut Checked { from: &mut back, left: size, hasher: blake3::Hasher::new(), want: digest }, to)?;
        }
        sizes = missing(wanted);
        Ok(())
    })
}

fn spool(from: &mut dyn Read, to: &mut std::fs::File) -> io::Result<ContentDigest> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(ContentDigest(*hasher.finalize().as_bytes())),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                let _same = hasher.update(bytes);
                to.write_all(bytes)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes on their way that must have a digest: the read that would hand out the last of them fails if they have not.
struct Checked<'a> {
    from: &'a mut dyn Read,
    left: u64,
    hasher: blake3::Hasher,
    want: ContentDigest,
}

impl Read for Checked<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let count = self.from.read(into)?;
        let _same = self.hasher.update(into.get(..count).unwrap_or_default());
        let ended = count == 0 && !into.is_empty() && self.left > 0;
        self.left = self.left.saturating_sub(count as u64);
        let wrong = self.left == 0 && count > 0 && ContentDigest(*self.hasher.finalize().as_bytes()) != self.want;
        if ended || wrong {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a file in the layer is not what its index says"));
        }
        Ok(count)
    }
}
