/* What attacks from inside of a step: one line of output for each attempt, `held` or `REACHED`.
 * Arguments: the name of an abstract socket, a TCP port, the path of a socket, a file of the host. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *canary;

static void tell(const char *what, long result) {
    if (result < 0) printf("held %s: %s\n", what, strerror(errno));
    else printf("REACHED %s\n", what);
    fflush(stdout);
}

/* In a process of its own: what succeeds must not change the others. */
#define TRY(what, expression) do { \
    fflush(stdout); pid_t child_ = fork(); \
    if (child_ == 0) { tell(what, (long)(expression)); _exit(0); } \
    int status_; if (child_ > 0) { waitpid(child_, &status_, 0); \
        if (WIFSIGNALED(status_)) printf("held %s: signal %d\n", what, WTERMSIG(status_)); } \
} while (0)

/* Says what of a canary is in these bytes: the test knows its value. */
static void look(const char *where, const char *bytes, size_t length) {
    const char *at = bytes;
    while ((at = memmem(at, length - (at - bytes), "Canary", 6))) {
        size_t left = length - (at - bytes);
        printf("found in %s: %.*s\n", where, left < 22 ? (int)left : 22, at);
        at++;
    }
}

static void look_at_file(const char *path) {
    static char buffer[1 << 20];
    int fd = open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return;
    ssize_t got = read(fd, buffer, sizeof buffer);
    if (got > 0) look(path, buffer, (size_t)got);
    close(fd);
}

static void memory_of(int pid) {
    static char buffer[1 << 16];
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/maps", pid);
    FILE *maps = fopen(path, "r");
    snprintf(path, sizeof path, "/proc/%d/mem", pid);
    int mem = open(path, O_RDONLY);
    if (!maps || mem < 0) { if (maps) fclose(maps); if (mem >= 0) close(mem); return; }
    unsigned long from, to; char rights[8], line[512];
    while (fgets(line, sizeof line, maps)) {
        if (sscanf(line, "%lx-%lx %7s", &from, &to, rights) != 3 || rights[0] != 'r' || to - from > (64UL << 20)) continue;
        for (unsigned long at = from; at < to; at += sizeof buffer) {
            ssize_t got = pread(mem, buffer, sizeof buffer, (off_t)at);
            if (got > 0) look(path, buffer, (size_t)got);
        }
    }
    fclose(maps); close(mem);
}

/* pid 1 is the builder's own. */
static void the_first_process(void) {
    char byte; struct iovec here = {&byte, 1}, there = {(void *)0x400000, 1};
    TRY("ptrace attach of pid 1", ptrace(PTRACE_ATTACH, 1, 0, 0));
    TRY("ptrace seize of pid 1", ptrace(PTRACE_SEIZE, 1, 0, 0));
    TRY("process_vm_readv of pid 1", syscall(SYS_process_vm_readv, 1, &here, 1, &there, 1, 0));
    TRY("process_vm_writev of pid 1", syscall(SYS_process_vm_writev, 1, &here, 1, &there, 1, 0));
    TRY("kcmp with pid 1", syscall(SYS_kcmp, 1, getpid(), 0, 0, 0));
    int pidfd = (int)syscall(SYS_pidfd_open, 1, 0);
    for (int fd = 0; fd < 16; fd++) TRY("pidfd_getfd of pid 1", syscall(SYS_pidfd_getfd, pidfd, fd, 0));
    TRY("process_madvise of pid 1", syscall(SYS_process_madvise, pidfd, &there, 1, 21, 0));
    const char *files[] = {"mem", "environ", "maps", "auxv", "stack", "syscall", "personality", "cwd/.", "root/.", "fd/0", "fd/3", "exe", "timers", NULL};
    for (int at = 0; files[at]; at++) {
        char path[64]; snprintf(path, sizeof path, "/proc/1/%s", files[at]);
        char buffer[64];
        TRY(path, ({ int fd = open(path, O_RDONLY | O_NONBLOCK); fd < 0 ? -1 : read(fd, buffer, sizeof buffer) < 0 && errno != EISDIR ? -1 : 0; }));
    }
    const char *spaces[] = {"user", "mnt", "net", "pid", "ipc", "uts", "cgroup", "time", NULL};
    for (int at = 0; spaces[at]; at++) {
        char path[64]; snprintf(path, sizeof path, "/proc/1/ns/%s", spaces[at]);
        TRY(path, ({ int fd = open(path, O_RDONLY); fd < 0 ? -1 : setns(fd, 0); }));
    }
    TRY("setns by pidfd", syscall(SYS_setns, pidfd, CLONE_NEWNS));
    /* Signals are not refused, they have no effect: we are still here after these. */
    kill(1, SIGKILL); kill(1, SIGSTOP); kill(1, SIGSEGV); syscall(SYS_pidfd_send_signal, pidfd, SIGKILL, NULL, 0);
    usleep(50000);
    tell("pid 1 ended by a signal", kill(1, 0) == 0 || errno == EPERM ? -1 : 0);
}

