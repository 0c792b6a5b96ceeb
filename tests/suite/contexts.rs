//! Contexts that are no directory: archives on standard input, and (in `far`) what is fetched. What they make is what the same files in a directory make;
//! what they try is told and leads nowhere.
//!
//! The attacks are those of the tools that came before: buildah GHSA-49p4-px3h-rq49, kaniko CVE-2026-28406, moby
//! GHSA-vp35-85q5-9f25.

mod far;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::Stdio,
    time::{Duration, SystemTime},
};

use crate::harness::{Image, Kind, Project, Ran, am_root, output_of, wait_until};

/// When all files of these tests were changed last.
const THEN: u64 = 1_600_000_000;

/// An entry of an archive.
struct Entry {
    name: Vec<u8>,
    kind: tar::EntryType,
    mode: u32,
    link: String,
    body: Vec<u8>,
}

fn entry(name: &str, kind: tar::EntryType, mode: u32, link: &str, body: &[u8]) -> Entry {
    Entry { name: name.as_bytes().to_vec(), kind, mode, link: link.to_owned(), body: body.to_vec() }
}

fn file(name: &str, body: &str) -> Entry {
    entry(name, tar::EntryType::Regular, 0o644, "", body.as_bytes())
}

fn dir(name: &str) -> Entry {
    entry(name, tar::EntryType::Directory, 0o755, "", b"")
}

fn link(name: &str, target: &str) -> Entry {
    entry(name, tar::EntryType::Symlink, 0o777, target, b"")
}

fn hard(name: &str, target: &str) -> Entry {
    entry(name, tar::EntryType::Link, 0o644, target, b"")
}

/// A plain tar, of any names: the `tar` crate would refuse to write most of them.
fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..entry.name.len()].copy_from_slice(&entry.name);
        header.as_mut_bytes()[157..157 + entry.link.len()].copy_from_slice(entry.link.as_bytes());
        header.set_entry_type(entry.kind);
        header.set_mode(entry.mode);
        // Whose they are where they were packed is nobody's business.
        header.set_uid(1234);
        header.set_gid(5678);
        header.set_mtime(THEN);
        header.set_size(entry.body.len() as u64);
        if entry.kind == tar::EntryType::Char {
            header.set_device_major(5).unwrap();
            header.set_device_minor(1).unwrap();
        }
        header.set_cksum();
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(&entry.body);
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    // As GNU tar fills its last record.
    bytes.resize(bytes.len().next_multiple_of(10240), 0);
    bytes
}

/// The bytes in every packing that is understood.
fn packed(bytes: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(bytes).unwrap();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(bytes).unwrap();
    vec![
        ("plain", bytes.to_vec()),
        ("gzip", gzip.finish().unwrap()),
        ("bzip2", bzip2.finish().unwrap()),
        ("xz", xz.finish().unwrap()),
        ("zstd", zstd::encode_all(bytes, 1).unwrap()),
    ]
}

/// Builds with these bytes on standard input.
fn send(project: &Project, args: &[&str], bytes: &[u8]) -> Ran {
    let path = project.path("sent");
    fs::write(&path, bytes).unwrap();
    let line = [&["build", "--progress", "plain"], args, &["-"]].concat();
    output_of(project.command(line).stdin(fs::File::open(path).unwrap()))
}

/// The image of what was sent.
fn image(project: &Project, args: &[&str], bytes: &[u8]) -> Image {
    let out = project.path("out");
    let _none = fs::remove_dir_all(&out);
    let _built = send(project, &[&["-o", "type=oci,tar=false,dest=out"], args].concat(), bytes).good();
    Image::of_layout(&out)
}

/// Nothing is left of a context that was unpacked.
fn nothing_left(project: &Project) {
    assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0, "something is left");
}

const DOCKERFILE: &str = "FROM scratch\nCOPY . /\nCOPY dir/one /copy\n";
const EPOCH: [&str; 2] = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];

