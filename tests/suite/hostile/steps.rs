//! Groups 21, 22, 23, 30, 32: what the program of a step tries, under every way of running steps that this machine offers.

use std::{path::PathBuf, process::Command, sync::OnceLock};

use super::Ground;
use crate::harness::{Project, am_root, need, processes_with, skipped, sources, wait_until};

/// Flags of the ways to run steps in namespaces that are there, the machine's own choice first. A chroot promises none
/// of what is tested here, and says so in a warning.
pub(super) fn ways() -> &'static [Vec<&'static str>] {
    static WAYS: OnceLock<Vec<Vec<&str>>> = OnceLock::new();
    WAYS.get_or_init(|| {
        let project = Project::with_busybox();
        project.dockerfile("FROM busybox\nRUN true\n");
        let mut ways = vec![vec![]];
        for way in
            [vec!["--driver", "userns-single"], vec!["--snapshots", "copy"], vec!["--driver", "userns-single", "--snapshots", "copy"]]
        {
            match project.build(&[way.as_slice(), &["--no-cache"]].concat()).code {
                Some(0) => ways.push(way),
                // Not known to the program, or not to be had on this machine.
                Some(2 | 4) => skipped_way(&way),
                other => panic!("{way:?}: {other:?}"),
            }
        }
        ways
    })
}

fn skipped_way(way: &[&str]) {
    let _seen = std::io::Write::write_fmt(&mut std::io::stdout(), format_args!("hostile: not here: {}\n", way.join(" ")));
}

/// The program that attacks, made once.
fn attacker() -> Option<PathBuf> {
    static MADE: OnceLock<Option<(PathBuf, tempfile::TempDir)>> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let cc = need("cc")?;
        let dir = tempfile::Builder::new().prefix("lapstrake-attacker-").tempdir().unwrap();
        let program = dir.path().join("attacker");
        let source = sources().join("testdata/hostile/attacker.c");
        let made = Command::new(cc).args(["-static", "-O1", "-o"]).arg(&program).arg(source).output().unwrap();
        if !made.status.success() {
            skipped(&format!("the attacker cannot be compiled: {}", String::from_utf8_lossy(&made.stderr)));
            return None;
        }
        Some((program, dir))
    });
    made.as_ref().map(|(program, _)| program.clone())
}

/// A ground with the attacker in the context.
fn with_attacker() -> Option<Ground> {
    let program = attacker()?;
    let ground = Ground::new();
    let _size = std::fs::copy(program, ground.project.context().join("attacker")).unwrap();
    Some(ground)
}

/// Groups 22 and 23. CVE-2024-21626, CVE-2025-31133, CVE-2025-52565, CVE-2025-52881 (runc), kaniko's credentials
/// (#1553), CVE-2020-15257 (containerd), CVE-2022-0492 (Linux): memory, files, environment, namespaces and limits of
/// what runs the step; the root of the machine; its settings, devices, keys and sockets; system calls in three forms.
#[test]
fn a_step_reaches_no_process_file_setting_or_socket_of_the_machine() {
    let Some(ground) = with_attacker() else { return };
    let canaries = &ground.canaries;
    let words = format!("{} {} {} {}/file", canaries.name, canaries.tcp, canaries.path.display(), canaries.file());
    for way in ways() {
        for (network, user) in [("default", "root"), ("none", "root"), ("default", "www-data"), ("none", "www-data")] {
            // Two mounts are there to be climbed out of.
            let text = format!(
                "FROM busybox\nCOPY attacker /attacker\nUSER {user}\nRUN --network={network} --mount=type=cache,target=/cache --mount=type=bind,target=/bound /attacker {words}\n"
            );
            let ran = ground.builds(&text, &[way.as_slice(), &["--no-cache"]].concat());
            let what = format!("22, 23: {way:?} --network={network} as {user}");
            let said = ran.all();
            ground.check(ran.code == Some(0) && said.contains("attacker is done"), &what, &ran);
            let may = |line: &str| match network {
                // As in Docker: the network of the host is the host's, with its loopback.
                "default" => line.ends_with("tcp of the host"),
                // Its own, empty one: packets of its own loopback.
                _ => line.ends_with("packet socket"),
            };
            let reached: Vec<&str> = said.lines().filter(|line| line.contains(" REACHED ") && !may(line)).collect();
            ground.check(reached.is_empty(), &format!("{what}: {reached:?}"), &ran);
            let attempts = said.lines().filter(|line| line.contains(" held ") || line.contains(" REACHED ")).count();
            ground.check(attempts > 150, &format!("{what}: only {attempts} attempts"), &ran);
            ground.cases.set(ground.cases.get() + attempts);
            let (tcp, abstract_) = canaries.visits();
            ground.check(abstract_ == 0, &format!("{what}: {abstract_} came to the abstract socket"), &ran);
            ground.check((tcp == 0) == (network == "none"), &format!("{what}: {tcp} came by TCP"), &ran);
        }
    }
    ground.holds("22, 23");
}

