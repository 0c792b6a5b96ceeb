//! Steps that need nothing of each other run at once, and end together.

use std::{fs, path::PathBuf, time::Duration};

use rustix::process::{Pid, Signal, kill_process};

use crate::{
    harness::{Image, Project, Ran, Way, processes_with, wait_until},
    killing::{self, assert_no_file_is_left, assert_nothing_is_left, descendants, left, sleeping},
};

/// A stage whose step ends well only if it meets those of all the others in a shared cache.
fn meeting(name: &str, others: &[&str]) -> String {
    let all: Vec<String> = others.iter().map(|other| format!("test -e /cache/{other}")).collect();
    format!(
        "FROM busybox AS {name}\nRUN --mount=type=cache,target=/cache,id=meeting touch /cache/{name}; for i in $(seq 300); do {} && echo met {name} > /{name} && exit 0; sleep 0.1; done; exit 1\n",
        all.join(" && ")
    )
}

/// `names` as stages that meet, and one that has a file of each.
fn all_meet(names: &[&str]) -> String {
    let stages = names.iter().map(|name| meeting(name, names)).collect::<Vec<_>>().concat();
    let copies: Vec<String> = names.iter().map(|name| format!("COPY --from={name} /{name} /{name}\n")).collect();
    format!("{stages}FROM busybox\n{}", copies.concat())
}

#[test]
fn stages_that_need_nothing_of_each_other_run_at_once() {
    let project = Project::with_busybox();
    let names = ["a", "b", "c", "d", "e", "f"];
    project.dockerfile(&all_meet(&names));
    let image = project.image(&[]);
    let tree = image.tree();
    assert!(names.iter().all(|name| tree.contains_key(*name)));
    assert_eq!(image.layers.len(), 7);
    let again = project.build(&[]).good();
    assert_eq!(again.stderr.matches("CACHED").count(), 12, "{}", again.stderr);
}

#[test]
fn stages_run_at_once_however_changes_are_kept() {
    for snapshots in ["overlay", "copy"] {
        let project = Project::with_busybox();
        project.dockerfile(&all_meet(&["a", "b", "c"]).replace("/cache,id=meeting", &format!("/cache,id={snapshots}")));
        let image = project.image(&["--snapshots", snapshots]);
        assert_eq!(image.paths(2), ["a"], "{snapshots}");
        assert_eq!(image.paths(0), ["c"], "{snapshots}");
    }
}

#[test]
fn with_max_steps_1_one_step_is_done_after_the_other() {
    let project = Project::with_busybox();
    let stage = |name: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,target=/cache,id=turns mkdir /cache/busy && sleep 0.3 && rmdir /cache/busy && touch /{name}\n"
        )
    };
    let dockerfile = ["a", "b", "c", "d"].map(stage).concat()
        + "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\nCOPY --from=c /c /\nCOPY --from=d /d /\n";
    project.dockerfile(&dockerfile);
    let _in_turn = project.build(&["--max-steps", "1"]).good();
    // Two at once do meet: one of them finds the directory there.
    project.dockerfile(&all_meet(&["a", "b"]).replace("seq 300", "seq 10"));
    let _never = project.build(&["--max-steps", "1"]).ends_with(3);
    project.dockerfile(&all_meet(&["a", "b"]));
    let _met = project.build(&["--max-steps", "2", "--jobs", "1"]).good();
    for flag in ["--max-steps", "--jobs"] {
        let _none = project.build(&[flag, "0"]).ends_with(2);
    }
}

#[test]
fn equal_steps_of_two_stages_are_done_once() {
    for args in [&["--no-cache"][..], &[], &["--max-steps", "1", "--no-cache"]] {
        let project = Project::with_busybox();
        let stage = |name: &str| format!("FROM busybox AS {name}\nRUN cat /proc/sys/kernel/random/uuid > /id && sleep 0.5\n");
        let stages = ["a", "b", "c"].map(stage).concat();
        project.dockerfile(&format!(
            "{stages}FROM busybox\nCOPY --from=a /id /a\nCOPY --from=b /id /b\nCOPY --from=c /id /c\nRUN cmp /a /b && cmp /b /c\n"
        ));
        let ran = project.build(args).good();
        assert_eq!(ran.stderr.lines().filter(|line| line.ends_with(" CACHED")).count(), 2, "{}", ran.stderr);
        assert!(!ran.stderr.contains("another build"), "{}", ran.stderr);
    }
}

