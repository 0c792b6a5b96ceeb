//! Trees as data: COPY, ADD and WORKDIR on real indexes.

use std::{fs, os::unix::fs::symlink, path::PathBuf, sync::Arc};

use super::{draft::Draft, *};
use crate::{
    layer::{Change, Changes, Node},
    pattern::PatternList,
    tree::{Chain, Entry, IndexBuilder, Kind, Meta, Row},
};

/// A context directory.
pub(super) struct Files(pub(super) tempfile::TempDir);

impl Files {
    pub(super) fn new(files: &[(&str, &str)]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            let path = dir.path(name);
            if name.ends_with('/') {
                fs::create_dir_all(path).unwrap();
                continue;
            }
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            match text.strip_prefix("-> ") {
                Some(target) => symlink(target, path).unwrap(),
                None => fs::write(path, text).unwrap(),
            }
        }
        dir
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(super) fn mode(self, name: &str, mode: u32) -> Self {
        use std::os::unix::fs::PermissionsExt as _;
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
        self
    }

    pub(super) fn context(&self) -> Context {
        self.ignoring("")
    }

    pub(super) fn ignoring(&self, patterns: &str) -> Context {
        Context::open(self.0.path(), PatternList::parse_ignorefile(patterns.as_bytes()).unwrap()).unwrap()
    }

    pub(super) fn select(&self, paths: &[&str]) -> Result<Selection, Error> {
        select(&self.context(), &spec(paths))
    }
}

/// What is told of a selection.
fn paths_of(selection: &Selection) -> Vec<Told> {
    let mut all = Vec::new();
    let mut take = |told| {
        all.push(told);
        Ok::<_, Error>(())
    };
    selection.tell(&mut take).unwrap();
    all
}

pub(super) fn spec(paths: &[&str]) -> CopySpec {
    CopySpec { paths: paths.iter().map(|&path| path.to_owned()).collect(), ..CopySpec::default() }
}

pub(super) fn path(text: &str) -> TreePath {
    TreePath::parse(text.as_bytes()).unwrap()
}

pub(super) fn to(dest: &str) -> Placement {
    Placement { dest: dest.to_owned(), now: 1000, ..Placement::default() }
}

/// A chain of one layer: a trailing `/` is a directory, `-> x` a link, else a file. All root's, 0755 and 0644.
pub(super) fn chain(entries: &[(&str, &str)]) -> Chain {
    let mut builder = IndexBuilder::default();
    for (name, text) in entries {
        let (mode, kind) = match text.strip_prefix("-> ") {
            _ if name.ends_with('/') => (0o755, Kind::Dir),
            Some(target) => (0o777, Kind::Symlink { target: target.into() }),
            None => (0o644, Kind::File { size: text.len() as u64, content: ContentDigest::of(text.as_bytes()) }),
        };
        let meta = Meta { mode, uid: 0, gid: 0, mtime: 5, xattrs: Xattrs::new() };
        builder.put(path(name), Row::Put { entry: Entry { meta, kind }, link: None, opaque: false });
    }
    Chain::new(vec![Arc::new(builder.finish())])
}

/// Changes as lines: `a/b file 0644 0:0`.
pub(super) fn lines(changes: &Changes) -> Vec<String> {
    let line = |(path, change): (&TreePath, &Change)| {
        let name = String::from_utf8_lossy(path.as_bytes()).into_owned();
        match change {
            Change::Whiteout => format!("{name} gone"),
            Change::Put(meta, node) => {
                let kind = match node {
                    Node::File { size, .. } => format!("file({size})"),
                    Node::Dir => "dir".into(),
                    Node::Symlink(target) => format!("-> {}", String::from_utf8_lossy(target)),
                    Node::HardLink(to) => format!("= {to}"),
                    Node::Char { .. } | Node::Block { .. } | Node::Fifo => format!("{node:?}"),
                };
                format!("{name} {kind} {:04o} {}:{}", meta.mode, meta.uid, meta.gid)
            }
        }
    };
    changes.all().unwrap().iter().map(line).collect()
}

fn copied(files: &Files, paths: &[&str], placement: &Placement, below: &Chain) -> Result<Vec<String>, Error> {
    let mut draft = Draft::new(below.clone());
    draft.apply(&files.select(paths)?, placement)?;
    Ok(lines(&draft.finish()))
}

