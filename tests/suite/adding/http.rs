//! ADD of files over http.

use std::{
    fs,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::harness::{Asked, Image, Kind, Project, Web, answer, free_port, sha256};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

fn of(project: &Project, lines: &str) -> Image {
    let _written = project.dockerfile(&format!("FROM scratch\n{lines}"));
    project.image(&[])
}

fn names(image: &Image) -> Vec<String> {
    image.tree().into_keys().collect()
}

/// The digest of a file's bytes.
fn content(image: &Image, path: &str) -> String {
    match &image.tree()[path].kind {
        Kind::File { sha256, .. } => sha256.clone(),
        other => panic!("{path} is {other:?}"),
    }
}

/// A tar with one file.
fn archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    builder.append_data(&mut header, "inside", &b"in"[..]).unwrap();
    builder.into_inner().unwrap()
}

#[test]
fn a_download_has_mode_0600_the_servers_time_and_the_name_of_its_path() {
    let web = Web::serving(|asked| match asked.path.as_str() {
        "/dated" => answer("200 OK", &[("Last-Modified", DATE)], b"dated"),
        _ => answer("200 OK", &[], asked.path.as_bytes()),
    });
    let project = Project::new();
    let lines = format!(
        "ADD {} /exact\nADD {} {} /dir/\nADD --chown=3:4 --chmod=0751 --link {} /owned/\nADD {} /root/\n",
        web.url("/dated"),
        web.url("/a%5Bb%5D%2A?x=/y"),
        web.url("/d/plain#part"),
        web.url("/dated"),
        web.url("")
    );
    let image = of(&project, &lines);
    let all = ["dir", "dir/a[b]*", "dir/plain", "exact", "owned", "owned/dated", "root", "root/__unnamed__"];
    assert_eq!(names(&image), all);
    let tree = image.tree();
    assert_eq!((tree["exact"].mode, tree["exact"].mtime, tree["dir/plain"].mtime), (0o600, 784_111_777, 0));
    assert_eq!((tree["owned/dated"].mode, tree["owned/dated"].uid, tree["owned/dated"].gid), (0o751, 3, 4));
    assert_eq!((content(&image, "exact"), content(&image, "dir/a[b]*")), (sha256(b"dated"), sha256(b"/a%5Bb%5D%2A?x=/y")));
}

#[test]
fn a_download_that_did_not_change_is_a_hit_and_is_not_sent_again() {
    let version = std::sync::Arc::new(AtomicUsize::new(1));
    let now = std::sync::Arc::clone(&version);
    let web = Web::serving(move |asked: &Asked| {
        let tag = format!("\"v{}\"", now.load(Ordering::Relaxed));
        match asked.path.as_str() {
            "/tagged" if asked.header("if-none-match") == Some(&tag) => answer("304 Not Modified", &[], b""),
            // It ignores the question, as some do.
            "/tagged" | "/stubborn" => answer("200 OK", &[("ETag", &tag)], tag.as_bytes()),
            _ => answer("200 OK", &[], b"always"),
        }
    });
    let project = Project::new();
    let urls = ["/tagged", "/stubborn", "/silent"].map(|path| web.url(path)).join(" ");
    let _written = project.dockerfile(&format!("FROM scratch\nADD {urls} /\n"));
    let first = project.image(&[]);
    let asked = web.asked();
    assert!(asked.len() == 3 && asked.iter().all(|asked| asked.header("if-none-match").is_none()));
    let again = project.build(&[]).good().says(&["#1 CACHED"]);
    assert!(!again.stderr.contains(&format!("downloading {}", web.url("/tagged"))));
    let conditions: Vec<bool> = web.asked().iter().map(|asked| asked.header("if-none-match") == Some("\"v1\"")).collect();
    assert_eq!(conditions, [true, true, false]);
    version.store(2, Ordering::Relaxed);
    let second = project.image(&[]);
    assert_eq!(
        (content(&first, "tagged"), content(&second, "tagged"), content(&second, "stubborn")),
        (sha256(b"\"v1\""), sha256(b"\"v2\""), sha256(b"\"v2\""))
    );
}

#[test]
fn what_is_remembered_of_a_url_is_disposable() {
    let web = Web::serving(|asked| match asked.header("if-none-match") {
        Some(_) => answer("304 Not Modified", &[], b""),
        None => answer("200 OK", &[("ETag", "\"x\"")], b"right"),
    });
    let project = Project::new();
    let first = of(&project, &format!("ADD {} /f\n", web.url("/f")));
    let blob = project.store().join("blobs/sha256").join(sha256(b"right"));
    fs::write(&blob, "wrong").unwrap();
    let args = ["--no-cache"];
    assert_eq!(content(&project.image(&args), "f"), content(&first, "f"));
    fs::remove_file(&blob).unwrap();
    assert_eq!(content(&project.image(&args), "f"), sha256(b"right"));
}

