//! Layers written, read back, extracted and compared.

use std::{
    collections::BTreeMap,
    fs,
    io::Read as _,
    os::{
        fd::OwnedFd,
        unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    },
    path::Path,
};

use proptest::prelude::*;

use super::*;
use crate::{
    oci::Digest,
    sys::dir,
    tree::{Kind, Row, Xattrs},
};

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

pub(super) fn meta(mode: u32) -> Meta {
    Meta { mode, uid: 0, gid: 0, mtime: 1_700_000_000, xattrs: Xattrs::new() }
}

pub(super) fn file(text: &str) -> Change {
    Change::Put(meta(0o644), Node::File { size: text.len() as u64, content: Content::Bytes(Arc::from(text.as_bytes())), digest: None })
}

pub(super) fn put(node: Node) -> Change {
    Change::Put(meta(0o755), node)
}

pub(super) fn changes(all: Vec<(&str, Change)>) -> Changes {
    Changes::from(all.into_iter().map(|(name, change)| (path(name), change)).collect::<BTreeMap<_, _>>())
}

/// A store, and room for trees beside it.
pub(super) struct Bench {
    pub(super) dir: tempfile::TempDir,
    pub(super) store: Store,
}

impl Bench {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        Self { dir, store }
    }

    pub(super) fn room(&self, name: &str) -> (PathBuf, Arc<OwnedFd>) {
        let at = self.dir.path().join(name);
        fs::create_dir_all(&at).unwrap();
        let fd = dir::open_root(&at).unwrap();
        (at, Arc::new(fd))
    }

    /// A blob of bytes that somebody else made.
    pub(super) fn blob(&self, bytes: &[u8]) -> Descriptor {
        let digest = self.store.put_blob(bytes).unwrap();
        Descriptor::new("a/lie", digest, bytes.len() as u64)
    }

    pub(super) fn tar_of(&self, layer: &Layer) -> Vec<u8> {
        let mut plain = Vec::new();
        let blob = self.store.open_blob(&layer.blob).unwrap().unwrap();
        decompress(blob).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    /// Reads a hostile tar both ways; they must agree.
    pub(super) fn try_tar(&self, tar: &[u8], below: &Chain) -> Result<Arc<Index>, Error> {
        let (blob, diff_id) = (self.blob(tar), DiffId(Digest::of(tar)));
        let read = index(&self.store, &blob, &diff_id, below);
        let room = tempfile::tempdir_in(self.dir.path()).unwrap();
        let lowers: Vec<Lower> =
            below.layers().iter().map(|index| Lower { index: Arc::clone(index), dir: self.dir.path().join("lower") }).collect();
        let extracted = extract(&self.store, &blob, &diff_id, &dir::open_root(room.path()).unwrap(), &lowers, Owners::Real);
        match (&read, &extracted) {
            (Ok(read), Ok(extracted)) => assert_eq!(read, extracted),
            (Err(read), Err(extracted)) => assert_eq!(read.to_string(), extracted.to_string()),
            (read, extracted) => unreachable!("{read:?} but {extracted:?}"),
        }
        // Before the layers below are known it is the same, or nothing.
        let room = tempfile::tempdir_in(self.dir.path()).unwrap();
        let alone = extract_alone(&self.store, &blob, &diff_id, &dir::open_root(room.path()).unwrap(), Owners::Real);
        match (&read, alone) {
            (_, Ok(None)) => assert!(index_alone(&self.store, &blob, &diff_id).unwrap().is_none()),
            (Ok(read), Ok(Some(alone))) => assert_eq!(*read, alone),
            (Err(read), Err(alone)) => assert_eq!(read.to_string(), alone.to_string()),
            (read, alone) => unreachable!("{read:?} but {alone:?}"),
        }
        read
    }
}

/// Everything of a tree that may matter, as lines by path. Names of one inode share a number.
pub(super) fn snapshot(root: &Path) -> BTreeMap<Vec<u8>, String> {
    let mut inodes: BTreeMap<u64, usize> = BTreeMap::new();
    let mut all = BTreeMap::new();
    let mut walk: Vec<_> = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().map(Result::unwrap).collect();
    walk.sort_by(|left, right| left.path().cmp(right.path()));
    for each in walk {
        let stat = fs::symlink_metadata(each.path()).unwrap();
        let kind = stat.file_type();
        let whiteout = stat.mode() & 0o170_000 == 0o020_000 && stat.rdev() == 0;
        let next = inodes.len();
        let group = if kind.is_dir() || whiteout { 0 } else { *inodes.entry(stat.ino()).or_insert(next) + 1 };
        let content = match () {
            () if kind.is_file() => format!("{:?}", crate::tree::ContentDigest::of(&fs::read(each.path()).unwrap())),
            () if kind.is_symlink() => fs::read_link(each.path()).unwrap().display().to_string(),
            () => format!("{:o}", stat.rdev()),
        };
        let xattrs =
            if kind.is_file() || kind.is_dir() { dir::attributes(fs::File::open(each.path()).unwrap()).unwrap() } else { BTreeMap::new() };
        let links = if kind.is_dir() || whiteout { 0 } else { stat.nlink() };
        let times = if whiteout { (0, 0) } else { (stat.mtime(), stat.mtime_nsec()) };
        let mode = if whiteout { 0 } else { stat.mode() };
        let line = format!("{mode:o} {}:{} {times:?} inode {group} of {links} {content} {xattrs:?}", stat.uid(), stat.gid());
        drop(all.insert(each.path().strip_prefix(root).unwrap().as_os_str().as_bytes().to_vec(), line));
    }
    all
}

