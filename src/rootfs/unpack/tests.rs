//! Archives laid over a draft.

use std::{fs, io::Write as _};

use super::super::tests::{Files, chain, lines, path, to};
use super::*;
use crate::{layer::Node, tree::Chain};

/// Members as `(name, content)`: a trailing `/` is a directory, `-> x` a link, `= x` a hard link. 1:2, 0640 and 0750.
fn tar(members: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, text) in members {
        let mut header = tar::Header::new_ustar();
        header.set_uid(1);
        header.set_gid(2);
        header.set_mtime(77);
        header.set_size(0);
        let old = header.as_old_mut();
        old.name[..name.len()].copy_from_slice(name.as_bytes());
        let mut body: &[u8] = b"";
        if let Some(target) = text.strip_prefix("-> ") {
            old.linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(tar::EntryType::Symlink);
        } else if let Some(target) = text.strip_prefix("= ") {
            old.linkname[..target.len()].copy_from_slice(target.as_bytes());
            header.set_entry_type(tar::EntryType::Link);
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
        } else {
            header.set_entry_type(tar::EntryType::Regular);
            body = text.as_bytes();
        }
        header.set_mode(if name.ends_with('/') { 0o750 } else { 0o640 });
        header.set_size(body.len() as u64);
        header.set_cksum();
        builder.append(&header, body).unwrap();
    }
    builder.into_inner().unwrap()
}

struct Unpacked {
    changes: Result<Vec<String>, String>,
    bytes: Vec<(String, Vec<u8>)>,
}

fn unpack_with(archive: &[u8], placement: Placement, below: &Chain, tree: Option<Tree>) -> Unpacked {
    let files = Files::new(&[]);
    fs::write(files.path("a.tar"), archive).unwrap();
    let spool_dir = tempfile::tempdir().unwrap();
    let spool = Spool::new(Arc::new(dir::open_root(spool_dir.path()).unwrap()));
    let spool = match tree {
        Some(tree) => spool.over(tree),
        None => spool,
    };
    let placement = Placement { unpack: Some(Arc::new(spool)), ..placement };
    let mut draft = Draft::new(below.clone());
    if let Err(error) = draft.apply(&files.select(&["a.tar"]).unwrap(), &placement) {
        return Unpacked { changes: Err(error.to_string()), bytes: Vec::new() };
    }
    let changes = draft.finish();
    let mut bytes = Vec::new();
    for (path, change) in &changes.all().unwrap() {
        if let layer::Change::Put(_, Node::File { content, digest, .. }) = change {
            let mut all = Vec::new();
            match content {
                Content::Bytes(kept) => all.extend_from_slice(kept),
                Content::Bundled(part) => drop(part.reader().read_to_end(&mut all).unwrap()),
                Content::Below { dir, path, .. } => drop(dir::open_file(&**dir, path.as_os_path()).unwrap().read_to_end(&mut all).unwrap()),
            }
            assert_eq!(*digest, Some(ContentDigest::of(&all)));
            bytes.push((path.to_string(), all));
        }
    }
    Unpacked { changes: Ok(lines(&changes)), bytes }
}

fn unpack(members: &[(&str, &str)], dest: &str, below: &[(&str, &str)]) -> Result<Vec<String>, String> {
    unpack_with(&tar(members), to(dest), &chain(below), None).changes
}

#[expect(clippy::unnecessary_wraps, reason = "it is compared with results")]
fn want<const N: usize>(lines: [&str; N]) -> Result<Vec<String>, String> {
    Ok(lines.map(str::to_owned).to_vec())
}

