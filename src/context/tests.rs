//! What a context selects, on real directories.

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use super::*;

struct Dir(tempfile::TempDir);

impl Dir {
    fn new(files: &[(&str, &str)]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = dir.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn context(&self, ignore: &str) -> Context {
        Context::open(self.0.path(), PatternList::parse_ignorefile(ignore.as_bytes()).unwrap()).unwrap()
    }
}

fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

fn names(context: &Context, dir: &str) -> Vec<String> {
    context.names(&path(dir)).unwrap().into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
}

#[test]
fn ignored_files_are_not_there_and_can_be_told_from_missing_ones() {
    let dir = Dir::new(&[("a", ""), ("secret", ""), ("d/x.log", ""), ("d/y", ""), ("node/m/f", "")]);
    let context = dir.context("secret\n**/*.log\nnode\n");
    assert_eq!(names(&context, ""), ["a", "d"]);
    assert_eq!(names(&context, "d"), ["y"]);
    assert_eq!(context.look_up(&path("node/m/f")).unwrap(), None);
    assert!(context.hidden_by(&path("secret")).is_some() && context.hidden_by(&path("node/m/f")).is_some());
    assert!(context.hidden_by(&path("nope")).is_none() && context.hidden_by(&path("a")).is_none());
}

#[test]
fn an_ignored_directory_is_there_if_something_below_it_is_taken_back() {
    let dir = Dir::new(&[("sub/keep/f", ""), ("sub/drop", ""), ("other/f", "")]);
    let context = dir.context("*\n!sub/keep\n");
    assert_eq!(names(&context, ""), ["sub"]);
    assert_eq!(names(&context, "sub"), ["keep"]);
    assert_eq!(names(&context, "sub/keep"), ["f"]);
}

#[test]
fn links_are_followed_as_data_and_stop_at_the_root() {
    let dir = Dir::new(&[("d/f", "")]);
    symlink("/d", dir.path("abs")).unwrap();
    symlink("../../../../etc", dir.path("up")).unwrap();
    symlink("loop", dir.path("loop")).unwrap();
    let context = dir.context("");
    assert_eq!(context.resolve(&path("abs/f"), true).unwrap(), path("d/f"));
    assert_eq!(context.resolve(&path("up/passwd"), true).unwrap(), path("etc/passwd"));
    assert_eq!(context.look_up(&path("abs/f")).unwrap(), None);
    assert!(matches!(context.resolve(&path("loop"), true), Err(Error::Unresolved(Unresolved::Loop(_)))));
}

#[test]
fn a_digest_is_of_a_file_that_did_not_change_since_it_was_listed() {
    let dir = Dir::new(&[("f", "one"), ("g", "")]);
    let context = dir.context("");
    assert_eq!(context.read(&path("f")).unwrap().0, ContentDigest::of(b"one"));
    fs::write(dir.path("f"), "other").unwrap();
    assert!(matches!(context.read(&path("f")), Err(Error::Changed { shown }) if shown == "f"));
    assert_eq!(context.read(&path("g")).unwrap().0, ContentDigest::of(b""));
}

#[test]
fn what_is_no_regular_file_is_never_opened() {
    let dir = Dir::new(&[("d/f", "")]);
    dir::make_node(dir::open_root(dir.0.path()).unwrap(), b"pipe", FileKind::Fifo).unwrap();
    let context = dir.context("");
    assert_eq!(context.look_up(&path("pipe")).unwrap().unwrap().stat.kind, FileKind::Fifo);
    assert!(context.read(&path("pipe")).is_err());
}

#[test]
fn an_unreadable_file_is_named_with_what_the_kernel_said() {
    let error =
        refused("read", &path("d/f"), PathError { op: "open", path: "x".into(), source: std::io::ErrorKind::PermissionDenied.into() });
    assert_eq!(error.to_string(), "read `d/f`");
    assert!(matches!(error, Error::Path(error) if error.source.kind() == std::io::ErrorKind::PermissionDenied));
}

#[test]
fn user_attributes_are_kept_and_those_of_overlayfs_are_not() {
    let dir = Dir::new(&[("f", "")]);
    let file = fs::File::open(dir.path("f")).unwrap();
    if dir::set_attribute(&file, b"user.a", b"1").is_err() {
        return; // this file system has no attributes
    }
    dir::set_attribute(&file, b"user.overlay.opaque", b"y").unwrap();
    let xattrs = dir.context("").read(&path("f")).unwrap().1;
    assert_eq!(xattrs.into_iter().collect::<Vec<_>>(), [(b"user.a".to_vec(), b"1".to_vec())]);
}

#[test]
fn a_capability_of_a_namespace_loses_its_root() {
    let mut value = vec![1, 0, 0, 3];
    value.extend_from_slice(&[7; 16]);
    value.extend_from_slice(&[9; 4]);
    let plain = plain_capability(value.clone());
    assert_eq!((plain.len(), &plain[..4]), (20, &[1, 0, 0, 2][..]));
    assert_eq!(plain_capability(plain.clone()), plain);
}

#[test]
fn the_ignore_file_beside_the_dockerfile_replaces_that_of_the_context() {
    let dir =
        Dir::new(&[("ctx/.dockerignore", "a\n"), ("ctx/Dockerfile", ""), ("df/x.Dockerfile", ""), ("df/x.Dockerfile.dockerignore", "b\n")]);
    let ctx = dir.path("ctx");
    let patterns = |dockerfile: Option<PathBuf>| ignore_patterns(&ctx, dockerfile.as_deref()).unwrap().patterns;
    assert!(patterns(None).excludes(b"a"));
    assert!(patterns(Some(ctx.join("Dockerfile"))).excludes(b"a"));
    let own = patterns(Some(dir.path("df/x.Dockerfile")));
    assert!(own.excludes(b"b") && !own.excludes(b"a"));
}

#[test]
fn an_ignore_file_of_foreign_origin_cannot_lead_out_of_the_context() {
    let dir = Dir::new(&[("outside", "a\n"), ("ctx/inner", "b\n")]);
    let link = dir.path("ctx/.dockerignore");
    symlink("../outside", &link).unwrap();
    assert!(!ignore_patterns(&dir.path("ctx"), None).unwrap().patterns.excludes(b"a"));
    fs::remove_file(&link).unwrap();
    symlink("inner", &link).unwrap();
    assert!(ignore_patterns(&dir.path("ctx"), None).unwrap().patterns.excludes(b"b"));
    fs::remove_file(&link).unwrap();
    fs::write(&link, vec![b'a'; (1 << 20) + 1]).unwrap();
    assert!(matches!(ignore_patterns(&dir.path("ctx"), None), Err(Error::TooLong { .. })));
}
