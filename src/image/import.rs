//! A root file system's tar as an image of one layer.
//!
//! The tar is not kept as it is: it is read as a hostile archive into what a tree would be after extracting it (later
//! entries over earlier ones, links in directories followed inside the root), and that tree is written as a canonical
//! layer. Owners, modes, whole-second times, devices, links and the attributes that may be in an image are kept.
//! Files wait in a scratch directory of the store, small ones in one file.

use std::{
    collections::BTreeMap,
    io::{self, Read},
    os::fd::OwnedFd,
    sync::Arc,
    time::SystemTime,
};

use crate::{
    layer::{
        self, Bundle, Change, Changes, Compression, Content, Node, Shown,
        archive::{Entries, Member, MemberKind},
    },
    oci::{ImageConfig, Platform},
    store::{Scratch, Store},
    sys::{PathError, dir},
    tree::{Chain, Meta, Step, TreePath, Xattrs, resolve_with},
};

use super::{Error, Image, Item, assemble};

/// A file of at most this size gets no file of its own while it waits.
const SMALL: u64 = 64 << 10;
/// How many inodes a root file system may have.
const INODES: usize = 8_000_000;
/// How many bytes its names, link targets and attributes may have together.
const METADATA: usize = 512 << 20;
/// The longest path, in bytes: the kernel's.
const PATH: usize = 4095;

/// Makes an image of a root file system's tar, compressed or not; `what` is how messages call it. `config` is as for
/// [`assemble`]; where it names no platform it gets this machine's. `created` is written to the second.
pub fn import(
    store: &Store,
    stream: &mut (dyn Read + Send),
    what: &str,
    config: ImageConfig,
    created: Option<SystemTime>,
) -> Result<Image, Error> {
    let mut spool = Spool::new(store)?;
    let changes = read(stream, what, &mut spool)?;
    let layer = layer::write(store, &changes, &Chain::default(), Compression::Gzip(6))?;
    store.sync()?;
    let item = Item {
        comment: "imported from a tar".to_owned(),
        layer: Some((layer.diff_id, layer.blob, rfc3339(created))),
        ..Item::new("IMPORT")
    };
    assemble(store, None, config, &[item], &Platform::host())
}

fn rfc3339(time: Option<SystemTime>) -> String {
    let since = time.and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok()).map_or(0, |since| since.as_secs());
    let stamp = i64::try_from(since).ok().and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    stamp.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn read(stream: &mut (dyn Read + Send), what: &str, spool: &mut Spool) -> Result<Changes, Error> {
    let broken = |source| Error::Stream { what: what.to_owned(), source };
    let mut entries = Entries::new(layer::decompress(stream).map_err(broken)?);
    let mut tree = Tree::default();
    while let Some(member) = entries.next_member().map_err(|source| Error::Archive { what: what.to_owned(), source })? {
        if tree.inodes.len() > INODES || tree.bytes > METADATA {
            return Err(Error::bad(what, "it has too many entries"));
        }
        tree.add(&member, &mut entries.body(), spool).map_err(|refusal| refusal.of(what, &member))?;
    }
    // Who writes into our pipe pads the end, and should not be killed for it.
    let _drained = io::copy(&mut entries.into_inner().take(1 << 20), &mut io::sink()).map_err(broken)?;
    if tree.names.is_empty() {
        return Err(Error::bad(what, "it is empty"));
    }
    Ok(tree.changes())
}

