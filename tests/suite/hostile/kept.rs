//! Groups 28, 29, 34: what is kept between builds is put together wrongly, cut off, or gets the password of a proxy.

use std::{fs, path::PathBuf, process::Command};

use super::{
    Ground,
    forge::{Forged, Tar},
};
use crate::harness::{Image, Needle, Web, answer, found, output_of};

/// Builds to a layout; what is in it.
fn built(ground: &Ground, what: &str) -> Option<Image> {
    let name = format!("kept-{}", ground.case());
    let ran = ground.build(&["-o", &format!("type=oci,tar=false,dest={name}")]);
    ground.inside(what, &ran);
    (ran.code == Some(0)).then(|| Image::of_layout(&ground.project.path(&name)))
}

/// Group 28. CVE-2024-24557 (moby): a cache that answers for another step. Here somebody gives every file of a kind in the
/// store the name of the next one: each is whole in itself, and is not taken for what its name says.
#[test]
fn what_is_kept_under_the_name_of_another_is_not_taken_for_it() {
    let ground = Ground::new();
    let lines = [0, 1, 2, 3].map(|at| format!("RUN echo {at} > /f{at} && echo {at} > /same\nCOPY c{at} /c\n")).concat();
    for at in 0..4 {
        let _file = ground.project.file(&format!("c{at}"), format!("{at}"));
    }
    ground.project.dockerfile(&format!("FROM busybox\n{lines}"));
    let Some(first) = built(&ground, "28: at first") else { return ground.holds("28") };
    for kind in ["cache", "index", "layers", "blobs/sha256"] {
        rotate(&ground.project.store().join(kind));
        // The base would be asked for at its registry; all else is made anew.
        if kind.starts_with("blobs") {
            ground.project.load_busybox();
        }
        let ran = ground.build(&[]);
        ground.inside(&format!("28: {kind}"), &ran);
        let Some(again) = built(&ground, &format!("28: {kind}, again")) else { continue };
        assert_eq!(again.diff_ids().len(), first.diff_ids().len(), "{kind}");
        assert_eq!(crate::harness::differences(&first.tree(), &again.tree()), Vec::<String>::new(), "{kind}");
    }
    ground.holds("28");
}

/// Each file gets the name of the next.
pub(crate) fn rotate(dir: &std::path::Path) {
    let mut files: Vec<PathBuf> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_file()).collect();
    files.sort();
    let Some(last) = files.last() else { return };
    let spare = dir.join("spare");
    fs::rename(last, &spare).unwrap();
    for pair in files.windows(2).rev() {
        let [one, next] = pair else { continue };
        fs::rename(one, next).unwrap();
    }
    fs::rename(&spare, files.first().unwrap()).unwrap();
}

/// Group 28. Steps whose texts would be one if they were only put one after the other.
#[test]
fn steps_that_look_alike_have_keys_of_their_own() {
    let ground = Ground::new();
    let _file = ground.project.file("ab", "c");
    let _file = ground.project.file("a", "bc");
    let pairs = [
        ("ENV A=1 B=2\nRUN env", "ENV A=\"1 B=2\"\nRUN env"),
        ("ENV A=1\nENV B=2\nRUN env", "ENV A=\"1\\nB=2\"\nRUN env"),
        ("RUN [\"echo\", \"a b\"]", "RUN [\"echo\", \"a\", \"b\"]"),
        ("RUN [\"sh\", \"-c\", \"echo x\"]", "RUN [\"sh\", \"-c\", \"echo x\", \"\"]"),
        ("RUN echo a\\\n; echo c", "RUN echo a; echo  c"),
        ("SHELL [\"/bin/sh\", \"-c\"]\nRUN echo x", "SHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN echo x"),
        ("COPY ab /x", "COPY a /x"),
        ("COPY a ab /d/", "COPY ab a /d/e/"),
        ("USER 1\nRUN id", "USER 1:1\nRUN id"),
        ("USER www-data\nRUN id", "USER 33\nWORKDIR /\nRUN id; true"),
        ("WORKDIR /a\nRUN pwd", "WORKDIR /a/b\nRUN pwd"),
        ("RUN --network=none true", "RUN --network=host true"),
        ("RUN --mount=type=tmpfs,target=/a true", "RUN --mount=type=tmpfs,target=/b true"),
        ("RUN --mount=type=bind,source=a,target=/m true", "RUN --mount=type=bind,source=ab,target=/m true"),
        ("RUN <<A\nx=1\nA\n", "RUN <<A\nx=1\n\nA\n"),
        ("ARG A=1\nRUN echo", "ARG A=2\nRUN echo"),
    ];
    for (one, other) in pairs {
        let build = |lines: &str| {
            let _case = ground.case();
            ground.builds(&format!("FROM busybox\n{lines}\n"), &["--no-cache-filter", "none"])
        };
        ground.inside(&format!("28: {one:?}"), &build(one));
        let second = build(other);
        ground.check(second.code == Some(0) && !second.stderr.contains("CACHED"), &format!("28: {other:?} after {one:?}"), &second);
    }
    ground.holds("28");
}

