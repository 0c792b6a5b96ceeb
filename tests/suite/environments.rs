//! Machines on which something is missing: what `doctor` prints and a RUN says, and the way out that they name, taken.
//!
//! Each is made in namespaces of its own by a process that holds them ([`Place`]), and is gone with it.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use crate::harness::{Docker, Project, Ran, am_root, need, need_all, need_root, need_user, output_of};

/// What `tests/run` calls its users.
const WITH_IDS: &str = "lapstrake-test";
const WITHOUT_IDS: &str = "lapstrake-nosub";

/// So that a test of the best way to run steps is none of the next best.
const FULL: [&str; 4] = ["--driver", "userns", "--snapshots", "overlay"];

/// A project in a place where something is missing.
struct Place {
    project: Project,
    holder: Child,
    /// What enters it, before the program.
    enter: Vec<String>,
}

impl Place {
    /// A mount namespace in which root has run a script; `$P` is the directory of the project.
    fn mounted(project: Project, script: &str) -> Self {
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--propagation", "private"]);
        Self::held(project, unshare, script, &["--mount"])
    }

    /// A user namespace with all ids of the project's user, who is root there, and a mount namespace.
    fn of_a_user(project: Project, script: &str) -> Self {
        let mut unshare = Command::new("unshare");
        if let Some(name) = project.user() {
            unshare = Command::new("setpriv");
            unshare.args(["--reuid", name, "--regid", name, "--init-groups", "unshare"]);
        }
        unshare.args(["--mount", "--map-root-user", "--map-auto", "--setuid", "0", "--setgid", "0"]);
        let project = project.started_by_its_user();
        Self::held(project, unshare, script, &["--mount", "--user", "--setuid", "0", "--setgid", "0"])
    }

    fn held(project: Project, mut unshare: Command, script: &str, entered: &[&str]) -> Self {
        let script = format!("set -e; {script}\necho ready; exec sleep 300");
        unshare.args(["sh", "-c", &script]).env("P", project.path("")).current_dir(project.path(""));
        let mut holder = unshare.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = String::new();
        let _length = BufReader::new(holder.stdout.take().unwrap()).read_line(&mut said).unwrap();
        assert_eq!(said, "ready\n", "the environment could not be made: {script}");
        let target = holder.id().to_string();
        let enter = ["nsenter", "--target", &target].into_iter().chain(entered.iter().copied()).map(str::to_owned).collect();
        Self { project, holder, enter }
    }

    /// Root's own commands, in there.
    fn script(&self, script: &str) -> Ran {
        self.entered(Command::new("sh").args(["-c", script]).env("P", self.project.path("")))
    }

    fn run(&self, args: &[&str]) -> Ran {
        self.entered(&mut self.project.command(args))
    }

    /// The command, in there.
    fn entered(&self, command: &mut Command) -> Ran {
        let mut all = Command::new(&self.enter[0]);
        // The directory of the command is opened in there.
        let dir = self.project.path("").display().to_string();
        all.args(&self.enter[1..]).args(["--", "sh", "-c", "cd \"$0\" && exec \"$@\"", &dir]);
        all.arg(command.get_program()).args(command.get_args()).env_clear();
        all.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        if command.get_envs().all(|(name, _)| name != "PATH") {
            let _all = all.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        }
        output_of(&mut all)
    }

    /// `doctor`, which must print all of these.
    fn doctor(&self, args: &[&str], code: i32, prints: &[&str]) {
        let ran = self.run(&[&["doctor"], args].concat()).ends_with(code);
        let out = ran.out();
        for text in prints {
            assert!(out.contains(text), "`{text}` is not in\n{out}");
        }
        self.project.record(&out);
    }

    /// A build with a RUN.
    fn build(&self, args: &[&str]) -> Ran {
        let ran = self.run(&[&["build", "--progress", "plain", "--no-cache"], args, &["ctx"]].concat());
        self.project.record(&ran.stderr);
        ran
    }

    /// Both, where a RUN can be run.
    fn works(&self, args: &[&str]) {
        self.doctor(args, 0, &["used: "]);
        let _built = self.build(args).good();
    }

    /// Both, where none can, with the same words; the command that they name.
    fn fails(&self, args: &[&str], says: &[&str]) -> String {
        self.doctor(args, 4, says);
        let ran = self.build(args).ends_with(4).says(says);
        assert!(says.contains(&"No space left on device") || !ran.stderr.contains("No space left on device"), "{}", ran.stderr);
        ran.stderr
            .split_once("as root: `")
            .and_then(|(_, rest)| rest.split_once('`'))
            .map(|(command, _)| command.to_owned())
            .unwrap_or_default()
    }

