//! Groups 16 to 20, 35: links of images, caches, contexts and steps that lead to the machine, some of them while they are
//! looked at.

use std::{
    fs,
    os::unix::fs::symlink,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use serde_json::json;

use super::{
    Ground,
    forge::{Forged, Tar},
    steps::ways,
};

/// An image with links to everywhere.
fn image_of_links(ground: &Ground) {
    let outside = ground.canaries.file().to_owned();
    let up = format!("../../../../../../../../../../../..{outside}");
    let tar = Tar::new()
        .link("abs", &outside)
        .link("up", &up)
        .link("proc-root", "/proc/self/root")
        .link("one-root", "/proc/1/root")
        .link("cwd", "/proc/self/cwd")
        .link("fd", "/proc/self/fd/3")
        .link("fds", "/proc/self/fd")
        .link("root", "/")
        .link("twice", &format!("/abs{outside}"))
        .link("dangling", "/nowhere/at/all")
        .link("loop", "loop")
        .link("file", &format!("{outside}/file"))
        .end();
    let layout = Forged::on_busybox(&ground.project, "links").layer(&tar).layout();
    let loaded = ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", "links"]);
    ground.inside("links", &loaded);
}

/// Group 16. CVE-2024-1753 (buildah), CVE-2024-23652 (BuildKit): a source of COPY or of a mount that is a link.
#[test]
fn a_source_that_is_a_link_leads_into_its_image() {
    let ground = Ground::new();
    image_of_links(&ground);
    let outside = ground.canaries.file().to_owned();
    let sources = [
        "abs",
        "up",
        "proc-root",
        "one-root",
        "cwd",
        "fd",
        "fds/3",
        "root/abs",
        "twice",
        "loop",
        "file",
        "dangling",
        "abs/file",
        "up/etc/passwd",
    ];
    for source in
        sources.map(str::to_owned).into_iter().chain([format!("proc-root{outside}/file"), format!("root{outside}"), "../../etc".to_owned()])
    {
        for line in [
            format!("COPY --from=links /{source} /x/"),
            format!("COPY --from=links /{source}/* /x/"),
            format!(
                "RUN --mount=type=bind,from=links,source=/{source},target=/m find /m -type f | head -n 3000 | xargs cat > /x 2>/dev/null; test ! -e /m/file"
            ),
        ] {
            let _case = ground.case();
            let ran = ground.builds(&format!("FROM busybox\n{line}\n"), &[]);
            let fine = ran.code == Some(0) || ran.code != Some(3) && ran.stderr.contains("Dockerfile:2");
            ground.check(fine, &format!("16: {line}"), &ran);
        }
    }
    ground.holds("16");
}

/// Group 17. CVE-2024-21626 (runc), GHSA-q6r4-3wmg-fwcq (podman): directories and destinations that lead through links, and
/// open files of the builder.
#[test]
fn a_directory_or_destination_that_is_a_link_leads_into_its_image() {
    let ground = Ground::new();
    image_of_links(&ground);
    for place in ["abs", "up", "proc-root", "one-root", "cwd", "fd", "fds/3", "twice", "loop", "dangling", "file", "abs/pwned", "up/pwned"]
    {
        for lines in [
            format!("WORKDIR /{place}\nRUN pwd && touch pwned 2>/dev/null; true"),
            format!("COPY Dockerfile /{place}/pwned"),
            format!("COPY <<EOF /{place}\nx\nEOF\n"),
            format!("RUN --mount=type=tmpfs,target=/{place} true"),
            format!("RUN --mount=type=cache,target=/{place}/deep touch /{place}/deep/pwned"),
            format!("RUN --mount=type=secret,id=s,target=/{place}/pwned true"),
        ] {
            let _case = ground.case();
            let ran = ground.builds(&format!("FROM links\n{lines}\n"), &["--secret", "id=s,env=HOME"]);
            ground.check(ran.code == Some(0) || ran.stderr.contains("Dockerfile:"), &format!("17: {lines}"), &ran);
        }
    }
    // No link at all: names in /proc that are the builder's own open files.
    for number in 0..24 {
        let _case = ground.case();
        let text = format!(
            "FROM busybox\nWORKDIR /proc/self/fd/{number}\nRUN ls . ../../../../../.. 2>&1; cat ../../../../../..{}/file; true\n",
            ground.canaries.file()
        );
        let ran = ground.builds(&text, &[]);
        ground.check(ran.code == Some(0) || ran.stderr.contains("Dockerfile:"), &format!("17: /proc/self/fd/{number}"), &ran);
    }
    ground.holds("17");
}

/// Swaps a directory of the context and a link out, until dropped.
struct Swapper {
    stop: Arc<AtomicBool>,
    thread: Option<std::thread::JoinHandle<usize>>,
}

impl Swapper {
    fn start(ground: &Ground) -> Self {
        let (context, outside) = (ground.project.context(), ground.canaries.outside.clone());
        fs::create_dir_all(context.join("real/etc")).unwrap();
        for name in ["file", "etc/passwd"] {
            fs::write(context.join("real").join(name), "of the context").unwrap();
        }
        symlink(outside, context.join("link")).unwrap();
        fs::rename(context.join("real"), context.join("d")).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::clone(&stop);
        let swap = move || {
            let mut swaps = 0;
            while !ended.load(Ordering::Relaxed) {
                // Both names always exist: what is asked for is there, and is one or the other.
                let (one, other) = (context.join("d"), context.join("link"));
                rustix::fs::renameat_with(rustix::fs::CWD, &one, rustix::fs::CWD, &other, rustix::fs::RenameFlags::EXCHANGE).unwrap();
                swaps += 1;
            }
            swaps
        };
        Self { stop, thread: Some(std::thread::spawn(swap)) }
    }
}

impl Drop for Swapper {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let swaps = self.thread.take().map(|thread| thread.join().unwrap_or_default());
        assert!(swaps > Some(100), "{swaps:?} swaps");
    }
}

