//! Where lapstrake differs from BuildKit, and where the two agree although others do not: what docs/differences.md says.

use std::{collections::BTreeMap, fs, os::unix::fs::symlink, path::PathBuf};

use crate::harness::{Kind, Node, Project, sha256, sources};

/// A project with files of a context.
fn with(files: &[(&str, &str)]) -> Project {
    let project = Project::with_busybox();
    for (path, text) in files {
        let _file = project.file(path, text);
    }
    project
}

/// The tree of the image that a Dockerfile makes.
fn tree(project: &Project, dockerfile: &str, args: &[&str]) -> BTreeMap<String, Node> {
    project.dockerfile(dockerfile).image(args).tree()
}

/// Its paths.
fn paths(project: &Project, dockerfile: &str) -> Vec<String> {
    tree(project, dockerfile, &[]).into_keys().collect()
}

/// A build that must fail says these.
fn refused(project: &Project, dockerfile: &str, says: &[&str]) {
    let _ran = project.dockerfile(dockerfile).build(&[]).ends_with(1).says(says);
}

fn is(node: &Node, text: &str) {
    assert_eq!(node.kind, Kind::File { size: text.len() as u64, sha256: sha256(text.as_bytes()) }, "not {text:?}");
}

/// What a step prints.
fn prints(project: &Project, dockerfile: &str, text: &str) {
    let ran = project.dockerfile(dockerfile).build(&["--no-cache"]).good();
    assert!(ran.stderr.contains(text), "{text:?} is not in\n{}", ran.stderr);
}

#[test]
fn a_stage_is_found_whatever_its_capitals() {
    let project = with(&[]);
    let text = "FROM busybox AS Build\nRUN echo x > /x\nFROM BUILD\nCOPY --from=BuilD /x /y\n";
    assert!(tree(&project, text, &["--target", "1"]).contains_key("y"));
}

#[test]
fn a_target_is_found_by_number() {
    let project = with(&[("f", "x")]);
    let text = "FROM scratch\nCOPY f /a\nFROM scratch\nCOPY f /b\n";
    assert_eq!(tree(&project, text, &["--target", "0"]).into_keys().collect::<Vec<_>>(), ["a"]);
}

#[test]
fn an_owner_that_the_image_does_not_know_is_an_error() {
    let project = with(&[("f", "x")]);
    refused(&project, "FROM busybox\nCOPY --chown=nobodyhere f /\n", &["nobodyhere", "Dockerfile:2:14"]);
    refused(&project, "FROM busybox\nADD --chown=root:nogrouphere f /\n", &["nogrouphere", "Dockerfile:2:13"]);
}

#[test]
fn several_sources_onto_one_name_are_an_error() {
    let project = with(&[("a", "x"), ("b", "y")]);
    refused(&project, "FROM scratch\nCOPY a b /t\n", &["`/t`", "Dockerfile:2:10"]);
    assert_eq!(paths(&project, "FROM scratch\nCOPY a b /t/\n"), ["t", "t/a", "t/b"]);
}

#[test]
fn the_context_itself_can_be_copied_with_its_parents() {
    let project = with(&[("x/a", ""), ("x/y/b", ""), (".dockerignore", "Dockerfile\n.dockerignore\n")]);
    assert_eq!(paths(&project, "FROM scratch\nCOPY --parents ./ /p/\n"), ["p", "p/x", "p/x/a", "p/x/y", "p/x/y/b"]);
}

#[test]
fn a_pivot_at_the_end_copies_what_is_below() {
    let project = with(&[("x/a", ""), ("x/y/b", "")]);
    assert_eq!(paths(&project, "FROM scratch\nCOPY --parents ./x/./ /p/\n"), ["p", "p/a", "p/y", "p/y/b"]);
}

