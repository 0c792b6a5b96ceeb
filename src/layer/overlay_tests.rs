//! Steps on a real overlay: what they leave is diffed, written, sealed, and compared with the extraction. Each is done once
//! more in a merged tree, which must give the same layer and be left as a new merged tree would be.

use std::{
    fs,
    io::Write as _,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixListener},
    },
    path::Path,
};

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen};

use super::{
    tests::{Bench, changes, file, is_root, meta, path, put, snapshot},
    *,
};
use crate::{
    sys::dir,
    tree::{Row, Xattrs},
};

/// An overlay that is mounted nowhere: reached through its fd, gone with it.
fn overlay(lowers: &[&Path], upper: &Path, work: &Path) -> OwnedFd {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_flag(&fs, "userxattr").unwrap();
    for lower in lowers {
        fsconfig_set_string(&fs, "lowerdir+", *lower).unwrap();
    }
    fsconfig_set_string(&fs, "upperdir", upper).unwrap();
    fsconfig_set_string(&fs, "workdir", work).unwrap();
    fsconfig_create(&fs).unwrap();
    fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

/// A base image that is extracted, and a place for steps on it.
struct Stage {
    bench: Bench,
    lowers: Vec<Lower>,
    chain: Chain,
    steps: usize,
    merged: Merged,
}

/// What a step left.
struct Left {
    changes: Changes,
    layer: Layer,
}

impl Stage {
    fn on(base: &Changes) -> Self {
        let bench = Bench::new();
        let layer = write(&bench.store, base, &Chain::default(), Compression::Uncompressed).unwrap();
        let (at, fd) = bench.room("base");
        let index = extract(&bench.store, &layer.blob, &layer.diff_id, &fd, &[], Owners::Real).unwrap();
        let (_, fd) = bench.room("merged");
        let mut merged = Merged::new(fd.try_clone().unwrap(), Owners::Real).unwrap();
        let lowers = vec![Lower { index: Arc::clone(&index), dir: at }];
        merged.fit(&lowers).unwrap();
        Self { bench, lowers, chain: Chain::new(vec![index]), steps: 0, merged }
    }

    /// Runs a step, and holds what is sealed against what is extracted.
    fn step(&mut self, stubs: &[&str], step: impl Fn(&Path)) -> Left {
        self.steps += 1;
        let (upper, fd) = self.bench.room(&format!("upper{}", self.steps));
        let (work, _work) = self.bench.room(&format!("work{}", self.steps));
        let lowers: Vec<&Path> = self.lowers.iter().rev().map(|lower| lower.dir.as_path()).collect();
        let root = overlay(&lowers, &upper, &work);
        step(Path::new(&format!("/proc/self/fd/{}", root.as_raw_fd())));
        drop(root);
        let stubs: Vec<TreePath> = stubs.iter().map(|stub| path(stub)).collect();
        let changes = diff(&fd, &self.chain, &stubs, None).unwrap();
        let layer = write(&self.bench.store, &changes, &self.chain, Compression::Gzip(1)).unwrap();
        seal(&fd, &layer.index, &stubs, Owners::Real).unwrap();
        let (extracted, into) = self.bench.room(&format!("extracted{}", self.steps));
        let index = extract(&self.bench.store, &layer.blob, &layer.diff_id, &into, &self.lowers, Owners::Real).unwrap();
        assert_eq!(*index, *layer.index);
        assert_eq!(snapshot(&upper), snapshot(&extracted), "a sealed tree is the extracted one");
        assert!(is_intact(&upper, &layer.index, Owners::Real));
        let (laid, into) = self.bench.room(&format!("laid{}", self.steps));
        lay_out(&changes, &self.chain, &layer.diff_id, &into, &self.lowers, Owners::Real).unwrap();
        assert_eq!(snapshot(&laid), snapshot(&extracted), "a tree that is made without the blob is the extracted one");
        let left = Left { changes, layer };
        self.step_merged(&stubs, &step, &left);
        let layer = &left.layer;
        self.chain = self.chain.with(Arc::clone(&layer.index));
        self.lowers.push(Lower { index: Arc::clone(&layer.index), dir: upper });
        left
    }

    /// The same in the merged tree.
    fn step_merged(&mut self, stubs: &[TreePath], step: impl Fn(&Path), overlay: &Left) {
        let before = self.merged.before().unwrap();
        step(&self.bench.dir.path().join("merged"));
        let worked = self.merged.diff(&before, stubs, None).unwrap();
        let layer = write(&self.bench.store, &worked.changes, &self.chain, Compression::Uncompressed).unwrap();
        self.merged.settle(&worked, &layer.index).unwrap();
        assert_eq!(without_times(&worked.changes), without_times(&overlay.changes), "a copy gives what an overlay gives");
        let (cold, fd) = self.bench.room(&format!("cold{}", self.steps));
        let (extracted, into) = self.bench.room(&format!("again{}", self.steps));
        let index = extract(&self.bench.store, &layer.blob, &layer.diff_id, &into, &self.lowers, Owners::Real).unwrap();
        let lowers: Vec<Lower> = self.lowers.iter().cloned().chain([Lower { index, dir: extracted }]).collect();
        Merged::new(fd.try_clone().unwrap(), Owners::Real).unwrap().fit(&lowers).unwrap();
        assert_eq!(snapshot(&self.bench.dir.path().join("merged")), snapshot(&cold), "a warm tree is a cold one");
        // The next step goes on from the overlay's layer, whose times are others.
        let fresh = Lower { index: Arc::clone(&overlay.layer.index), dir: self.bench.dir.path().join(format!("extracted{}", self.steps)) };
        let lowers: Vec<Lower> = self.lowers.iter().cloned().chain([fresh]).collect();
        self.merged.fit(&lowers).unwrap();
    }
}

fn without_times(changes: &Changes) -> Vec<String> {
    let line = |(path, change): (&TreePath, &Change)| match change {
        Change::Whiteout => format!("{path} gone"),
        Change::Put(meta, node) => {
            let node = if let Node::File { size, .. } = node { format!("file of {size}") } else { format!("{node:?}") };
            format!("{path} {:o} {}:{} {:?} {node}", meta.mode, meta.uid, meta.gid, meta.xattrs)
        }
    };
    changes.listed.iter().map(line).collect()
}

impl Left {
    fn lines(&self) -> Vec<String> {
        let line = |(path, change): (&TreePath, &Change)| match change {
            Change::Whiteout => format!("{path} gone"),
            Change::Put(_, node) => match node {
                Node::File { size, .. } => format!("{path} file {size}"),
                Node::Dir => format!("{path} dir"),
                Node::Symlink(target) => format!("{path} -> {}", String::from_utf8_lossy(target)),
                Node::HardLink(first) => format!("{path} = {first}"),
                Node::Char { .. } | Node::Block { .. } => format!("{path} device"),
                Node::Fifo => format!("{path} pipe"),
            },
        };
        self.changes.listed.iter().map(line).collect()
    }
}

fn base() -> Changes {
    changes(vec![
        ("a", put(Node::Dir)),
        ("a/one", file("1")),
        ("a/two", file("22")),
        ("a/sub", put(Node::Dir)),
        ("a/sub/deep", file("deep")),
        ("etc", put(Node::Dir)),
        ("etc/passwd", file("root:x:0:0::/:/bin/sh\n")),
        ("link", put(Node::Symlink(b"a".to_vec()))),
        ("twin", file("twin")),
        ("twin2", put(Node::HardLink(path("twin")))),
        ("var", Change::Put(meta(0o1777), Node::Dir)),
        ("var/log", file("old")),
    ])
}

#[test]
fn the_attributes_of_a_file_are_held_once_for_all_its_names() {
    if !is_root() {
        return;
    }
    let left = Stage::on(&base()).step(&[], |root| {
        fs::write(root.join("a/x"), "x").unwrap();
        rustix::fs::setxattr(root.join("a/x"), "user.note", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        fs::hard_link(root.join("a/x"), root.join("a/y")).unwrap();
    });
    let held = ["a/x", "a/y"].map(|name| match &left.changes.listed[&path(name)] {
        Change::Put(meta, _) => meta.xattrs.len(),
        Change::Whiteout => panic!("{name} is there"),
    });
    assert_eq!(held, [1, 0]);
}

#[test]
fn a_step_that_changes_nothing_leaves_nothing() {
    if !is_root() {
        return;
    }
    let mut stage = Stage::on(&base());
    let left = stage.step(&["var/stub", "mnt", "new.conf"], |root| {
        // Copied up, and nothing else.
        drop(fs::OpenOptions::new().append(true).open(root.join("a/one")).unwrap());
        fs::set_permissions(root.join("a/two"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::set_permissions(root.join("a/two"), fs::Permissions::from_mode(0o644)).unwrap();
        fs::set_permissions(root.join("var"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::set_permissions(root.join("var"), fs::Permissions::from_mode(0o1777)).unwrap();
        drop(fs::OpenOptions::new().append(true).open(root.join("twin")).unwrap());
        fs::write(root.join("a/gone"), "x").unwrap();
        fs::remove_file(root.join("a/gone")).unwrap();
        drop(UnixListener::bind(root.join("var/socket")).unwrap());
        // Mountpoints that were made for the step.
        fs::write(root.join("var/stub"), "").unwrap();
        fs::create_dir(root.join("mnt")).unwrap();
        fs::write(root.join("mnt/below"), "").unwrap();
        fs::write(root.join("new.conf"), "").unwrap();
    });
    assert!(left.lines().is_empty(), "{:?}", left.lines());
    assert!(left.layer.index.is_empty());
}

#[test]
fn a_directory_that_was_made_again_is_whiteouts_for_what_it_lost() {
    if !is_root() {
        return;
    }
    let mut stage = Stage::on(&base());
    let left = stage.step(&[], |root| {
        fs::remove_dir_all(root.join("a")).unwrap();
        fs::create_dir_all(root.join("a/sub")).unwrap();
        for dir in ["a", "a/sub"] {
            fs::set_permissions(root.join(dir), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::write(root.join("a/two"), "new").unwrap();
    });
    assert_eq!(left.lines(), ["/a/one gone", "/a/sub/deep gone", "/a/two file 3"]);
    let left = stage.step(&[], |root| {
        assert_eq!(fs::read_dir(root.join("a/sub")).unwrap().count(), 0);
        fs::remove_dir_all(root.join("a")).unwrap();
    });
    assert_eq!(left.lines(), ["/a gone"]);
}

#[test]
fn kinds_that_change_into_another_are_seen() {
    if !is_root() {
        return;
    }
    let mut stage = Stage::on(&base());
    let left = stage.step(&[], |root| {
        fs::remove_file(root.join("link")).unwrap();
        fs::create_dir(root.join("link")).unwrap();
        fs::write(root.join("link/in"), "x").unwrap();
        fs::remove_dir_all(root.join("a")).unwrap();
        fs::write(root.join("a"), "now a file").unwrap();
        fs::remove_file(root.join("var/log")).unwrap();
        drop(UnixListener::bind(root.join("var/log")).unwrap());
        fs::remove_file(root.join("twin")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("twin")).unwrap();
    });
    assert_eq!(left.lines(), ["/a file 10", "/link dir", "/link/in file 1", "/twin -> nowhere", "/var/log gone"]);
    let left = stage.step(&[], |root| {
        fs::remove_file(root.join("a")).unwrap();
        fs::create_dir(root.join("a")).unwrap();
    });
    assert_eq!(left.lines(), ["/a dir"]);
    assert!(stage.chain.names(&path("a")).is_empty(), "what was below it two layers ago stays gone");
}

#[test]
fn links_attributes_owners_and_strange_names_come_through() {
    if !is_root() {
        return;
    }
    let mut stage = Stage::on(&base());
    let capability = [vec![1, 0, 0, 2], vec![0, 4, 0, 0], vec![0; 12]].concat();
    let left = stage.step(&[], |root| {
        fs::write(root.join("new1"), "shared").unwrap();
        fs::create_dir(root.join("zdir")).unwrap();
        fs::hard_link(root.join("new1"), root.join("zdir/new2")).unwrap();
        // A new name of a file that is beneath: both are emitted, so that they stay one inode.
        fs::hard_link(root.join("a/one"), root.join("a/uno")).unwrap();
        // Writing to one of two names below breaks them apart.
        fs::OpenOptions::new().append(true).open(root.join("twin2")).unwrap().write_all(b"!").unwrap();
        let dir = dir::open_root(root).unwrap();
        let tool = dir::create_file(&dir, b"tool").unwrap();
        dir::set_owner_open(&tool, 33, 44).unwrap();
        dir::set_attribute(&tool, b"security.capability", &capability).unwrap();
        dir::set_attribute(&tool, b"user.note", b"kept").unwrap();
        dir::set_attribute(&tool, b"user.overlay.opaque", b"a program's own").unwrap();
        dir::set_mode_open(&tool, 0o751).unwrap();
        dir::make_node(&dir, b"pipe", dir::FileKind::Fifo).unwrap();
        dir::make_symlink(&dir, b"dangling", b"../../\xff/x").unwrap();
        dir::set_owner(&dir, b"dangling", 5, 6).unwrap();
        drop(dir::create_file(&dir, b"\xfe\n name").unwrap());
        fs::set_permissions(root.join("etc"), fs::Permissions::from_mode(0o500)).unwrap();
    });
    assert_eq!(
        left.lines(),
        [
            "/a/one file 1",
            "/a/uno = /a/one",
            "/dangling -> ../../\u{fffd}/x",
            "/etc dir",
            "/new1 file 6",
            "/pipe pipe",
            "/tool file 0",
            "/twin2 file 5",
            "/zdir dir",
            "/zdir/new2 = /new1",
            "/\u{fffd}\\n name file 0",
        ]
    );
    let Some(Row::Put { entry, .. }) = left.layer.index.row(&path("tool")) else { unreachable!() };
    let own = Xattrs::from([(b"security.capability".to_vec(), capability), (b"user.note".to_vec(), b"kept".to_vec())]);
    assert_eq!((entry.meta.uid, entry.meta.gid, entry.meta.mode, &entry.meta.xattrs), (33, 44, 0o751, &own));
    // A step after that sees them, and copying them up is no change.
    let left = stage.step(&[], |root| {
        drop(fs::OpenOptions::new().append(true).open(root.join("tool")).unwrap());
        assert!(dir::attribute(fs::File::open(root.join("tool")).unwrap(), b"security.capability").unwrap().is_some());
    });
    assert!(left.lines().is_empty(), "{:?}", left.lines());
}

#[test]
fn a_real_name_that_looks_like_a_whiteout_is_an_error() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let (at, fd) = bench.room("upper");
    fs::write(at.join(".wh.precious"), "").unwrap();
    assert!(matches!(diff(&fd, &Chain::default(), &[], None), Err(Error::BadName { .. })));
    fs::remove_file(at.join(".wh.precious")).unwrap();
    fs::create_dir_all(at.join("d/.wh.x")).unwrap();
    assert!(matches!(diff(&fd, &Chain::default(), &[], None), Err(Error::BadName { .. })));
}

#[test]
fn sealing_what_is_not_the_layers_tree_is_an_error() {
    if !is_root() {
        return;
    }
    let bench = Bench::new();
    let layer = write(&bench.store, &base(), &Chain::default(), Compression::Uncompressed).unwrap();
    let (at, fd) = bench.room("upper");
    assert!(matches!(seal(&fd, &layer.index, &[], Owners::Real), Err(Error::Changed { .. })));
    fs::write(at.join("a"), "a file").unwrap();
    assert!(matches!(seal(&fd, &layer.index, &[], Owners::Real), Err(Error::Changed { .. })));
}
