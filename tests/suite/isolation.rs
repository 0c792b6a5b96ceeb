//! What a RUN cannot reach.

use std::fmt::Write as _;

use crate::harness::{Project, debian_rootfs, skipped};

/// Builds with a RUN and gives what it wrote to standard output.
fn says(run: &str) -> String {
    let mut project = Project::with_busybox();
    project.variable("TEST_SECRET_OF_THE_CALLER", "s3cret-of-the-caller");
    project.dockerfile(&format!("FROM busybox\nRUN {run}\n"));
    let built = project.build(&["--no-cache"]).good();
    built.all()
}

/// A RUN that must end with success.
fn holds(run: &str) {
    let _said = says(run);
}

#[test]
fn the_environment_of_the_caller_is_out_of_reach() {
    let said = says("env; cat /proc/*/environ 2>/dev/null | tr '\\0' '\\n'; echo end");
    assert!(!said.contains("s3cret-of-the-caller") && !said.contains("LAPSTRAKE_"), "{said}");
}

#[test]
fn no_process_but_the_steps_own_is_visible() {
    // Its first process, the shell, and what the pipe runs.
    holds("n=$(ls -d /proc/[0-9]* | wc -l); echo processes $n; test $n -le 6");
    holds("for p in /proc/[0-9]*; do if tr '\\0' ' ' < $p/cmdline 2>/dev/null | grep -q 'buil[d] --progress'; then exit 1; fi; done");
}

#[test]
fn no_descriptor_of_the_engine_is_open() {
    holds(
        "for fd in /proc/self/fd/*; do n=${fd##*/}; t=$(readlink $fd) || continue; case $n in 0|1|2) ;; *) case $t in /proc/*/fd) ;; *) echo open $n $t; exit 1;; esac;; esac; done",
    );
    holds(
        "for p in /proc/[0-9]*; do for fd in $p/fd/*; do t=$(readlink $fd 2>/dev/null) || continue; case $t in *store*|*lapstrake*|/home*) echo $p $t; exit 1;; esac; done; done",
    );
}

#[test]
fn the_root_of_the_machine_is_out_of_reach() {
    let project = Project::new();
    let marker = project.path("ctx").display().to_string();
    holds(&format!("test ! -e {marker}; for p in /proc/[0-9]*; do if test -e $p/root{marker}; then echo $p; exit 1; fi; done"));
    holds(
        "cd /../../../..; test -e bin/busybox; chroot /proc/1/root test -e /bin/busybox || true; test ! -e /proc/1/root/proc/1/root/home/nobody",
    );
    holds("for p in /proc/[0-9]*; do if ls $p/cwd/ctx >/dev/null 2>&1; then echo $p; exit 1; fi; done");
}

#[test]
fn the_kernels_settings_cannot_be_written() {
    for file in ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches"] {
        holds(&format!("if (echo x > {file}) 2>/dev/null; then echo written {file}; exit 1; fi"));
    }
    holds("if (echo x > /sys/kernel/uevent_helper) 2>/dev/null; then exit 1; fi; if (mkdir /sys/fs/cgroup/x) 2>/dev/null; then exit 1; fi");
}

#[test]
fn what_would_reach_beyond_the_step_is_refused() {
    holds("if mount -t tmpfs none /mnt 2>/dev/null; then echo mounted; exit 1; fi");
    holds("if mknod /disk b 8 0 2>/dev/null && dd if=/disk of=/dev/null count=1 2>/dev/null; then exit 1; fi");
    holds("if dmesg >/dev/null 2>&1 && test \"$(dmesg | wc -l)\" -gt 0; then exit 1; fi");
    holds("date -s 2001-01-01 2>/dev/null; test \"$(date +%Y)\" != 2001");
    holds("if test -r /proc/kcore && dd if=/proc/kcore of=/dev/null count=1 2>/dev/null | grep -q 1; then exit 1; fi");
}

#[test]
fn the_capabilities_of_a_step_are_dockers_default_ones() {
    let said = says("grep Cap /proc/self/status");
    // The fourteen of an ordinary container: chown, dac_override, fowner, fsetid, kill, setgid, setuid, setpcap,
    // net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
    assert!(said.contains("CapEff:\t00000000a80425fb"), "{said}");
    assert!(said.contains("CapBnd:\t00000000a80425fb"), "{said}");
}

