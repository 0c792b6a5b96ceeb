//! Groups 1 to 10: archives that lead out, write through links, hold nodes, lie about sizes, never end. Each is tried as
//! a layer of a base image, under a RUN and written to a directory, and as what ADD unpacks.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{
    Ground,
    forge::{Forged, Tar, record},
};
use crate::harness::{Ran, am_root};

/// How an attack ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// With a reason that has this text.
    Refused(&'static str),
    /// As something that is inside of the image.
    Inside,
}
use Ends::{Inside, Refused};

/// An attack: what it is, how it ends as a layer, how as what ADD unpacks.
type Attack = (&'static str, Tar, Ends, Ends);

/// Tries one as a layer.
fn as_layer(ground: &Ground, what: &str, layer: &[u8], ends: Ends) {
    let number = ground.case();
    let name = format!("evil-{number}");
    let layout = Forged::on_busybox(&ground.project, &name).layer(layer).layout();
    image_ends(ground, what, &name, layout.to_str().unwrap(), ends);
}

/// Loads a layout, and uses it in every way.
fn image_ends(ground: &Ground, what: &str, name: &str, layout: &str, ends: Ends) {
    let loaded = ground.run(&["load", "-q", "-i", layout, "-t", name]);
    let out = format!("out-{name}");
    let output = format!("type=local,dest={out}");
    let ran = if loaded.code == Some(0) { ground.builds(&format!("FROM {name}\nRUN true\n"), &["-o", &output]) } else { loaded };
    verdict(ground, what, &ran, ends);
    if ran.code == Some(0) {
        assert!(ground.project.path(&out).join("bin/busybox").exists(), "{what}: the base is whole");
        fs::remove_dir_all(ground.project.path(&out)).ok();
    }
}

fn verdict(ground: &Ground, what: &str, ran: &Ran, ends: Ends) {
    match ends {
        Refused(text) => ground.refused(what, ran, text),
        Inside => ground.inside(what, ran),
    }
}

/// Tries all: as layers, and as what ADD unpacks; those that stay inside in one build.
fn try_all(ground: &Ground, attacks: &[Attack]) {
    let mut inside = String::from("FROM busybox\n");
    for (number, (what, tar, layer, add)) in attacks.iter().enumerate() {
        let tar = tar.clone().end();
        as_layer(ground, what, &tar, *layer);
        let _case = ground.case();
        let file = format!("evil-{number}.tar");
        let _path = ground.project.file(&file, &tar);
        let line = format!("ADD {file} /d{number}/\n");
        if *add == Inside {
            inside += &line;
        } else {
            let ran = ground.builds(&format!("FROM busybox\n{line}"), &[]);
            verdict(ground, what, &ran, *add);
            ground.refused(what, &ran, "Dockerfile:2");
        }
    }
    let ran = ground.builds(&(inside + "RUN find / -xdev >/dev/null\n"), &["-o", "type=local,dest=out-add"]);
    ground.inside("all that ADD keeps inside", &ran);
}

/// Groups 1–3. CVE-2026-28406 (kaniko: `../` in a context's tar), GHSA-6hwg-w5jg-9c6x (moby), CVE-2018-15664 (docker cp),
/// kaniko's layers that write through a link over its own helper.
#[test]
fn an_entry_that_leads_out_is_refused_or_inside() {
    let ground = Ground::new();
    let outside = ground.canaries.file().to_owned();
    let up = |path: &str| format!("{}{}", "../".repeat(24), path.trim_start_matches('/'));
    let target = format!("{outside}/file");
    let new = format!("{outside}/pwned");
    let attacks: Vec<Attack> = vec![
        ("1: ..", Tar::new().file("../pwned", "x"), Refused("leads outside"), Refused("leads out of")),
        ("1: far up", Tar::new().file(&up(&new), "x"), Refused("leads outside"), Refused("leads out of")),
        ("1: down and up", Tar::new().file("a/../../pwned", "x"), Refused("leads outside"), Refused("leads out of")),
        ("1: absolute", Tar::new().file(&new, "x"), Inside, Inside),
        ("1: absolute over what is there", Tar::new().file(&target, "x"), Inside, Inside),
        (
            "1: PAX path",
            Tar::new().pax(record("path", &up(&new)).as_bytes()).file("x", "x"),
            Refused("leads outside"),
            Refused("leads out of"),
        ),
        ("1: GNU long name", gnu_long(&up(&new)), Refused("leads outside"), Refused("leads out of")),
        ("1: a directory above", Tar::new().dir("../").dir("../../"), Refused("leads outside"), Refused("leads out of")),
        ("2: through an absolute link", Tar::new().link("l", &outside).file("l/pwned", "x"), Inside, Inside),
        ("2: through a link up", Tar::new().link("l", &up(&outside)).file("l/pwned", "x"), Inside, Inside),
        ("2: over a link's target", Tar::new().link("l", &target).file("l", "x"), Inside, Inside),
        ("2: through two links", Tar::new().link("a", "/").link("b", &format!("a{outside}")).file("b/pwned", "x"), Inside, Inside),
        ("2: through the links of proc", Tar::new().link("l", "/proc/self/root").file(&format!("l{new}"), "x"), Inside, Inside),
        ("2: a directory over a link", Tar::new().link("l", &outside).dir("l").file("l/pwned", "x"), Inside, Inside),
        ("3: hard link up", Tar::new().hard("h", &up(&target)), Refused("leads outside"), Refused("leads out of")),
        ("3: absolute hard link", Tar::new().hard("h", &target), Refused("h"), Refused("h")),
        ("3: hard link through a link", Tar::new().link("l", &outside).hard("h", "l/file"), Refused("h"), Refused("h")),
        ("3: hard link to a link, then written", Tar::new().link("l", &target).hard("h", "l").file("h", "x"), Inside, Inside),
        ("3: hard link to itself", Tar::new().hard("h", "h"), Refused("h"), Inside),
        ("3: hard link to a directory", Tar::new().dir("d").hard("h", "d"), Refused("h"), Refused("h")),
        ("3: PAX linkpath", Tar::new().pax(record("linkpath", &target).as_bytes()).hard("h", "x"), Refused("h"), Refused("h")),
    ];
    try_all(&ground, &attacks);
    ground.holds("1, 2, 3");
}

/// A name in an entry of its own, as GNU writes it.
fn gnu_long(name: &str) -> Tar {
    let body = format!("{name}\0");
    let size = format!("{:011o}", body.len());
    Tar::new().raw(b"././@LongLink", b'L', 0o644, b"", size.as_bytes(), body.as_bytes()).file("short", "x")
}

/// Groups 4 and 5. Whiteouts are names: what they hide must be something of the image.
#[test]
fn a_whiteout_removes_nothing_but_what_is_beneath_it() {
    let ground = Ground::new();
    let outside = ground.canaries.file().to_owned();
    for (what, tar, ends) in [
        ("4: of ..", Tar::new().file(".wh...", ""), Refused("whiteout")),
        ("4: of .", Tar::new().file(".wh..", ""), Refused("whiteout")),
        ("4: of nothing", Tar::new().file("etc/.wh.", ""), Refused("whiteout")),
        ("4: above", Tar::new().file("../.wh.etc", ""), Refused("leads outside")),
        ("4: opaque above", Tar::new().file("../.wh..wh..opq", ""), Refused("leads outside")),
        ("4: as a directory", Tar::new().dir(".wh.etc"), Inside),
        ("4: as a directory with something in it", Tar::new().dir(".wh.etc").file(".wh.etc/x", ""), Refused("would delete")),
        ("4: of what is not there", Tar::new().file("etc/.wh.none", ""), Inside),
        ("5: through an absolute link", Tar::new().link("l", &outside).file("l/.wh.file", ""), Inside),
        ("5: through a link up", Tar::new().link("l", "../../../../..").file(&format!("l{outside}/.wh.file"), ""), Inside),
        ("5: opaque through a link", Tar::new().link("l", &outside).file("l/.wh..wh..opq", ""), Inside),
    ] {
        as_layer(&ground, what, &tar.end(), ends);
    }
    // ADD and COPY know no whiteouts: such a name would be one in the layer, so it is refused.
    let _tar = ground.project.file("w.tar", Tar::new().file("d/.wh.file", "").end());
    let _named = ground.builds("FROM busybox\nADD w.tar /d/\n", &[]).ends_with(1).says(&["Dockerfile:2", ".wh.file"]);
    let _file = ground.project.file("w/.wh.etc", "");
    let _copied = ground.builds("FROM busybox\nCOPY w/ /\n", &[]).ends_with(1).says(&["Dockerfile:2", ".wh.etc"]);
    // Nor may a step make one.
    let _made = ground.builds("FROM busybox\nRUN touch /etc/.wh.passwd\n", &[]).ends_with(1).says(&[".wh.passwd"]);
    ground.cases.set(ground.cases.get() + 3);
    ground.holds("4, 5");
}

/// Group 6. Nodes and bits: kept as data where a layer may have them, never a device that works, and no setuid program
/// of the machine's root.
#[test]
fn a_node_of_an_archive_is_no_device_of_the_machine() {
    let ground = Ground::new();
    let nodes = Tar::new()
        .entry("char", b'3', 0o666, "", b"")
        .entry("block", b'4', 0o666, "", b"")
        .entry("pipe", b'6', 0o666, "", b"")
        .entry("setuid", b'0', 0o6755, "", b"x")
        .end();
    let layout = Forged::on_busybox(&ground.project, "nodes").layer(&nodes).layout();
    let loaded = ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", "nodes"]);
    ground.inside("6: loaded", &loaded);
    // Whatever is there cannot be opened as the device it names; the pipe does not hang what reads the layer.
    let run = "for f in char block; do if (dd if=/dev/zero of=/$f bs=1 count=1 conv=notrunc) 2>/dev/null && test ! -f /$f; then echo opened $f; exit 1; fi; done; test -p /pipe; test -u /setuid";
    let opened = ground.builds(&format!("FROM nodes\nRUN {run}\n"), &[]);
    ground.inside("6: a device of a layer is none in a step", &opened);
    for copy in ["COPY --from=nodes /char /block /pipe /setuid /c/", "COPY --from=nodes / /all/"] {
        let copied = ground.builds(&format!("FROM busybox\n{copy}\nRUN find / -xdev -type b -o -xdev -type c | wc -l\n"), &[]);
        ground.check(matches!(copied.code, Some(0 | 1)), "6: copied as data or refused", &copied);
        let _case = ground.case();
    }
    let _tar = ground.project.file("nodes.tar", &nodes);
    let added = ground.builds(
        "FROM busybox\nADD nodes.tar /n/\nRUN ls /n/ && for f in /n/char /n/block; do if test -e $f && cat $f; then exit 1; fi; done\n",
        &[],
    );
    ground.check(matches!(added.code, Some(0 | 1)), "6: added as data or refused", &added);
    // A context with nodes: a pipe must not be read, a socket not connected to.
    rustix::fs::mknodat(rustix::fs::CWD, ground.project.context().join("fifo"), rustix::fs::FileType::Fifo, 0o666.into(), 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(ground.project.context().join("sock")).unwrap();
    for source in ["fifo", "sock", "."] {
        let copied = ground.builds(&format!("FROM busybox\nCOPY {source} /c/\n"), &[]);
        ground.check(matches!(copied.code, Some(0 | 1)), "6: a pipe of the context", &copied);
        let _case = ground.case();
    }
    let bound = ground.builds("FROM busybox\nRUN --mount=type=bind,target=/c true\n", &[]);
    ground.check(matches!(bound.code, Some(0 | 1)), "6: a pipe of a bound context", &bound);
    ground.cases.set(ground.cases.get() + 4);
    // Written to a directory by an ordinary user, a layer's device is none. Root gets what the image says, as from tar.
    let written = ground.builds("FROM nodes\n", &["-o", "type=local,dest=out"]);
    ground.inside("6: written to a directory", &written);
    if !am_root() {
        assert!(!ground.project.path("out/char").exists() && !ground.project.path("out/block").exists());
        let mode = fs::metadata(ground.project.path("out/setuid")).unwrap().permissions().mode();
        assert_eq!(mode & 0o6000, 0, "a setuid file of the one who builds");
    }
    ground.holds("6");
}

/// Group 7. Loops, lengths, bytes of names.
#[test]
fn names_without_end_or_sense_are_refused_or_kept() {
    let ground = Ground::new();
    let long = "n".repeat(255);
    let too_long = "n".repeat(256);
    let deep = |count: usize| ["d"; 1].repeat(count).join("/");
    let chain: Tar = (0..60).fold(Tar::new().file("l60", "x"), |tar, at| tar.link(&format!("l{at}"), &format!("l{}", at + 1)));
    let attacks: Vec<Attack> = vec![
        ("7: a loop", Tar::new().link("a", "b").link("b", "a").file("a/x", "x"), Refused("too many levels"), Refused("too many levels")),
        ("7: a link to itself", Tar::new().link("a", "a"), Inside, Inside),
        ("7: a chain of 60 links", chain, Inside, Inside),
        ("7: 255 bytes", Tar::new().file(&long, "x"), Inside, Inside),
        ("7: 256 bytes", Tar::new().file(&too_long, "x"), Refused("nnn"), Refused("nnn")),
        ("7: a deep path", Tar::new().file(&deep(300), "x"), Inside, Inside),
        ("7: a path of more than 4096 bytes", Tar::new().file(&deep(2100), "x"), Refused("d/d"), Refused("d/d")),
        ("7: a link of 4096 bytes", Tar::new().link("l", &"t".repeat(4096)), Refused("l"), Refused("l")),
        ("7: no UTF-8", Tar::new().raw(b"\xff\xfe\x80", b'0', 0o644, b"", b"00000000000", b""), Inside, Inside),
        ("7: a newline", Tar::new().file("a\nb", "x"), Inside, Inside),
        ("7: an escape sequence", Tar::new().file("a\u{1b}]0;pwned\u{7}b", "x"), Inside, Inside),
        ("7: a NUL in a PAX path", Tar::new().pax(b"15 path=a\0b/cd\n").file("x", "x"), Refused("NUL"), Inside),
        ("7: an empty PAX path", Tar::new().pax(b"8 path=\n").file("x", "x"), Inside, Inside),
        (
            "7: a PAX record that smuggles another",
            Tar::new().pax(b"39 SCHILY.xattr.user.a=1\n14 path=../pw\n").file("x", "x"),
            Inside,
            Inside,
        ),
    ];
    try_all(&ground, &attacks);
    ground.holds("7");
}

/// Group 8. Duplicates and disorder: CVE-2018-15664's kin, where what is there changes under the writer.
#[test]
fn an_entry_in_the_place_of_another_replaces_it_and_no_more() {
    let ground = Ground::new();
    let outside = ground.canaries.file().to_owned();
    let attacks: Vec<Attack> = vec![
        ("8: twice", Tar::new().file("f", "1").file("f", "2"), Inside, Inside),
        ("8: a child before its parent", Tar::new().file("d/e/f", "x").dir("d/e").dir("d"), Inside, Inside),
        ("8: a file over a directory", Tar::new().file("d/f", "x").file("d", "x"), Inside, Inside),
        ("8: a directory over a file", Tar::new().file("d", "x").dir("d").file("d/f", "x"), Inside, Inside),
        ("8: a link over a directory that has files", Tar::new().file("d/f", "x").link("d", &outside).file("d/pwned", "x"), Inside, Inside),
        ("8: a directory over a link out", Tar::new().link("d", &outside).dir("d").file("d/pwned", "x"), Inside, Inside),
        (
            "8: a file, a link out, the file again",
            Tar::new().file("f", "1").link("f", &format!("{outside}/file")).file("f", "2"),
            Inside,
            Inside,
        ),
        ("8: the root as a file", Tar::new().file("./", "x"), Refused("/"), Refused("")),
        ("8: the root as a link", Tar::new().link("./", &outside), Refused("/"), Refused("")),
        ("8: a file below a file", Tar::new().file("f", "x").file("f/g", "x"), Refused("/f"), Refused("/f")),
        (
            "8: links of a loop, replaced while they are followed",
            Tar::new().link("a", &outside).hard("b", "a").file("b", "x").file("a/file", "x"),
            Inside,
            Inside,
        ),
    ];
    try_all(&ground, &attacks);
    ground.holds("8");
}