static void other_processes(void) {
    DIR *proc = opendir("/proc");
    if (!proc) { printf("held processes: no /proc\n"); return; }
    for (struct dirent *entry; (entry = readdir(proc));) {
        int pid = atoi(entry->d_name);
        if (pid <= 0 || pid == getpid()) continue;
        char path[96];
        const char *files[] = {"environ", "cmdline", "stat", "mountinfo", "cgroup", NULL};
        for (int at = 0; files[at]; at++) { snprintf(path, sizeof path, "/proc/%d/%s", pid, files[at]); look_at_file(path); }
        memory_of(pid);
        for (int fd = 0; fd < 64; fd++) {
            char target[512];
            snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
            ssize_t got = readlink(path, target, sizeof target - 1);
            if (got > 0) { target[got] = 0; look(path, target, (size_t)got); if (strstr(target, "/store")) printf("REACHED %s -> %s\n", path, target); }
        }
        snprintf(path, sizeof path, "/proc/%d/root%s", pid, canary); look_at_file(path);
        snprintf(path, sizeof path, "/proc/%d/cwd/home/canary", pid); look_at_file(path);
    }
    closedir(proc);
    for (int fd = 3; fd < 1024; fd++) if (fcntl(fd, F_GETFD) >= 0) {
        char path[64], target[512] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        ssize_t got = readlink(path, target, sizeof target - 1); (void)got;
        /* What we opened ourselves is closed by now. */
        printf("REACHED inherited fd %d -> %s\n", fd, target);
    }
}

static int up(const char *name) {
    /* The classic: a root inside of the root, while the working directory is outside of it. */
    mkdir(name, 0755);
    int here = open("/", O_RDONLY | O_DIRECTORY);
    if (chroot(name) < 0) return -1;
    if (fchdir(here) < 0) return -1;
    for (int at = 0; at < 64; at++) if (chdir("..") < 0) return -1;
    if (chroot(".") < 0) return -1;
    int fd = open(canary, O_RDONLY);
    if (fd < 0) return -1;
    return 0;
}

static void the_root(void) {
    TRY("the canary by its path", open(canary, O_RDONLY));
    TRY("chroot and out", up("/jail"));
    const char *magic[] = {"/proc/self/root", "/proc/1/root", "/proc/self/cwd/../../../../..", "/proc/thread-self/root", "/proc/self/fd/0/../..", NULL};
    for (int at = 0; magic[at]; at++) {
        char path[1024]; snprintf(path, sizeof path, "%s%s", magic[at], canary);
        TRY(magic[at], open(path, O_RDONLY));
    }
    /* Handles know no mount: 2 is the root directory of ext4, 128 of xfs, 256 of btrfs. */
    int inodes[] = {2, 128, 256}; const char *mounts[] = {"/", "/cache", "/bound", NULL};
    for (int at = 0; mounts[at]; at++) {
        int mount = open(mounts[at], O_RDONLY | O_DIRECTORY);
        if (mount < 0) continue;
        for (int which = 0; which < 3; which++) for (int type = 1; type <= 2; type++) {
            struct { struct file_handle head; uint32_t id[2]; } handle = {{.handle_bytes = 8, .handle_type = type}, {(uint32_t)inodes[which], 0}};
            TRY("open_by_handle_at", open_by_handle_at(mount, &handle.head, O_RDONLY));
        }
        close(mount);
    }
}

