//! Layers written, read back, extracted and compared, honest ones and hostile ones.

use std::{
    collections::BTreeMap,
    fs,
    io::{Read as _, Write as _},
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
    Changes(all.into_iter().map(|(name, change)| (path(name), change)).collect())
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
    fn blob(&self, bytes: &[u8]) -> Descriptor {
        let digest = self.store.put_blob(bytes).unwrap();
        Descriptor::new("a/lie", digest, bytes.len() as u64)
    }

    fn tar_of(&self, layer: &Layer) -> Vec<u8> {
        let mut plain = Vec::new();
        let blob = self.store.open_blob(&layer.blob).unwrap().unwrap();
        decompress(blob).unwrap().read_to_end(&mut plain).unwrap();
        plain
    }

    /// Reads a hostile tar both ways; they must agree.
    fn try_tar(&self, tar: &[u8], below: &Chain) -> Result<Arc<Index>, Error> {
        let (blob, diff_id) = (self.blob(tar), DiffId(Digest::of(tar)));
        let read = index(&self.store, &blob, &diff_id, below);
        let room = tempfile::tempdir_in(self.dir.path()).unwrap();
        let lowers: Vec<Lower> =
            below.layers().iter().map(|index| Lower { index: Arc::clone(index), dir: self.dir.path().join("lower") }).collect();
        let extracted = extract(&self.store, &blob, &diff_id, &dir::open_root(room.path()).unwrap(), &lowers);
        match (&read, &extracted) {
            (Ok(read), Ok(extracted)) => assert_eq!(read, extracted),
            (Err(read), Err(extracted)) => assert_eq!(read.to_string(), extracted.to_string()),
            (read, extracted) => unreachable!("{read:?} but {extracted:?}"),
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
        assert!(std::env::var("CI").is_ok_and(|ci| ci != "true"), "this test must run as root in CI");
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
    drop(all.0.insert(TreePath::parse(b"\xff\nname\xe2\x82\xac").unwrap(), file("bytes")));
    drop(all.0.remove(&path("etc/pass")));
    drop(all.0.insert(path("etc/passwd-"), put(Node::HardLink(path("etc/passwd")))));
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
        assert_eq!(*extract(&bench.store, &layer.blob, &layer.diff_id, &fd, &[]).unwrap(), *layer.index);
        assert_eq!(Index::decode(&layer.index.encode()).unwrap(), *layer.index);
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
    all.0.retain(|at, _| !at.as_bytes().contains(&b'\n'));
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
        let content = Content::Below { dir: Arc::clone(&fd), path: path(name), shown: name.into() };
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
                drop(all.0.insert(dir, put(Node::Dir)));
            }
            let has_below = all.0.keys().any(|have| have.is_within(&at) && *have != at);
            if !has_below {
                drop(all.0.insert(at, change));
            }
        }
        // What was put below something that became no directory afterwards cannot be written.
        let files: Vec<TreePath> =
            all.0.iter().filter(|(_, change)| !matches!(change, Change::Put(_, Node::Dir))).map(|(at, _)| at.clone()).collect();
        all.0.retain(|at, _| files.iter().all(|file| file == at || !at.is_within(file)));
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
        prop_assert_eq!(&read::read(tar.as_slice(), &Chain::default(), &mut read::Nowhere).unwrap(), &index);
        prop_assert_eq!(&Index::decode(&index.encode()).unwrap(), &index);
    }

    #[test]
    fn a_broken_tar_is_an_error_or_an_index_but_never_a_panic(at in 0_usize..20_000, byte in any::<u8>(), cut in 0_usize..20_000) {
        let (mut tar, _index) = emitted(&rich());
        let (at, cut) = (at % tar.len(), cut % tar.len());
        tar[at] = byte;
        tar.truncate(cut);
        if let Ok(read) = read::read(tar.as_slice(), &Chain::default(), &mut read::Nowhere) {
            prop_assert_eq!(Index::decode(&read.encode()).unwrap(), read);
        }
    }
}

