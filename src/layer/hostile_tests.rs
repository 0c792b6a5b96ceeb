//! Layers as somebody hostile makes them: names that lead outside, links, whiteouts, nodes, duplicates, lies.

use std::{fs, io::Write as _};

use super::{
    tests::{Bench, changes, file, is_root, meta, path, put},
    *,
};
use crate::{
    oci::Digest,
    tree::{Kind, Row, Xattrs},
};

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
    let line = |(path, row): (TreePath, Row)| match row {
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
            format!("{path} {kind}{link}{}", if opaque { " opaque" } else { "" })
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
fn an_index_is_not_made_large_by_names_that_repeat_what_is_long() {
    let meta = Meta { xattrs: Xattrs::from([(b"user.a".to_vec(), vec![b'x'; 60_000])]), ..meta(0o644) };
    let head = header::Header { name: b"a", meta: &meta, type_flag: b'0', size: 0, link: b"", device: (0, 0) };
    let mut attributes = Tar(header::format(&head).unwrap());
    let long = ["d".repeat(200).as_str(); 20].join("/");
    let mut paths = Tar::new().file("y", "").hard(&long, "y");
    for number in 0..45_000 {
        paths = paths.hard(&format!("z{number}"), "y");
        if number % 15 == 0 {
            attributes = attributes.hard(&format!("b{number}"), "a");
        }
    }
    let bench = Bench::new();
    for tar in [attributes.end(), paths.end()] {
        let read = index(&bench.store, &bench.blob(&tar), &DiffId(Digest::of(&tar)), &Chain::default());
        let refused = read.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(refused.contains("repeat more"), "{refused}");
    }
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
    let index = extract(&bench.store, &base.blob, &base.diff_id, &fd, &[], Owners::Real).unwrap();
    let tar = Tar::new().hard("h", "f").hard("s", "l").end();
    assert_eq!(rows(&bench.try_tar(&tar, &Chain::default().with(index)).unwrap()), ["/h file 5", "/s -> x"]);
}

#[test]
fn a_layer_is_read_before_those_below_if_it_does_not_depend_on_them() {
    let bench = Bench::new();
    let alone = |tar: Tar| {
        let tar = tar.end();
        index_alone(&bench.store, &bench.blob(&tar), &DiffId(Digest::of(&tar))).unwrap().map(|index| rows(&index))
    };
    let found = alone(Tar::new().dir("d").file("d/.wh.x", "").file("d/f", "1").hard("d/g", "d/f").file(".wh.gone", ""));
    assert_eq!(found.unwrap(), ["/d dir", "/d/f file 1", "/d/g file 1 = /d/f", "/d/x gone", "/gone gone"]);
    for (tar, why) in [
        (Tar::new().file("d/f", ""), "the directory may be a link below"),
        (Tar::new().hard("h", "f"), "a link to a file below"),
        (Tar::new().file(".wh..wh..opq", ""), "all names below are gone"),
        (Tar::new().file("d/.wh.x", ""), "a whiteout in a directory that it does not have"),
        (Tar::new().link("l", "d").file("l/f", ""), "a link of its own leads below"),
    ] {
        assert!(alone(tar).is_none(), "{why}");
    }
}

#[test]
fn account_files_are_kept_but_not_without_end() {
    let bench = Bench::new();
    let mut tar = Tar::new();
    for at in 0..40 {
        tar = tar.file(&format!("d{at}/passwd"), "x");
    }
    let tar = tar.file("etc/group", "g").file("etc/passwd", &"x".repeat((1 << 20) + 1)).file("usr/lib/other", "x").end();
    let index = index(&bench.store, &bench.blob(&tar), &DiffId(Digest::of(&tar)), &Chain::default()).unwrap();
    assert_eq!(index.all_kept().count(), 17);
    assert!(index.kept(&path("etc/group")).is_some());
    assert!(index.kept(&path("etc/passwd")).is_none(), "more than a MiB");
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
