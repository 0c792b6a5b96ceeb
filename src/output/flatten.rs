//! The merged tree of an image, in the order of paths, streamed from its layers' blobs without a tree on disk.
//!
//! The indexes say which layer each path's bytes come from. All layers are read side by side, each once and only as far as the
//! walk of the merged tree needs: nearly all layers are in the order of paths themselves. A file that comes before its turn
//! waits in a scratch file. A file whose first name a higher layer hid lives on under the first that is left.
//!
//! A name in a layer's tar need not be the path it ends at (it may lead through a link), and a hard link may name a file of a lower
//! layer. A file that a layer's reading did not find is therefore looked for by its bytes in all of them.

use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    sync::Arc,
};

use crate::{
    image::Image,
    layer::{
        self,
        archive::{Entries, MemberKind},
    },
    oci::{Descriptor, DiffId},
    store::{Scratch, Store},
    sys,
    tree::{Chain, ContentDigest, Entry, Kind, Row, TreePath},
};

use super::Error;

/// A file up to this size is checked before it is handed on; a larger one while it is.
const SMALL: u64 = 1 << 20;

/// What takes a merged tree. A directory comes right before what it holds; every path comes once.
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
    let items = walk(&chain);
    let mut sources = Sources::new(store, &layers, &chain, &items)?;
    for item in &items {
        match &item.inode {
            None => to.plain(&item.path, &item.entry)?,
            Some(inode) => sources.hand_on(item, inode, to)?,
        }
    }
    Ok(())
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

/// A path of the merged tree.
struct Item {
    path: TreePath,
    entry: Entry,
    /// Of a regular file.
    inode: Option<Inode>,
}

/// A file of a layer: the layer's number and the first name that the inode has there.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Inode {
    layer: usize,
    name: TreePath,
}

fn walk(chain: &Chain) -> Vec<Item> {
    let mut items = Vec::new();
    let mut ahead = vec![TreePath::root()];
    while let Some(path) = ahead.pop() {
        let found = chain.look_up(&path);
        if path.is_root() || found.as_ref().is_some_and(|found| found.entry.kind == Kind::Dir) {
            ahead.extend(chain.names(&path).iter().rev().filter_map(|name| path.join(name).ok()));
        }
        if let Some(found) = found.filter(|_| !path.is_root()) {
            let is_file = matches!(found.entry.kind, Kind::File { .. });
            let inode = is_file.then(|| Inode { layer: found.layer, name: found.link.unwrap_or_else(|| path.clone()) });
            items.push(Item { path, entry: found.entry, inode });
        }
    }
    items
}

/// A file that the result needs.
struct Need {
    size: u64,
    content: ContentDigest,
    state: State,
}

enum State {
    Wanted,
    /// It came before its turn, and waits under that name in the scratch directory.
    Waits(Vec<u8>),
    /// It was handed on under this name.
    Done(TreePath),
}

type Stream = Entries<Box<dyn Read + Send>>;

/// The layers' blobs, being read side by side.
struct Sources<'a> {
    store: &'a Store,
    layers: &'a [(Descriptor, DiffId)],
    chain: &'a Chain,
    needs: BTreeMap<Inode, Need>,
    /// Not begun; being read; ended.
    streams: Vec<Option<Stream>>,
    ended: Vec<bool>,
    dir: OwnedFd,
    count: u64,
    /// Removed with all that is in it.
    _scratch: Scratch,
}

impl<'a> Sources<'a> {
    fn new(store: &'a Store, layers: &'a [(Descriptor, DiffId)], chain: &'a Chain, items: &[Item]) -> Result<Self, Error> {
        let need = |item: &Item| match (&item.entry.kind, &item.inode) {
            (Kind::File { size, content }, Some(inode)) => {
                Some((inode.clone(), Need { size: *size, content: *content, state: State::Wanted }))
            }
            _ => None,
        };
        let scratch = store.scratch()?;
        Ok(Self {
            store,
            layers,
            chain,
            needs: items.iter().filter_map(need).collect(),
            streams: layers.iter().map(|_| None).collect(),
            ended: vec![false; layers.len()],
            dir: sys::dir::open_root(scratch.path())?,
            count: 0,
            _scratch: scratch,
        })
    }