    /// What `doctor` promises without a wish of ours, a RUN keeps.
    fn keeps_its_word(&self) {
        let doctor = self.run(&["doctor"]);
        let build = self.build(&[]);
        assert!(matches!(build.code, Some(0 | 4)) && doctor.code == build.code, "{}\n{}", doctor.all(), build.stderr);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _killed = self.holder.kill();
        let _ended = self.holder.wait();
    }
}

/// A project of a user's, with a RUN that uses what a broken machine may lack.
fn project(user: &str) -> Option<Project> {
    if !need_root() || !need_all(&["unshare", "nsenter", "setpriv"]) {
        return None;
    }
    let project = Project::as_user(user, need_user(user)?);
    project.load_busybox();
    project.dockerfile("FROM busybox\nRUN echo x > /dev/null && cat /proc/self/status > /made && chown 7:7 /made\n");
    Some(project)
}

#[test]
fn without_user_namespaces_the_limit_is_named_and_no_disk() {
    if !need_all(&["unshare", "nsenter", "sysctl"]) {
        return;
    }
    let project = if am_root() {
        let Some(id) = need_user(WITH_IDS) else { return };
        Project::as_user(WITH_IDS, id)
    } else {
        Project::new()
    };
    let layout = project.path("layout");
    if crate::harness::busybox_layout(&layout).is_none() {
        return;
    }
    project.dockerfile("FROM busybox\nRUN chown 7:7 /bin\n");
    let place = Place::of_a_user(project, "echo 0 > /proc/sys/user/max_user_namespaces");
    let _loaded = place.run(&["load", "-i", layout.to_str().unwrap(), "-t", "busybox"]).good();
    let way_out = place.fails(&FULL, &["the limit `user.max_user_namespaces` (0) is reached"]);
    // Root there may mount: steps that are not confined must be asked for.
    let _told = place.fails(&[], &["the limit `user.max_user_namespaces` (0) is reached", "steps would not be confined"]);
    assert!(way_out.starts_with("sysctl -w user.max_user_namespaces="), "{way_out}");
    place.keeps_its_word();
    let _turned = place.script(&way_out).good();
    place.works(&FULL);
    // Enough for the engine and none for its step; or, while one of before is still being freed, for neither.
    let _one = place.script("echo 1 > /proc/sys/user/max_user_namespaces").good();
    let _said = place.build(&FULL).ends_with(4).says(&["the limit `user.max_user_namespaces`", "is reached", "sysctl -w"]);
}

/// What the issue of this page begins with: a namespace of one id, in which there can be no other.
#[test]
fn with_one_id_and_no_user_namespaces_no_step_is_run() {
    if !need_all(&["unshare"]) {
        return;
    }
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN true\n");
    for args in [&["doctor"][..], &["build", "ctx"], &["build", "--driver", "chroot", "ctx"]] {
        let program = project.command(args);
        let mut command = Command::new("unshare");
        command.args(["-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces; exec \"$0\" \"$@\""]);
        command.arg(program.get_program()).args(program.get_args()).env_clear().current_dir(project.path(""));
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        let ran = output_of(&mut command).ends_with(4);
        let named = if args.contains(&"chroot") { "one id only" } else { "the limit `user.max_user_namespaces` (0) is reached" };
        assert!(ran.all().contains(named) && !ran.all().contains("No space left"), "{}", ran.all());
        project.record(&ran.all());
    }
}

#[test]
fn without_subordinate_ids_the_lines_that_are_missing_are_named_one_after_the_other() {
    let Some(project) = project(WITHOUT_IDS) else { return };
    if !need_all(&["usermod"]) {
        return;
    }
    let private_etc =
        "mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w; mount -t overlay none -o lowerdir=/etc,upperdir=/mnt/u,workdir=/mnt/w /etc";
    let place = Place::mounted(project, private_etc);
    place.keeps_its_word();
    for file in ["/etc/subuid", "/etc/subgid"] {
        let way_out = place.fails(&FULL, &[&format!("`{file}` has no line for `{WITHOUT_IDS}`")]);
        let _done = place.script(&way_out).good();
    }
    place.works(&FULL);
}

#[test]
fn without_newuidmap_the_package_that_has_it_is_named() {
    let Some(project) = project(WITH_IDS) else { return };
    let hidden = "mount -t tmpfs none /mnt; mkdir /mnt/u /mnt/w; mknod /mnt/u/newuidmap c 0 0; mknod /mnt/u/newgidmap c 0 0\n\
        mount -t overlay none -o lowerdir=/usr/bin,upperdir=/mnt/u,workdir=/mnt/w /usr/bin";
    let place = Place::mounted(project, hidden);
    place.keeps_its_word();
    let way_out = place.fails(&FULL, &["`newuidmap` is not installed"]);
    let package = way_out.strip_prefix("apt-get install ").unwrap();
    // Installing it is what undoes the hiding.
    if need("dpkg").is_some() {
        let owner = place.script("dpkg -S bin/newuidmap").good().out();
        assert!(owner.starts_with(&format!("{package}:")), "{owner}");
    }
    let _installed = place.script("umount --lazy /usr/bin").good();
    place.works(&FULL);
}