#[test]
fn members_keep_their_owners_and_modes_and_the_destination_its_own() {
    let members = [("./", ""), ("d/", ""), ("d/f", "1"), ("d/l", "-> f"), ("d/h", "= d/f"), ("implied/x", "")];
    assert_eq!(
        unpack(&members, "/x", &[]),
        want([
            "x dir 0755 0:0",
            "x/d dir 0750 1:2",
            "x/d/f file(1) 0640 1:2",
            "x/d/h = /x/d/f 0640 1:2",
            "x/d/l -> f 0777 1:2",
            "x/implied dir 0755 0:0",
            "x/implied/x file(0) 0640 1:2",
        ])
    );
    let chowned = Placement { chown: Some((100, 200)), ..to("/out/") };
    assert_eq!(
        unpack_with(&tar(&[("foo", "1")]), chowned, &Chain::default(), None).changes,
        want(["out dir 0755 100:200", "out/foo file(1) 0640 100:200"])
    );
}

#[test]
fn every_packing_is_unpacked_and_what_is_no_archive_is_copied() {
    let plain = tar(&[("f", "1")]);
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&plain).unwrap();
    let mut bzip = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip.write_all(&plain).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&plain).unwrap();
    for packed in [
        plain.clone(),
        gzip.finish().unwrap(),
        bzip.finish().unwrap(),
        xz.finish().unwrap(),
        zstd::encode_all(plain.as_slice(), 1).unwrap(),
    ] {
        assert_eq!(unpack_with(&packed, to("/"), &Chain::default(), None).changes, want(["f file(1) 0640 1:2"]));
    }
    for other in [&b""[..], b"no archive", &[0; 1024], &zstd::encode_all(&b"text"[..], 1).unwrap()] {
        let copied = unpack_with(other, to("/x/"), &Chain::default(), None).changes.unwrap();
        assert_eq!(copied, ["x dir 0755 0:0".to_owned(), format!("x/a.tar file({}) 0644 0:0", other.len())]);
    }
    assert_eq!(unpack(&[], "/x/", &[]).unwrap().len(), 2, "an archive without members is a file");
}

#[test]
fn links_are_followed_with_the_destination_as_the_root() {
    let members = [("up", "-> .."), ("up/etc/f", "1"), ("abs", "-> /etc"), ("abs/g", "22")];
    assert_eq!(
        unpack(&members, "/x/", &[]),
        want([
            "x dir 0755 0:0",
            "x/abs -> /etc 0777 1:2",
            "x/etc dir 0755 0:0",
            "x/etc/f file(1) 0640 1:2",
            "x/etc/g file(2) 0640 1:2",
            "x/up -> .. 0777 1:2"
        ])
    );
    let base = [("lib", "-> /usr/lib"), ("usr/", ""), ("usr/lib/", "")];
    assert_eq!(unpack(&[("lib/x.so", "1")], "/", &base), want(["usr/lib/x.so file(1) 0640 1:2"]));
    assert_eq!(unpack(&[("f", "1")], "/l", &[("l", "-> /real"), ("real/", "")]), want(["real/f file(1) 0640 1:2"]));
}

#[test]
fn a_member_replaces_what_is_there() {
    let base = [("d/", ""), ("d/x", ""), ("d/y", ""), ("l", "-> d"), ("f", "old")];
    assert_eq!(unpack(&[("d", "file")], "/", &base), want(["d file(4) 0640 1:2"]));
    assert_eq!(unpack(&[("l/", "")], "/", &base), want(["l dir 0750 1:2"]), "a directory over a link");
    assert_eq!(unpack(&[("f/", ""), ("f/g", "")], "/", &base), want(["f dir 0750 1:2", "f/g file(0) 0640 1:2"]));
    assert_eq!(unpack(&[("d/", "")], "/", &base), want(["d dir 0750 1:2"]), "its entries stay");
    assert_eq!(unpack(&[("l", "new")], "/", &base), want(["l file(3) 0640 1:2"]), "a file is not written through a link");
    assert_eq!(
        unpack(&[("d", "file"), ("d/", ""), ("d/y", "3")], "/", &base),
        want(["d dir 0750 1:2", "d/x gone", "d/y file(1) 0640 1:2"])
    );
    assert_eq!(unpack(&[("n/a", "1"), ("n", "file"), ("n/", "")], "/", &[]), want(["n dir 0750 1:2"]));
    assert_eq!(unpack(&[("a", "1"), ("a", "22")], "/", &[]), want(["a file(2) 0640 1:2"]), "the last of two is it");
}