    fn hand_on(&mut self, item: &Item, inode: &Inode, to: &mut dyn Receiver) -> Result<(), Error> {
        loop {
            let Some(need) = self.needs.get_mut(inode) else { return Err(lost(item)) };
            let done = State::Done(item.path.clone());
            match &need.state {
                State::Done(first) => return to.link(&item.path, &item.entry, first),
                State::Waits(name) => {
                    let mut file = sys::dir::open_file(&self.dir, std::path::Path::new(&shown(name)))?;
                    sys::dir::remove_file(&self.dir, name)?;
                    need.state = done;
                    return to.file(&item.path, &item.entry, need.size, &mut Checked::new(&mut file, need.size, need.content));
                }
                State::Wanted if need.size == 0 => {
                    need.state = done;
                    return to.file(&item.path, &item.entry, 0, &mut io::empty());
                }
                State::Wanted => {}
            }
            if self.advance(item, inode, to)? {
                return Ok(());
            }
        }
    }

    /// Reads the file's layer on, until the file was handed on (`true`) or it waits.
    fn advance(&mut self, item: &Item, inode: &Inode, to: &mut dyn Receiver) -> Result<bool, Error> {
        let (Some((blob, _)), Some(index)) = (self.layers.get(inode.layer), self.chain.layers().get(inode.layer)) else {
            return Err(lost(item));
        };
        if self.ended.get(inode.layer) != Some(&false) {
            return Err(lost(item));
        }
        let mut stream = match self.streams.get_mut(inode.layer).and_then(Option::take) {
            Some(stream) => stream,
            None => open(self.store, blob)?,
        };
        while let Some((name, size)) = next_file(&mut stream, blob)? {
            let Ok(path) = TreePath::parse(&name) else { continue };
            let first = match index.row(&path) {
                Some(Row::Put { link: Some(first), .. }) => first,
                Some(Row::Put { .. }) => path,
                Some(Row::Whiteout) | None => continue,
            };
            let this = Inode { layer: inode.layer, name: first };
            let Some(need) = self.needs.get_mut(&this).filter(|need| need.size == size && matches!(need.state, State::Wanted)) else {
                continue;
            };
            if this != *inode {
                // Of two entries of a name the last counts.
                let want = need.content;
                if let Some(waits) = self.keep(&mut stream.body(), blob, |found| found == want)? {
                    self.settle(&this, State::Waits(waits));
                }
                continue;
            }
            if pass_on(&mut stream.body(), need, item, blob, to)? {
                self.settle(inode, State::Done(item.path.clone()));
                if let Some(slot) = self.streams.get_mut(inode.layer) {
                    *slot = Some(stream);
                }
                return Ok(true);
            }
        }
        if let Some(ended) = self.ended.get_mut(inode.layer) {
            *ended = true;
        }
        self.search(inode.layer)?;
        Ok(false)
    }

    fn settle(&mut self, inode: &Inode, state: State) {
        if let Some(need) = self.needs.get_mut(inode) {
            need.state = state;
        }
    }