/// A few files, as entries and in the project's directory.
fn few_files(project: &Project) -> Vec<Entry> {
    let entries = vec![
        file("Dockerfile", DOCKERFILE),
        dir("dir/"),
        file("dir/one", "1"),
        dir("dir/deep/"),
        file("dir/deep/two", "22"),
        link("link", "dir/one"),
    ];
    for each in &entries {
        let path = project.context().join(std::str::from_utf8(&each.name).unwrap());
        match each.kind {
            tar::EntryType::Directory => fs::create_dir_all(&path).unwrap(),
            tar::EntryType::Symlink => symlink(&each.link, &path).unwrap(),
            _ => fs::write(&path, &each.body).unwrap(),
        }
        if each.kind != tar::EntryType::Symlink {
            fs::set_permissions(&path, fs::Permissions::from_mode(each.mode)).unwrap();
        }
    }
    for each in entries.iter().rev() {
        let path = project.context().join(std::str::from_utf8(&each.name).unwrap());
        touch(&path);
    }
    entries
}

/// Gives a file, a directory or a link the time of these tests.
fn touch(path: &Path) {
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: THEN.cast_signed(), tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: THEN.cast_signed(), tv_nsec: 0 },
    };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn a_directory_and_its_archive_in_every_packing_make_the_same_image() {
    let project = Project::new();
    let entries = few_files(&project);
    let of_directory = project.image(&EPOCH);
    assert!(of_directory.tree().contains_key("dir/deep/two"));
    for (name, bytes) in packed(&archive(&entries)) {
        // A store of its own each: nothing comes from a cache.
        let fresh = Project::new();
        assert_eq!(image(&fresh, &EPOCH, &bytes).digest, of_directory.digest, "{name}");
        nothing_left(&fresh);
        // And what a directory has made is a hit.
        let again = send(&project, &EPOCH, &bytes).good();
        assert_eq!(again.stderr.matches("CACHED").count(), 2, "{name}: {}", again.stderr);
    }
}

#[test]
fn the_archive_says_modes_times_links_and_nodes_and_not_whose_they_are() {
    let project = Project::new();
    let entries = [
        file("Dockerfile", "FROM scratch\nCOPY d /\n"),
        entry("d/", tar::EntryType::Directory, 0o000, "", b""),
        entry("d/closed", tar::EntryType::Regular, 0o000, "", b"nobody reads this"),
        entry("d/suid", tar::EntryType::Regular, 0o4711, "", b"#!"),
        entry("d/locked/", tar::EntryType::Directory, 0o1111, "", b""),
        file("d/locked/in", "in"),
        hard("d/second", "d/closed"),
        link("d/sym", "/etc/passwd"),
        entry("d/pipe", tar::EntryType::Fifo, 0o622, "", b""),
        entry("d/device", tar::EntryType::Char, 0o640, "", b""),
        // The last one wins, a directory stays.
        file("d/twice", "first"),
        file("d/twice", "last"),
        entry("d/locked/", tar::EntryType::Directory, 0o1110, "", b""),
    ];
    let tree = image(&project, &[], &archive(&entries)).tree();
    let modes: Vec<(&str, u32)> = tree.iter().map(|(path, node)| (path.as_str(), node.mode)).collect();
    let want = [("closed", 0), ("device", 0o640), ("locked", 0o1110), ("locked/in", 0o644), ("pipe", 0o622)];
    assert_eq!(modes, [want.as_slice(), &[("second", 0), ("suid", 0o4711), ("sym", 0o777), ("twice", 0o644)]].concat());
    assert!(tree.values().all(|node| (node.uid, node.gid, node.mtime) == (0, 0, THEN)), "{tree:?}");
    assert_eq!(tree["second"].link.as_deref(), Some("closed"));
    assert_eq!(tree["sym"].kind, Kind::Symlink(b"/etc/passwd".to_vec()));
    assert_eq!((&tree["pipe"].kind, &tree["device"].kind), (&Kind::Other(b'6'), &Kind::Other(b'3')));
    assert!(matches!(tree["twice"].kind, Kind::File { size: 4, .. }));
    nothing_left(&project);
}