fn onto_scratch(files: &Files, paths: &[&str], dest: &str) -> Vec<String> {
    copied(files, paths, &to(dest), &Chain::default()).unwrap()
}

#[test]
fn a_directory_gives_its_contents_and_not_itself() {
    let files = Files::new(&[("d/f", "1"), ("d/e/g", "22")]).mode("d", 0o700).mode("d/e", 0o750);
    let want = ["x dir 0755 0:0", "x/e dir 0750 0:0", "x/e/g file(2) 0644 0:0", "x/f file(1) 0644 0:0"];
    for (source, dest) in [("d", "/x"), ("d/", "/x/"), ("d/.", "/x"), ("/d", "/x"), ("../../d", "/x")] {
        assert_eq!(onto_scratch(&files, &[source], dest), want, "{source}");
    }
    assert_eq!(onto_scratch(&files, &["d/f", "d/e"], "/"), ["f file(1) 0644 0:0", "g file(2) 0644 0:0"]);
}

#[test]
fn a_file_goes_into_a_directory_or_to_the_very_path() {
    let files = Files::new(&[("f", "1")]).mode("f", 0o4755);
    assert_eq!(onto_scratch(&files, &["f"], "/a/b"), ["a dir 0755 0:0", "a/b file(1) 4755 0:0"]);
    assert_eq!(onto_scratch(&files, &["f"], "/a/"), ["a dir 0755 0:0", "a/f file(1) 4755 0:0"]);
    let below = chain(&[("a/", ""), ("link", "-> a")]);
    assert_eq!(copied(&files, &["f"], &to("/a"), &below).unwrap(), ["a/f file(1) 4755 0:0"]);
    assert_eq!(copied(&files, &["f"], &to("/link"), &below).unwrap(), ["a/f file(1) 4755 0:0"]);
}

#[test]
fn a_link_as_source_is_followed_and_links_inside_are_kept() {
    let files = Files::new(&[("f", "1"), ("l", "-> f"), ("dl", "-> d"), ("d/g", "22"), ("d/dangling", "-> /no/where"), ("d/e", "-> e")]);
    assert_eq!(onto_scratch(&files, &["l"], "/x/"), ["x dir 0755 0:0", "x/l file(1) 0644 0:0"]);
    assert_eq!(onto_scratch(&files, &["dl/g"], "/"), ["g file(2) 0644 0:0"]);
    let inside = ["dangling -> /no/where 0777 0:0", "e -> e 0777 0:0", "g file(2) 0644 0:0"];
    assert_eq!(onto_scratch(&files, &["dl"], "/"), inside);
}

#[test]
fn links_of_the_destination_are_followed_inside_the_image_only() {
    let files = Files::new(&[("f", "1")]);
    let below = chain(&[("a/", ""), ("a/l", "-> /../../etc"), ("etc/", ""), ("dangling", "-> made/here"), ("t", "old"), ("tl", "-> t")]);
    assert_eq!(copied(&files, &["f"], &to("/a/l/f"), &below).unwrap(), ["etc/f file(1) 0644 0:0"]);
    assert_eq!(
        copied(&files, &["f"], &to("/dangling/"), &below).unwrap(),
        ["made dir 0755 0:0", "made/here dir 0755 0:0", "made/here/f file(1) 0644 0:0"]
    );
    assert_eq!(copied(&files, &["f"], &to("/tl"), &below).unwrap(), ["t file(1) 0644 0:0"]);
    let named = chain(&[("a/", ""), ("a/f", "-> /etc/passwd")]);
    assert_eq!(copied(&files, &["f"], &to("/a/"), &named).unwrap(), ["a/f file(1) 0644 0:0"], "a link under the name itself is replaced");
}

#[test]
fn directories_that_were_there_keep_their_metadata_at_the_top_only() {
    let files = Files::new(&[("d/sub/f", "1")]).mode("d", 0o700).mode("d/sub", 0o711);
    let below = chain(&[("x/", ""), ("x/sub/", ""), ("x/sub/old", "")]);
    assert_eq!(copied(&files, &["d"], &to("/x"), &below).unwrap(), ["x/sub dir 0711 0:0", "x/sub/f file(1) 0644 0:0"]);
}