/// Owners and devices need root. In CI that is not an excuse.
#[expect(clippy::disallowed_methods, reason = "a test may ask whether it is in CI")]
pub(super) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(!std::env::var("CI").is_ok_and(|ci| ci == "true"), "this test must run as root in CI");
        println!("skipped: only root can give files away");
    }
    root
}

fn rich() -> Changes {
    let xattrs = Xattrs::from([(b"user.note".to_vec(), b"x\n18 path=evil\n\0".to_vec())]);
    let owned = Meta { mode: 0o4755, uid: 1000, gid: 60_000, mtime: -3, xattrs };
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(200));
    let mut all = changes(vec![
        ("bin", put(Node::Symlink(b"../usr//bin/".to_vec()))),
        ("etc", put(Node::Dir)),
        ("etc/passwd", file("root:x:0:0::/root:/bin/sh\n")),
        ("etc/pass", put(Node::HardLink(path("etc/group")))),
        ("etc/group", file("root:x:0:\n")),
        ("pipe", put(Node::Fifo)),
        ("set", Change::Put(owned, Node::File { size: 3, content: Content::Bytes(Arc::from(&b"abc"[..])), digest: None })),
        ("sticky", Change::Put(meta(0o1777), Node::Dir)),
        ("locked", Change::Put(meta(0), Node::Dir)),
        ("locked/in", file("")),
        (long.as_str(), file("deep")),
        (long.split('/').next().unwrap(), put(Node::Dir)),
    ]);
    drop(all.listed.insert(TreePath::parse(b"\xff\nname\xe2\x82\xac").unwrap(), file("bytes")));
    drop(all.listed.remove(&path("etc/pass")));
    drop(all.listed.insert(path("etc/passwd-"), put(Node::HardLink(path("etc/passwd")))));
    all
}

#[test]
fn what_is_written_is_indexed_and_extracted_as_it_was() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let mut last = None;
    for compression in [Compression::Gzip(6), Compression::Zstd(3), Compression::Uncompressed] {
        let layer = write(&bench.store, &rich(), &Chain::default(), compression).unwrap();
        assert_eq!(bench.store.index(&layer.diff_id).unwrap().as_ref(), Some(&*layer.index));
        assert_eq!(bench.store.layer_blob(&layer.diff_id, &compression.id()), Some(layer.blob.clone()));
        assert_eq!(*index(&bench.store, &layer.blob, &layer.diff_id, &Chain::default()).unwrap(), *layer.index);
        let (at, fd) = bench.room(&compression.id());
        assert_eq!(*extract(&bench.store, &layer.blob, &layer.diff_id, &fd, &[], Owners::Real).unwrap(), *layer.index);
        assert_eq!(Index::decode(layer.index.encode().to_vec()).unwrap(), *layer.index);
        assert_eq!(layer.index.kept(&path("etc/group")).map(|bytes| &bytes[..]), Some(&b"root:x:0:\n"[..]));
        let set = fs::symlink_metadata(at.join("set")).unwrap();
        assert_eq!((set.mode() & 0o7777, set.uid(), set.gid(), set.mtime()), (0o4755, 1000, 60_000, -3));
        assert_eq!(fs::symlink_metadata(at.join("locked")).unwrap().mode() & 0o7777, 0);
        assert_eq!(fs::symlink_metadata(at.join("etc/passwd")).unwrap().nlink(), 2);
        assert_eq!(fs::read_link(at.join("bin")).unwrap(), Path::new("../usr//bin/"));
        let now = (layer.diff_id, snapshot(&at));
        assert!(last.is_none_or(|last| last == now), "every compression holds the same");
        last = Some(now);
    }
}