/// Entries as a hostile writer makes them: any name, any target.
struct Tar(Vec<u8>);

impl Tar {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn add(mut self, name: &[u8], type_flag: u8, link: &[u8], body: &[u8]) -> Self {
        let meta = meta(0o644);
        let head = header::Header { name, meta: &meta, type_flag, size: body.len() as u64, link, device: (0, 0) };
        self.0.extend(header::format(&head).unwrap());
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str, body: &str) -> Self {
        self.add(name.as_bytes(), b'0', b"", body.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.add(name.as_bytes(), b'5', b"", b"")
    }

    fn link(self, name: &str, target: &str) -> Self {
        self.add(name.as_bytes(), b'2', target.as_bytes(), b"")
    }

    fn hard(self, name: &str, target: &str) -> Self {
        self.add(name.as_bytes(), b'1', target.as_bytes(), b"")
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend(header::END);
        self.0
    }
}

fn rows(index: &Index) -> Vec<String> {
    let line = |(path, row): (&TreePath, &Row)| match row {
        Row::Whiteout => format!("{path} gone"),
        Row::Put { entry, link, opaque } => {
            let kind = match &entry.kind {
                Kind::File { size, .. } => format!("file {size}"),
                Kind::Dir => "dir".to_owned(),
                Kind::Symlink { target } => format!("-> {}", String::from_utf8_lossy(target)),
                Kind::Char { .. } | Kind::Block { .. } => "device".to_owned(),
                Kind::Fifo => "pipe".to_owned(),
            };
            let link = link.as_ref().map_or(String::new(), |first| format!(" = {first}"));
            format!("{path} {kind}{link}{}", if *opaque { " opaque" } else { "" })
        }
    };
    index.rows().map(line).collect()
}

#[test]
fn names_and_links_that_lead_outside_are_refused_or_stay_inside() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let none = Chain::default();
    let refused = |tar: Tar| matches!(bench.try_tar(&tar.end(), &none), Err(Error::BadLayer { .. }));
    for name in ["../x", "a/../../x", "a/..", ".."] {
        assert!(refused(Tar::new().file(name, "x")), "{name}");
    }
    assert_eq!(rows(&bench.try_tar(&Tar::new().file("/abs//./x", "x").end(), &none).unwrap()), ["/abs dir", "/abs/x file 1"]);
    // Through a link: inside the root, whatever the link says.
    let through = Tar::new().link("out", target).file("out/pwned", "x").end();
    assert!(bench.try_tar(&through, &none).unwrap().row(&path(&format!("{target}/pwned"))).is_some());
    let up = Tar::new().link("up", "../../../../..").file("up/pwned", "x").end();
    assert!(rows(&bench.try_tar(&up, &none).unwrap()).contains(&"/pwned file 1".to_owned()));
    assert!(refused(Tar::new().link("e", "e").file("e/x", "x")), "a loop");
    assert!(refused(Tar::new().file("f", "").file("f/x", "x")), "below a file");
    for hard in
        [Tar::new().hard("h", "../../etc/passwd"), Tar::new().hard("h", "/etc/passwd"), Tar::new().hard("h", "h"), Tar::new().hard("h", "")]
    {
        assert!(refused(hard));
    }
    assert!(refused(Tar::new().dir("d").hard("h", "d")), "a link to a directory");
    assert!(refused(Tar::new().dir("d").hard("d", "d/f")), "a link to what it replaces");
    assert!(refused(Tar::new().link("out", target).hard("h", "out/keep")), "a link through a link");
    let of_link = Tar::new().link("l", "/etc/passwd").hard("h", "l").end();
    assert_eq!(rows(&bench.try_tar(&of_link, &none).unwrap()), ["/h -> /etc/passwd", "/l -> /etc/passwd = /h"]);
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
}