#[test]
fn the_dockerfile_is_named_in_the_archive() {
    let project = Project::new();
    let text = |name: &str| format!("FROM scratch\nLABEL which={name}\n");
    let which = |args: &[&str], entries: &[Entry]| image(&project, args, &archive(entries)).config["config"]["Labels"]["which"].clone();
    let both =
        || [file("./Dockerfile", &text("usual")), file("sub/Other", &text("other")), link("to", "sub/Other"), hard("hard", "sub/Other")];
    assert_eq!(which(&[], &both()), "usual");
    for path in ["sub/Other", "./sub/../sub/Other", "/sub/Other", "to", "hard"] {
        assert_eq!(which(&["-f", path], &both()), "other", "{path}");
    }
    assert_eq!(which(&[], &[file("dockerfile", &text("lower"))]), "lower");
    // A file of the directory where the program runs is none of the archive's.
    fs::write(project.path("Outer"), text("outer")).unwrap();
    let _not_there =
        send(&project, &["-f", "Outer"], &archive(&both())).ends_with(1).says(&["no Dockerfile at `Outer` in the context", "-f PATH"]);
    let _empty = send(&project, &[], &archive(&[])).ends_with(1).says(&["no Dockerfile at `Dockerfile`"]);
}

#[test]
fn an_archive_is_whole_whatever_its_ignore_file_says_and_that_is_told() {
    let project = Project::new();
    let entries = [
        file("Dockerfile", "FROM scratch\nCOPY . /\n"),
        file(".dockerignore", "x\n"),
        file("Dockerfile.dockerignore", "*\n"),
        file("x", ""),
    ];
    let bytes = archive(&entries);
    assert!(image(&project, &[], &bytes).tree().contains_key("x"));
    let _told = send(&project, &[], &bytes).good().says(&[".dockerignore", "is not applied"]);
}

#[test]
fn an_archive_reaches_nothing_outside_of_itself() {
    let project = Project::with_busybox();
    let secret = project.path("secret");
    fs::write(&secret, "of the host").unwrap();
    let (outside, secret) = (project.path("pwned"), secret.to_str().unwrap().to_owned());
    let there = outside.to_str().unwrap().to_owned();
    let up = format!("{}{}", "../".repeat(20), there.trim_start_matches('/'));
    let usual = || file("Dockerfile", "FROM busybox\nCOPY . /all/\nRUN cat /all/* 2>&1 | grep 'of the hos[t]' && exit 9; true\n");
    let project_dir = project.path("").to_str().unwrap().trim_end_matches('/').to_owned();
    // Refused with the reason (a path that climbs out, a link to nothing), or kept inside.
    let refused: Vec<(Vec<Entry>, &str)> = vec![
        (vec![usual(), file(&up, "x")], "leads outside"),
        (vec![usual(), file("a/../../x", "x")], "leads outside"),
        (vec![usual(), dir("../")], "leads outside"),
        (vec![usual(), hard("h", &format!("{}{}", "../".repeat(20), secret.trim_start_matches('/')))], "leads outside"),
        (vec![usual(), hard("h", &secret)], "is not there"),
        (vec![usual(), link("l", &project_dir), hard("h", "l/secret")], "is not there"),
        (vec![usual(), dir("d/"), hard("h", "d")], "is not there"),
        (vec![usual(), link("loop", "loop"), file("loop/x", "x")], "loop"),
        (vec![usual(), file("f", ""), file("f/x", "x")], "/f"),
        (vec![link("Dockerfile", &secret)], "no Dockerfile"),
        (vec![link("Dockerfile", &format!("../../../../../..{secret}"))], "no Dockerfile"),
        (vec![link("l", &project_dir), link("Dockerfile", "l/secret")], "no Dockerfile"),
        (vec![link("Dockerfile", "/dev/stdin")], "no Dockerfile"),
        (vec![link("Dockerfile", "Dockerfile")], "Dockerfile"),
        (vec![entry("Dockerfile", tar::EntryType::Fifo, 0o644, "", b"")], "Dockerfile"),
        (vec![dir("Dockerfile/")], "Dockerfile"),
        (vec![entry("Dockerfile", tar::EntryType::Regular, 0o644, "", &vec![b'#'; (16 << 20) + 1])], "longer"),
    ];
    for (number, (entries, why)) in refused.iter().enumerate() {
        let ran = send(&project, &[], &archive(entries)).ends_with(1).says(&[why]);
        assert!(!ran.all().contains("of the host"), "case {number}: {}", ran.all());
        nothing_left(&project);
    }
    let inside: Vec<Vec<Entry>> = vec![
        vec![usual(), file(&there, "x")],
        vec![usual(), link("l", &project_dir), file("l/pwned", "x")],
        vec![usual(), link("l", "../../../../../../../../.."), file(&format!("l{there}"), "x")],
        vec![usual(), link("s", &secret), file("s", "replaced")],
        vec![usual(), link("s", &secret), hard("h", "s")],
        vec![usual(), link(".dockerignore", &secret)],
        vec![usual(), file("a/../b", "stays inside")],
    ];
    for entries in &inside {
        let ran = send(&project, &[], &archive(entries)).good();
        assert!(!ran.all().contains("of the host"), "{}", ran.all());
        nothing_left(&project);
    }
    assert!(!outside.exists());
    assert_eq!(fs::read_to_string(&secret).unwrap(), "of the host");
}

