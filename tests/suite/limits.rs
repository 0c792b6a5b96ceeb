//! What a step may use and may ask for.

use std::{fs, process::Command};

use crate::harness::{Project, Ran, am_root, need_root, need_user, output_of};

fn builds(args: &[&str], run: &str) -> Ran {
    let project = Project::with_busybox();
    project.dockerfile(&format!("FROM busybox\nRUN {run}\n"));
    project.build(args)
}

#[test]
fn limits_of_processes_are_what_the_flag_says() {
    let args = ["--ulimit", "nofile=64:128", "--ulimit", "core=0", "--ulimit", "fsize=4096"];
    let run = "test \"$(ulimit -Sn) $(ulimit -Hn) $(ulimit -c)\" = '64 128 0' && ! head -c 9999 /dev/zero > /f";
    let _built = builds(&args, run).good();
}

#[test]
fn a_limit_above_our_own_is_an_error_of_the_machine() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN true\n");
    let mut line = String::from("ulimit -n 512; exec ");
    if am_root() {
        // Root raises it, unless it has lost the right to.
        line.push_str("setpriv --bounding-set -sys_resource --inh-caps -sys_resource ");
    }
    line.push_str("\"$@\"");
    let command = project.command(["build", "--ulimit", "nofile=600:1024", "ctx"]);
    let mut shell = Command::new("sh");
    shell.args(["-c", &line, "sh"]).arg(command.get_program()).args(command.get_args()).current_dir(project.path(""));
    shell.env_clear().envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let ran = output_of(&mut shell).ends_with(4);
    let _said = ran.says(&["`--ulimit nofile` is above this process's own hard limit, 512", "nofile=512"]);
}

#[test]
fn limits_that_programs_can_see_are_in_the_key_and_the_others_are_not() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN ulimit -n > /n; df /dev/shm > /shm\n");
    let cached = |args: &[&str]| project.build(args).good().stderr.contains("CACHED");
    assert!(!cached(&[]));
    assert!(cached(&["--step-timeout", "10m", "--step-disk", "1g"]));
    assert!(!cached(&["--ulimit", "nofile=100"]));
    assert!(cached(&["--ulimit", "nofile=100:100"]));
    assert!(!cached(&["--ulimit", "nofile=99:100"]));
    assert!(!cached(&["--shm-size", "1m"]));
}

#[test]
fn shared_memory_has_the_size_of_the_flag_or_dockers() {
    let of = |size: &str| format!("test \"$(df -k /dev/shm | tail -1 | awk '{{print $2}}')\" = {size}");
    let _built = builds(&[], &of("65536")).good();
    let _built = builds(&["--shm-size", "3m"], &of("3072")).good();
}

/// With version 2 and a delegated group it works; else it is an error that says why.
#[test]
fn a_limit_of_memory_holds_or_is_refused() {
    let ran = builds(&["-m", "32m"], "head -c 200m /dev/zero | tail > /dev/null");
    match ran.code {
        Some(4) => {
            let _said = ran.says(&["error: `--memory` cannot be kept to here", "control group", "help: "]);
        }
        _ => {
            let _said = ran.ends_with(3).says(&["its memory ran out", "raise `--memory`"]);
        }
    }
    // Where nothing runs nothing is limited.
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nENV A=b\n");
    let _built = project.build(&["-m", "32m"]).good();
}

#[test]
fn a_control_group_that_is_not_there_is_named() {
    let ran = builds(&["--cgroup-parent", "/no/such/group"], "true").ends_with(4);
    let _said = ran.says(&["`--cgroup-parent` cannot be kept to here", "no/such/group"]);
}

#[test]
fn an_insecure_step_has_all_capabilities_and_nothing_is_filtered_or_covered() {
    let run = "--security=insecure grep -q 'Seccomp:.0' /proc/self/status && mount -t tmpfs tmpfs /tmp && unshare -m true \
               && ! grep -q ' /proc/sys ' /proc/mounts && grep CapEff /proc/self/status | grep -vq 00000000a80425fb";
    let _built = builds(&["--allow", "security.insecure"], run).good();
    let refused = builds(&[], "--security=insecure true").ends_with(1);
    let _said = refused.says(&["security.insecure is not allowed", "--allow security.insecure"]);
}

#[test]
fn an_insecure_step_is_in_another_record_than_a_confined_one() {
    let project = Project::with_busybox();
    let build = |flag: &str| {
        project.dockerfile(&format!("FROM busybox\nRUN {flag} id > /id\n"));
        project.build(&["--allow", "security.insecure"]).good().stderr.contains("CACHED")
    };
    assert_eq!([build(""), build("--security=insecure"), build("--security=sandbox")], [false, false, true]);
}

#[test]
fn the_network_of_the_host_is_to_be_allowed_where_the_build_has_none() {
    let run = "--network=host true";
    let _refused = builds(&["--network", "none"], run).ends_with(1).says(&["network.host is not allowed"]);
    let _built = builds(&["--network", "none", "--allow", "network.host"], run).good();
    let _built = builds(&[], run).good();
}

#[test]
fn a_step_that_writes_too_much_is_stopped_soon_and_what_it_wrote_is_gone() {
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN i=0; while true; do head -c 1000000 /dev/zero > /f$i; i=$((i+1)); done\n");
    let begun = std::time::Instant::now();
    let ran = project.build(&["--step-disk", "20m"]).ends_with(3).says(&["it wrote more than 20 MiB"]);
    assert!(begun.elapsed().as_secs() < 60, "{:?}: {}", begun.elapsed(), ran.stderr);
    assert_eq!(fs::read_dir(project.store().join("tmp")).unwrap().count(), 0);
    project.dockerfile("FROM busybox\nRUN head -c 1000000 /dev/zero > /f; rm /f; head -c 1000 /dev/zero > /f\n");
    let _built = project.build(&["--step-disk", "20m"]).good();
}

#[test]
fn limits_are_those_of_every_user() {
    if !need_root() {
        return;
    }
    let Some(id) = need_user("lapstrake-test") else { return };
    let project = Project::as_user("lapstrake-test", id);
    project.load_busybox();
    project.dockerfile("FROM busybox\nRUN test \"$(ulimit -n)\" = 64\nRUN --security=insecure mount -t tmpfs t /tmp\n");
    let args = ["--ulimit", "nofile=64", "--allow", "security.insecure", "--step-disk", "10m", "--step-timeout", "5m"];
    let _built = project.build(&args).good();
}
