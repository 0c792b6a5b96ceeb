//! What a RUN cannot reach.

use crate::harness::Project;

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