#[test]
fn an_excluded_name_is_excluded_wherever_it_stands() {
    let project = with(&[("a.key", "x"), ("a.txt", "x"), ("d/b.key", "x"), ("d/b.txt", "x")]);
    let text = "FROM scratch\nCOPY --exclude=*.key --exclude=*/*.key --exclude=Dockerfile * /x/\nCOPY --exclude=*.key d /y/\n";
    assert_eq!(paths(&project, text), ["x", "x/a.txt", "x/b.txt", "y", "y/b.txt"]);
}

#[test]
fn a_backslash_in_an_ignore_file_makes_no_class() {
    let project = with(&[("1", "x"), ("d", "x"), (".dockerignore", "\\d\nDockerfile\n.dockerignore\n")]);
    assert_eq!(paths(&project, "FROM scratch\nCOPY . /\n"), ["1"]);
}

#[test]
fn attributes_of_the_user_are_kept() {
    let project = with(&[("f", "x")]);
    // Not every file system of temporary directories has attributes; archives have them everywhere.
    if rustix::fs::setxattr(project.context().join("f"), "user.a", b"test", rustix::fs::XattrFlags::empty()).is_ok() {
        let text = "FROM scratch AS a\nCOPY f /\nFROM scratch\nCOPY --from=a /f /\n";
        assert_eq!(tree(&project, text, &[])["f"].xattrs.get("user.a").map(Vec::as_slice), Some(&b"test"[..]));
    }
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_pax_extensions([("SCHILY.xattr.user.b", &b"test"[..])]).unwrap();
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o644);
    archive.append_data(&mut header, "g", &b"y"[..]).unwrap();
    let _file = project.file("g.tar", archive.into_inner().unwrap());
    let added = tree(&project, "FROM scratch\nADD g.tar /\n", &[]);
    assert_eq!(added["g"].xattrs.get("user.b").map(Vec::as_slice), Some(&b"test"[..]));
}

#[test]
fn a_directory_whose_files_are_all_ignored_is_there() {
    let project = with(&[(".dockerignore", "**/*.txt\n"), ("dir/a.txt", "x")]);
    assert_eq!(paths(&project, "FROM scratch\nCOPY dir /t/\n"), ["t"]);
}

#[test]
fn a_pattern_that_matches_nothing_copies_nothing() {
    let project = with(&[("a", "x"), ("e/f/g/h.txt", "x")]);
    assert_eq!(paths(&project, "FROM scratch\nCOPY a /\nCOPY missing* /t/\n"), ["a"]);
    assert_eq!(paths(&project, "FROM scratch\nCOPY a /\nCOPY e/**/**/*sub/*.txt /t/\n"), ["a"]);
    refused(&project, "FROM scratch\nCOPY missing /t/\n", &["missing"]);
}

#[test]
fn a_link_and_a_directory_do_not_replace_each_other_in_a_copied_tree() {
    let project = with(&[("one/dir/a", ""), ("two/maybe/b", "")]);
    symlink("dir", project.context().join("one/maybe")).unwrap();
    refused(&project, "FROM scratch\nCOPY one /\nCOPY two /\n", &["maybe"]);
    refused(&project, "FROM scratch\nCOPY two /t/\nCOPY one /t/\n", &["maybe"]);
}

#[test]
fn a_destination_is_followed_through_links_inside_the_root() {
    let project = with(&[("f", "new")]);
    let all =
        tree(&project, "FROM busybox\nRUN echo old > /t && ln -s t /link && ln -s ../../../tmp /out\nCOPY f /link\nCOPY f /out/\n", &[]);
    is(&all["t"], "new");
    assert_eq!(all["link"].kind, Kind::Symlink(b"t".to_vec()));
    is(&all["tmp/f"], "new");
}

#[test]
fn a_name_in_a_copied_directory_is_replaced() {
    let project = with(&[("dir/link", "new")]);
    let all = tree(&project, "FROM busybox\nRUN echo old > /t && mkdir /d && ln -s ../t /d/link\nCOPY dir /d\n", &[]);
    is(&all["t"], "old\n");
    is(&all["d/link"], "new");
}