/// Why an entry cannot be in the tree.
enum Refusal {
    Name(&'static str),
    Stream(io::Error),
    Path(PathError),
}

impl Refusal {
    fn of(self, what: &str, member: &Member) -> Error {
        match self {
            Self::Name(reason) => Error::bad(what, format!("`{}` {reason}", shown(&member.name))),
            Self::Stream(source) => Error::Stream { what: what.to_owned(), source },
            Self::Path(error) => error.into(),
        }
    }
}

/// What extracting the entries so far would have made. Two names of one inode share its number.
#[derive(Default)]
struct Tree {
    inodes: Vec<(Meta, Node)>,
    names: BTreeMap<TreePath, usize>,
    /// What names, targets and attributes have taken so far.
    bytes: usize,
}

impl Tree {
    fn add(&mut self, member: &Member, body: &mut dyn Read, spool: &mut Spool) -> Result<(), Refusal> {
        let path = self.place(&member.name)?;
        if path.is_root() {
            return Ok(());
        }
        let node = match &member.kind {
            MemberKind::HardLink(target) => {
                let target = self.place(target)?;
                let inode = *self.names.get(&target).ok_or(Refusal::Name("is a hard link to nothing"))?;
                if matches!(self.inodes.get(inode), Some((_, Node::Dir))) {
                    return Err(Refusal::Name("is a hard link to a directory"));
                }
                self.put(path, inode);
                return Ok(());
            }
            MemberKind::File { size } => Node::File { size: *size, content: spool.keep(*size, body, &path)?, digest: None },
            MemberKind::Dir => Node::Dir,
            MemberKind::Symlink(target) => Node::Symlink(target.clone()),
            MemberKind::Char { major, minor } => Node::Char { major: *major, minor: *minor },
            MemberKind::Block { major, minor } => Node::Block { major: *major, minor: *minor },
            MemberKind::Fifo => Node::Fifo,
        };
        let target = if let Node::Symlink(target) = &node { target.len() } else { 0 };
        self.bytes += target + member.meta.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        self.inodes.push((member.meta.clone(), node));
        self.put(path, self.inodes.len() - 1);
        Ok(())
    }

    /// Where an entry's name leads: links in the directories above it are followed inside the root, itself is not.
    fn place(&self, name: &[u8]) -> Result<TreePath, Refusal> {
        let path = TreePath::parse(name).map_err(|_bad| Refusal::Name("is no path inside a root"))?;
        if path.as_bytes().len() > PATH {
            return Err(Refusal::Name("is longer than the kernel takes"));
        }
        let look = |at: &TreePath| {
            Some(match &self.inodes.get(*self.names.get(at)?)?.1 {
                Node::Dir => Step::Dir,
                Node::Symlink(target) => Step::Link(target.clone()),
                Node::File { .. } | Node::HardLink(_) | Node::Char { .. } | Node::Block { .. } | Node::Fifo => Step::Other,
            })
        };
        resolve_with(&path, false, look).map_err(|_unresolved| Refusal::Name("lies in what is no directory"))
    }

    fn put(&mut self, path: TreePath, inode: usize) {
        let is_dir = |inode: Option<&usize>| inode.and_then(|at| self.inodes.get(*at)).is_some_and(|(_, node)| matches!(node, Node::Dir));
        // A directory over a directory gives it new metadata; anything else removes what was there.
        if is_dir(self.names.get(&path)) && !is_dir(Some(&inode)) {
            let below: Vec<TreePath> =
                self.names.range(path.clone()..).map(|(have, _)| have.clone()).take_while(|have| have.is_within(&path)).collect();
            for each in below {
                let _gone = self.names.remove(&each);
            }
        }
        for dir in path.ancestors().into_iter().filter(|dir| !dir.is_root()) {
            if !self.names.contains_key(&dir) {
                let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
                self.inodes.push((meta, Node::Dir));
                self.bytes += dir.as_bytes().len();
                let _new = self.names.insert(dir, self.inodes.len() - 1);
            }
        }
        self.bytes += path.as_bytes().len();
        let _old = self.names.insert(path, inode);
    }

    fn changes(self) -> Changes {
        let mut first: BTreeMap<usize, TreePath> = BTreeMap::new();
        let mut changes = BTreeMap::new();
        for (path, inode) in self.names {
            let Some((meta, node)) = self.inodes.get(inode) else { continue };
            let node = match first.get(&inode) {
                Some(name) => Node::HardLink(name.clone()),
                None => node.clone(),
            };
            let _known = first.entry(inode).or_insert_with(|| path.clone());
            drop(changes.insert(path, Change::Put(meta.clone(), node)));
        }
        Changes::from(changes)
    }
}

/// Where files wait for the layer to be written.
struct Spool {
    dir: Arc<OwnedFd>,
    files: u64,
    /// Of the small ones.
    bundle: Bundle,
    /// Removed with all that is in it.
    _scratch: Scratch,
}

impl Spool {
    fn new(store: &Store) -> Result<Self, Error> {
        let scratch = store.scratch()?;
        let dir = Arc::new(dir::open_root(scratch.path())?);
        let bundle = Bundle::within(Arc::clone(&dir));
        Ok(Self { dir, files: 0, bundle, _scratch: scratch })
    }

