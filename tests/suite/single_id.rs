//! One user id: the layers of a step whose owners a supervisor keeps are those of a full map, and nothing that a hostile
//! step does makes them others.
//!
//! Two builds of one Dockerfile, by `--driver userns` and `--driver userns-single`. Every step ends by giving what it touched
//! the same time, so that equal layers have equal digests.

use crate::harness::{Image, Project, debian_rootfs, differences, need, need_root, processes_with, wait_until};

/// All that a step touched gets one time.
const TIMELESS: &str =
    "find / -xdev -newer NEWER ! -name proc ! -name sys ! -name dev ! -name resolv.conf ! -name hosts -exec touch -h -d @1000000000 {} +";

/// The image of one driver.
fn image(project: &Project, driver: &str) -> Image {
    project.image(&["--driver", driver, "--no-cache"])
}

/// Both drivers make the same layers of these steps on busybox.
fn same(steps: &[&str]) -> Image {
    let project = Project::with_busybox();
    let run = |step: &&str| format!("RUN {step} && {}\n", TIMELESS.replace("NEWER", "/bin/busybox"));
    project.dockerfile(&format!("FROM busybox\n{}", steps.iter().map(run).collect::<String>()));
    let _file = project.file("files/one", "1");
    let (full, single) = (image(&project, "userns"), image(&project, "userns-single"));
    let none: Vec<String> = Vec::new();
    assert_eq!(differences(&full.tree(), &single.tree()), none);
    assert_eq!(full.diff_ids(), single.diff_ids());
    single
}

/// A step under one id succeeds.
fn holds(step: &str) {
    let project = Project::with_busybox();
    project.dockerfile(&format!("FROM busybox\nRUN {step}\n"));
    let _built = project.build(&["--driver", "userns-single"]).good();
}

#[test]
fn owners_of_every_kind_of_file_are_kept() {
    let image = same(&[
        "touch f && chown 33:44 f && ln -s f l && chown -h 5:6 l && mkfifo p && chown 7:8 p && mkdir -m 2775 d && chown 9:10 d",
        "touch d/inherits && mkdir d/sub && ln -s nowhere d/link && echo x > d/link",
        "mv l l2 && ln p p2 && mv d e && chown -R 11:12 e && chown 0:0 f",
        "rm -r e/sub && cp -a e g && chmod 4755 f && chown 1 f",
    ]);
    let tree = image.tree();
    assert_eq!((tree["l2"].uid, tree["l2"].gid), (5, 6));
    assert_eq!((tree["p2"].uid, tree["p2"].gid), (7, 8));
    assert_eq!((tree["f"].uid, tree["f"].mode & 0o7777), (1, 0o755));
}

#[test]
fn users_are_who_they_say_and_make_what_is_theirs() {
    let image = same(&[
        "mkdir -m 1777 /work && su -s /bin/sh www-data -c 'id; cd /work && touch a && mkdir -m 700 b && ln -s a l && mkfifo p && echo x > b/c && ln a hard'",
        "su -s /bin/sh www-data -c 'umask 077; echo y > /work/private; cp /work/a /work/copy; mv /work/b /work/moved'",
        "chown -R 0:0 /work/moved && su -s /bin/sh www-data -c 'echo more >> /work/a; rm /work/copy'",
    ]);
    let tree = image.tree();
    assert_eq!((tree["work/private"].uid, tree["work/private"].mode & 0o777), (33, 0o600));
    assert_eq!(tree["work/moved/c"].uid, 0);
    assert!(!tree.contains_key("work/copy"));
}

#[test]
fn a_user_of_the_image_begins_as_that_user() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox\nRUN mkdir -m 0777 /w && touch -d @5 /w\nUSER 33:44\nRUN test \"$(id -u):$(id -g)\" = 33:44 && touch -d @5 /w/mine && ! touch /etc/no && ! rm /etc/passwd && ! chown 1 /w/mine && ! chmod 777 /etc && ! test -w /etc/passwd && ! kill -0 1\nUSER 0\nRUN touch -d @5 /w\n",
    );
    let (full, single) = (image(&project, "userns"), image(&project, "userns-single"));
    assert_eq!(full.diff_ids(), single.diff_ids());
    assert_eq!((single.tree()["w/mine"].uid, single.tree()["w/mine"].gid), (33, 44));
}