/// Groups 21 and 32. A step that starves the first process of its sandbox, and one whose 800 processes have left its
/// session and obey no signal, end with all that they started, and as a failing step does.
#[test]
fn a_step_takes_its_sandbox_down_and_nothing_else() {
    let Some(ground) = with_attacker() else { return };
    for way in ways() {
        let build = |command: &str| {
            let text = format!("FROM busybox\nCOPY attacker /attacker\nRUN --mount=type=cache,target=/c,sharing=locked {command}\n");
            let _case = ground.case();
            ground.builds(&text, &[way.as_slice(), &["--no-cache"]].concat())
        };
        let starved = build("/attacker starve");
        ground.check(matches!(starved.code, Some(0 | 3)), &format!("32: {way:?}: pid 1 is starved"), &starved);
        let many = build("/attacker multiply");
        ground.inside(&format!("21: {way:?}: many in the background"), &many);
        wait_until("the processes of a step to be gone", || processes_with("/attacker\u{0}multiply").is_empty().then_some(()));
        // The cache's lock went with them.
        ground.inside(&format!("21: {way:?}: the next one has the cache"), &build("true"));
        let memory = build("(ulimit -v 200000; tail /dev/zero) 2>&1 | grep -q . && true");
        ground.check(matches!(memory.code, Some(0 | 3)), &format!("32: {way:?}: memory"), &memory);
        let output = build("yes lapstrake | head -c 1000000; head -c 3000000 /dev/zero | tr '\\0' x");
        ground.inside(&format!("32: {way:?}: output without line breaks"), &output);
    }
    ground.holds("21, 32");
}

/// Group 21. What still writes when the step's program has ended is dead before the layer is read: the next step sees
/// what the layer says.
#[test]
fn a_process_that_still_writes_does_not_race_the_layer() {
    let ground = Ground::new();
    let writer = "for n in 1 2 3 4 5 6 7 8; do (setsid sh -c 'trap \"\" TERM HUP; while :; do echo $$ >> /w/f; mv /w/f /w/g; mv /w/g /w/f; ln -sf /etc/passwd /w/l; mkdir -p /w/d; rm -rf /w/d; done' >/dev/null 2>&1 &) ; done; sleep 0.3";
    for way in ways() {
        let _case = ground.case();
        let text = format!(
            "FROM busybox\nRUN mkdir /w && {writer}\nRUN cd /w && find . | sort > /seen && cat f g 2>/dev/null | sha256sum >> /seen\n"
        );
        let ran = ground.builds(&text, &[way.as_slice(), &["--no-cache", "-o", "type=oci,tar=false,dest=raced"]].concat());
        ground.inside(&format!("21: {way:?}"), &ran);
        if ran.code != Some(0) {
            continue;
        }
        let tree = crate::harness::Image::of_layout(&ground.project.path("raced")).tree();
        let layer: Vec<&String> = tree.keys().filter(|path| path.starts_with("w/")).collect();
        let check = "FROM scratch\nCOPY --from=raced /seen /\n";
        let shown = ground.builds(check, &["--build-context", "raced=oci-layout://raced", "-o", "type=local,dest=shown"]);
        ground.inside("21: what the next step saw", &shown);
        let seen = std::fs::read_to_string(ground.project.path("shown/seen")).unwrap_or_default();
        let seen: Vec<String> = seen.lines().filter_map(|line| Some(format!("w/{}", line.strip_prefix("./")?))).collect();
        ground.check(
            layer.iter().copied().eq(seen.iter()),
            &format!("21: {way:?}: the layer has {layer:?}, the next step saw {seen:?}"),
            &ran,
        );
        std::fs::remove_dir_all(ground.project.path("raced")).unwrap();
        std::fs::remove_dir_all(ground.project.path("shown")).unwrap();
    }
    ground.holds("21");
}

/// Group 30. Setuid programs, capabilities of files and ids at the edges are the image's, and nobody's on the machine.
#[test]
fn rights_that_a_step_makes_are_rights_in_the_image_alone() {
    let ground = Ground::new();
    for way in ways() {
        let build = |run: &str, flags: &[&str]| {
            let _case = ground.case();
            ground.builds(&format!("FROM busybox\n{run}\n"), &[way.as_slice(), &["--no-cache"], flags].concat())
        };
        let setuid = build("RUN cp /bin/busybox /s && chmod 6755 /s && chown 0:0 /s && chmod 6755 /s", &["-o", "type=local,dest=rights"]);
        ground.inside(&format!("30: {way:?}: setuid"), &setuid);
        if !am_root() {
            let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(ground.project.path("rights/s")).unwrap().permissions());
            ground.check(mode & 0o6000 == 0, "30: a setuid file of the one who builds", &setuid);
        }
        std::fs::remove_dir_all(ground.project.path("rights")).ok();
        // In the store a setuid program of the image is not for others of this machine: nobody else comes there.
        for id in ["65534", "65535", "65536", "4294967294", "4294967295", "-1", "99999999999"] {
            let chown = build(&format!("RUN touch /f && chown {id}:{id} /f"), &[]);
            ground.check(matches!(chown.code, Some(0 | 3)), &format!("30: {way:?}: chown {id}"), &chown);
            let copied = build(&format!("COPY --chown={id}:{id} Dockerfile /f\nRUN ls -ln /f"), &[]);
            // An ordinary user's map has no such id: that is told where the layer becomes a tree.
            let told = ["Dockerfile:2", "Dockerfile:3", "has no id in this user namespace"].iter().any(|text| copied.stderr.contains(text));
            ground.check(copied.code == Some(0) || told, &format!("30: {way:?}: COPY --chown={id}"), &copied);
            let user = build(&format!("USER {id}\nRUN id -u"), &[]);
            let told = user.stderr.contains("Dockerfile:2") || user.stderr.contains("Dockerfile:3");
            ground.check(user.code == Some(0) || told, &format!("30: {way:?}: USER {id}"), &user);
            ground.check(!user.all().contains(" 0\n") || id == "0", &format!("30: {way:?}: USER {id} is root"), &user);
        }
    }
    ground.holds("30");
}