/// Groups 11 and 28. A base that calls its layer by the diff id of another one, which is known here already: whoever reads
/// the blob sees that it is not, and a step works on the tree of the one that is.
#[test]
fn a_layer_that_borrows_the_name_of_a_known_one_is_not_read_as_it() {
    let ground = Ground::new();
    let good = Tar::new().file("from", "the good one").end();
    let evil = Tar::new().file("from", "the evil one").end();
    let load = |name: &str, blob: &[u8]| {
        let layout = Forged::on_busybox(&ground.project, name).packed(blob, &good, "application/vnd.oci.image.layer.v1.tar").layout();
        ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", name])
    };
    ground.inside("28: the good one", &load("good", &good));
    ground.inside("28: used", &ground.builds("FROM good\nRUN grep -q good /from\n", &[]));
    let loaded = load("evil", &evil);
    for line in
        ["RUN cat /from", "RUN cat /from; true", "COPY --from=evil /from /x", "RUN --mount=type=bind,from=evil,target=/m cat /m/from"]
    {
        let _case = ground.case();
        let ran = if loaded.code == Some(0) {
            ground.builds(&format!("FROM evil\n{line}\n"), &["-o", "type=local,dest=borrowed"])
        } else {
            ground.run(&["images"])
        };
        ground.check(!ran.all().contains("the evil one"), &format!("28: {line}"), &ran);
        let written = fs::read_to_string(ground.project.path("borrowed/from")).unwrap_or_default();
        ground.check(!written.contains("evil"), &format!("28: {line}: written"), &ran);
    }
    ground.holds("11, 28");
}

/// Group 29. A write that fails or kills in the middle, wherever it is, costs nothing but that build.
#[test]
fn a_write_that_fails_anywhere_leaves_a_store_that_is_whole() {
    let ground = Ground::new();
    let _file = ground.project.file("large", vec![b'x'; 3 << 20]);
    let text = "FROM busybox\nRUN head -c 2000000 /dev/urandom > /random; true\nCOPY large /large\nRUN cp /large /copy; true\n";
    ground.project.dockerfile(text);
    // Blocks of 512 bytes in the shell; as root and as a user, unlike a full disk.
    for blocks in [0, 1, 8, 100, 1000, 3000, 5000] {
        let _case = ground.case();
        let plain = ground.project.command(["build", "--progress", "plain", "ctx", "-t", "kept", "-o", "type=oci,dest=kept.tar"]);
        let mut bounded = Command::new("sh");
        bounded.args(["-c", "ulimit -f \"$0\" && exec \"$@\"", &blocks.to_string()]).arg(plain.get_program()).args(plain.get_args());
        bounded.env_clear().envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let ran = output_of(bounded.current_dir(ground.project.path("")));
        ground.check(!ran.stderr.contains("panicked"), &format!("29: files of {blocks} blocks"), &ran);
        fs::remove_file(ground.project.path("kept.tar")).ok();
    }
    let first = built(&ground, "29: after all of them");
    let again = built(&ground, "29: again");
    if let (Some(first), Some(again)) = (first, again) {
        assert_eq!(first.digest, again.digest);
        assert!(first.tree().contains_key("copy"));
    }
    ground.holds("29");
}

/// Group 34. The password of a proxy is in no message and in nothing kept, whether the proxy is there or not; a step gets
/// the variables, as in Docker, and they are in no key and no history.
#[test]
fn the_password_of_a_proxy_is_told_to_the_proxy_alone() {
    let mut ground = Ground::new();
    let password = super::canary::value();
    let web = Web::serving(|_| answer("403 Forbidden", &[], b"no"));
    for port in [1, web.port] {
        let proxy = format!("http://user:{password}@127.0.0.1:{port}");
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            ground.project.variable(name, &proxy);
        }
        let arg = format!("http_proxy={proxy}");
        for (line, flags) in [
            ("ADD http://example.invalid/x /x", vec![]),
            ("ADD https://example.invalid/x /x", vec![]),
            ("ADD https://example.invalid/r.git /x", vec![]),
            ("FROM example.invalid/image:latest", vec![]),
            ("RUN wget -T 2 http://example.invalid/ 2>/dev/null; true", vec!["--build-arg", arg.as_str()]),
            ("COPY nowhere /x", vec!["--build-arg", arg.as_str()]),
        ] {
            let _case = ground.case();
            let ran = ground.builds(&format!("FROM busybox\n{line}\n"), &[flags.as_slice(), &["-o", "type=oci,dest=out.tar"]].concat());
            ground.check(!ran.all().contains(&password), &format!("34: {line}"), &ran);
        }
    }
    assert_eq!(found(&ground.project, &["store"], &Needle::of(password.as_bytes())), Vec::<String>::new());
    if let Ok(image) = fs::read(ground.project.path("out.tar")) {
        assert!(!String::from_utf8_lossy(&image).contains(&password));
    }
    ground.holds("34");
}