/// Seconds that nothing else on the machine sleeps for.
fn seconds(test: u32) -> u32 {
    killing::seconds(50 + test)
}

/// Four stages that sleep, each in two processes, and what must be done for the fourth one to begin to.
fn sleepers(seconds: u32, fourth: &str) -> String {
    let stage = |name: &str| format!("FROM busybox AS {name}\nRUN echo {name}; (sleep {seconds} &) ; sleep {seconds}\n");
    let stages = ["a", "b", "c"].map(stage).concat();
    let copies = ["a", "b", "c", "d"].map(|name| format!("COPY --from={name} / /{name}\n")).concat();
    format!("{stages}FROM busybox AS d\nRUN {fourth}\nFROM scratch\n{copies}")
}

#[test]
fn a_step_that_fails_ends_the_others_and_is_the_one_that_is_shown() {
    let project = Project::with_busybox();
    let seconds = seconds(1);
    let fails = "--mount=type=cache,target=/cache,id=fails until test -e /cache/now; do sleep 0.1; done; echo my last words; exit 7";
    project.dockerfile(&sleepers(seconds, fails));
    let build = project.start_build(&[]);
    wait_until("the three others to run", || (sleeping(seconds) == 6).then_some(()));
    let cache = wait_until("the cache of the fourth", || caches(&project).pop());
    fs::write(cache.join("now"), "").unwrap();
    let ran = Ran::of_child("build".to_owned(), build).ends_with(3);
    let ran = ran.says(&["my last words", "did not complete successfully: exit code: 7", "--> Dockerfile:8:1"]);
    assert_eq!(ran.stderr.matches("error: ").count(), 1, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches(" ERROR after ").count(), 1, "{}", ran.stderr);
    assert_eq!(ran.stderr.matches(" CANCELED after ").count(), 3, "{}", ran.stderr);
    assert!(ran.stderr.find(" ERROR after ") < ran.stderr.find(" CANCELED after "), "{}", ran.stderr);
    assert_nothing_is_left(&project, seconds);
}

/// The only directory two levels below.
/// The cache mounts that there are by now.
fn caches(project: &Project) -> Vec<PathBuf> {
    let below = |dir: PathBuf| fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    below(project.store().join("mounts")).flat_map(below).collect()
}

#[test]
fn ctrl_c_ends_all_that_run() {
    let project = Project::with_busybox();
    let seconds = seconds(2);
    project.dockerfile(&sleepers(seconds, &format!("sleep {seconds}")));
    let build = project.start_build(&["-o", "type=oci,dest=image.tar"]);
    wait_until("all four to run", || (sleeping(seconds) == 7).then_some(()));
    kill_process(Pid::from_child(&build), Signal::INT).unwrap();
    let ran = Ran::of_child("build".to_owned(), build).ends_with(130);
    assert!(!ran.stderr.contains(" ERROR after "), "nobody is to blame: {}", ran.stderr);
    assert!(!project.path("image.tar").exists());
    assert_nothing_is_left(&project, seconds);
}

#[test]
fn a_build_that_is_killed_leaves_none_of_its_steps() {
    for (victim, number) in [("build", 3), ("engine-process", 4)] {
        let project = Project::with_busybox();
        let seconds = seconds(number);
        project.dockerfile(&sleepers(seconds, &format!("sleep {seconds}")));
        let mut build = project.start_build(&[]);
        wait_until("all four to run", || (sleeping(seconds) == 7).then_some(()));
        let all = descendants(&build);
        let engine = all.iter().find(|(_, line)| line.contains(victim)).map(|(pid, _)| i32::try_from(*pid).unwrap());
        let pid = if victim == "build" { Pid::from_child(&build) } else { Pid::from_raw(engine.unwrap()).unwrap() };
        kill_process(pid, Signal::KILL).unwrap();
        let status = wait_until("the build to end", || build.try_wait().unwrap());
        assert_ne!(status.code(), Some(0));
        assert_nothing_is_left(&project, seconds);
    }
}