#[test]
fn whiteouts_name_something_beneath_or_are_refused() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let base = changes(vec![
        ("d", put(Node::Dir)),
        ("d/x", file("x")),
        ("l", put(Node::Symlink(b"d".to_vec()))),
        ("r", put(Node::Dir)),
        ("s", file("")),
    ]);
    let lower = write(&bench.store, &base, &Chain::default(), Compression::Uncompressed).unwrap();
    let below = Chain::default().with(lower.index);
    for name in [".wh.", "d/.wh.", ".wh..", ".wh...", ".wh..wh.x", ".wh..wh..wh.x", ".wh.d/x", "../.wh.x"] {
        assert!(matches!(bench.try_tar(&Tar::new().file(name, "").end(), &below), Err(Error::BadLayer { .. })), "{name}");
    }
    let read = |tar: Tar| rows(&bench.try_tar(&tar.end(), &below).unwrap());
    assert_eq!(read(Tar::new().file("l/.wh.x", "")), ["/d dir", "/d/x gone"], "through a link, inside the root");
    assert_eq!(read(Tar::new().file("d/.wh..wh..opq", "").file("d/n", "")), ["/d dir opaque", "/d/n file 0"]);
    assert_eq!(read(Tar::new().file("d/n", "").file("d/.wh..wh..opq", "")), ["/d dir opaque", "/d/n file 0"], "in any order");
    assert_eq!(read(Tar::new().dir("d").file(".wh.d", "").file("d/n", "")), ["/d dir opaque", "/d/n file 0"]);
    assert_eq!(read(Tar::new().file(".wh.d", "").file("d/n", "")), ["/d dir opaque", "/d/n file 0"]);
    assert_eq!(read(Tar::new().file(".wh.s", "").file("s", "new")), ["/s file 3"]);
    assert_eq!(read(Tar::new().file(".wh..wh..opq", "").dir("r")), ["/d gone", "/l gone", "/r dir opaque", "/s gone"], "the root");
    assert!(read(Tar::new().file(".wh..wh.plnk/1.2", "x").file(".wh..wh.aufs", "")).is_empty(), "what aufs kept for itself");
}

#[test]
fn duplicates_and_disorder_end_as_the_last_entry_says() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let read = |tar: Tar| rows(&bench.try_tar(&tar.end(), &Chain::default()).unwrap());
    assert_eq!(read(Tar::new().file("a", "1").file("a", "22")), ["/a file 2"]);
    assert_eq!(read(Tar::new().file("z", "").file("a", "")), ["/a file 0", "/z file 0"]);
    assert_eq!(read(Tar::new().dir("a").file("a/b", "").file("a", "f")), ["/a file 1"], "a file over a directory");
    assert_eq!(read(Tar::new().dir("t").link("a", "t").dir("a").file("a/b", "")), ["/a dir opaque", "/a/b file 0", "/t dir"]);
    assert_eq!(read(Tar::new().dir("t").file("t/f", "").link("t", "x").file("t/g", "")), ["/t -> x", "/x dir", "/x/g file 0"]);
    assert_eq!(read(Tar::new().file("b", "1").hard("a", "b").file("b", "22")), ["/a file 1", "/b file 2"]);
    assert_eq!(read(Tar::new().file("b", "1").hard("a", "b").hard("c", "/a")), ["/a file 1", "/b file 1 = /a", "/c file 1 = /a"]);
    assert_eq!(read(Tar::new().dir("a").file("a/b", "").dir("a")), ["/a dir", "/a/b file 0"], "attributes, not entries, are replaced");
}

#[test]
fn a_hard_link_to_a_lower_layer_is_a_copy() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let base = write(
        &bench.store,
        &changes(vec![("f", file("below")), ("l", put(Node::Symlink(b"x".to_vec())))]),
        &Chain::default(),
        Compression::Gzip(1),
    )
    .unwrap();
    let (_at, fd) = bench.room("lower");
    let index = extract(&bench.store, &base.blob, &base.diff_id, &fd, &[]).unwrap();
    let tar = Tar::new().hard("h", "f").hard("s", "l").end();
    assert_eq!(rows(&bench.try_tar(&tar, &Chain::default().with(index)).unwrap()), ["/h file 5", "/s -> x"]);
}