#[test]
fn names_that_a_layer_gives_a_meaning_are_names_as_any_other() {
    let project = Project::new();
    let odd = [".wh.x", ".wh..wh..opq", "d/.wh..wh.plnk"].map(|name| file(name, ""));
    let mut entries = vec![file("Dockerfile", "FROM scratch\nCOPY x d/y /\n"), file("x", "stays"), file("d/y", "stays")];
    entries.extend(odd);
    assert_eq!(image(&project, &[], &archive(&entries)).tree().len(), 2);
    // In a layer they would be something else: that is said.
    entries[0] = file("Dockerfile", "FROM scratch\nCOPY . /\n");
    let _refused = send(&project, &[], &archive(&entries)).ends_with(1).says(&["would delete another file"]);
}

#[test]
fn damaged_archives_are_told_from_dockerfiles() {
    let project = Project::new();
    let whole = archive(&few_files(&project));
    for (name, bytes) in packed(&whole) {
        // What follows the end mark may be missing, half of a file may not.
        let cut = &bytes[..if name == "plain" { 700 } else { bytes.len() * 3 / 4 }];
        let ran = send(&project, &[], cut).ends_with(1).says(&["the archive cannot be a build context"]);
        assert!(!ran.stderr.contains("Dockerfile:"), "{name}: {}", ran.stderr);
        nothing_left(&project);
    }
    let mut sparse = archive(&[file("Dockerfile", "FROM scratch\n"), entry("s", tar::EntryType::GNUSparse, 0o644, "", b"")]);
    let _refused = send(&project, &[], &sparse).ends_with(1).says(&["sparse"]);
    sparse.truncate(0);
    let _nothing = send(&project, &[], &sparse).ends_with(2).says(&["standard input is empty"]);
    let _text = send(&project, &[], b"FROM scratch\nLABEL a=b\n").good();
}

#[test]
fn steps_mount_an_archive_as_they_mount_a_directory() {
    let project = Project::with_busybox();
    let entries = [
        file(
            "Dockerfile",
            "FROM busybox\nRUN --mount=target=/src,rw cat /src/d/x && ls -l /src && echo more > /src/d/y\nRUN --mount=target=/src test ! -e /src/d/y\n",
        ),
        entry("d/", tar::EntryType::Directory, 0o700, "", b""),
        entry("d/x", tar::EntryType::Regular, 0o400, "", b"through the mount"),
    ];
    let _ran = send(&project, &[], &archive(&entries)).good().says(&["through the mount"]);
}

#[test]
fn a_context_that_is_scratch_is_nothing() {
    let project = Project::new();
    project.dockerfile("FROM busybox AS base\nFROM base\nCOPY --from=busybox --parents ./none* /empty/\nCOPY <<EOF /f\nx\nEOF\n");
    let image = project.image(&["--build-context", "busybox=docker-image://scratch"]);
    assert_eq!(image.tree().into_keys().collect::<Vec<_>>(), ["empty", "f"]);
}

