//! Groups 15, 25, 26, 27, 31: files that steer the program, and text that it reads, keeps and shows.

use std::{fs, os::unix::fs::symlink, time::Instant};

use serde_json::json;

use super::{
    Ground,
    forge::{Forged, Tar},
};

/// Group 15. GHSA-vp35-85q5-9f25 (moby): a Dockerfile, or an ignore file, that is a link shows a file of the machine; one
/// that is a pipe waits for ever; one without end fills the memory. Here in a directory.
#[test]
fn what_steers_a_build_is_a_file_of_the_context_and_not_large() {
    let ground = Ground::new();
    let context = ground.project.context();
    let secret = ground.canaries.outside.join("file");
    for name in ["Dockerfile", ".dockerignore", "Dockerfile.dockerignore"] {
        ground.project.dockerfile("FROM scratch\nCOPY . /\n");
        fs::remove_file(context.join(name)).ok();
        let place = context.join(name);
        for target in [secret.clone(), "../outside/file".into(), "/proc/self/environ".into(), "/dev/zero".into()] {
            symlink(&target, &place).unwrap();
            let _case = ground.case();
            let ran = ground.build(&[]);
            ground.check(ran.code == Some(1) || name != "Dockerfile", &format!("15: {name} -> {}", target.display()), &ran);
            fs::remove_file(&place).unwrap();
        }
        rustix::fs::mknodat(rustix::fs::CWD, &place, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
        let _case = ground.case();
        ground.refused(&format!("15: {name} is a pipe"), &ground.build(&[]), name);
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        let _case = ground.case();
        ground.refused(&format!("15: {name} is a directory"), &ground.build(&[]), name);
        fs::remove_dir(&place).unwrap();
        fs::File::create(&place).unwrap().set_len(1 << 40).unwrap();
        let _case = ground.case();
        ground.refused(&format!("15: {name} is huge"), &ground.build(&[]), name);
        fs::remove_file(&place).unwrap();
    }
    ground.holds("15");
}

/// Group 25. GHSA-72x6-4j93-7w86 (BuildKit): account files that are huge, pipes, directories, links out, or full of
/// what is no account.
#[test]
fn account_files_of_an_image_are_files_of_the_image() {
    let ground = Ground::new();
    let outside = ground.canaries.file().to_owned();
    let huge = "x:x:1:1::/:/bin/sh\n".repeat(1 << 20);
    let long_line = format!("{}:x:1:1::/:/bin/sh\n", "x".repeat(8 << 20));
    let nodes: Vec<(&str, Tar)> = vec![
        ("huge", Tar::new().file("etc/passwd", &huge).file("etc/group", &huge)),
        ("one long line", Tar::new().file("etc/passwd", &long_line).file("etc/group", &long_line)),
        ("a pipe", Tar::new().entry("etc/passwd", b'6', 0o644, "", b"").entry("etc/group", b'6', 0o644, "", b"")),
        ("a device", Tar::new().entry("etc/passwd", b'3', 0o644, "", b"").entry("etc/group", b'3', 0o644, "", b"")),
        ("a directory", Tar::new().file("etc/.wh.passwd", "").file("etc/.wh.group", "").dir("etc/passwd").dir("etc/group")),
        ("a link out", Tar::new().link("etc/passwd", &format!("{outside}/etc/passwd")).link("etc/group", "../../../../../etc/group")),
        ("a loop", Tar::new().link("etc/passwd", "group").link("etc/group", "passwd")),
        ("its directory a link out", Tar::new().file(".wh.etc", "").link("etc", &format!("{outside}/etc"))),
        ("no text", Tar::new().file("etc/passwd", "\u{0}\u{1b}:::\n:::::::::\nx\n\n-1:x:-1:-1\nbig:x:99999999999999999999:1::/:\n")),
        ("an id too large", Tar::new().file("etc/passwd", "daemon:x:4294967295:4294967295::/:/bin/sh\n")),
    ];
    for (number, (what, tar)) in nodes.into_iter().enumerate() {
        let name = format!("accounts-{number}");
        let layout = Forged::on_busybox(&ground.project, &name).layer(&tar.end()).layout();
        let loaded = ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", &name]);
        ground.inside(what, &loaded);
        for line in ["USER daemon\nRUN true", "COPY --chown=daemon:daemon Dockerfile /x", "USER 7\nRUN true"] {
            let _case = ground.case();
            let ran = ground.builds(&format!("FROM {name}\n{line}\n"), &[]);
            let named = ran.stderr.contains("Dockerfile:2") || ran.stderr.contains("Dockerfile:3");
            ground.check(ran.code == Some(0) || named, &format!("25: {what}: {line}"), &ran);
        }
    }
    ground.holds("25");
}

/// Group 26. What others wrote is shown with its control characters escaped; what a step prints is its own.
#[test]
fn names_and_values_of_others_write_nothing_on_the_terminal() {
    let ground = Ground::new();
    let evil = "\u{1b}]0;pwned\u{7}\u{1b}[2J\u{9b}31m\r\u{202e}";
    let layout = Forged::on_busybox(&ground.project, "evil")
        .set("Labels", json!({ evil: evil }))
        .set("Env", json!(["PATH=/bin", format!("E={evil}")]))
        .set("ExposedPorts", json!({ evil: {} }))
        .layer(&Tar::new().file(&format!("d/a{evil}b"), "x").end())
        .layout();
    let loaded = ground.run(&["load", "-i", layout.to_str().unwrap(), "-t", "evil"]);
    let _context = ground.project.file(&format!("c/f{evil}"), "x");
    let _ignored = ground.project.file(".dockerignore", format!("[{evil}\n"));
    let lines = [
        format!("FROM busybox\nCOPY \"no{evil}ne\" /x\n"),
        format!("FROM busybox\nFROB{evil}\n"),
        format!("FROM busybox{evil}\n"),
        format!("FROM busybox\nRUN --mount=type={evil} true\n"),
        format!("FROM busybox\nADD http://127.0.0.1:1/{evil} /x\n"),
        format!("FROM busybox\nLABEL a={evil}\nUSER x{evil}\nRUN true\n"),
        format!("FROM busybox AS a{evil}\n"),
        format!("FROM busybox\nWORKDIR /a{evil}\nCOPY c /\n"),
        format!("FROM busybox\nARG A{evil}\nENV B{evil}=1\nRUN true\n"),
        "FROM evil\nCOPY --from=evil /d /d\nRUN false\n".to_owned(),
        format!("FROM busybox\nCOPY --from=evil /d/a{evil}b/x /d\n"),
        format!("FROM busybox\n# {evil}\nCOPY --frm=x a b\n"),
    ];
    let images = ground.run(&["images"]);
    let mut all = vec![loaded, images];
    for text in lines {
        all.push(ground.builds(&text, &[]));
        fs::remove_file(ground.project.context().join(".dockerignore")).ok();
    }
    for argument in [vec!["--target", evil], vec!["--build-arg", evil], vec!["-t", evil], vec!["--secret", evil], vec!["-o", evil]] {
        ground.project.dockerfile("FROM busybox\n");
        all.push(ground.build(&argument));
    }
    for ran in &all {
        let _case = ground.case();
        let said = ran.all();
        let control = said.chars().find(|letter| letter.is_control() && *letter != '\n' && *letter != '\t' || *letter == '\u{202e}');
        ground.check(control.is_none(), &format!("26: {control:?} is shown"), ran);
    }
    ground.holds("26");
}

/// Group 27. Names and values that would be two lines, or two variables.
#[test]
fn a_name_or_a_value_is_one_variable_and_one_line() {
    let ground = Ground::new();
    let step = "RUN test -z \"$PWNED\"\n";
    let arg = |text: &str| {
        let _case = ground.case();
        ground.builds(
            &format!("FROM busybox\nARG A\nENV B=$A\nLABEL l=$A\n{step}"),
            &["--build-arg", text, "-o", "type=oci,tar=false,dest=image"],
        )
    };
    ground.inside("27: a line break in a value", &arg("A=x\\nPWNED=1"));
    let broken = arg("A=x\nPWNED=1");
    ground.check(matches!(broken.code, Some(0..=3)), "27: a real line break in a value", &broken);
    for name in ["A\nPWNED=1", "A =1", "=x", "A\u{1b}=1", "LD_PRELOAD=/pwned", "PATH=", "BASH_ENV=/pwned"] {
        let ran = arg(name);
        ground.check(matches!(ran.code, Some(0..=3)), &format!("27: {name:?}"), &ran);
    }
    // Of an image: names with `=`, without, with line breaks, twice; a NUL ends the process's own string.
    for (number, env) in [
        json!(["A=1\nPWNED=1"]),
        json!(["=PWNED"]),
        json!(["PWNED"]),
        json!(["A\u{0}PWNED=1"]),
        json!(["A=1\u{0}PWNED=1"]),
        json!([""]),
        json!(["PATH"]),
        json!("PWNED=1"),
        json!({"PWNED": "1"}),
    ]
    .into_iter()
    .enumerate()
    {
        let _case = ground.case();
        let name = format!("env-{number}");
        let layout = Forged::on_busybox(&ground.project, &name).set("Env", env.clone()).layout();
        let loaded = ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", &name]);
        if loaded.code == Some(0) {
            let ran = ground.builds(&format!("FROM {name}\nENV C=1\nENV PATH=/bin\n{step}"), &[]);
            ground.check(matches!(ran.code, Some(0..=3)) && !ran.stderr.contains("bug"), &format!("27: of an image: {env}"), &ran);
            if ran.code == Some(3) {
                ground.check(false, &format!("27: of an image: {env}"), &ran);
            }
        }
    }
    for text in [
        "ARG A\\u0000=1",
        "ENV A\u{0}=1",
        "ENV A=x\u{0}PWNED=1",
        "LABEL a\u{0}=1",
        "RUN echo \u{0}",
        "WORKDIR /a\u{0}/b",
        "USER a\u{0}",
        "COPY a\u{0} /b",
        "CMD [\"a\\u0000b\"]",
    ] {
        let _case = ground.case();
        let ran = ground.builds(&format!("FROM busybox\n{text}\n{step}"), &[]);
        ground.check(ran.code == Some(0) || ran.code == Some(1) && ran.stderr.contains("Dockerfile:"), &format!("27: {text:?}"), &ran);
    }
    ground.holds("27");
}

/// Group 31. A pattern costs what it is long, whatever it is.
#[test]
fn a_pattern_takes_no_time_that_grows_without_measure() {
    let ground = Ground::new();
    let name = "a".repeat(200);
    let _file = ground.project.file(&format!("{name}/{name}"), "x");
    let patterns = [
        format!("{}b", "a*".repeat(60)),
        format!("{}b", "*".repeat(10_000)),
        format!("{}b", "**/".repeat(500)),
        format!("!{}b", "**/a*".repeat(200)),
        "[".repeat(10_000),
        "\\".repeat(9_999),
        format!("[{}", "a-".repeat(5_000)),
        "[]-a]".to_owned(),
        "[z-a]".to_owned(),
        "(a+)+$".to_owned(),
        "../".repeat(1_000),
        format!("{}{}", "!".repeat(1_000), "x"),
        "/".repeat(5_000),
    ];
    for pattern in &patterns {
        let begun = Instant::now();
        let _case = ground.case();
        let _file = ground.project.file(".dockerignore", format!("{pattern}\n").repeat(20));
        let ran = ground.builds("FROM scratch\nCOPY . /\n", &[]);
        ground.check(matches!(ran.code, Some(0 | 1)) && begun.elapsed().as_secs() < 20, &format!("31: ignore {pattern:.40}"), &ran);
        fs::remove_file(ground.project.context().join(".dockerignore")).unwrap();
        let begun = Instant::now();
        let _case = ground.case();
        let json = serde_json::to_string(&[pattern.as_str(), "/d/"]).unwrap();
        let ran = ground.builds(&format!("FROM scratch\nCOPY {json}\n"), &[]);
        ground.check(matches!(ran.code, Some(0 | 1)) && begun.elapsed().as_secs() < 20, &format!("31: COPY {pattern:.40}"), &ran);
    }
    let many: String = (0..20_000).fold(String::new(), |all, at| all + &format!("**/x{at}*\n!y{at}\n"));
    let _file = ground.project.file(".dockerignore", many);
    let begun = Instant::now();
    let _case = ground.case();
    let ran = ground.builds("FROM scratch\nCOPY . /\n", &[]);
    ground.check(matches!(ran.code, Some(0 | 1)) && begun.elapsed().as_secs() < 20, "31: 40,000 patterns", &ran);
    ground.holds("31");
}