#[test]
fn who_waits_for_another_builds_step_can_be_interrupted_and_keeps_no_other_step_waiting() {
    let project = Project::with_busybox();
    let seconds = seconds(5);
    let shared = format!("FROM busybox AS shared\nRUN sleep {seconds}\n");
    project.dockerfile(&format!("{shared}FROM scratch\nCOPY --from=shared / /\n"));
    let mut first = project.start_build(&[]);
    wait_until("the first build's step to run", || (sleeping(seconds) == 1).then_some(()));
    let own = format!("FROM busybox AS own\nRUN sleep 1{seconds}\n");
    let _file = project.file("second.Dockerfile", format!("{shared}{own}FROM scratch\nCOPY --from=shared / /\nCOPY --from=own / /\n"));
    // One slot, and the step that waits for the other build comes first.
    let second = project.start_build(&["-f", "ctx/second.Dockerfile", "--max-steps", "2"]);
    let third = project.start_build(&["-f", "ctx/second.Dockerfile", "--max-steps", "1"]);
    wait_until("the second build's own step to run", || (processes_with(&format!("sleep\x001{seconds}\0")).len() == 1).then_some(()));
    std::thread::sleep(Duration::from_millis(300));
    for build in [second, third] {
        kill_process(Pid::from_child(&build), Signal::INT).unwrap();
        let _ended = Ran::of_child("build".to_owned(), build).ends_with(130).says(&["waiting for another build that does `RUN sleep"]);
    }
    assert_eq!(sleeping(seconds), 1, "the first build goes on");
    kill_process(Pid::from_child(&first), Signal::INT).unwrap();
    let _status = first.wait().unwrap();
    assert_nothing_is_left(&project, seconds);
}

#[test]
fn a_stage_that_nobody_needs_is_not_built_and_a_copy_waits_for_its_stage_alone() {
    let project = Project::with_busybox();
    // `slow` ends when a step after the copy of `fast` has begun: it would never, if the copy waited for both.
    let wait = "for i in $(seq 300); do test -e /cache/copied && exit 0; sleep 0.1; done; exit 1";
    project.dockerfile(&format!(
        "FROM busybox AS unneeded\nRUN exit 9\nFROM busybox AS slow\nRUN --mount=type=cache,target=/cache,id=alone {wait}\nFROM busybox AS fast\nRUN echo fast > /fast\nFROM busybox\nCOPY --from=fast /fast /fast\nRUN --mount=type=cache,target=/cache,id=alone touch /cache/copied\nCOPY --from=slow /etc/passwd /slow\n"
    ));
    let ran = project.build(&[]).good();
    assert!(!ran.stderr.contains("exit 9"), "{}", ran.stderr);
}

#[test]
fn in_a_chroot_steps_are_done_in_turn() {
    if !crate::harness::need_root() || crate::harness::need("python3").is_none() {
        return;
    }
    let project = Way::Chroot.project();
    let stage = |name: &str| {
        format!(
            "FROM busybox AS {name}\nRUN --mount=type=cache,target=/cache mkdir /cache/busy && (sleep 0.7; touch /cache/late) & sleep 0.3; rmdir /cache/busy; touch /{name}\n"
        )
    };
    project.dockerfile(&format!("{}FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n", ["a", "b"].map(stage).concat()));
    let _built = Way::Chroot.build(&project, &[]).good();
}

/// The files in a directory of the store.
fn count(project: &Project, dir: &str) -> usize {
    let records = |entry: &fs::DirEntry| dir != "cache" || !entry.file_name().to_str().unwrap().contains('-');
    fs::read_dir(project.store().join(dir)).unwrap().flatten().filter(records).count()
}