#[test]
fn where_parts_of_proc_are_covered_a_step_gets_the_covered_one_and_writes_to_nothing_of_it() {
    for cover in ["mount -t tmpfs none /proc/acpi", "mount --bind /proc/sys /proc/sys; mount -o remount,bind,ro /proc/sys"] {
        let Some(project) = project(WITH_IDS) else { return };
        let place = Place::mounted(project, cover);
        place.works(&FULL);
        place.doctor(&FULL, 0, &["parts of /proc are covered here"]);
        let write = "for f in /proc/[0-9]*/oom_score_adj /proc/sys/kernel/core_pattern /proc/sysrq-trigger; do if (echo 1 > $f) 2>/dev/null; then exit 1; fi; done";
        let look = "for p in /proc/[0-9]*; do if ls $p/root/ 2>/dev/null | grep -q . && test ! -e $p/root/bin/busybox; then echo $p; exit 1; fi; done";
        place.project.dockerfile(&format!("FROM busybox\nRUN {write}\nRUN {look}\nRUN ! kill -0 {} 2>/dev/null\n", std::process::id()));
        let built = place.build(&FULL).good().says(&["parts of /proc are covered here"]);
        assert_eq!(built.stderr.matches("parts of /proc").count(), 1, "{}", built.stderr);
    }
}

#[test]
fn where_proc_is_read_only_the_mount_is_named() {
    let Some(project) = project(WITH_IDS) else { return };
    let place = Place::mounted(project, "mount -o remount,bind,ro /proc");
    place.keeps_its_word();
    let way_out = place.fails(&FULL, &["/proc is mounted read-only"]);
    let _remounted = place.script(&way_out).good();
    place.works(&FULL);
}

/// Overlays on overlays: the kernel takes two.
const ONE_OVERLAY: &str = "mount -t tmpfs none /mnt; mkdir /mnt/l /mnt/u /mnt/w /mnt/m\n\
    mount -t overlay none -o lowerdir=/mnt/l,upperdir=/mnt/u,workdir=/mnt/w /mnt/m; at=/mnt/m";
const TWO_OVERLAYS: &str = "mkdir /mnt/u2 /mnt/w2 /mnt/m2\n\
    mount -t overlay none -o lowerdir=/mnt/m,upperdir=/mnt/u2,workdir=/mnt/w2 /mnt/m2; at=/mnt/m2";
const STORE_THERE: &str = "cp -a $P/store $at/store; mount --bind $at/store $P/store";

#[test]
fn a_store_on_overlayfs_is_told_from_one_that_can_hold_an_overlay() {
    let Some(project) = project(WITH_IDS) else { return };
    let place = Place::mounted(project, &format!("{ONE_OVERLAY}; {STORE_THERE}"));
    place.doctor(&[], place.run(&["doctor"]).code.unwrap(), &["the store's file system cannot hold an overlay's changes", "--root"]);
    place.keeps_its_word();
    other_root(&place);
}

#[test]
fn a_store_where_no_overlay_can_be_mounted_is_named() {
    let Some(project) = project(WITH_IDS) else { return };
    let place = Place::mounted(project, &format!("{ONE_OVERLAY}; {TWO_OVERLAYS}; {STORE_THERE}"));
    place.keeps_its_word();
    let _none = place.fails(&FULL, &["the store's file system cannot hold an overlay's changes", "--root"]);
    other_root(&place);
}

/// The way out that is not root's: another store.
fn other_root(place: &Place) {
    let root = place.project.path("tmp").join("store").display().to_string();
    let layout = place.project.path("busybox-layout").display().to_string();
    let _loaded = place.run(&["--root", &root, "load", "-i", &layout, "-t", "busybox"]).good();
    place.works(&[&["--root", &root], &FULL[..]].concat());
}

#[test]
fn a_full_store_is_told_as_such_and_works_with_more_room() {
    let Some(project) = project(WITH_IDS) else { return };
    let small = "cp -a $P/store $P/old; mount -t tmpfs -o size=64m none $P/store; cp -a $P/old/. $P/store\n\
        rm -rf $P/old; chown --reference=$P/ctx $P/store; head -c 256m /dev/zero > $P/store/ballast || true";
    let place = Place::mounted(project, small);
    let _none = place.fails(&FULL, &["No space left on device", "free some space"]);
    let _freed = place.script("rm $P/store/ballast").good();
    place.works(&FULL);
}