static void the_kernel(void) {
    const char *settings[] = {"/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/hostname",
        "/proc/sys/net/ipv4/ip_forward", "/proc/sys/fs/binfmt_misc/register", "/proc/sys/user/max_user_namespaces", "/proc/sysrq-trigger", "/proc/irq/default_smp_affinity",
        "/sys/kernel/uevent_helper", "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/release_agent", "/sys/power/state", "/sys/kernel/mm/transparent_hugepage/enabled",
        "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/vda", "/dev/sda", "/dev/fuse", "/dev/net/tun", "/dev/loop-control", NULL};
    for (int at = 0; settings[at]; at++) TRY(settings[at], open(settings[at], O_WRONLY));
    TRY("a place before others when memory ends", ({ int fd = open("/proc/self/oom_score_adj", O_WRONLY); fd < 0 ? -1 : write(fd, "-1000", 5); }));
    const char *read_only[] = {"/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/sched_debug", "/proc/acpi/.", "/proc/scsi/.", "/sys/firmware/.", "/sys/kernel/security/.", "/sys/kernel/debug/.", NULL};
    char buffer[4096];
    for (int at = 0; read_only[at]; at++)
        TRY(read_only[at], ({ int fd = open(read_only[at], O_RDONLY | O_NONBLOCK); ssize_t got = fd < 0 ? -1 : syscall(SYS_getdents64, fd, buffer, sizeof buffer);
            if (fd >= 0 && got < 0) got = read(fd, buffer, sizeof buffer); got > 48 ? 0 : (errno = got < 0 ? errno : ENODATA, -1); }));
    for (int kind = 0; kind < 2; kind++) for (int major = 1; major < 260; major += 7)
        TRY("a device", ({ unlink("/node"); mknod("/node", 0666 | (kind ? S_IFBLK : S_IFCHR), (dev_t)(major << 8)) < 0 ? -1 : open("/node", O_RDONLY | O_NONBLOCK); }));
    unlink("/node");
}

/* A number that is no system call has no effect where it is let through: the answer tells which it was. */
static void calls(void) {
    mkdir("/m", 0755);
    TRY("mount tmpfs", mount("none", "/m", "tmpfs", 0, NULL));
    TRY("mount proc", mount("none", "/m", "proc", 0, NULL));
    TRY("mount bind", mount("/", "/m", NULL, MS_BIND | MS_REC, NULL));
    TRY("remount /proc/sys", mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL));
    TRY("umount /proc/sys", umount2("/proc/sys", MNT_DETACH));
    TRY("umount /proc/kcore", umount2("/proc/kcore", MNT_DETACH));
    TRY("umount /", umount2("/", MNT_DETACH));
    TRY("propagation", mount(NULL, "/", NULL, MS_SHARED | MS_REC, NULL));
    TRY("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    TRY("open_tree", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    TRY("mount_setattr", syscall(SYS_mount_setattr, AT_FDCWD, "/proc/sys", 0, NULL, 0));
    TRY("pivot_root", syscall(SYS_pivot_root, "/m", "/m"));
    TRY("unshare user", unshare(CLONE_NEWUSER));
    TRY("unshare user and mount", unshare(CLONE_NEWUSER | CLONE_NEWNS));
    TRY("unshare mount", unshare(CLONE_NEWNS));
    TRY("unshare net", unshare(CLONE_NEWNET));
    TRY("unshare cgroup", unshare(CLONE_NEWCGROUP));
    TRY("clone user", ({ long pid = syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0); if (pid == 0) _exit(0); pid; }));
    TRY("clone3 user", ({ struct clone_args args = {.flags = CLONE_NEWUSER, .exit_signal = SIGCHLD}; long pid = syscall(SYS_clone3, &args, sizeof args); if (pid == 0) _exit(0); pid; }));
    TRY("add_key", syscall(SYS_add_key, "user", "lapstrake", "x", 1, -3));
    TRY("keyctl", syscall(SYS_keyctl, 0, -4, 0, 0, 0));
    TRY("request_key", syscall(SYS_request_key, "user", "lapstrake", NULL, 0));
    TRY("bpf", ({ char attribute[128] = {1, 0, 0, 0, 4, 0, 0, 0, 4, 0, 0, 0, 1}; syscall(SYS_bpf, 0, attribute, sizeof attribute); }));
    TRY("perf_event_open", ({ struct { uint32_t type, size; char rest[120]; } attribute = {1, 128, {0}}; syscall(SYS_perf_event_open, &attribute, 1, -1, -1, 0); }));
    TRY("userfaultfd", syscall(SYS_userfaultfd, 0));
    TRY("io_uring_setup", ({ char parameters[120] = {0}; syscall(SYS_io_uring_setup, 1, parameters); }));
    TRY("init_module", syscall(SYS_init_module, "", 0, ""));
    TRY("kexec_load", syscall(SYS_kexec_load, 0, 0, NULL, 0));
    TRY("swapon", syscall(SYS_swapon, "/node", 0));
    TRY("acct", syscall(SYS_acct, NULL));
    TRY("syslog", ({ char text[64]; syscall(SYS_syslog, 3, text, sizeof text); }));
    TRY("iopl", syscall(SYS_iopl, 3));
    TRY("quotactl", syscall(SYS_quotactl, 0x80000100, "/dev/vda", 0, NULL));
    TRY("fanotify_init", syscall(SYS_fanotify_init, 4, 0));
    TRY("setdomainname", setdomainname("x", 1));
    TRY("sethostname", sethostname("x", 1));
    TRY("nice", ({ errno = 0; setpriority(0, 0, -20); }));
    TRY("AF_VSOCK", ({ int fd = socket(40, SOCK_STREAM, 0); struct { unsigned short family, zero; unsigned port, cid; char rest[8]; } to = {40, 0, 1, 2, {0}}; fd < 0 ? -1 : connect(fd, (void *)&to, 16); }));