#[test]
fn a_layer_is_compressed_while_the_next_step_runs_and_recorded_when_its_blob_is_there() {
    let project = Project::with_busybox();
    let seconds = seconds(6);
    let dockerfile = |last: &str| format!("FROM busybox\nRUN head -c 150000000 /dev/urandom > /big\nRUN test -s /big && {last}\n");
    project.dockerfile(&dockerfile(&format!("sleep {seconds}")));
    let (blobs, records) = (count(&project, "blobs/sha256"), count(&project, "cache"));
    // Killed while it is at it: the step is done again, and its record never was.
    let mut killed = project.start_build(&[]);
    wait_until("the second step to run", || (sleeping(seconds) == 1).then_some(()));
    assert_eq!((count(&project, "blobs/sha256"), count(&project, "cache")), (blobs, records), "the first step's layer is stored already");
    killed.kill().unwrap();
    let _status = killed.wait().unwrap();
    wait_until("all of the step to be dead", || (sleeping(seconds) == 0 && left(&project).is_empty()).then_some(()));
    assert_eq!(count(&project, "cache"), records);
    // A step that fails does not take the layers of earlier ones with it.
    project.dockerfile(&dockerfile("exit 5"));
    let failed = project.build(&[]).ends_with(3);
    assert!(!failed.stderr.contains("CACHED"), "{}", failed.stderr);
    assert_eq!((count(&project, "blobs/sha256"), count(&project, "cache")), (blobs + 1, records + 1));
    project.dockerfile(&dockerfile("true"));
    let again = project.build(&[]).good();
    assert_eq!(again.stderr.matches("CACHED").count(), 1, "{}", again.stderr);
    assert_no_file_is_left(&project);
}

#[test]
fn a_run_sees_what_was_copied_before_its_layer_is_compressed() {
    let noise: Vec<u8> = (0..40_000_000_u32).map(|at| at.wrapping_mul(2_654_435_761).rotate_left(at % 31).to_le_bytes()[2]).collect();
    let project_with_data = || {
        let project = Project::with_busybox();
        let _big = project.file("data/big", noise.as_slice());
        let _small = project.file("data/small", "1");
        project
    };
    let project = project_with_data();
    project.dockerfile(
        "FROM busybox\nCOPY --chown=3:4 --chmod=640 data /data\nRUN test $(stat -c %a:%u:%g:%s /data/big) = 640:3:4:40000000 && cp /data/big /copy\n",
    );
    let ran = project.build(&["-o", "type=oci,tar=false,dest=first"]).good();
    // The base alone is extracted from a blob.
    assert_eq!(ran.stderr.matches("extracting ").count(), 1, "{}", ran.stderr);
    let first = Image::of_layout(&project.path("first"));
    assert_eq!(first.paths(0), ["copy"]);
    // The tree is what the layer gives.
    let summed = "FROM busybox\nCOPY --chown=3:4 --chmod=640 data /data\nRUN find /data -type f | xargs md5sum > /sums\n";
    project.dockerfile(summed);
    let warm = project.image(&[]);
    let fresh = project_with_data();
    fresh.dockerfile("FROM busybox\nCOPY --chown=3:4 --chmod=640 data /data\n");
    let _copied = fresh.image(&[]);
    fresh.dockerfile(summed);
    let cold = fresh.image(&[]);
    let sums = |image: &Image| format!("{:?}", image.tree()["sums"].kind);
    assert_eq!(sums(&warm), sums(&cold));
}

#[test]
fn the_layers_of_a_base_are_extracted_at_once_when_a_step_must_see_them() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN mkdir -p /d/e && echo 1 > /d/e/1 && echo 2 > /d/e/2\nRUN rm /d/e/1 && ln /d/e/2 /d/link && chown 3:4 /d/e/2\nRUN rm -r /tmp && mkdir -m 750 /tmp\nRUN echo end > /end\n");
    let made = project.build(&["-o", "type=oci,tar=false,dest=image"]).good();
    assert_eq!(made.stderr.matches("extracting ").count(), 1, "{}", made.stderr);
    let check =
        "test ! -e /d/e/1 && test $(stat -c %u:%g /d/link) = 3:4 && test $(cat /d/link) = 2 && test $(stat -c %a /tmp) = 750 && cat /end";
    for args in [&[][..], &["--jobs", "1"], &["--snapshots", "copy"]] {
        let fresh = Project::new();
        let _loaded = fresh.run(["load", "-i", project.path("image").to_str().unwrap(), "-t", "base"]).good();
        fresh.dockerfile("FROM base\nCOPY Dockerfile /\n");
        let unseen = fresh.build(args).good();
        assert!(!unseen.stderr.contains("extracting "), "nobody has to see the base: {}", unseen.stderr);
        fresh.dockerfile(&format!("FROM base\nRUN {check}\nFROM base AS other\nRUN {check}\n"));
        let ran = fresh.build(args).good();
        assert_eq!(ran.stderr.matches("extracting ").count(), 5, "{}", ran.stderr);
        fresh.dockerfile(&format!(
            "FROM base AS a\nRUN {check} && echo a > /a\nFROM base AS b\nRUN {check} && echo b > /b\nCOPY --from=a /a /a\n"
        ));
        let again = fresh.build(args).good();
        // A step that worked in a copy leaves no tree.
        assert_eq!(again.stderr.matches("extracting ").count(), usize::from(args.contains(&"copy")), "{}", again.stderr);
    }
}