    fn keep(&mut self, size: u64, body: &mut dyn Read, path: &TreePath) -> Result<Content, Refusal> {
        if size <= SMALL {
            let mut bytes = Vec::new();
            let _count = body.read_to_end(&mut bytes).map_err(Refusal::Stream)?;
            return Ok(Content::Bundled(self.bundle.put(&bytes).map_err(Refusal::Path)?));
        }
        self.files += 1;
        let name = self.files.to_string().into_bytes();
        let mut file = dir::create_file(&self.dir, &name).map_err(Refusal::Path)?;
        copy(body, &mut file)?;
        let below = TreePath::parse(&name).map_err(|_bad| Refusal::Name("cannot be spooled"))?;
        Ok(Content::Below { dir: Arc::clone(&self.dir), path: below, shown: Shown::As(path.to_string()) })
    }
}

/// A name for a message: escaped, cut.
fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(200).collect::<String>().escape_debug().to_string()
}

/// As `io::copy`, but it tells whose fault an error is.
fn copy(from: &mut dyn Read, to: &mut std::fs::File) -> Result<(), Refusal> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                let bytes = buffer.get(..count).unwrap_or_default();
                io::Write::write_all(to, bytes).map_err(PathError::new("write", "scratch file")).map_err(Refusal::Path)?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Refusal::Stream(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        image::fixture,
        tree::{Index, Kind, Row},
    };

    enum Is<'a> {
        File(&'a str),
        Dir(u32),
        Symlink(&'a str),
        HardLink(&'a str),
        Char,
    }
    use Is::{Char, Dir, File, HardLink, Symlink};

    fn rootfs(entries: &[(&str, Is<'_>)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, is) in entries {
            let mut header = tar::Header::new_ustar();
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(0o640);
            header.set_uid(1000);
            header.set_gid(33);
            header.set_mtime(7);
            let (kind, link, text) = match is {
                File(text) => (tar::EntryType::Regular, "", *text),
                Dir(mode) => {
                    header.set_mode(*mode);
                    (tar::EntryType::Directory, "", "")
                }
                Symlink(target) => (tar::EntryType::Symlink, *target, ""),
                HardLink(target) => (tar::EntryType::Link, *target, ""),
                Char => (tar::EntryType::Char, "", ""),
            };
            header.set_entry_type(kind);
            header.as_ustar_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            if matches!(is, Char) {
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            }
            header.set_size(text.len() as u64);
            header.set_cksum();
            builder.append(&header, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn imported(entries: &[(&str, Is<'_>)]) -> Result<Index, Error> {
        let (_dir, store) = fixture::store();
        let image = import(&store, &mut rootfs(entries).as_slice(), "rootfs.tar", ImageConfig::default(), None)?;
        Ok(store.index(&image.config.rootfs.diff_ids[0]).unwrap().unwrap())
    }

    fn kind(index: &Index, path: &str) -> Option<Kind> {
        match index.row(&TreePath::parse(path.as_bytes()).unwrap()) {
            Some(Row::Put { entry, .. }) => Some(entry.kind.clone()),
            Some(Row::Whiteout) | None => None,
        }
    }

    fn refusal(entries: &[(&str, Is<'_>)]) -> String {
        imported(entries).unwrap_err().to_string()
    }

    #[test]
    fn owners_modes_times_and_devices_are_kept() {
        let index = imported(&[("./", Dir(0o700)), ("./etc/", Dir(0o751)), ("./etc/shadow", File("x")), ("dev/null", Char)]).unwrap();
        let Some(Row::Put { entry, .. }) = index.row(&TreePath::parse(b"etc/shadow").unwrap()) else { panic!("no row") };
        assert_eq!((entry.meta.mode, entry.meta.uid, entry.meta.gid, entry.meta.mtime), (0o640, 1000, 33, 7));
        assert_eq!(kind(&index, "dev/null"), Some(Kind::Char { major: 1, minor: 3 }));
        assert_eq!(kind(&index, "dev"), Some(Kind::Dir));
    }

    #[test]
    fn the_same_tar_gives_the_same_image_compressed_or_not() {
        let tar = rootfs(&[("a", File("1")), ("b", Symlink("a"))]);
        let digest = |bytes: &[u8]| {
            let (_dir, store) = fixture::store();
            let time = Some(SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(1_700_000_000_700));
            let image = import(&store, &mut &*bytes, "-", ImageConfig::default(), time).unwrap();
            assert_eq!(image.config.created.as_deref(), Some("2023-11-14T22:13:20Z"));
            image.manifest.digest
        };
        assert_eq!(digest(&tar), digest(&fixture::gzip(&tar)));
    }

    #[test]
    fn hard_links_survive_whatever_name_comes_first() {
        let index = imported(&[("z", File("1")), ("a", HardLink("z")), ("z", File("2")), ("m", HardLink("./a"))]).unwrap();
        let link = |path: &str| match index.row(&TreePath::parse(path.as_bytes()).unwrap()) {
            Some(Row::Put { link, .. }) => link.as_ref().map(ToString::to_string),
            Some(Row::Whiteout) | None => Some("?".into()),
        };
        assert_eq!((link("a"), link("m"), link("z")), (None, Some("/a".into()), None));
        assert_ne!(kind(&index, "a"), kind(&index, "z"));
    }

    #[test]
    fn links_in_directories_are_followed_inside_the_root() {
        let index = imported(&[
            ("usr/bin/", Dir(0o755)),
            ("bin", Symlink("../../usr/bin")),
            ("bin/sh", File("x")),
            ("abs", Symlink("/usr")),
            ("abs/y", File("y")),
        ])
        .unwrap();
        assert!(kind(&index, "usr/bin/sh").is_some() && kind(&index, "usr/y").is_some());
        assert_eq!(kind(&index, "bin/sh"), None);
    }

    #[test]
    fn later_entries_replace_earlier_ones() {
        let index = imported(&[("d/x", File("1")), ("d", File("2")), ("e/", Dir(0o700)), ("e/y", File("3")), ("e/", Dir(0o711))]).unwrap();
        assert!(matches!(kind(&index, "d"), Some(Kind::File { size: 1, .. })));
        assert_eq!(kind(&index, "d/x"), None);
        assert!(kind(&index, "e/y").is_some());
    }

    #[test]
    fn names_that_lie_are_refused() {
        assert!(refusal(&[("../x", File("1"))]).contains("`../x` is no path inside a root"));
        assert!(refusal(&[("l", HardLink("../etc/shadow"))]).contains("is no path inside a root"));
        assert!(refusal(&[("l", HardLink("nothing"))]).contains("is a hard link to nothing"));
        assert!(refusal(&[("f", File("1")), ("f/x", File("1"))]).contains("lies in what is no directory"));
        assert!(refusal(&[("a", Symlink("b")), ("b", Symlink("a")), ("a/x", File("1"))]).contains("lies in what is no directory"));
        assert!(refusal(&[("x/.wh.y", File(""))]).contains(".wh."));
        assert!(refusal(&[]).contains("it is empty"));
    }

    #[test]
    fn large_files_are_spooled_and_nothing_of_them_stays() {
        let (dir, store) = fixture::store();
        let text = "x".repeat(100_000);
        let image = import(&store, &mut rootfs(&[("big", File(&text))]).as_slice(), "-", ImageConfig::default(), None).unwrap();
        let index = store.index(&image.config.rootfs.diff_ids[0]).unwrap().unwrap();
        let content = crate::tree::ContentDigest::of(text.as_bytes());
        assert_eq!(kind(&index, "big"), Some(Kind::File { size: 100_000, content }));
        let left = std::fs::read_dir(dir.path().join("store/tmp")).map_or(0, Iterator::count);
        assert_eq!(left, 0);
    }
}