#[test]
fn a_hard_link_that_is_written_through_in_a_later_step_is_broken() {
    let project = with(&[]);
    let all = tree(&project, "FROM busybox\nRUN echo x > /a && ln /a /b\nRUN echo y >> /a\n", &[]);
    is(&all["a"], "x\ny\n");
    is(&all["b"], "x\n");
}

#[test]
fn the_name_of_an_arg_is_not_expanded() {
    let project = with(&[("f", "x")]);
    let image = project.dockerfile("FROM scratch\nENV src file3\nARG ${src}=f\nCOPY f$file3 /baz\n").image(&[]);
    assert!(image.tree().contains_key("baz"));
}

#[test]
fn a_variable_that_must_be_set_fails_where_it_stands() {
    refused(&with(&[]), "FROM scratch\nARG A\nENV B=\"${A:?must be set}\"\n", &["must be set", "Dockerfile:3:7"]);
    refused(&with(&[]), "FROM ${BASE:?missing}\n", &["missing", "Dockerfile:1:6"]);
}

#[test]
fn a_dollar_in_a_replacement_is_a_group() {
    let image = with(&[]).dockerfile("FROM scratch\nENV A=abc R='[$0]'\nENV B=${A//b/$R}\n").image(&[]);
    let env = &image.config["config"]["Env"];
    assert!(env.as_array().unwrap().contains(&"B=a[b]c".into()), "{env}");
}

#[test]
fn what_a_step_writes_into_a_volume_is_kept_and_the_directory_is_not_made() {
    let project = with(&[]);
    let all = tree(&project, "FROM busybox\nVOLUME /data /none\nRUN mkdir /data && echo x > /data/x\n", &[]);
    is(&all["data/x"], "x\n");
    assert!(!all.contains_key("none"));
}

#[test]
fn a_linked_copy_sets_the_owner_of_a_directory_that_is_there() {
    let project = with(&[("f", "x")]);
    let text = "FROM busybox\nRUN mkdir /d && chown 33:33 /d\n";
    assert_eq!(tree(&project, &format!("{text}COPY f /d/\n"), &[])["d"].uid, 33);
    assert_eq!(tree(&project, &format!("{text}COPY --link f /d/\n"), &[])["d"].uid, 0);
}

#[test]
fn a_mode_for_what_is_unpacked_is_an_error() {
    let project = with(&[]);
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(1);
    header.set_mode(0o640);
    archive.append_data(&mut header, "g", &b"y"[..]).unwrap();
    let _file = project.file("g.tar", archive.into_inner().unwrap());
    refused(&project, "FROM scratch\nADD --chmod=755 g.tar /t/\n", &["--chmod", "g.tar", "Dockerfile:2"]);
    let all = tree(&project, "FROM scratch\nADD --chmod=755 --unpack=false g.tar /t/\n", &[]);
    assert_eq!(all["t/g.tar"].mode, 0o755);
}

#[test]
fn the_network_of_a_step_is_the_hosts() {
    let project = with(&[]);
    let own = fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap().to_owned();
    prints(&project, "FROM busybox\nRUN readlink /proc/self/ns/net\n", &own);
    prints(&project, "FROM busybox\nRUN --network=none [ \"$(readlink /proc/self/ns/net)\" != \"net:[x]\" ] && echo apart\n", "apart");
}

#[test]
fn a_step_with_a_device_is_refused() {
    let project = with(&[]);
    refused(&project, "FROM busybox\nRUN --device=vendor.com/gpu=0 true\n", &["vendor.com/gpu=0", "Dockerfile:2"]);
}

#[test]
fn a_cache_with_a_mode_begins_with_its_files() {
    let project = with(&[]);
    project.dockerfile(
        "FROM busybox\nRUN --mount=type=cache,from=busybox,target=/c,mode=0770 test -f /c/etc/passwd && test $(stat -c %a /c) = 770\n",
    );
    let _built = project.build(&[]).good();
}