#ifdef __x86_64__
    /* The same in the forms of i386 and x32: a filter of one form alone is none. */
    const struct { const char *name; int number; long one, two; } old[] = {
        {"i386 unshare user", 310, CLONE_NEWUSER, 0}, {"i386 mount", 21, 0, 0}, {"i386 keyctl", 288, 0, -4}, {"i386 bpf", 357, 0, 0}, {"i386 io_uring_setup", 425, 1, 0},
        {"i386 ptrace of pid 1", 26, 16, 1}, {"i386 open_tree", 428, -100, 0}, {"i386 userfaultfd", 374, 0, 0}, {"i386 setns", 346, 0, 0}};
    for (size_t at = 0; at < sizeof old / sizeof *old; at++)
        TRY(old[at].name, ({ long result; __asm__ volatile("int $0x80" : "=a"(result) : "a"(old[at].number), "b"(old[at].one), "c"(old[at].two), "d"(0), "S"(0), "D"(0) : "memory", "r8", "r9", "r10", "r11");
            int code = (int)result; if (code < 0) errno = -code; code < 0 ? -1 : code; }));
    const struct { const char *name; long number, one; } wide[] = {{"x32 unshare user", 272, CLONE_NEWUSER}, {"x32 keyctl", 250, 0}, {"x32 bpf", 321, 0}, {"x32 userfaultfd", 323, 0}, {"x32 ptrace", 521, 16}};
    for (size_t at = 0; at < sizeof wide / sizeof *wide; at++) TRY(wide[at].name, syscall(0x40000000 | wide[at].number, wide[at].one, 1, 0, 0, 0));
#endif
}

/* An abstract name has a zero byte before it. */
static int to_unix(const char *name, int abstract) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    size_t length = strlen(name);
    if (length + 2 > sizeof to.sun_path) return errno = ENAMETOOLONG, -1;
    memcpy(to.sun_path + abstract, name, length);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, (void *)&to, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + 1));
}

static int to_tcp(const char *host, int port) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    inet_pton(AF_INET, host, &to.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    return fd < 0 ? -1 : connect(fd, (void *)&to, sizeof to);
}

int main(int count, char **words) {
    if (count == 2 && !strcmp(words[1], "starve")) {
        /* What has our own uid may be given limits: files, address space, memory for locks, time of the processor. */
        uint64_t none[2] = {1, 1};
        for (int limit = 0; limit < 16; limit++) syscall(SYS_prlimit64, 1, limit, none, NULL);
        kill(-1, SIGKILL);
        sleep(2);
        return 0;
    }
    if (count == 2 && !strcmp(words[1], "multiply")) {
        /* 400 that are in sessions of their own, obey no signal, and hold the output open. */
        for (int at = 0; at < 400; at++) if (fork() == 0) {
            setsid();
            for (int number = 1; number < 65; number++) signal(number, SIG_IGN);
            if (fork() == 0) for (;;) { pause(); }
            for (;;) { sleep(977); }
        }
        usleep(100000);
        return 0;
    }
    if (count < 5) return 2;
    canary = words[4];
    other_processes();
    the_first_process();
    the_root();
    the_kernel();
    calls();
    TRY("path socket", to_unix(words[3], 0));
    /* The network of the host has these: told apart, the test knows which network it gave. */
    TRY("abstract socket", to_unix(words[1], 1));
    TRY("packet socket", socket(AF_PACKET, SOCK_RAW, htons(3)));
    TRY("tcp of the host", to_tcp("127.0.0.1", atoi(words[2])));
    printf("attacker is done\n");
    return 0;
}