#[test]
fn setuid_programs_are_their_owners() {
    if need("gcc").is_none() {
        return;
    }
    let (project, _program) = compiled(
        "#include <stdio.h>\n#include <unistd.h>\nint main(void) { printf(\"%d %d %d %d\\n\", getuid(), geteuid(), getgid(), getegid()); return 0; }\n",
    );
    project.dockerfile(
        "FROM busybox\nCOPY program /\nRUN cp program one && chown 33:44 one && chmod 6755 one && test \"$(su -s /bin/sh www-data -c /one)\" = '33 33 33 44' && chown 7:8 one && test \"$(./one)\" = '0 0 0 0' && chmod 6755 one && test \"$(./one)\" = '0 7 0 8'\n",
    );
    for driver in ["userns", "userns-single"] {
        let _built = project.build(&["--driver", driver, "--no-cache"]).good();
    }
}

#[test]
fn copies_and_stages_have_the_owners_they_were_given() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox AS a\nCOPY --chown=33:44 files /given/\nRUN mkdir /x && echo 1 > /x/f && chown -R 55:66 /x && ln -s f /x/l && chown -h 77:88 /x/l && find /x -exec touch -h -d @5 {} + \nFROM busybox\nCOPY --from=a /x /x/\nCOPY --from=a --chown=9 /given /given/\nRUN --mount=type=bind,from=a,target=/m cp -a /m/x /copied && test \"$(stat -c %u /m/x/l)\" = 77 && find /copied -exec touch -h -d @5 {} +\n",
    );
    let _file = project.file("files/one", "1");
    let (full, single) = (image(&project, "userns"), image(&project, "userns-single"));
    // A copy's directories have the time of the copy.
    let none: Vec<String> = Vec::new();
    assert_eq!(differences(&full.tree(), &single.tree()), none);
    assert_eq!(full.diff_ids().last(), single.diff_ids().last());
    assert_eq!(single.tree()["copied/l"].gid, 88);
}

#[test]
fn mounts_have_the_owners_that_are_asked_for() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox\nUSER 33\nRUN --mount=type=secret,id=s,uid=33,gid=44,mode=0400 --mount=type=cache,target=/c,uid=33,gid=44 test \"$(stat -c %u:%g /run/secrets/s /c | tr '\\n' ' ')\" = '33:44 33:44 ' && cat /run/secrets/s && echo x > /c/f && test \"$(stat -c %u /c/f)\" = 33\n",
    );
    let secret = project.file("secret", "hush");
    let secret = format!("id=s,src={}", secret.display());
    for driver in ["userns", "userns-single"] {
        let _built = project.build(&["--driver", driver, "--secret", &secret]).good();
    }
}

#[test]
fn a_copy_of_the_tree_keeps_owners_as_an_overlay_does() {
    let project = Project::with_busybox();
    project.dockerfile(
        "FROM busybox\nRUN touch -d @5 a && chown 33:44 a && ln -s x l && chown -h 7:8 l && mkfifo p && chown 9 p && touch -h -d @5 l p\nRUN mv l m && ln p q && cp -a a b && chown 5 b && touch -h -d @5 m q b\n",
    );
    let layers = |driver: &str, snapshots: &str| {
        project.image(&["--driver", driver, "--snapshots", snapshots, "--no-cache"]).diff_ids().into_iter().map(str::to_owned).collect()
    };
    let many: Vec<String> = layers("userns", "overlay");
    assert_eq!(layers("userns-single", "overlay"), many);
    assert_eq!(layers("userns-single", "copy"), many);
}

#[test]
fn a_mark_can_be_neither_seen_nor_forged() {
    if need("gcc").is_none() {
        return;
    }
    let program = r#"
#include <stdio.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <fcntl.h>
int main(void) {
    char list[4096];
    int fd = open("/forged", O_CREAT | O_RDWR, 0644);
    if (!setxattr("/forged", "user.lapstrake.owner", "33:33", 5, 0)) return 1;
    if (!fsetxattr(fd, "user.lapstrake.owner", "33:33", 5, 0)) return 2;
    if (!lsetxattr("/forged", "user.lapstrake.owner", "33:33", 5, 0)) return 3;
    if (fchown(fd, 44, 44)) return 4;
    if (listxattr("/forged", list, sizeof list) != 0) return 5;
    if (!removexattr("/forged", "user.lapstrake.owner")) return 6;
    if (setxattr("/forged", "user.other", "x", 1, 0)) return 7;
    if (listxattr("/forged", list, sizeof list) != 11 || strcmp(list, "user.other")) return 8;
    return 0;
}
"#;
    let (project, _program) = compiled(program);
    project.dockerfile("FROM busybox\nCOPY program /\nRUN /program && test \"$(stat -c %u /forged)\" = 44\n");
    let image = project.image(&["--driver", "userns-single"]);
    assert_eq!(image.tree()["forged"].uid, 44);
    assert!(!format!("{:?}", image.tree()["forged"]).contains("lapstrake"));
}