#[test]
fn a_mistake_about_the_context_says_what_to_type() {
    let project = Project::new();
    project.dockerfile("FROM scratch\n");
    let _dot = project.run(["build", "-t", "name:tag"]).ends_with(2).says(&["the build has no context", "`lapstrake build -t name:tag .`"]);
    let _file = project.run(["build", "ctx/Dockerfile"]).ends_with(1).says(&["`ctx/Dockerfile` is not a directory", "`-f"]);
    fs::write(project.path("app.tar"), archive(&[])).unwrap();
    let _tar = project.run(["build", "app.tar"]).ends_with(1).says(&["`lapstrake build - < app.tar`"]);
    let _nowhere = project.run(["build", "nowhere"]).ends_with(1).says(&["nowhere"]);
    let both = project.run(["build", "-f", "-", "-"]).ends_with(2);
    let _both = both.says(&["standard input cannot be the Dockerfile and the context at once"]);
    let _flag = send(&project, &["-f", "Other"], b"FROM scratch\n").ends_with(2).says(&["leave `-f` out"]);
    let _archive = send(&project, &["-f", "-"], &archive(&[])).ends_with(2);
    for name in ["context", "scratch"] {
        let _reserved = project.build(&["--build-context", &format!("{name}=ctx")]).ends_with(2).says(&[name, "has a meaning already"]);
    }
    project.dockerfile("# syntax=docker/dockerfile:1\nFROM scratch\n");
    let replaced = project.build(&["--build-context", "docker/dockerfile:1=ctx"]).ends_with(1);
    let _front_end = replaced.says(&["Dockerfile:1", "the front end `docker/dockerfile:1` cannot be run"]);
}

#[test]
fn a_context_that_comes_slowly_shows_that_it_comes() {
    let project = Project::new();
    let bytes = archive(&[file("Dockerfile", "FROM scratch\n")]);
    let log = project.path("log");
    let said = || fs::read_to_string(&log).unwrap();
    let mut child = project.command(["build", "-"]).stdin(Stdio::piped()).stderr(fs::File::create(&log).unwrap()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() / 2]).unwrap();
    wait_until("a word", || (said().contains("unpacking the context: ") && said().contains(" bytes so far")).then_some(()));
    pipe.write_all(&bytes[bytes.len() / 2..]).unwrap();
    drop(pipe);
    let _built = Ran::of_child("build -".to_owned(), child).good();
}