/// Group 18. CVE-2024-23651 (BuildKit), CVE-2024-11218 (buildah), CVE-2018-15664 (docker cp): a directory becomes a link
/// between the look and the use. The link leads out: what a COPY or a mount gets is of the context, or the build fails.
#[test]
fn a_source_that_is_swapped_for_a_link_leads_nowhere() {
    let ground = Ground::new();
    let swapper = Swapper::start(&ground);
    let text = "FROM busybox AS a\nCOPY d /d\nFROM busybox AS b\nCOPY d/etc/passwd d/file /d/\nFROM busybox AS c\nRUN --mount=type=bind,source=d,target=/m for n in 1 2 3 4 5 6 7 8; do cat /m/file /m/etc/passwd; done; true\nFROM busybox\nCOPY --from=a / /a/\nCOPY --from=b / /b/\nRUN --mount=type=bind,target=/m for n in 1 2 3 4 5 6 7 8; do cat /m/d/file /m/d/etc/passwd; done; true\n";
    let mut good = 0;
    for _ in 0..12 {
        let _case = ground.case();
        let ran = ground.builds(text, &["--no-cache"]);
        good += usize::from(ran.code == Some(0));
        ground.check(matches!(ran.code, Some(0 | 1 | 4)), "18: a swap", &ran);
    }
    drop(swapper);
    let _seen = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("hostile: 18: {good} of 12 builds under swaps were good\n"));
    ground.holds("18");
}

/// Group 19. CVE-2024-9675, CVE-2024-9676 (buildah), CVE-2024-23651 (BuildKit): ids of caches that are paths, caches
/// that a step fills with links, caches of another's that a step finds.
#[test]
fn a_cache_is_a_directory_of_its_own_whatever_its_name_and_its_content() {
    let ground = Ground::new();
    let outside = ground.canaries.file().to_owned();
    let up = format!("{}{outside}", "../".repeat(20));
    for id in [
        "..",
        ".",
        "/",
        "../..",
        "a/../../b",
        &outside,
        &up,
        "\u{1b}[2J",
        "a\\x00b",
        "",
        "-",
        "canary",
        &"x".repeat(5000),
        "../blobs",
        "../trees",
    ] {
        let _case = ground.case();
        let run = "find /c -mindepth 1 | grep . && exit 1; touch /c/pwned";
        let ran = ground.builds(&format!("FROM busybox\nRUN --mount=type=cache,id={id},target=/c {run}\n"), &[]);
        ground.check(ran.code == Some(0) || ran.code == Some(1) && ran.stderr.contains("Dockerfile:2"), &format!("19: id {id:?}"), &ran);
    }
    for way in ways() {
        // One step leaves links; the next mounts parts of the cache, and begins another one with it.
        let poison = format!(
            "cd /c && rm -rf * && ln -s {outside} out && ln -s {up} up && ln -s / root && ln -s /proc/1/root one && mkdir d && ln -s {outside} d/out && chmod 6777 . d && mkfifo pipe"
        );
        let build = |line: &str| {
            let _case = ground.case();
            ground.builds(&format!("FROM busybox\n{line}\n"), &[way.as_slice(), &["--no-cache"]].concat())
        };
        let id = format!("poison-{}", way.join("-"));
        ground.inside(&format!("19: {way:?}: poison"), &build(&format!("RUN --mount=type=cache,id={id},target=/c {poison}")));
        for source in ["out", "up", "root", "one", "d/out", "out/etc", "../..", "d/../../.."] {
            let ran =
                build(&format!("RUN --mount=type=cache,id={id},source={source},target=/m cat /m/file /m/etc/passwd; touch /m/pwned; true"));
            ground.check(ran.code == Some(0) || ran.stderr.contains("Dockerfile:2"), &format!("19: {way:?}: source={source}"), &ran);
        }
        for target in ["/m", "/c/out/deep", "/c/up"] {
            let inner = format!("RUN --mount=type=cache,id={id},target=/c --mount=type=tmpfs,target={target} touch {target}/pwned; true");
            let ran = build(&inner);
            ground.check(
                ran.code == Some(0) || ran.stderr.contains("Dockerfile:2"),
                &format!("19: {way:?}: a mount in it at {target}"),
                &ran,
            );
        }
    }
    ground.holds("19");
}