/// A project whose context has the program that this C becomes.
fn compiled(text: &str) -> (Project, std::path::PathBuf) {
    let project = Project::with_busybox();
    let source = project.file("program.c", text);
    let to = project.context().join("program");
    let status = std::process::Command::new("gcc").args(["-static", "-pthread", "-O1", "-o"]).arg(&to).arg(&source).status().unwrap();
    assert!(status.success());
    (project, to)
}

#[test]
fn a_path_that_changes_while_it_is_given_away_leads_nowhere_else() {
    if need("gcc").is_none() {
        return;
    }
    // Two names are swapped all the time while one of them is chowned: each chown is of one file or of the other, and the
    // links and directories above never lead to what was not named.
    let program = r#"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
static volatile int over;
static void *swap(void *x) {
    while (!over) syscall(SYS_renameat2, AT_FDCWD, "/race/link", AT_FDCWD, "/race/dir", 2);
    return x;
}
int main(void) {
    pthread_t t;
    struct stat s;
    mkdir("/race", 0755); mkdir("/race/dir", 0755); mkdir("/race/other", 0755);
    close(open("/race/dir/f", O_CREAT | O_WRONLY, 0644));
    close(open("/race/other/f", O_CREAT | O_WRONLY, 0644));
    symlink("other", "/race/link");
    pthread_create(&t, 0, swap, 0);
    for (int i = 0; i < 3000; i++) {
        chown("/race/dir/f", 33, 33);
        lchown("/race/link/f", 44, 44);
        int fd = open("/race/dir/new", O_CREAT | O_WRONLY, 0644);
        if (fd >= 0) { close(fd); unlink("/race/dir/new"); }
    }
    over = 1;
    pthread_join(t, 0);
    if (stat("/etc/passwd", &s) || s.st_uid) return 1;
    if (stat("/race/other", &s) || s.st_uid) return 2;
    if (lstat("/race", &s) || s.st_uid) return 3;
    return 0;
}
"#;
    let (project, _program) = compiled(program);
    project.dockerfile("FROM busybox\nCOPY program /\nRUN /program\n");
    let _built = project.build(&["--driver", "userns-single"]).good();
}

#[test]
fn other_interfaces_of_the_kernel_are_no_way_past() {
    if need("gcc").is_none() {
        return;
    }
    let program = r#"
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
int main(void) {
    char params[120];
    memset(params, 0, sizeof params);
    errno = 0;
    if (syscall(425, 8, params) != -1 || (errno != ENOSYS && errno != EPERM)) return 1;
#ifdef __x86_64__
    errno = 0;
    if (syscall(0x40000000 | SYS_getuid) != -1 || errno != ENOSYS) return 2;
    int status;
    if (!fork()) {
        /* chown of a 32-bit program. */
        int result;
        __asm__ volatile("int $0x80" : "=a"(result) : "a"(182), "b"(0), "c"(33), "d"(33) : "memory");
        _exit(0);
    }
    wait(&status);
    if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS) return 3;
#endif
    /* The limit that says who a process is. */
    struct rlimit limit = {0, 0};
    if (setrlimit(RLIMIT_LOCKS, &limit)) return 4;
    if (getrlimit(RLIMIT_LOCKS, &limit) || limit.rlim_cur != RLIM_INFINITY) return 5;
    if (setuid(33) || getuid() != 33) return 6;
    limit.rlim_cur = limit.rlim_max = 0;
    prlimit(0, RLIMIT_LOCKS, &limit, 0);
    if (getuid() != 33 || geteuid() != 33 || setuid(0) == 0) return 7;
    return 0;
}
"#;
    let (project, _program) = compiled(program);
    project.dockerfile("FROM busybox\nCOPY program /\nRUN /program\n");
    let _built = project.build(&["--driver", "userns-single"]).good();
}