#[test]
fn a_file_does_not_become_a_directory_nor_the_reverse() {
    let files = Files::new(&[("f", "1"), ("d/x/y", "")]);
    let message =
        |paths: &[&str], dest: &str, below: &[(&str, &str)]| copied(&files, paths, &to(dest), &chain(below)).unwrap_err().to_string();
    assert_eq!(message(&["f"], "/file/g", &[("file", "")]), "mkdir /file: not a directory");
    assert_eq!(message(&["d"], "/file", &[("file", "")]), "cannot copy to non-directory: /file");
    assert_eq!(message(&["d"], "/", &[("x", "-> y"), ("y/", "")]), "cannot copy to non-directory: /x");
    assert_eq!(message(&["f"], "/a/", &[("a/", ""), ("a/f/", "")]), "cannot replace to directory /a/f with file");
    assert!(message(&["f"], "/l/x", &[("l", "-> l")]).contains("too many levels"));
}

#[test]
fn several_sources_need_a_directory() {
    let files = Files::new(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let error = copied(&files, &["a", "b"], &to("/t"), &Chain::default()).unwrap_err().to_string();
    assert!(error.starts_with("several sources cannot go to `/t`"), "{error}");
    assert!(copied(&files, &["?"], &to("/t"), &Chain::default()).is_err());
    assert_eq!(copied(&files, &["nothing*", "a"], &to("/t"), &Chain::default()).unwrap(), ["t file(1) 0644 0:0"]);
    assert_eq!(copied(&files, &["a", "b"], &to("/t"), &chain(&[("t/", "")])).unwrap().len(), 2);
}

#[test]
fn patterns_match_one_component_each_and_nothing_is_fine() {
    let files = Files::new(&[
        ("a.txt", ""),
        ("b.txt", ""),
        (".h.txt", ""),
        ("d1/f1", ""),
        ("d1/g", ""),
        ("d2/f2", ""),
        ("d2/e/f3", ""),
        ("arr[0].txt", ""),
        ("dead", "-> no"),
    ]);
    let of = |pattern: &str| {
        onto_scratch(&files, &[pattern], "/").into_iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of("*.txt"), [".h.txt", "a.txt", "arr[0].txt", "b.txt"]);
    assert_eq!(of("d?/f*"), ["f1", "f2"]);
    assert_eq!(of("[ab].txt"), ["a.txt", "b.txt"]);
    assert_eq!(of("arr[[]0].txt"), ["arr[0].txt"]);
    assert_eq!(of("arr\\[0].txt"), ["arr[0].txt"]);
    assert_eq!(of("d*/"), ["dead", "e", "e/f3", "f1", "f2", "g"]);
    assert_eq!(of("**/f3"), [] as [&str; 0]);
    assert!(onto_scratch(&files, &["zzz*"], "/made/").is_empty());
}

#[test]
fn a_stage_is_no_context_whatever_it_is_called() {
    let help = |of: &str| {
        let missing = Missing { path: "x".into(), of: of.into(), ignored: None, link: None, near: None };
        Error::Missing(Box::new(missing)).help().unwrap()
    };
    for of in ["stage `context`", "the image `example/context`", "scratch"] {
        assert!(help(of).contains("RUN ls"), "{of}");
    }
    for of in ["the build context", "the empty build context", "the context `stage`"] {
        assert!(help(of).contains("the context, and nowhere else"), "{of}");
    }
}

#[test]
fn a_missing_source_says_what_is_there_instead() {
    let files = Files::new(&[("src/main.rs", ""), ("secret", ""), ("dead", "-> no/where")]);
    let context = files.ignoring("secret\n");
    let error = |text: &str| select(&context, &spec(&[text])).unwrap_err();
    assert_eq!(error("nope").to_string(), "`nope` not found in the build context");
    assert_eq!(error("src/mian.rs").help().as_deref(), Some("did you mean `src/main.rs`?"));
    assert_eq!(error("scr/main.rs").help().as_deref(), Some("did you mean `src/main.rs`?"));
    assert_eq!(error("secret").to_string(), "`secret` not found: `secret` on line 1 of .dockerignore excludes it from the build context");
    assert_eq!(error("./secret").help().as_deref(), Some("take it back with `!secret` on a line below that one"));
    assert!(error("dead").to_string().contains("points to `no/where`, which does not exist there"));
}

#[test]
fn parents_are_kept_from_the_pivot_on() {
    let files = Files::new(&[("x/a.txt", ""), ("x/y/a.txt", ""), ("x/y/b.txt", ""), ("x/z/b.txt", ""), ("c/2", "")]).mode("c", 0o700);
    let of = |text: &str| {
        let spec = CopySpec { parents: true, ..spec(&[text]) };
        let mut draft = Draft::new(Chain::default());
        draft.apply(&select(&files.context(), &spec).unwrap(), &to("/p/")).unwrap();
        lines(&draft.finish()).into_iter().map(|line| line.split(" 0:0").next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let file = "file(0) 0644";
    assert_eq!(of("c/2"), ["p dir 0755", "p/c dir 0700", &format!("p/c/2 {file}")]);
    assert_eq!(of("./x/./y/*.txt"), ["p dir 0755", "p/y dir 0755", &format!("p/y/a.txt {file}"), &format!("p/y/b.txt {file}")]);
    assert_eq!(of("x/y/./a.txt"), ["p dir 0755", &format!("p/a.txt {file}")]);
    assert_eq!(
        of("**/b.txt"),
        ["p dir 0755", "p/x dir 0755", "p/x/y dir 0755", &format!("p/x/y/b.txt {file}"), "p/x/z dir 0755", &format!("p/x/z/b.txt {file}")]
    );
    assert_eq!(of("x/*/./a.txt"), ["p dir 0755", &format!("p/a.txt {file}")]);
    assert_eq!(of("./").len(), 1 + 9);
    assert_eq!(of("nothing*"), ["p dir 0755"]);
    assert_eq!(of("x/./nothing*"), ["p dir 0755"]);
    assert!(of("nothing*/./x").is_empty());
    let missing = select(&files.context(), &CopySpec { parents: true, ..spec(&["x/./nope"]) });
    assert!(matches!(missing, Err(Error::Missing(_))));
}

#[test]
fn exclusions_are_relative_to_each_source() {
    let files = Files::new(&[("k", ""), ("x.tmp", ""), ("d/e", ""), ("d/skip/f", ""), ("d/skip/keep", ""), ("d/y.tmp", "")]);
    let of = |exclude: &[&str], source: &str| {
        let spec = CopySpec { exclude: exclude.iter().map(|&text| text.to_owned()).collect(), ..spec(&[source]) };
        let mut draft = Draft::new(Chain::default());
        draft.apply(&select(&files.context(), &spec).unwrap(), &to("/")).unwrap();
        lines(&draft.finish()).into_iter().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(of(&["*.tmp", "d/skip"], "."), ["d", "d/e", "d/y.tmp", "k"]);
    assert_eq!(of(&["e", "**/*.tmp"], "d"), ["skip", "skip/f", "skip/keep"]);
    assert_eq!(of(&["skip", "!skip/keep"], "d"), ["e", "skip", "skip/keep", "y.tmp"]);
    assert_eq!(of(&["*.tmp"], "*"), ["e", "k", "skip", "skip/f", "skip/keep"]);
    // A directory that a pattern matches is a source: what is excluded is relative to it, not itself.
    assert_eq!(of(&["d"], "d*"), ["e", "skip", "skip/f", "skip/keep", "y.tmp"]);
}

#[test]
fn owners_and_modes_are_those_asked_for() {
    let files = Files::new(&[("d/f", "1"), ("d/l", "-> f"), ("d/e/x", "")]).mode("d/f", 0o600);
    let octal = Placement { chown: Some((3, 4)), chmod: Some(ModeChange::parse("0711").unwrap()), ..to("/a/b") };
    let want = [
        "a dir 0711 3:4",
        "a/b dir 0711 3:4",
        "a/b/e dir 0711 3:4",
        "a/b/e/x file(0) 0711 3:4",
        "a/b/f file(1) 0711 3:4",
        "a/b/l -> f 0777 3:4",
    ];
    assert_eq!(copied(&files, &["d"], &octal, &Chain::default()).unwrap(), want);
    let symbolic = Placement { chmod: Some(ModeChange::parse("go+rX,u+s").unwrap()), ..to("/a/") };
    assert_eq!(copied(&files, &["d/f"], &symbolic, &Chain::default()).unwrap(), ["a dir 0755 0:0", "a/f file(1) 4644 0:0"]);
}

#[test]
fn hard_links_of_one_source_stay_links() {
    let files = Files::new(&[("d/b", "1"), ("e/a", "2")]);
    fs::hard_link(files.path("d/b"), files.path("d/a")).unwrap();
    fs::hard_link(files.path("d/b"), files.path("outside")).unwrap();
    assert_eq!(onto_scratch(&files, &["d"], "/"), ["a file(1) 0644 0:0", "b = /a 0644 0:0"]);
    assert_eq!(onto_scratch(&files, &["d/a", "d/b"], "/"), ["a file(1) 0644 0:0", "b file(1) 0644 0:0"]);
    assert_eq!(onto_scratch(&files, &["d/[ab]"], "/"), ["a file(1) 0644 0:0", "b = /a 0644 0:0"]);
    assert_eq!(onto_scratch(&files, &["d", "e"], "/"), ["a file(1) 0644 0:0", "b file(1) 0644 0:0"], "the first of two names was replaced");
}

#[test]
fn a_link_copy_does_not_see_what_is_below() {
    let files = Files::new(&[("f", "1")]);
    let below = chain(&[("etc/", ""), ("l", "-> etc"), ("own/", "")]);
    let link = |dest: &str| Placement { link: true, ..to(dest) };
    assert_eq!(copied(&files, &["f"], &link("/l/f"), &below).unwrap(), ["l dir 0755 0:0", "l/f file(1) 0644 0:0"]);
    assert_eq!(copied(&files, &["f"], &link("/etc/f"), &below).unwrap(), ["etc/f file(1) 0644 0:0"], "nothing changes about /etc");
    assert_eq!(copied(&files, &["f"], &link("/own"), &below).unwrap(), ["own file(1) 0644 0:0"]);
    let chmod = Placement { chmod: Some(ModeChange::Octal(0o600)), ..link("/l/f") };
    assert_eq!(copied(&files, &["f"], &chmod, &below).unwrap(), ["etc/f file(1) 0600 0:0"]);
}

#[test]
fn what_does_not_differ_is_no_change() {
    let files = Files::new(&[("d/f", "same"), ("d/g", "new")]);
    let mut draft = Draft::new(Chain::default());
    draft.apply(&files.select(&["d"]).unwrap(), &to("/x/")).unwrap();
    let below = Chain::new(vec![index_of(&draft.finish())]);
    assert!(copied(&files, &["d"], &to("/x/"), &below).unwrap().is_empty());
    fs::write(files.path("d/g"), "newer").unwrap();
    assert_eq!(copied(&files, &["d"], &to("/x/"), &below).unwrap(), ["x/g file(5) 0644 0:0"]);
}

#[test]
fn links_that_are_as_they_were_are_no_change_and_others_are_all_told() {
    let files = Files::new(&[("d/a", "1"), ("d/c", "1")]);
    fs::hard_link(files.path("d/a"), files.path("d/b")).unwrap();
    let mut draft = Draft::new(Chain::default());
    draft.apply(&files.select(&["d"]).unwrap(), &to("/")).unwrap();
    let below = Chain::new(vec![index_of(&draft.finish())]);
    assert!(copied(&files, &["d"], &to("/"), &below).unwrap().is_empty());
    fs::remove_file(files.path("d/c")).unwrap();
    fs::hard_link(files.path("d/a"), files.path("d/c")).unwrap();
    assert_eq!(copied(&files, &["d"], &to("/"), &below).unwrap(), ["a file(1) 0644 0:0", "b = /a 0644 0:0", "c = /a 0644 0:0"]);
}

#[test]
fn odd_names_and_deep_directories_are_copied_as_they_are() {
    use std::os::unix::ffi::OsStrExt as _;
    let files = Files::new(&[]);
    let long = "n".repeat(255);
    let deep = format!("deep/{}", vec!["d"; 400].join("/"));
    for name in [b"caf\xe9".as_slice(), b"new\nline", b"\x1b[31m", b"sp ace", long.as_bytes(), b"[x]*?"] {
        fs::write(files.0.path().join(std::ffi::OsStr::from_bytes(name)), "").unwrap();
    }
    fs::create_dir_all(files.path(&deep)).unwrap();
    let selection = files.select(&["."]).unwrap();
    assert!(paths_of(&selection).iter().any(|told| told.path.contains("new")));
    let mut draft = Draft::new(Chain::default());
    draft.apply(&selection, &to("/x/")).unwrap();
    let changes = draft.finish();
    assert_eq!(changes.all().unwrap().len(), 1 + 6 + 401);
    assert!(changes.all().unwrap().contains_key(&path("x").join(b"caf\xe9").unwrap()));
    let error = files.select(&["caf\u{fffd}"]).unwrap_err().to_string();
    assert!(!error.contains('\u{1b}'), "{error}");
}

#[test]
fn workdir_makes_directories_for_the_user_through_links() {
    let mut draft = Draft::new(chain(&[("real/", ""), ("link", "-> /real"), ("tmp/", "")]));
    assert_eq!(draft.make_dir(&path("link/a/b"), (1, 2), 7).unwrap(), path("real/a/b"));
    assert_eq!(draft.make_dir(&path("tmp"), (1, 2), 7).unwrap(), path("tmp"));
    assert_eq!(lines(&draft.finish()), ["real/a dir 0755 1:2", "real/a/b dir 0755 1:2"]);
}

#[test]
fn heredocs_are_files_of_root_in_the_order_written() {
    let mut draft = Draft::new(Chain::default());
    let selection = Selection::inline("a", *b"one\n").then(Selection::inline("b", *b""));
    draft.apply(&selection, &to("/x/")).unwrap();
    let changes = draft.finish();
    assert_eq!(lines(&changes), ["x dir 0755 0:0", "x/a file(4) 0644 0:0", "x/b file(0) 0644 0:0"]);
    assert!(matches!(changes.all().unwrap().get(&path("x/a")), Some(Change::Put(meta, _)) if meta.mtime == 1000));
}

#[test]
fn a_key_changes_with_what_is_copied_and_with_nothing_else() {
    let files = Files::new(&[("a/f", "1"), ("a/g", "2"), ("b/f", "1"), ("b/g", "2")]).mode("a", 0o700);
    let of = |paths: &[&str]| files.select(paths).unwrap().digest().unwrap();
    let before = of(&["a"]);
    assert_eq!(before, of(&["b"]), "neither the directory's path nor its own mode is in the key");
    assert_eq!(of(&["a/f"]), of(&["b/f"]));
    assert_ne!(of(&["a/f"]), of(&["a/g"]));
    assert_ne!(of(&["a/f", "a/g"]), of(&["a/g", "a/f"]));
    fs::File::options().write(true).open(files.path("a/f")).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    assert_eq!(of(&["a"]), before, "times are not in the key");
    let files = files.mode("a/f", 0o755);
    assert_ne!(files.select(&["a"]).unwrap().digest().unwrap(), before);
    let paths = paths_of(&files.select(&["a"]).unwrap());
    assert!(paths.iter().any(|told| (told.path.as_str(), told.kind, told.mode) == ("a/f", "file", 0o755)), "{paths:?}");
}

#[test]
fn many_threads_select_the_same() {
    let names: Vec<(String, String)> = (0..500).map(|number| (format!("d{}/f{number}", number % 7), number.to_string())).collect();
    let names: Vec<(&str, &str)> = names.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
    let files = Files::new(&names);
    let one = files.select(&["."]).unwrap().digest().unwrap();
    let many = select(&files.context(), &CopySpec { jobs: 8, ..spec(&["."]) }).unwrap().digest().unwrap();
    assert_eq!(one, many);
}

#[test]
fn a_stage_is_a_source_with_its_own_owners_and_no_hashing() {
    let mut builder = IndexBuilder::default();
    let meta = Meta { mode: 0o640, uid: 5, gid: 6, mtime: 9, xattrs: Xattrs::new() };
    let file = Entry { meta: meta.clone(), kind: Kind::File { size: 3, content: ContentDigest::of(b"abc") } };
    builder.put(path("o"), Row::Put { entry: Entry { meta: Meta { mode: 0o700, ..meta }, kind: Kind::Dir }, link: None, opaque: false });
    builder.put(path("o/a"), Row::Put { entry: file.clone(), link: None, opaque: false });
    builder.put(path("o/b"), Row::Put { entry: file, link: Some(path("o/a")), opaque: false });
    let chain = Chain::new(vec![Arc::new(builder.finish())]);
    let source = Tree::indexed(chain.clone(), "stage `s`");
    let selection = select(&source, &spec(&["/o"])).unwrap();
    assert!(Draft::new(Chain::default()).apply(&selection, &to("/x")).is_err(), "an index has no bytes");
    let dir = tempfile::tempdir().unwrap();
    let fd = Arc::new(crate::sys::dir::open_root(dir.path()).unwrap());
    let with_files = select(&Tree::extracted(chain, vec![fd], "stage `s`"), &spec(&["o/."])).unwrap();
    assert_eq!(with_files.digest().unwrap(), selection.digest().unwrap());
    let mut draft = Draft::new(Chain::default());
    draft.apply(&with_files, &to("/x")).unwrap();
    assert_eq!(lines(&draft.finish()), ["x dir 0755 0:0", "x/a file(3) 0640 5:6", "x/b = /x/a 0640 5:6"]);
    let missing = select(&source, &spec(&["/zzz"])).unwrap_err();
    assert_eq!(missing.to_string(), "`/zzz` not found in stage `s`");
}

/// The index of a layer with these changes.
pub(super) fn index_of(changes: &Changes) -> Arc<crate::tree::Index> {
    let mut builder = IndexBuilder::default();
    for (path, change) in &changes.all().unwrap() {
        let row = match change {
            Change::Whiteout => Row::Whiteout,
            Change::Put(meta, node) => {
                let (kind, link) = match node {
                    Node::File { size, digest, .. } => (Kind::File { size: *size, content: digest.unwrap() }, None),
                    Node::Dir => (Kind::Dir, None),
                    Node::Symlink(target) => (Kind::Symlink { target: target.clone() }, None),
                    Node::HardLink(to) => {
                        let Some(Row::Put { entry, .. }) = builder.row(to) else { panic!("{to} comes first") };
                        (entry.kind.clone(), Some(to.clone()))
                    }
                    Node::Char { major, minor } => (Kind::Char { major: *major, minor: *minor }, None),
                    Node::Block { major, minor } => (Kind::Block { major: *major, minor: *minor }, None),
                    Node::Fifo => (Kind::Fifo, None),
                };
                Row::Put { entry: Entry { meta: meta.clone(), kind }, link, opaque: false }
            }
        };
        builder.put(path.clone(), row);
    }
    Arc::new(builder.finish())
}

#[test]
fn a_digest_that_is_taken_on_the_way_is_that_of_the_selection() {
    let files = Files::new(&[
        ("a/b/c", "1"),
        ("a/b/d", "2"),
        ("a/e/", ""),
        ("a/l", "-> b"),
        ("f", "3"),
        ("g.txt", "4"),
        ("h.txt", "5"),
        ("top/a/x", "6"),
    ]);
    let own = |text: &str| vec![text.to_owned()];
    let specs = [
        spec(&["/"]),
        spec(&["a", "f"]),
        spec(&["*.txt", "a/l", "nothing*"]),
        CopySpec { exclude: own("b/c"), ..spec(&["a"]) },
        CopySpec { exclude: own("*.txt"), ..spec(&["*"]) },
        CopySpec { parents: true, ..spec(&["./top/./a/x", "a/b/d"]) },
    ];
    let mut seen = Vec::new();
    for spec in specs {
        let selected = select(&files.context(), &spec).unwrap().digest().unwrap();
        assert_eq!(digest(&files.context(), &spec).unwrap(), Some(selected), "{spec:?}");
        assert!(!seen.contains(&selected), "{spec:?}");
        seen.push(selected);
    }
    assert!(digest(&files.context(), &spec(&["gone"])).is_err());
}

#[test]
fn a_digest_is_given_up_when_too_many_files_would_be_read_for_it() {
    let names: Vec<String> = (0..100).map(|number| format!("f{number:02}")).collect();
    let files = Files::new(&names.iter().map(|name| (name.as_str(), "x")).collect::<Vec<_>>());
    let (all, few) = (spec(&["/"]), spec(&["f0*"]));
    assert_eq!(digest(&files.context(), &all).unwrap(), None);
    assert_eq!(digest(&files.context(), &few).unwrap(), Some(select(&files.context(), &few).unwrap().digest().unwrap()));
}