#[test]
fn a_layer_that_depends_on_those_below_is_extracted_after_them() {
    let tar = |entries: &[(&str, tar::EntryType, &str)]| {
        let mut tar = tar::Builder::new(Vec::new());
        for (path, kind, text) in entries {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(*kind);
            header.set_mode(0o644);
            header.set_mtime(0);
            let is_link = matches!(*kind, tar::EntryType::Link | tar::EntryType::Symlink);
            header.set_size(if is_link { 0 } else { text.len() as u64 });
            if is_link {
                tar.append_link(&mut header, path, text).unwrap();
            } else {
                tar.append_data(&mut header, path, text.as_bytes()).unwrap();
            }
        }
        tar.into_inner().unwrap()
    };
    let (file, link, hard) = (tar::EntryType::Regular, tar::EntryType::Symlink, tar::EntryType::Link);
    let first = tar(&[("way", link, "var/www"), ("root/sub/file", file, "in root")]);
    let second = tar(&[("way/there", file, "through a link"), ("passwd", hard, "etc/passwd")]);
    let third = tar(&[("root/.wh.sub", file, ""), ("plain", file, "")]);
    let project = Project::new();
    let Some(layout) = crate::harness::busybox_layout_with(&project.path("layout"), &[&first, &second, &third]) else { return };
    let _loaded = project.run(["load", "-i", layout.to_str().unwrap(), "-t", "base"]).good();
    project.dockerfile("FROM base\nRUN test \"$(cat /var/www/there)\" = 'through a link' && cmp /passwd /etc/passwd && test ! -e /root/sub && test $(stat -c %a /root) = 700 && test $(stat -c %u /var/www) = 33 && test -L /way\n");
    let _ran = project.build(&[]).good();
}

#[test]
fn steps_that_share_a_cache_may_make_the_same_mountpoint_in_it_at_once() {
    let project = Project::with_busybox();
    for round in 0..8 {
        let stage = |number: usize| {
            format!(
                "FROM busybox AS s{number}\nRUN --mount=type=cache,id={round},target=/c --mount=type=tmpfs,target=/c/a/b/nested \
                 echo {round} {number} > /made\n"
            )
        };
        let stages: String = (0..8).map(stage).collect();
        let copies: Vec<String> = (0..8).map(|number| format!("COPY --from=s{number} /made /{number}\n")).collect();
        project.dockerfile(&format!("{stages}FROM scratch\n{}", copies.concat()));
        let _all = project.build(&["--max-steps", "8"]).good();
    }
}

#[test]
fn what_is_fetched_for_one_step_keeps_no_other_waiting() {
    use std::sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    };
    let may_answer = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&may_answer);
    let web = crate::harness::Web::serving(move |_asked| {
        while !told.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(20));
        }
        crate::harness::answer("200 OK", &[], b"far")
    });
    let project = Project::with_busybox();
    // More than the socket between the two processes holds.
    let wordy = "for i in $(seq 60000); do echo a line of this step with some words in it $i; done; touch /cache/done";
    project.dockerfile(&format!(
        "FROM scratch AS far\nADD {} /far\nFROM busybox AS near\nRUN --mount=type=cache,target=/cache,id=wordy {wordy}\nFROM busybox\nCOPY --from=far /far /\nCOPY --from=near /etc/passwd /\n",
        web.url("/far")
    ));
    let build = project.start_build(&[]);
    let ended = std::thread::spawn(move || Ran::of_child("build".to_owned(), build));
    wait_until("the server to be asked", || (!web.asked().is_empty()).then_some(()));
    wait_until("the other step to end", || caches(&project).iter().any(|cache| cache.join("done").exists()).then_some(()));
    may_answer.store(true, Ordering::Relaxed);
    let ran = ended.join().unwrap().good();
    assert_eq!(ran.stderr.matches("a line of this step with some words in it").count(), 60000 + 1, "{}", ran.stderr.len());
}