#[test]
fn a_task_in_another_root_is_understood_there() {
    holds(
        "mkdir -p /r/bin /r/etc && cp /bin/busybox /r/bin/ && touch /r/etc/f /etc/f && chroot /r /bin/busybox chown 33:44 /etc/f && test \"$(stat -c %u /r/etc/f)\" = 33 && test \"$(stat -c %u /etc/f)\" = 0 && chroot /r /bin/busybox chown 55 ../../../etc/f && test \"$(stat -c %u /r/etc/f)\" = 55 && test \"$(stat -c %u /etc/f)\" = 0",
    );
}

#[test]
fn thousands_of_tasks_are_all_answered() {
    holds(
        "i=0; while test $i -lt 300; do (touch /t$i; chown $i /t$i) & i=$((i+1)); test $((i % 50)) = 0 && wait; done; wait; test \"$(stat -c %u /t299)\" = 299; i=0; while test $i -lt 1500; do /bin/true; i=$((i+1)); done",
    );
}

#[test]
fn a_step_whose_supervisor_is_killed_dies() {
    if !need_root() {
        return;
    }
    let project = Project::with_busybox();
    project.dockerfile("FROM busybox\nRUN echo begun; sleep 60; id\n");
    let mut child = project.start_build(&["--driver", "userns-single"]);
    // Of this build: tests run beside each other.
    let own = |path: &String| {
        let pid = path.rsplit('/').next()?.parse().ok()?;
        ancestors(pid).contains(&child.id()).then_some(pid)
    };
    let found = wait_until("the supervisor", || processes_with("lapstrake\0step-supervisor").iter().find_map(own));
    // Not before it has begun to supervise.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    let pid = rustix::process::Pid::from_raw(found.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    let begun = std::time::Instant::now();
    assert!(!child.wait().unwrap().success());
    assert!(begun.elapsed().as_secs() < 30);
}

fn ancestors(pid: u32) -> Vec<u32> {
    let mut all = Vec::new();
    let mut at = pid;
    while at > 1 {
        let Ok(status) = std::fs::read_to_string(format!("/proc/{at}/status")) else { break };
        let Some(parent) = status.lines().find_map(|line| line.strip_prefix("PPid:")?.trim().parse().ok()) else { break };
        all.push(parent);
        at = parent;
    }
    all
}

/// Debian's own tools: users, sudo's kind of program, tar, install, capabilities.
#[test]
fn debians_tools_leave_what_they_leave_under_a_full_map() {
    let Some(rootfs) = debian_rootfs() else { return };
    let project = Project::new();
    let _imported = project.run(["import", rootfs.to_str().unwrap(), "debian"]).good();
    let steps = [
        "useradd -m -u 1000 u && su u -c 'cd && umask 027 && touch a && mkdir -p b/c && ln -s a l && mkfifo p && id > b/c/id'",
        "mkdir -p /opt/app && touch /opt/app/f && ln -s f /opt/app/l && mkdir -m 2775 /opt/app/sg && chgrp 50 /opt/app/sg && touch /opt/app/sg/x && mkdir /opt/app/sg/d",
        "chown -R u:users /opt/app && install -o www-data -g adm -m 640 /etc/hostname /opt/inst && tar -C /opt -cf /opt/t.tar app && mkdir /opt/ex && tar -C /opt/ex --same-owner -xf /opt/t.tar && mv /opt/app/l /opt/app/l3 && rm /opt/t.tar",
        "cp /usr/bin/id /usr/bin/as33 && chown 33:33 /usr/bin/as33 && chmod 6755 /usr/bin/as33 && su u -c as33 | grep -q 'euid=33'",
        "perl -e 'use Fcntl; $> = 33; sysopen(F, \"/tmp\", O_RDWR|020200000, 0600) or die; symlink(\"/tmp/dangle-target\", \"/tmp/dangle\"); open(G, \">/tmp/dangle\") or die; $) = \"44 44\"; mkdir \"/tmp/by33\"'",
    ];
    let run = |step: &&str| format!("RUN {step} && rm -f /etc/*- && {}\n", TIMELESS.replace("NEWER", "/usr/bin/id"));
    project.dockerfile(&format!("FROM debian\n{}", steps.iter().map(run).collect::<String>()));
    let (full, single) = (image(&project, "userns"), image(&project, "userns-single"));
    let none: Vec<String> = Vec::new();
    assert_eq!(differences(&full.tree(), &single.tree()), none);
    let tree = single.tree();
    assert_eq!((tree["home/u/b/c"].uid, tree["opt/inst"].gid, tree["opt/ex/app/sg/x"].gid), (1000, 4, 100));
}