#[test]
fn strange_nodes_and_names_are_kept_or_refused() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let none = Chain::default();
    let read = |tar: Tar| bench.try_tar(&tar.end(), &none);
    assert!(read(Tar::new().add(b"w", b'3', b"", b"")).is_err(), "a device 0:0 is a whiteout in disguise");
    assert!(read(Tar::new().add(b"w", b'4', b"", b"")).is_ok());
    assert!(read(Tar::new().file(&"n".repeat(256), "")).is_err());
    assert!(read(Tar::new().file(&"d/".repeat(2100), "")).is_err(), "longer than a path may be");
    assert!(read(Tar::new().dir(&"d/".repeat(2000))).is_ok(), "as deep as a path may be");
    assert!(read(Tar::new().link("l", &"t/".repeat(2100))).is_err());
    assert!(read(Tar::new().link("l", "")).is_err());
    assert!(read(Tar::new().add(b"\xff\n\x1b[31m", b'0', b"", b"x")).is_ok());
    assert!(read(Tar::new().add(b".", b'2', b"/", b"")).is_err(), "the root is a link");
    assert_eq!(rows(&read(Tar::new().dir("./")).unwrap()), ["/ dir"]);
}

#[test]
fn bytes_that_are_not_what_was_promised_are_noticed_at_the_end() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let tar = Tar::new().file("a", "x").end();
    let read = |blob: &Descriptor, plain: &[u8]| index(&bench.store, blob, &DiffId(Digest::of(plain)), &Chain::default());
    assert!(read(&bench.blob(&tar), &tar).is_ok());
    assert!(matches!(read(&bench.blob(&tar), b"other"), Err(Error::BadLayer { reason, .. }) if reason.contains("should be")));
    // Bytes after the end mark count for the diff id.
    let longer = [tar.as_slice(), b"garbage"].concat();
    assert!(read(&bench.blob(&longer), &tar).is_err());
    assert!(read(&bench.blob(&longer), &longer).is_ok());
    // Bytes after the compressed data are no part of anything.
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar).unwrap();
    let gzip = gzip.finish().unwrap();
    assert!(read(&bench.blob(&gzip), &tar).is_ok());
    assert!(read(&bench.blob(&[gzip.as_slice(), b"garbage"].concat()), &tar).is_err());
    assert!(read(&bench.blob(&gzip[..gzip.len() - 9]), &tar).is_err());
    // A blob whose bytes are not those of its digest.
    let blob = bench.blob(&gzip);
    let on_disk = bench.store.root().join("blobs/sha256").join(blob.digest.hex());
    let mut bytes = fs::read(&on_disk).unwrap();
    bytes[9] ^= 1;
    fs::remove_file(&on_disk).unwrap();
    fs::write(&on_disk, bytes).unwrap();
    assert!(read(&blob, &tar).is_err());
    assert!(index(&bench.store, &Descriptor::new("a/b", Digest::of(b"absent"), 6), &DiffId(Digest::of(b"")), &Chain::default()).is_err());
}

#[test]
fn overlays_own_attributes_are_not_an_images_to_set() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let xattrs = [&b"user.overlay.opaque"[..], b"user.overlay.whiteout", b"user.lapstrake.owner", b"user.mine", b"trusted.x"];
    let meta = Meta { xattrs: xattrs.map(|name| (name.to_vec(), b"y".to_vec())).into(), ..meta(0o755) };
    let head = header::Header { name: b"d/", meta: &meta, type_flag: b'5', size: 0, link: b"", device: (0, 0) };
    let mut tar = header::format(&head).unwrap();
    tar.extend(header::END);
    let read = bench.try_tar(&tar, &Chain::default()).unwrap();
    let Some(Row::Put { entry, .. }) = read.row(&path("d")) else { unreachable!() };
    assert_eq!(entry.meta.xattrs.keys().collect::<Vec<_>>(), [b"user.mine"]);
}