    /// Looks in all layers for the bytes of what a layer's own tar did not have under its name.
    fn search(&mut self, layer: usize) -> Result<(), Error> {
        let lost = |inode: &Inode, need: &Need| inode.layer == layer && need.size > 0 && matches!(need.state, State::Wanted);
        let mut left: Vec<(Inode, u64, ContentDigest)> = self
            .needs
            .iter()
            .filter(|(inode, need)| lost(inode, need))
            .map(|(inode, need)| (inode.clone(), need.size, need.content))
            .collect();
        for (blob, _) in self.layers.iter().rev() {
            if left.is_empty() {
                break;
            }
            let mut stream = open(self.store, blob)?;
            while let Some((_, size)) = next_file(&mut stream, blob)? {
                if !left.iter().any(|(_, wanted, _)| *wanted == size) {
                    continue;
                }
                let mut found = None;
                let waits = self.keep(&mut stream.body(), blob, |digest| {
                    found = Some(digest);
                    left.iter().any(|(_, _, content)| *content == digest)
                })?;
                let Some(waits) = waits else { continue };
                let (same, others): (Vec<_>, Vec<_>) = left.into_iter().partition(|(_, _, content)| Some(*content) == found);
                left = others;
                for (at, (inode, ..)) in same.into_iter().enumerate() {
                    // Each takes its file away when its turn comes.
                    let name = [waits.as_slice(), format!("-{at}").as_bytes()].concat();
                    sys::dir::make_hard_link(&self.dir, &waits, &self.dir, &name)?;
                    self.settle(&inode, State::Waits(name));
                }
                sys::dir::remove_file(&self.dir, &waits)?;
            }
        }
        Ok(())
    }

    /// Puts bytes into a scratch file, if their digest is a wanted one.
    fn keep(
        &mut self,
        body: &mut dyn Read,
        blob: &Descriptor,
        wanted: impl FnOnce(ContentDigest) -> bool,
    ) -> Result<Option<Vec<u8>>, Error> {
        self.count += 1;
        let name = self.count.to_string().into_bytes();
        let mut file = sys::dir::create_file(&self.dir, &name)?;
        let digest = spool(body, &mut file).map_err(|source| Error::Blob { digest: blob.digest, source })?;
        if wanted(digest) {
            return Ok(Some(name));
        }
        sys::dir::remove_file(&self.dir, &name)?;
        Ok(None)
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

fn lost(item: &Item) -> Error {
    let reason = format!("the bytes of `{}` are in no layer", item.path);
    layer::Error::BadLayer { layer: "of the image".to_owned(), reason }.into()
}

fn open(store: &Store, blob: &Descriptor) -> Result<Stream, Error> {
    let reader = store.open_blob(blob)?.ok_or_else(|| Error::Missing(vec![blob.clone()]))?;
    let plain = layer::decompress(reader).map_err(|source| Error::Blob { digest: blob.digest, source })?;
    Ok(Entries::new(plain))
}

/// The next regular file's name and size.
fn next_file(stream: &mut Stream, blob: &Descriptor) -> Result<Option<(Vec<u8>, u64)>, Error> {
    let bad = |error: layer::archive::Error| layer::Error::BadLayer { layer: blob.digest.to_string(), reason: error.to_string() };
    while let Some(member) = stream.next_member().map_err(bad)? {
        if let MemberKind::File { size } = member.kind {
            return Ok(Some((member.name, size)));
        }
    }
    Ok(None)
}

/// Hands on a file whose turn it is. `false`: these were the bytes of an entry that a later one of the name replaced.
fn pass_on(body: &mut dyn Read, need: &Need, item: &Item, blob: &Descriptor, to: &mut dyn Receiver) -> Result<bool, Error> {
    if need.size > SMALL {
        to.file(&item.path, &item.entry, need.size, &mut Checked::new(body, need.size, need.content))?;
        return Ok(true);
    }
    let mut bytes = Vec::new();
    let _count = body.read_to_end(&mut bytes).map_err(|source| Error::Blob { digest: blob.digest, source })?;
    if ContentDigest::of(&bytes) != need.content {
        return Ok(false);
    }
    to.file(&item.path, &item.entry, need.size, &mut bytes.as_slice())?;
    Ok(true)
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

impl<'a> Checked<'a> {
    fn new(from: &'a mut dyn Read, size: u64, want: ContentDigest) -> Self {
        Self { from, left: size, hasher: blake3::Hasher::new(), want }
    }
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