#[test]
fn a_user_of_the_image_is_that_user_and_not_root() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN mkdir -m 0700 /private && echo x > /private/x\nUSER www-data\nRUN test \"$(id -u)\" = 33 && test ! -r /private/x && grep -q 'CapEff:\t0*$' /proc/self/status\n");
    let _built = project.build(&[]).good();
}

#[test]
fn the_network_none_has_only_a_loopback() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN --network=none test \"$(ls /sys/class/net 2>/dev/null | grep -v lo | wc -l)\" = 0 && grep -c : /proc/net/dev | grep -qx 1\n");
    let _built = project.build(&[]).good();
}

#[test]
fn standard_input_is_empty_and_the_working_directory_and_umask_are_as_in_docker() {
    holds("test \"$(cat | wc -c)\" = 0; test \"$(umask)\" = 0022; test \"$(pwd)\" = /; test \"$(hostname)\" != \"\"");
}

#[test]
fn files_of_other_ids_are_real_inside() {
    holds("touch /f && chown 33:33 /f && test \"$(stat -c %u:%g /f)\" = 33:33 && su -s /bin/sh www-data -c 'test -O /f'");
}

/// What Docker's own profile answers to the same calls with its default capabilities: `name number errno`.
#[test]
fn system_calls_are_answered_as_in_docker() {
    if !cfg!(target_arch = "x86_64") {
        return;
    }
    let Some(rootfs) = debian_rootfs() else { return };
    let project = Project::new();
    let _imported = project.run(["import", rootfs.to_str().unwrap(), "debian"]).good();
    let (eperm, enosys) = (1, 38);
    // clone3 is answered so that the C library takes clone; 470 is newer than the profile; the one before the last is x32's write.
    let calls = [
        ("clone3", "435, 0, 0", enosys),
        ("unshare", "272, 0x10000000", eperm),
        ("mount", "165, 0, 0, 0, 0, 0", eperm),
        ("fsopen", "430, 0, 0", eperm),
        ("open_tree", "428, 0, 0, 0", eperm),
        ("setns", "308, 0, 0", eperm),
        ("bpf", "321, 0, 0, 0", eperm),
        ("keyctl", "250, 0, 0", eperm),
        ("add_key", "248, 0, 0, 0, 0, 0", eperm),
        ("perf_event_open", "298, 0, 0, 0, 0, 0", eperm),
        ("userfaultfd", "323, 0", eperm),
        ("io_uring_setup", "425, 1, 0", eperm),
        ("kexec_load", "246, 0, 0, 0, 0", eperm),
        ("socket AF_ALG", "41, 38, 5, 0", eperm),
        ("socket AF_VSOCK", "41, 40, 1, 0", eperm),
        ("socket AF_ALG, with more above", "41, 0x100000026, 5, 0", eperm),
        ("personality", "135, 4", eperm),
        ("clone with a namespace", "56, 0x10000011, 0, 0, 0, 0", eperm),
        ("a new call", "470, 0", enosys),
        ("x32", "0x40000001, 1, 0, 0", enosys),
        ("ptrace(TRACEME)", "101, 0, 0, 0, 0", 0),
        ("personality of now", "135, 0xffffffff", 0),
    ];
    let mut script = String::new();
    for (name, call, _) in calls {
        writeln!(script, "$! = 0; my $r = syscall({call}); print \"{name}: \", $r < 0 ? $! + 0 : 0, \"\\n\";").unwrap();
    }
    let _script = project.file("calls.pl", script);
    project.dockerfile("FROM debian\nCOPY calls.pl /\nRUN perl /calls.pl\n");
    let said = project.build(&[]).good().all();
    for (name, _, errno) in calls {
        assert!(said.lines().any(|line| line.ends_with(&format!(" {name}: {errno}"))), "{name} {errno}\n{said}");
    }
}