#[test]
fn names_that_climb_out_are_errors_and_others_are_clean() {
    for name in ["../x", "a/../../x", "/../x", "d/./../../x"] {
        let error = unpack(&[("ok", ""), (name, "1")], "/deep/dest", &[]).unwrap_err();
        assert!(error.contains(&format!("its entry `{name}` leads out of the destination")), "{error}");
    }
    assert!(unpack(&[("h", "= ../../etc/passwd")], "/d", &[]).unwrap_err().contains("leads out"));
    assert_eq!(
        unpack(&[("/abs", "1"), ("a/../b", "2"), (".//c", "3")], "/", &[]),
        want(["abs file(1) 0640 1:2", "b file(1) 0640 1:2", "c file(1) 0640 1:2"])
    );
}

#[test]
fn a_link_without_its_file_a_file_as_directory_and_loops_are_errors() {
    assert!(unpack(&[("h", "= nothing")], "/", &[]).unwrap_err().contains("which is not there"));
    assert!(unpack(&[("d/", ""), ("h", "= d")], "/", &[]).unwrap_err().contains("hard link to a directory"));
    assert!(unpack(&[("f", ""), ("f/x", "")], "/", &[]).is_err());
    assert!(unpack(&[("l", "-> l"), ("l/x", "")], "/", &[]).unwrap_err().contains("too many levels"));
    assert!(unpack(&[(".", "file")], "/", &[]).unwrap_err().contains("would replace the destination"));
    let chmod = Placement { chmod: Some(super::super::ModeChange::Octal(0o600)), ..to("/") };
    assert!(unpack_with(&tar(&[("f", "1")]), chmod, &Chain::default(), None).changes.unwrap_err().starts_with("--chmod"));
}

#[test]
fn a_damaged_archive_is_an_error_that_names_it() {
    let mut cut = tar(&[("f", &"x".repeat(3000)), ("g", "")]);
    cut.truncate(1500);
    let error = unpack_with(&cut, to("/"), &Chain::default(), None).changes.unwrap_err();
    assert!(error.contains("a.tar"), "{error}");
}

#[test]
fn large_members_go_through_the_spool_and_links_to_them_are_links() {
    let big = "x".repeat(100_000);
    let unpacked = unpack_with(&tar(&[("z", &big), ("a", "= z"), ("m", "= a")]), to("/"), &Chain::default(), None);
    assert_eq!(unpacked.changes, want(["a file(100000) 0640 1:2", "m = /a 0640 1:2", "z = /a 0640 1:2"]));
    assert_eq!(unpacked.bytes, [("/a".to_owned(), big.into_bytes())]);
}

#[test]
fn a_link_to_a_file_below_takes_its_bytes_from_the_trees() {
    let below = chain(&[("etc/", ""), ("etc/f", "old")]);
    let members = [("etc/g", "= etc/f")];
    let error = unpack_with(&tar(&members), to("/"), &below, None).changes.unwrap_err();
    assert_eq!(error, "an archive links to `/etc/f`, which is in a layer below");
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("etc")).unwrap();
    fs::write(tree.path().join("etc/f"), "old").unwrap();
    let dir = Arc::new(dir::open_root(tree.path()).unwrap());
    let unpacked = unpack_with(&tar(&members), to("/"), &below, Some(Tree::extracted(below.clone(), vec![dir], "base")));
    assert_eq!(unpacked.changes, want(["etc/f file(3) 0644 0:0", "etc/g = /etc/f 0644 0:0"]));
    assert_eq!(unpacked.bytes, [("/etc/f".to_owned(), b"old".to_vec())]);
    assert!(below.look_up(&path("etc/f")).is_some());
}
