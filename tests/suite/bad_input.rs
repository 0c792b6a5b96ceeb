//! What is wrong gets a place, a reason, a next step and its exit code, and leaves nothing behind.

use std::{fs, os::unix::fs::PermissionsExt as _};

use crate::harness::{Project, am_root};

/// A Dockerfile, the exit code, and what is said.
const TABLE: &[(&str, i32, &[&str])] = &[
    ("FROM busybox\nRUM true\n", 1, &["Dockerfile:2:1", "RUM", "RUN"]),
    ("FROM busybox\nCOPY nowhere /x\n", 1, &["Dockerfile:2", "nowhere"]),
    ("FROM busybox AS build\nRUN true\nFROM busybox\nCOPY --from=biuld /bin/sh /x\n", 1, &["Dockerfile:4", "biuld", "build"]),
    ("FROM busybox\nCOPY --chmood=644 Dockerfile /x\n", 1, &["Dockerfile:2", "chmood", "chmod"]),
    ("FROM busybox\nRUN --mount=type=bnid,target=/x true\n", 1, &["Dockerfile:2", "bnid"]),
    ("RUN true\n", 1, &["Dockerfile:1", "FROM"]),
    ("", 1, &["Dockerfile"]),
    ("FROM busybox\nCOPY ../outside /x\n", 1, &["Dockerfile:2", "outside"]),
    ("FROM busybox\nEXPOSE http\n", 1, &["Dockerfile:2", "http"]),
    ("FROM busybox\nRUN exit 7\n", 3, &["Dockerfile:2", "7"]),
    ("FROM busybox\nRUN echo said-before-it-failed; false\n", 3, &["Dockerfile:2", "said-before-it-failed"]),
    ("FROM busybox\nRUN [\"/no/such/program\"]\n", 3, &["Dockerfile:2", "/no/such/program"]),
    ("FROM busybox\nUSER nobody-knows\nRUN true\n", 1, &["Dockerfile:3", "nobody-knows"]),
    ("FROM busybox\nCOPY --chown=nobody-knows Dockerfile /x\n", 1, &["Dockerfile:2", "nobody-knows"]),
    ("FROM busybox\nRUN cat <<EOF\nnever ends\n", 1, &["Dockerfile:2", "EOF"]),
    ("FROM busybox AS a\nFROM scratch\nCOPY --from=0 /no/such /x\n", 1, &["Dockerfile:3", "/no/such"]),
    ("FROM $NOTHING\n", 1, &["Dockerfile:1"]),
    ("FROM Not/A/Name:::\n", 1, &["Dockerfile:1", "Not/A/Name"]),
    ("FROM busybox\nLABEL version=“1.0”\nCOPYsrc dest\n", 1, &["Dockerfile:3", "COPYsrc"]),
];

#[test]
fn a_wrong_dockerfile_has_a_place_a_reason_and_its_exit_code() {
    let project = Project::with_busybox();
    let mut wrong = Vec::new();
    for (dockerfile, code, texts) in TABLE {
        project.dockerfile(dockerfile);
        let ran = project.build(&["-t", "never:1", "-o", "type=oci,dest=image.tar"]);
        let missing: Vec<_> = texts.iter().filter(|text| !ran.stderr.contains(**text)).collect();
        if ran.code != Some(*code) || !missing.is_empty() {
            wrong.push(format!("{dockerfile:?}: exit {:?} for {code}, without {missing:?}:\n{}", ran.code, ran.stderr));
        }
        assert!(!project.path("image.tar").exists(), "{dockerfile:?} left an output");
        assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0, "{dockerfile:?} left temporary files");
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TABLE.len(), wrong.join("\n"));
    assert!(!project.run(["images"]).good().out().contains("never"));
}

#[test]
fn all_errors_of_a_file_are_told_at_once_and_in_order() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUM one\nCOPY --chwon=1 a b\nENV\n");
    let ran = project.build(&[]).ends_with(1);
    let places: Vec<_> = ["Dockerfile:2", "Dockerfile:3", "Dockerfile:4"].iter().map(|place| ran.stderr.find(place)).collect();
    assert!(places.iter().all(Option::is_some) && places.is_sorted(), "{}", ran.stderr);
}

#[test]
fn a_wrong_command_line_is_usage() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\n");
    let _flag = project.run(["build", "--no-such-flag", "ctx"]).ends_with(2).says(&["--no-such-flag"]);
    let _context = project.run(["build"]).ends_with(2);
    let _command = project.run(["biuld", "ctx"]).ends_with(2).says(&["build"]);
    let _output = project.run(["build", "-o", "type=nothing,dest=x", "ctx"]).ends_with(2).says(&["nothing"]);
    let _both = project.run(["build", "-q", "-o", "-", "ctx"]).ends_with(2);
}

#[test]
fn a_context_or_dockerfile_that_is_not_there_is_named() {
    let project = Project::with_busybox();
    let _context = project.run(["build", "no-such-dir"]).ends_with(1).says(&["no-such-dir"]);
    let _dockerfile = project.build(&[]).ends_with(1).says(&["Dockerfile"]);
    project.dockerfile("FROM busybox\n");
    let _file = project.build(&["-f", "ctx/Other"]).ends_with(1).says(&["Other"]);
    let _target = project.build(&["--target", "no-such-stage"]).ends_with(1).says(&["no-such-stage"]);
}