#[test]
fn what_a_docker_build_may_do_works() {
    let Some(rootfs) = debian_rootfs() else { return };
    let project = Project::new();
    let _imported = project.run(["import", rootfs.to_str().unwrap(), "debian"]).good();
    let _dockerfile = project.dockerfile(
        "FROM debian\n\
         RUN chroot / true && chroot --userspec=33 / id -u | grep -qx 33\n\
         RUN useradd -m ann && su ann -c 'touch ~/mine' && test \"$(stat -c %U /home/ann/mine)\" = ann\n\
         RUN cp /usr/bin/id /usr/bin/as-root && chmod 4755 /usr/bin/as-root && su ann -c '/usr/bin/as-root -u' | grep -qx 0\n\
         RUN mkfifo /fifo && chown 1:2 /fifo && touch /f && chattr -i /f 2>/dev/null; nice -n 5 true && setpriv --reuid 5 --clear-groups true\n\
         RUN grep -q 'NoNewPrivs:.0' /proc/self/status && grep -q 'Seccomp:.2' /proc/self/status\n",
    );
    let _built = project.build(&[]).good();
}

/// They have names in a network namespace, and a step shares the host's.
#[test]
fn an_abstract_socket_of_the_machine_is_out_of_reach() {
    use std::os::{linux::net::SocketAddrExt as _, unix::net};
    let Some(rootfs) = debian_rootfs() else { return };
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).map_while(|part| part.parse().ok()).take(2).collect();
    if version < vec![6, 12] {
        skipped("the kernel keeps nobody from abstract sockets before Linux 6.12");
        return;
    }
    let project = Project::new();
    let _imported = project.run(["import", rootfs.to_str().unwrap(), "debian"]).good();
    let name = format!("lapstrake-canary-{}", std::process::id());
    let _listener = net::UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    let connect =
        format!("socket(S, 1, 1, 0) && connect(S, pack(\"S a*\", 1, \"\\0{name}\")) and print \"reached\\n\"; print \"tried: $!\\n\"");
    let own = "socket(L, 1, 1, 0); bind(L, pack(\"S a*\", 1, \"\\0own\")); listen(L, 1); \
               socket(S, 1, 1, 0); connect(S, pack(\"S a*\", 1, \"\\0own\")) and print \"its own is there\\n\"";
    for network in ["default", "none"] {
        project.dockerfile(&format!("FROM debian\nRUN --network={network} perl -e '{connect}' && perl -e '{own}'\n"));
        let said = project.build(&[]).good().all();
        assert!(said.lines().any(|line| line.contains(" tried: ")) && said.contains(" its own is there\n"), "{said}");
        assert!(!said.lines().any(|line| line.ends_with(" reached")), "{said}");
    }
}

#[test]
fn devices_links_and_limits_of_dev_are_those_of_every_container() {
    holds(
        "for d in null zero full random urandom; do test -c /dev/$d && test \"$(stat -c %a /dev/$d)\" = 666 || exit 1; done; \
         test \"$(readlink /dev/fd) $(readlink /dev/stdin) $(readlink /dev/ptmx) $(readlink /dev/core)\" = '/proc/self/fd /proc/self/fd/0 pts/ptmx /proc/kcore'",
    );
    holds(
        "test \"$(stat -c %a /dev/shm)\" = 1777 && grep -q '^mqueue /dev/mqueue' /proc/mounts && grep -q '^devpts /dev/pts' /proc/mounts",
    );
    holds("for p in /dev /dev/shm /dev/pts /dev/mqueue; do grep \" $p \" /proc/mounts | grep -q nosuid || exit 1; done");
}

#[test]
fn what_docker_covers_is_covered() {
    holds(
        "for d in acpi scsi asound; do test ! -e /proc/$d || test -z \"$(ls -A /proc/$d)\" || exit 1; done; \
         for f in kcore keys timer_list latency_stats sched_debug interrupts; do test ! -e /proc/$f || test \"$(wc -c < /proc/$f)\" = 0 || exit 1; done",
    );
    holds("for d in firmware devices/virtual/powercap kernel/debug; do test ! -e /sys/$d || test -z \"$(ls -A /sys/$d)\" || exit 1; done");
    holds("for p in bus fs irq sys sysrq-trigger; do test ! -e /proc/$p || grep -q \" /proc/$p proc ro\" /proc/mounts || exit 1; done");
}

#[test]
fn a_step_has_no_keyring_of_the_callers() {
    holds("test ! -s /proc/keys");
}

#[test]
fn the_names_of_hosts_are_those_of_the_flag_and_the_file_is_in_no_layer() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN grep -q '^10.1.2.3.here' /etc/hosts && grep -q localhost /etc/hosts && hostname > /name\n");
    let image = project.image(&["--add-host", "here:10.1.2.3"]);
    assert!(image.tree().keys().all(|path| !path.ends_with("etc/hosts")));
}