#[test]
fn a_sender_that_goes_on_writing_is_read_to_its_end() {
    let project = Project::new();
    let mut bytes = archive(&[file("Dockerfile", "FROM scratch\n")]);
    bytes.resize(bytes.len() + (1 << 20), 0);
    let mut child = project.command(["build", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    // Else this would be a broken pipe.
    pipe.write_all(&bytes).unwrap();
    drop(pipe);
    let _built = Ran::of_child("build -".to_owned(), child).good();
}

#[test]
fn a_build_that_is_killed_while_it_unpacks_leaves_what_the_next_one_sweeps() {
    let project = Project::new();
    let bytes = archive(&[file("Dockerfile", "FROM scratch\n"), file("x", "y")]);
    let mut child = project.command(["build", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(&bytes[..bytes.len() / 2]).unwrap();
    let begun = SystemTime::now();
    while fs::read_dir(project.store().join("tmp")).map_or(0, Iterator::count) == 0 {
        assert!(begun.elapsed().unwrap() < Duration::from_mins(1), "nothing is unpacked");
        std::thread::sleep(Duration::from_millis(20));
    }
    if am_root() {
        // Ctrl-C while nobody sends anything ends it at once, and it clears up.
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let _interrupted = Ran::of_child("build -".to_owned(), child).ends_with(130);
        nothing_left(&project);
    } else {
        child.kill().unwrap();
        let _killed = child.wait().unwrap();
        let _next = send(&project, &[], &bytes).good();
        nothing_left(&project);
    }
    drop(pipe);
}

/// `created` of an image.
fn created(image: &Image) -> &str {
    image.config["created"].as_str().unwrap()
}

#[test]
fn an_archive_is_as_old_as_its_newest_file_if_the_epoch_is_the_contexts() {
    let project = Project::new();
    let entries = few_files(&project);
    let bytes = archive(&entries);
    let then = "2020-09-13T12:26:40Z";
    let arg = ["--build-arg", "SOURCE_DATE_EPOCH=context"];
    for args in [arg.as_slice(), &["--source-date-epoch", "context"]] {
        let of_archive = image(&project, args, &bytes);
        assert_eq!(created(&of_archive), then);
        assert!(of_archive.config["history"].as_array().unwrap().iter().all(|line| line["created"] == then));
    }
    // A directory has no time: it is as if nothing had been asked.
    assert_ne!(created(&project.image(&arg)), then);
    assert_eq!(created(&project.image(&["--source-date-epoch", "1600000000"])), then);
    let both = ["--source-date-epoch", "1", "--build-arg", "SOURCE_DATE_EPOCH=2"];
    let _contradiction = project.build(&both).ends_with(2).says(&["contradict"]);
    let _word = project.build(&["--source-date-epoch", "soon"]).ends_with(2).says(&["neither a number nor `context`"]);
}

#[test]
fn buildkits_own_arguments_are_honoured_or_told() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo host=$(hostname) && grep -w $(hostname) /etc/hosts\n");
    let arg = |text: &str| project.build(&["--build-arg", text]);
    let _usual = arg("A=1").good().says(&["host=buildkitsandbox"]);
    let _named = arg("BUILDKIT_SANDBOX_HOSTNAME=builder-1.test").good().says(&["host=builder-1.test", "127.0.0.1"]);
    let _line = arg("BUILDKIT_SANDBOX_HOSTNAME=a\nb").ends_with(1).says(&["is no name of a host"]);
    let _cache = arg("BUILDKIT_INLINE_CACHE=1").good().says(&["no cache is written into the image"]);
    let _index = arg("BUILDKIT_MULTI_PLATFORM=true").good().says(&["no index of platforms"]);
    let _name = arg("BUILDKIT_BUILD_NAME=x").good().says(&["no history of builds is kept"]);
    let _typo = arg("BUILDKIT_CONTEXT_KEEP_GIT_DIR=yes").good().says(&["`yes` is neither true nor false"]);
    for quiet in ["BUILDKIT_INLINE_CACHE=0", "BUILDKIT_MULTI_PLATFORM=", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "BUILDKIT_CACHE_MOUNT_NS=n"] {
        assert!(!arg(quiet).good().stderr.contains("warning"), "{quiet}");
    }
}

#[test]
fn a_named_context_comes_before_a_stage_and_the_store() {
    let project = Project::with_busybox();
    fs::create_dir(project.path("at@home")).unwrap();
    fs::write(project.path("at@home/mine"), "x").unwrap();
    project.dockerfile("FROM scratch AS other\nFROM busybox\nCOPY --from=other mine /copied\n");
    let tree = project.image(&["--build-context", "busybox=at@home", "--build-context", "other=at@home"]).tree();
    assert_eq!(tree.keys().collect::<Vec<_>>(), ["copied", "mine"]);
    // An image of a layout by its digest, where the path has an `@` too.
    fs::rename(project.path("busybox-layout"), project.path("at@home/layout")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&fs::read(project.path("at@home/layout/index.json")).unwrap()).unwrap();
    let digest = index["manifests"][0]["digest"].as_str().unwrap();
    project.dockerfile("FROM mine\n");
    for of in [String::new(), format!("@{digest}"), ":busybox".to_owned()] {
        let layout = format!("mine=oci-layout://at@home/layout{of}");
        assert!(project.image(&["--build-context", &layout]).tree().contains_key("bin/busybox"), "{of}");
    }
    let _other = project.build(&["--build-context", "mine=oci-layout://at@home/layout:other"]).ends_with(1).says(&["other"]);
}