/// Group 20. CVE-2024-23652 (BuildKit): what a step puts into the place of a mountpoint is not followed when it goes.
#[test]
fn the_place_of_a_mount_is_cleared_without_following_what_a_step_put_there() {
    let ground = Ground::new();
    let outside = ground.canaries.file().to_owned();
    for way in ways() {
        for swap in [
            format!("mv /a /b && ln -s {outside} /a"),
            format!("mv /a/d /b && ln -s {outside} /a/d"),
            "mv /a /b && ln -s / /a".to_owned(),
            format!("mv /a /b && mkdir -p /a/d && ln -s {outside}/file /a/d/file"),
            "mv /etc /e && ln -s e /etc".to_owned(),
            format!("mv /etc /e && ln -s {outside}/etc /etc"),
            "rm -rf /a 2>/dev/null; mkdir -p /a/d/file/x".to_owned(),
        ] {
            let _case = ground.case();
            let text = format!(
                "FROM busybox\nRUN --mount=type=secret,id=s,target=/a/d/file --mount=type=cache,target=/a/d/etc --mount=type=tmpfs,target=/a/passwd {swap}; true\n"
            );
            let ran = ground.builds(&text, &[way.as_slice(), &["--no-cache", "--secret", "id=s,env=HOME"]].concat());
            ground.check(ran.code == Some(0) || ran.stderr.contains("Dockerfile:2"), &format!("20: {way:?}: {swap}"), &ran);
        }
    }
    ground.holds("20");
}

/// Group 35. kaniko's hijack of its own directory by `COPY --from` and ONBUILD: what a base leaves for later is an instruction
/// like others, and gets no secret, agent or path that was not given.
#[test]
fn what_a_base_leaves_for_later_is_an_instruction_like_others() {
    let ground = Ground::new();
    let outside = ground.canaries.file().to_owned();
    let triggers = [
        format!("COPY --from=links /proc-root{outside}/file /x"),
        format!("COPY {outside}/file /x"),
        "COPY ../outside/file /x".to_owned(),
        "ADD file:///etc/passwd /x".to_owned(),
        "RUN --mount=type=secret,id=canary,target=/s cat /s".to_owned(),
        "RUN --mount=type=secret,id=CANARY,env=C echo $C".to_owned(),
        "RUN --mount=type=ssh ssh-add -l; test -z \"$SSH_AUTH_SOCK\"".to_owned(),
        "RUN --mount=type=bind,source=/,target=/m cat /m/../outside/file".to_owned(),
        "RUN --security=insecure mount -t tmpfs none /m".to_owned(),
        "RUN --device=all true".to_owned(),
        "FROM busybox".to_owned(),
        "ONBUILD RUN true".to_owned(),
        "ONBUILD ONBUILD RUN true".to_owned(),
        "MAINTAINER x\nRUN touch /pwned".to_owned(),
        "RUN <<EOF\ntouch /pwned\nEOF".to_owned(),
        "\u{1b}[2J".to_owned(),
        String::new(),
    ];
    for (number, trigger) in triggers.iter().enumerate() {
        let _case = ground.case();
        let name = format!("later-{number}");
        let layout = Forged::on_busybox(&ground.project, &name).set("OnBuild", json!([trigger])).layout();
        let loaded = ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", &name]);
        if loaded.code != Some(0) {
            continue;
        }
        let ran = ground.builds(&format!("FROM {name}\nRUN true\n"), &["-o", "type=local,dest=later"]);
        let placed = ran.stderr.contains("Dockerfile:1") || ran.stderr.contains("ONBUILD");
        ground.check(ran.code == Some(0) || placed, &format!("35: {trigger:?}"), &ran);
        ground.check(!ran.all().contains("of the host"), &format!("35: {trigger:?}"), &ran);
        fs::remove_dir_all(ground.project.path("later")).ok();
    }
    ground.holds("35");
}