#[test]
fn another_reader_sees_the_same_tar() {
    let bench = Bench::new();
    // That reader cuts PAX records at newlines.
    let mut all = rich();
    all.listed.retain(|at, _| !at.as_bytes().contains(&b'\n'));
    let layer = write(&bench.store, &all, &Chain::default(), Compression::Gzip(9)).unwrap();
    let tar = bench.tar_of(&layer);
    assert_eq!(layer.diff_id.0, Digest::of(&tar));
    let mut names = Vec::new();
    for entry in tar::Archive::new(tar.as_slice()).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path_bytes().into_owned();
        let header = entry.header().clone();
        assert_eq!((header.username_bytes(), header.groupname_bytes()), (Some(&b""[..]), Some(&b""[..])));
        if name == b"etc/passwd-" {
            assert_eq!(entry.link_name_bytes().unwrap().as_ref(), b"etc/passwd");
            assert!(header.entry_type().is_hard_link());
        }
        if name == b"set" {
            let mut body = String::new();
            entry.read_to_string(&mut body).unwrap();
            assert_eq!(body, "abc");
        }
        names.push(name);
    }
    let own: Vec<Vec<u8>> = layer
        .index
        .rows()
        .map(|(path, row)| match row {
            Row::Put { entry, .. } if entry.kind == Kind::Dir => [path.as_bytes(), b"/"].concat(),
            Row::Put { .. } | Row::Whiteout => path.as_bytes().to_vec(),
        })
        .collect();
    assert_eq!(names, own);
}

#[test]
fn nothing_changed_is_an_empty_tar_and_its_bytes_are_known() {
    let bench = Bench::new();
    let layer = write(&bench.store, &Changes::default(), &Chain::default(), Compression::Uncompressed).unwrap();
    assert_eq!(bench.tar_of(&layer), [0; 1024]);
    assert!(layer.index.is_empty());
    // The diff id that every builder gives to an empty layer of 1024 zeros.
    assert_eq!(layer.diff_id.to_string(), "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef");
}

#[test]
fn directories_above_a_change_come_from_the_chain_and_whiteouts_before_siblings() {
    let bench = Bench::new();
    let base = changes(vec![
        ("a", Change::Put(meta(0o700), Node::Dir)),
        ("a/b", Change::Put(meta(0o711), Node::Dir)),
        ("a/b/old", file("x")),
        ("a/b/zold", file("x")),
        ("top", file("x")),
    ]);
    let chain = Chain::default().with(write(&bench.store, &base, &Chain::default(), Compression::Uncompressed).unwrap().index);
    let next =
        changes(vec![("a/b/aaa", file("new")), ("a/b/old", Change::Whiteout), ("a/b/zold", Change::Whiteout), ("top", Change::Whiteout)]);
    let layer = write(&bench.store, &next, &chain, Compression::Uncompressed).unwrap();
    let tar = bench.tar_of(&layer);
    let mut entries = archive::Entries::new(tar.as_slice());
    let mut seen = Vec::new();
    while let Some(member) = entries.next_member().unwrap() {
        seen.push((String::from_utf8(member.name).unwrap(), member.meta.mode, member.meta.mtime));
    }
    let time = 1_700_000_000;
    let want = [
        (".wh.top", 0, 0),
        ("a/", 0o700, time),
        ("a/b/", 0o711, time),
        ("a/b/.wh.old", 0, 0),
        ("a/b/.wh.zold", 0, 0),
        ("a/b/aaa", 0o644, time),
    ];
    assert_eq!(seen, want.map(|(name, mode, mtime)| (name.to_owned(), mode, mtime)));
    assert_eq!(*index(&bench.store, &layer.blob, &layer.diff_id, &chain).unwrap(), *layer.index);
}

#[test]
fn names_that_would_mean_something_else_are_refused() {
    let bench = Bench::new();
    let refused = |all: Vec<(&str, Change)>| {
        let written = write(&bench.store, &changes(all), &Chain::default(), Compression::Uncompressed);
        matches!(written, Err(Error::BadName { .. }))
    };
    assert!(refused(vec![(".wh.a", file(""))]));
    assert!(refused(vec![("d", put(Node::Dir)), ("d/.wh..wh..opq", file(""))]));
    assert!(refused(vec![(".wh.d", put(Node::Dir))]));
    assert!(refused(vec![("none/a", file(""))]), "no such directory");
    assert!(refused(vec![("f", file("")), ("f/a", file(""))]), "below a file");
    assert!(refused(vec![("a", put(Node::HardLink(path("b")))), ("b", file(""))]), "a link to a later name");
    assert!(refused(vec![("a", put(Node::Char { major: 0, minor: 0 }))]), "a whiteout in disguise");
    assert!(refused(vec![("a", put(Node::Symlink(Vec::new())))]));
    assert!(refused(vec![(&"x".repeat(256), file(""))]));
}

