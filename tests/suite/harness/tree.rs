//! A layer's tar, and what several make together, read with the `tar` crate and the image specification alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    io::Read as _,
};

use super::sha256;

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A regular file: its bytes' size and SHA-256.
    File { size: u64, sha256: String },
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink(Vec<u8>),
    /// Anything else, by the letter of its type.
    Other(u8),
}

/// A path's owner, mode, time and kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    pub(crate) mtime: u64,
    pub(crate) kind: Kind,
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// The first name of its inode in its layer, if it is a further one.
    pub(crate) link: Option<String>,
}

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04o} {}:{} {:?} link {:?} xattrs {:?}", self.mode, self.uid, self.gid, self.kind, self.link, self.xattrs)
    }
}

/// A row of a layer: a path, and what is there; `None`: a whiteout.
pub(crate) type Row = (String, Option<Node>);

/// Reads a layer's tar and holds it to the rules of layers: relative clean paths, no duplicate, parents first,
/// no names of owners, hard links to what came before.
pub(crate) fn read_layer(tar: &[u8], foreign: bool) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    let mut seen: BTreeMap<String, Node> = BTreeMap::new();
    let mut archive = tar::Archive::new(tar);
    for entry in archive.entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = clean(&entry.path_bytes());
        if path.is_empty() {
            assert!(foreign, "a layer has no entry for its root");
            continue;
        }
        if !foreign {
            check_rules(&path, entry.header(), &rows, &seen);
        }
        let (dir, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let gone = if dir.is_empty() { hidden.to_owned() } else { format!("{dir}/{hidden}") };
            // An opaque directory keeps its marker as its name: `dir/.wh..opq`.
            rows.push((gone, None));
            continue;
        }
        let node = read_node(&mut entry, &seen);
        drop(seen.insert(path.clone(), node.clone()));
        rows.push((path, Some(node)));
    }
    rows
}

/// What lapstrake promises of its own layers beyond what others may do.
fn check_rules(path: &str, header: &tar::Header, rows: &[Row], seen: &BTreeMap<String, Node>) {
    assert!(!seen.contains_key(path), "`{path}` is twice in one layer");
    let names = (header.username_bytes().unwrap_or_default(), header.groupname_bytes().unwrap_or_default());
    assert!(names.0.is_empty() && names.1.is_empty(), "`{path}` has the name of an owner");
    if let Some((parent, _)) = path.rsplit_once('/') {
        assert!(rows.iter().any(|(have, node)| have == parent && node.is_some()), "`{path}` comes without its directory");
    }
}

fn read_node(entry: &mut tar::Entry<'_, &[u8]>, seen: &BTreeMap<String, Node>) -> Node {
    let mut xattrs = BTreeMap::new();
    if let Ok(Some(extensions)) = entry.pax_extensions() {
        for extension in extensions.map(Result::unwrap) {
            if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix("SCHILY.xattr.")) {
                drop(xattrs.insert(name.to_owned(), extension.value_bytes().to_vec()));
            }
        }
    }
    let header = entry.header().clone();
    let kind = match header.entry_type() {
        tar::EntryType::Regular | tar::EntryType::Continuous => {
            let mut bytes = Vec::new();
            let size = entry.read_to_end(&mut bytes).unwrap() as u64;
            Kind::File { size, sha256: sha256(&bytes) }
        }
        tar::EntryType::Directory => Kind::Dir,
        tar::EntryType::Symlink => Kind::Symlink(entry.link_name_bytes().unwrap().into_owned()),
        tar::EntryType::Link => {
            let target = clean(&entry.link_name_bytes().unwrap());
            let first = seen.get(&target).unwrap_or_else(|| panic!("a hard link to `{target}`, which did not come before"));
            return Node { link: Some(target), ..first.clone() };
        }
        other => Kind::Other(other.as_byte()),
    };
    Node {
        mode: header.mode().unwrap() & 0o7777,
        uid: header.uid().unwrap(),
        gid: header.gid().unwrap(),
        mtime: header.mtime().unwrap(),
        kind,
        xattrs,
        link: None,
    }
}

/// The path of an entry without `./` and a trailing `/`; nothing that climbs.
fn clean(path: &[u8]) -> String {
    let path = path.strip_prefix(b"./").unwrap_or(path);
    let text: String = path.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    let text = text.trim_end_matches('/');
    assert!(!text.starts_with('/') && !text.split('/').any(|part| part == ".."), "`{text}` climbs");
    if text == "." { String::new() } else { text.to_owned() }
}

/// The file tree that layers make, base first.
pub(crate) fn merged<'a>(layers: impl IntoIterator<Item = &'a Vec<Row>>) -> BTreeMap<String, Node> {
    let mut tree: BTreeMap<String, Node> = BTreeMap::new();
    for layer in layers {
        let own: BTreeSet<&str> = layer.iter().filter(|(_, node)| node.is_some()).map(|(path, _)| path.as_str()).collect();
        for (path, node) in layer {
            match node {
                None => {
                    if let Some(dir) = path.strip_suffix(".wh..opq") {
                        tree.retain(|have, _| !have.starts_with(dir) || own.contains(have.as_str()));
                    } else if !own.contains(path.as_str()) {
                        remove(&mut tree, path);
                    }
                }
                Some(node) => {
                    if node.kind != Kind::Dir || tree.get(path).is_some_and(|old| old.kind != Kind::Dir) {
                        remove(&mut tree, path);
                    }
                    drop(tree.insert(path.clone(), node.clone()));
                }
            }
        }
    }
    tree
}

fn remove(tree: &mut BTreeMap<String, Node>, path: &str) {
    let below = format!("{path}/");
    tree.retain(|have, _| have != path && !have.starts_with(&below));
}

/// Every path on which two trees differ, in words; times do not count.
pub(crate) fn differences(one: &BTreeMap<String, Node>, other: &BTreeMap<String, Node>) -> Vec<String> {
    let paths: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
    let mut all = Vec::new();
    for path in paths {
        match (one.get(path), other.get(path)) {
            (Some(left), Some(right)) => {
                let right_at_left_time = Node { mtime: left.mtime, ..right.clone() };
                if *left != right_at_left_time {
                    all.push(format!("{path}: {left} / {right}"));
                }
            }
            (left, _) => all.push(format!("{path}: only in the {}", if left.is_some() { "first" } else { "second" })),
        }
    }
    all
}