#[test]
fn a_store_whose_programs_may_not_be_executed_serves_all_the_same() {
    let Some(project) = project(WITH_IDS) else { return };
    let place = Place::mounted(project, "mount --bind $P/store $P/store; mount -o remount,bind,noexec,nosuid,nodev $P/store");
    place.works(&FULL);
    place.keeps_its_word();
}

#[test]
fn without_devices_the_one_that_is_missing_is_named() {
    let Some(project) = project(WITH_IDS) else { return };
    let place = Place::mounted(project, "mount -t tmpfs -o mode=755 none /dev");
    let _none = place.fails(&FULL, &["/dev/null", "mount a /dev that has null, zero, full, random and urandom"]);
    let devices = "cd /dev; mknod null c 1 3; mknod zero c 1 5; mknod full c 1 7; mknod random c 1 8; mknod urandom c 1 9; chmod 666 *";
    let _made = place.script(devices).good();
    place.works(&FULL);
}

#[test]
fn a_read_only_home_is_told_and_another_root_serves() {
    let Some(project) = project(WITH_IDS) else { return };
    let place = Place::mounted(project, "mount --bind $P/store $P/store; mount -o remount,bind,ro $P/store");
    let _none = place.fails(&[], &["Read-only file system", "--root"]);
    place.keeps_its_word();
    other_root(&place);
}

/// The real thing: a seccomp profile that refuses namespaces, a covered /proc, a store on overlayfs.
#[test]
fn in_a_container_of_docker_the_option_that_is_named_lets_a_step_run() {
    if !need_root() {
        return;
    }
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\n");
    let _saved = project.build(&["-o", "type=docker,dest=box.tar,name=box:1"]).good();
    let Some(docker) = Docker::start(&project.path("docker")) else { return };
    let path = |name: &str| project.path(name).display().to_string();
    let _loaded = docker.run(&["load", "-i", &path("box.tar")]).good();
    project.dockerfile("FROM busybox\nRUN echo x > /dev/null && echo x > /made && chown 7:7 /made\n");
    let run = |options: &[&str], driver: &str| {
        let script = format!(
            "/lapstrake load -q -i /base -t busybox && /lapstrake doctor {driver}; echo doctor $?; /lapstrake build --no-cache {driver} /ctx; echo build $?"
        );
        let mounts = [(project.program().display().to_string(), "/lapstrake"), (path("busybox-layout"), "/base"), (path("ctx"), "/ctx")];
        let mounts = mounts.map(|(from, to)| format!("--volume={from}:{to}:ro"));
        let begin = ["run", "--rm", "--network", "none", "--env", "LAPSTRAKE_ROOT=/store"];
        let mounts: Vec<&str> = mounts.iter().map(String::as_str).collect();
        let all = docker.run(&[&begin, &mounts[..], options, &["box:1", "sh", "-c", &script]].concat()).good().all();
        project.record(&all);
        all
    };
    let full = FULL[..2].join(" ");
    let refused = run(&[], &full);
    assert!(refused.contains("doctor 4") && refused.contains("build 4") && refused.contains("a seccomp profile"), "{refused}");
    let option = refused.split_once("in Docker: `").and_then(|(_, rest)| rest.split_once('`')).unwrap().0;
    let option: Vec<&str> = option.split(' ').collect();
    let let_in = run(&option, &full);
    for text in ["doctor 0", "build 0", "steps: a full map of ids, overlay in memory, namespaces"] {
        assert!(let_in.contains(text), "`{text}` is not in\n{let_in}");
    }
    // Nobody in particular, who has no other id; the last of two values of a variable counts.
    let nobody = ["--user", "1000", "--env", "LAPSTRAKE_ROOT=/dev/shm/store"];
    let refused = run(&nobody, "");
    assert!(refused.contains("doctor 4") && refused.contains("build 4") && refused.contains("a seccomp profile"), "{refused}");
    let let_in = run(&[&nobody[..], &option].concat(), "");
    assert!(let_in.contains("build 0") && let_in.contains("steps: a single id, overlay, namespaces"), "{let_in}");
    // Root of an ordinary container needs no option, and its steps have no walls.
    let root = run(&[], "");
    assert!(root.contains("build 0") && root.contains("steps: the host's ids, copies, chroot"), "{root}");
}

#[test]
fn the_profile_for_ubuntu_names_this_program() {
    let project = Project::new();
    let profile = project.run(["doctor", "--apparmor-profile"]).good().out();
    let program = project.program().canonicalize().unwrap().display().to_string();
    assert!(profile.contains(&format!("profile lapstrake {program} flags=(unconfined) {{")), "{profile}");
    assert!(profile.contains("  userns,\n") && profile.contains("abi <abi/4.0>,\n"), "{profile}");
}