#[test]
fn a_file_that_changed_is_noticed() {
    let bench = Bench::new();
    let (at, fd) = bench.room("context");
    fs::write(at.join("f"), "four").unwrap();
    fs::write(at.join("other"), "12345").unwrap();
    std::os::unix::fs::symlink("f", at.join("link")).unwrap();
    let write_as = |name: &str, size, digest| {
        let content = Content::Below { dir: Arc::clone(&fd), path: path(name), shown: Shown::As(name.into()) };
        write(
            &bench.store,
            &changes(vec![("f", Change::Put(meta(0o644), Node::File { size, content, digest }))]),
            &Chain::default(),
            Compression::Gzip(1),
        )
    };
    let right = ContentDigest::of(b"four");
    assert!(write_as("f", 4, Some(right)).is_ok());
    assert!(write_as("f", 4, None).is_ok());
    for (size, digest) in [(3, None), (5, None), (0, None), (4, Some(ContentDigest::of(b"FOUR")))] {
        assert!(matches!(write_as("f", size, digest), Err(Error::Changed { shown }) if shown == "f"), "{size}");
    }
    assert!(matches!(write_as("link", 4, None), Err(Error::Path(_))), "no link is followed");
}

fn arbitrary_changes() -> impl Strategy<Value = Changes> {
    let name = "[a-c\u{e9}]{1,3}";
    let node = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..1500).prop_map(|bytes| Node::File {
            size: bytes.len() as u64,
            digest: Some(ContentDigest::of(&bytes)),
            content: Content::Bytes(Arc::from(bytes)),
        }),
        Just(Node::Dir),
        "[a-z./]{1,150}".prop_map(|text| Node::Symlink(text.into_bytes())),
        Just(Node::Fifo),
        (1_u32..4096, 0_u32..1 << 20).prop_map(|(major, minor)| Node::Char { major, minor }),
    ];
    let metas = (0_u32..0o10000, 0..u32::MAX, 0..u32::MAX, any::<i32>());
    let change = prop_oneof![
        9 => (metas, node).prop_map(|((mode, uid, gid, mtime), node)| {
            Change::Put(Meta { mode, uid, gid, mtime: i64::from(mtime) * 5, xattrs: Xattrs::new() }, node)
        }),
        1 => Just(Change::Whiteout),
    ];
    proptest::collection::vec((proptest::collection::vec(name, 1..4), change), 0..12).prop_map(|list| {
        let mut all = Changes::default();
        for (parts, change) in list {
            let at = path(&parts.join("/"));
            for dir in at.ancestors().into_iter().skip(1) {
                drop(all.listed.insert(dir, put(Node::Dir)));
            }
            let has_below = all.listed.keys().any(|have| have.is_within(&at) && *have != at);
            if !has_below {
                drop(all.listed.insert(at, change));
            }
        }
        // What was put below something that became no directory afterwards cannot be written.
        let files: Vec<TreePath> =
            all.listed.iter().filter(|(_, change)| !matches!(change, Change::Put(_, Node::Dir))).map(|(at, _)| at.clone()).collect();
        all.listed.retain(|at, _| files.iter().all(|file| file == at || !at.is_within(file)));
        all
    })
}

/// Writes and reads without a store: no file, no thread.
fn emitted(changes: &Changes) -> (Vec<u8>, Index) {
    let mut tar = Vec::new();
    let index = write::emit(changes, &Chain::default(), &mut tar).unwrap();
    (tar, index)
}

proptest! {
    #[test]
    fn any_changes_read_back_as_they_were_written(changes in arbitrary_changes()) {
        let (tar, index) = emitted(&changes);
        prop_assert_eq!(&emitted(&changes).0, &tar);
        prop_assert_eq!(&read::read(tar.as_slice(), read::Form::Layer, read::Below::Chain(&Chain::default()), &mut read::Nowhere).unwrap(), &index);
        prop_assert_eq!(&Index::decode(index.encode().to_vec()).unwrap(), &index);
    }

    #[test]
    fn a_broken_tar_is_an_error_or_an_index_but_never_a_panic(at in 0_usize..20_000, byte in any::<u8>(), cut in 0_usize..20_000) {
        let (mut tar, _index) = emitted(&rich());
        let (at, cut) = (at % tar.len(), cut % tar.len());
        tar[at] = byte;
        tar.truncate(cut);
        if let Ok(read) = read::read(tar.as_slice(), read::Form::Layer, read::Below::Chain(&Chain::default()), &mut read::Nowhere) {
            prop_assert_eq!(Index::decode(read.encode().to_vec()).unwrap(), read);
        }
    }
}