#[test]
fn only_dockers_own_front_end_is_understood() {
    let project = with(&[]);
    refused(&project, "# syntax=example.com/other:1\nFROM busybox\n", &["example.com/other:1", "Dockerfile:1:10"]);
    let _built = project.dockerfile("# syntax=docker/dockerfile:1-labs\nFROM busybox\n").build(&[]).good();
}

#[test]
fn a_line_above_65535_bytes_is_an_error() {
    let line = |length: usize| format!("FROM busybox\nENV A={}\n", "x".repeat(length - "ENV A=".len()));
    refused(&with(&[]), &line(65_536), &["65535", "Dockerfile:2"]);
    let _built = with(&[]).dockerfile(&line(65_535)).build(&[]).good();
}

#[test]
fn an_unknown_user_is_an_error_of_the_step_that_needs_it() {
    let project = with(&[]);
    assert_eq!(tree(&project, "FROM busybox\nUSER stranger\nWORKDIR /w\n", &[])["w"].uid, 0);
    refused(&project, "FROM busybox\nUSER stranger\nRUN true\n", &["stranger", "Dockerfile:3"]);
}

#[test]
fn all_that_a_step_prints_is_shown() {
    prints(&with(&[]), "FROM busybox\nRUN yes 0123456789 | head -c 3000000; echo; echo the end\n", "the end");
}

#[test]
fn an_image_has_no_attestation() {
    let project = with(&[]);
    let _built = project.dockerfile("FROM busybox\nLABEL a=b\n").build(&["-o", "type=oci,tar=false,dest=layout"]).good();
    let index: serde_json::Value = serde_json::from_slice(&fs::read(project.path("layout/index.json")).unwrap()).unwrap();
    let manifests = index["manifests"].as_array().unwrap();
    assert_eq!(manifests.len(), 1);
    assert_eq!(manifests[0]["mediaType"], "application/vnd.oci.image.manifest.v1+json");
}

#[test]
fn all_errors_of_a_file_come_at_once() {
    refused(&with(&[]), "FROM busybox\nRUM a\nCOPY --chwon=1 a b\nEXPOSE\n", &["Dockerfile:2", "Dockerfile:3", "Dockerfile:4"]);
}

/// Every row of the page names a test that there is, and every test here is named.
#[test]
fn every_difference_has_a_test_and_every_test_a_row() {
    let page = sources().join("docs/differences.md");
    let page = fs::read_to_string(&page).unwrap();
    let mut tests = BTreeMap::new();
    collect(&sources().join("tests"), &mut tests);
    collect(&sources().join("src"), &mut tests);
    let mut rows = 0;
    let mut named = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| |")) {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").collect();
        let test = cells.last().unwrap().trim().trim_matches('`');
        assert!(cells.len() == 4 && tests.contains_key(test), "`{test}` of this row is no test: {line}");
        named.push(test.to_owned());
        rows += 1;
    }
    assert!(rows > 20, "{rows}");
    let here = fs::read_to_string(sources().join("tests/suite/differences.rs")).unwrap();
    let own = here.lines().collect::<Vec<_>>();
    for pair in own.windows(2).filter(|pair| pair[0] == "#[test]" && !pair[1].contains("every_difference")) {
        let name = pair[1].trim_start_matches("fn ").split('(').next().unwrap();
        assert!(named.iter().any(|test| test == name), "`{name}` is in no row");
    }
}

/// The names of all tests below a directory.
fn collect(dir: &std::path::Path, tests: &mut BTreeMap<String, PathBuf>) {
    for entry in fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, tests);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).unwrap();
            let names = text.lines().filter_map(|line| line.trim().strip_prefix("fn ")?.split('(').next());
            tests.extend(names.map(|name| (name.to_owned(), path.clone())));
        }
    }
}