#[test]
fn a_checksum_is_kept_or_the_build_fails_and_names_both() {
    let web = Web::serving(|_| answer("200 OK", &[], b"bytes"));
    let project = Project::new();
    let [right, wrong] = [&b"bytes"[..], b"other"].map(|bytes| format!("sha256:{}", sha256(bytes)));
    let line = |sum: &str| format!("FROM scratch\nADD --checksum={sum} {} /f\n", web.url("/f"));
    let _written = project.dockerfile(&line(&wrong));
    let _failed = project.build(&[]).ends_with(1).says(&[&wrong, &right, "Dockerfile:2"]);
    let _written = project.dockerfile(&line(&right));
    assert_eq!(names(&project.image(&[])), ["f"]);
    // What the checksum says is known: nobody is asked.
    let _before = web.asked();
    let _again = project.build(&["--no-cache"]).good();
    assert!(web.asked().is_empty());
}

#[test]
fn what_a_server_refuses_is_told_apart() {
    let web = Web::serving(|asked| match asked.path.as_str() {
        "/gone" => answer("404 Not Found", &[], b""),
        "/closed" => answer("401 Unauthorized", &[], b""),
        "/odd" => answer("500 Oh\x1b[31m", &[], b""),
        _ => answer("500 Oh", &[], b""),
    });
    let project = Project::new();
    let cases = [("/gone", 1, "404"), ("/closed", 5, "HTTP_AUTH_TOKEN_127.0.0.1"), ("/broken", 5, "500"), ("/odd", 5, "no proper HTTP")];
    for (path, code, words) in cases {
        let _written = project.dockerfile(&format!("FROM scratch\nADD {} /f\n", web.url(path)));
        let ran = project.build(&[]).ends_with(code).says(&[words, "Dockerfile:2"]);
        assert!(!ran.stderr.contains('\x1b'));
    }
    let _written = project.dockerfile(&format!("FROM scratch\nADD http://127.0.0.1:{}/f /f\n", free_port()));
    let _failed = project.build(&[]).ends_with(5).says(&["connection refused"]);
}

#[test]
fn a_transfer_that_is_cut_is_continued_or_begun_anew_or_an_error() {
    let tries = AtomicUsize::new(0);
    let web = Web::serving(move |asked| {
        let cut = |headers: &str, body: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n{headers}\r\n{body}").into_bytes();
        match (asked.path.as_str(), asked.header("range"), asked.header("if-range")) {
            ("/tagged", None, _) => cut("ETag: \"t\"\r\n", "01234"),
            ("/tagged", Some("bytes=5-"), Some("\"t\"")) => {
                answer("206 Partial Content", &[("ETag", "\"t\""), ("Content-Range", "bytes 5-9/10")], b"56789")
            }
            ("/plain", None, _) if tries.fetch_add(1, Ordering::Relaxed) == 0 => cut("", "98765"),
            ("/liar", Some(_), _) => answer("206 Partial Content", &[("Content-Range", "bytes 0-9/10")], b"0123456789"),
            ("/liar", None, _) if tries.fetch_add(1, Ordering::Relaxed) == 2 => cut("ETag: \"l\"\r\n", "xx"),
            ("/plain" | "/liar", None, _) => answer("200 OK", &[], b"0123456789"),
            ("/endless", None, _) => cut("ETag: \"e\"\r\n", "01234"),
            ("/endless", Some("bytes=5-"), _) => {
                let head = "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 5-9/10\r\nContent-Length: ";
                format!("{head}{}\r\n\r\n56789", u64::MAX).into_bytes()
            }
            _ => cut("", "0"),
        }
    });
    let project = Project::new();
    for path in ["/tagged", "/plain", "/liar"] {
        let image = of(&project, &format!("ADD {} /f\n", web.url(path)));
        assert_eq!(content(&image, "f"), sha256(b"0123456789"), "{path}");
    }
    for path in ["/always", "/endless"] {
        let _written = project.dockerfile(&format!("FROM scratch\nADD {} /f\n", web.url(path)));
        let _failed = project.build(&[]).ends_with(5).says(&["Dockerfile:2"]);
    }
    let temporary = fs::read_dir(project.store().join("tmp")).unwrap().count();
    assert_eq!(temporary, 0);
}