#[test]
fn a_file_of_the_context_that_cannot_be_read_is_named() {
    if am_root() {
        // Root reads everything; the suite is run as a user too.
        return;
    }
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nCOPY . /x\n");
    let closed = project.file("dir/closed", "x");
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o000)).unwrap();
    // Without this the file would be read as root of a namespace.
    let _failed = project.build(&["--driver", "none"]).ends_with(1).says(&["Dockerfile:2", "dir/closed"]);
}

/// A tar with one entry of a name that the `tar` crate would refuse to write.
fn climbing(name: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_size(if kind == tar::EntryType::Regular { 4 } else { 0 });
    header.set_mtime(0);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    if kind == tar::EntryType::Regular {
        bytes.extend_from_slice(b"evil");
        bytes.resize(1024, 0);
    }
    bytes.resize(bytes.len() + 1024, 0);
    bytes
}

#[test]
fn an_archive_that_climbs_out_writes_nothing_outside() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nADD evil.tar /a/b/\n");
    let outside = project.path("evil-was-here");
    let climb = format!("{}{}", "../".repeat(20), outside.display());
    for archive in [
        climbing(&climb, tar::EntryType::Regular, ""),
        climbing(outside.to_str().unwrap(), tar::EntryType::Regular, ""),
        climbing("x", tar::EntryType::Link, "../../../../etc/passwd"),
    ] {
        let _tar = project.file("evil.tar", archive);
        let ran = project.build(&["-o", "type=oci,tar=false,dest=image"]);
        assert!(!outside.exists(), "written outside");
        match ran.code {
            // Taken as a path inside of the root, as tar does, or refused at its place.
            Some(0) => assert!(crate::harness::Image::of_layout(&project.path("image")).tree().contains_key("bin/busybox")),
            _ => drop(ran.ends_with(1).says(&["Dockerfile:2", "evil.tar"])),
        }
        let _removed = fs::remove_dir_all(project.path("image"));
    }
}

#[test]
fn a_base_whose_layer_is_damaged_is_refused_with_its_digest() {
    let project = Project::with_busybox();
    let layout = project.path("busybox-layout");
    let largest = fs::read_dir(layout.join("blobs/sha256"))
        .unwrap()
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(largest.path()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0xff;
    fs::write(largest.path(), bytes).unwrap();
    let fresh = Project::new();
    let hex = largest.file_name().into_string().unwrap();
    let ran = fresh.run(["load", "-i", layout.to_str().unwrap(), "-t", "bad"]);
    if ran.code == Some(0) {
        fresh.dockerfile("FROM bad\nRUN true\n");
        let built = fresh.build(&[]);
        assert!(built.code != Some(0) && built.stderr.contains(&hex), "{}", built.stderr);
    } else {
        assert!(ran.stderr.contains(&hex), "{}", ran.stderr);
    }
    assert!(!fresh.store().join("blobs/sha256").join(&hex).exists());
}

#[test]
fn a_layer_whose_bytes_are_not_its_diff_id_is_refused() {
    let project = Project::with_busybox();
    let layout = project.path("busybox-layout");
    // A config that promises another diff id, with digests that are right all the way up.
    let read = |hex: &str| fs::read_to_string(layout.join("blobs/sha256").join(hex)).unwrap();
    let mut index: serde_json::Value = serde_json::from_str(&fs::read_to_string(layout.join("index.json")).unwrap()).unwrap();
    let manifest_hex = index["manifests"][0]["digest"].as_str().unwrap().replace("sha256:", "");
    let mut manifest: serde_json::Value = serde_json::from_str(&read(&manifest_hex)).unwrap();
    let mut config: serde_json::Value =
        serde_json::from_str(&read(&manifest["config"]["digest"].as_str().unwrap().replace("sha256:", ""))).unwrap();
    config["rootfs"]["diff_ids"][0] = format!("sha256:{}", "ab".repeat(32)).into();
    let put = |value: &serde_json::Value| {
        let text = value.to_string();
        let hex = crate::harness::sha256(text.as_bytes());
        fs::write(layout.join("blobs/sha256").join(&hex), &text).unwrap();
        (format!("sha256:{hex}"), text.len())
    };
    let (digest, size) = put(&config);
    manifest["config"]["digest"] = digest.into();
    manifest["config"]["size"] = size.into();
    let (digest, size) = put(&manifest);
    index["manifests"][0]["digest"] = digest.into();
    index["manifests"][0]["size"] = size.into();
    fs::write(layout.join("index.json"), index.to_string()).unwrap();
    let fresh = Project::new();
    let ran = fresh.run(["load", "-i", layout.to_str().unwrap(), "-t", "bad"]);
    let ran = if ran.code == Some(0) {
        fresh.dockerfile("FROM bad\nRUN true\n");
        fresh.build(&[])
    } else {
        ran
    };
    assert!(ran.code != Some(0) && ran.stderr.contains(&"ab".repeat(32)), "{}", ran.stderr);
}

#[test]
fn a_store_that_is_no_store_is_not_touched() {
    let project = Project::new();
    project.dockerfile("FROM scratch\n");
    let _file = fs::write(project.path("home/precious"), "x");
    let ran = project.run(["--root", "home", "build", "ctx"]).ends_with(4).says(&["home"]);
    drop(ran);
    assert_eq!(fs::read_dir(project.path("home")).unwrap().count(), 1);
}