#[test]
fn redirects_are_followed_to_http_only_and_not_for_ever() {
    let web = Web::serving(|asked| {
        let to = |location: &str| answer("302 Found", &[("Location", location)], b"");
        match asked.path.as_str() {
            "/first" => to("second?x"),
            "/second?x" => answer("200 OK", &[("Content-Disposition", "attachment; filename=\"../../etc/evil\"")], b"body"),
            "/loop" => to("/loop"),
            "/file" => to("file:///etc/passwd"),
            "/gopher" => to("gopher://127.0.0.1/"),
            // CVE-2019-5736's neighbours: the address of a cloud's metadata.
            "/metadata" => to("http://169.254.169.254/latest/meta-data/"),
            "/decimal" => to("http://2852039166/latest/"),
            "/nothing" => answer("302 Found", &[], b""),
            _ => to("http://user:pw@127.0.0.1/x"),
        }
    });
    let project = Project::new();
    let image = of(&project, &format!("ADD {} /d/\n", web.url("/first")));
    // CVE-2026-33748: what the server calls its file does not count.
    assert_eq!((names(&image), content(&image, "d/first")), (vec!["d".to_owned(), "d/first".to_owned()], sha256(b"body")));
    for path in ["/loop", "/file", "/gopher", "/metadata", "/decimal", "/nothing", "/userinfo"] {
        let _written = project.dockerfile(&format!("FROM scratch\nADD {} /f\n", web.url(path)));
        let _failed = project.build(&[]).ends_with(5).says(&["redirect", "Dockerfile:2"]);
    }
}

#[test]
fn a_token_goes_to_its_origin_and_nowhere_else() {
    let other = Web::serving(|_| answer("200 OK", &[], b"other"));
    let away = other.url("/away");
    let web = Web::serving(move |asked| match asked.path.as_str() {
        "/away" => answer("307 Temporary Redirect", &[("Location", &away)], b""),
        _ => answer("200 OK", &[], b"own"),
    });
    let project = Project::new();
    let secret = project.file("../token", "hunter2\n");
    let flag = format!("id=HTTP_AUTH_TOKEN_127.0.0.1,src={}", secret.display());
    let _written = project.dockerfile(&format!("FROM scratch\nADD {} {} /d/\n", web.url("/own"), web.url("/away")));
    let ran = project.build(&["--secret", &flag]).good();
    assert!(web.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer hunter2")));
    let elsewhere = other.asked();
    assert!(elsewhere.len() == 1 && elsewhere[0].header("authorization").is_none());
    assert!(!ran.all().contains("hunter2"));
    let user = format!("http://me:hunter3@127.0.0.1:{}/own", web.port);
    let _written = project.dockerfile(&format!("FROM scratch\nADD {user} /f\nADD {user}/\u{20}/x\n"));
    let _ran = project.build(&[]);
    assert_eq!(web.asked()[0].header("authorization"), Some("Basic bWU6aHVudGVyMw=="));
}

#[test]
fn a_download_is_unpacked_only_if_that_is_said() {
    let web = Web::serving(|_| answer("200 OK", &[], &archive()));
    let project = Project::new();
    let _local = project.file("local.tar", archive());
    let url = web.url("/far.tar");
    let image = of(&project, &format!("ADD {url} local.tar /both/\nADD --unpack=true {url} /un/\nADD --unpack=false local.tar /no/\n"));
    assert_eq!(names(&image), ["both", "both/far.tar", "both/inside", "no", "no/local.tar", "un", "un/inside"]);
}

#[test]
fn names_in_a_url_lead_nowhere() {
    let web = Web::serving(|_| answer("200 OK", &[], b"x"));
    let project = Project::new();
    // CVE-2026-33748.
    for path in ["/%2e%2e", "/a/..", "/%2e%2e%2f%2e%2e%2fetc%2f..", "/a%00b", "/x%0ay"] {
        let image = of(&project, &format!("ADD {} /d/\n", web.url(path)));
        assert_eq!(names(&image), ["d", "d/download"], "{path}");
    }
    assert_eq!(names(&of(&project, &format!("ADD {} /d/\n", web.url("/..%2f..%2fetc%2fpasswd")))), ["d", "d/passwd"]);
}

#[test]
fn a_coding_of_the_transfer_is_taken_off() {
    let web = Web::serving(|asked| match asked.path.as_str() {
        "/packed" => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            std::io::Write::write_all(&mut packer, b"plain").unwrap();
            answer("200 OK", &[("Content-Encoding", "gzip")], &packer.finish().unwrap())
        }
        "/chunked" => b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\npla\r\n2\r\nin\r\n0\r\n\r\n".to_vec(),
        _ => answer("200 OK", &[("Content-Encoding", "br")], b"x"),
    });
    let project = Project::new();
    for path in ["/packed", "/chunked"] {
        assert_eq!(content(&of(&project, &format!("ADD {} /f\n", web.url(path))), "f"), sha256(b"plain"));
    }
    let _written = project.dockerfile(&format!("FROM scratch\nADD {} /f\n", web.url("/brotli")));
    let _failed = project.build(&[]).ends_with(5).says(&["content encoding `br`"]);
}
