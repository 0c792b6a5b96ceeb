//! `/proc` and `/sys` of a step: what they would tell of the host is covered, what could change it is read-only.
//!
//! It matters most as real root with an identity map: files that belong to the host's root are then the step's own,
//! and no capability is asked of who opens them. The step cannot take a cover away: it has no `CAP_SYS_ADMIN`, and in a
//! user namespace that it makes itself the covers are locked, and the kernel refuses another /proc beside a covered one.
//!
//! Source: the runtime specification's `maskedPaths` and `readonlyPaths`, moby `daemon/pkg/oci/defaults.go`; CVE-2025-31133 (what covers must be the
//! null device and nothing else).
//!
//! A step with `--security=insecure` gets both as they are.

use std::os::fd::OwnedFd;

use rustix::{
    fs::{FileType, Mode, OFlags, ResolveFlags},
    io::Errno,
    mount::MountAttrFlags,
};

use super::{
    devices,
    mounts::{Stage, attach, attach_over, copy_from, copy_of, file_system},
};
use crate::{
    sandbox::{InitError, Security, stubs::Place},
    sys,
};

const PROC_COVERED: [&str; 10] =
    ["acpi", "asound", "interrupts", "kcore", "keys", "latency_stats", "sched_debug", "scsi", "timer_list", "timer_stats"];

const PROC_READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

/// The last six are file systems of their own, readable by root alone, which a step's root is if the host's root runs it.
const SYS_COVERED: [&str; 8] =
    ["firmware", "devices/virtual/powercap", "kernel/debug", "kernel/tracing", "kernel/security", "kernel/config", "fs/bpf", "fs/pstore"];

const QUIET: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// Mounts a fresh /proc of the step's pid namespace. Where root is the host's own root a step may make no user
/// namespace, as in Docker: the rights that it has in one, over files that are its own, would reach the cgroup that the
/// engine is in.
pub(super) fn mount_proc(place: &Place, stage: &Stage<'_>, host_root: bool, security: Security) -> Result<(), InitError> {
    let (proc, fresh) = match file_system("proc", &[], QUIET) {
        Err(Errno::PERM) => (outer_proc()?, false),
        fresh => (fresh.map_err(InitError::new("mount a fresh", "/proc"))?, true),
    };
    // The filter refuses user namespaces to a step as well: where the setting is read-only that must do.
    if host_root && fresh && security == Security::Sandbox {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let limit = rustix::fs::openat(&proc, c"sys/user/max_user_namespaces", flags, Mode::empty());
        // The setting is that of the step's own user namespace.
        let set = limit.and_then(|limit| rustix::io::write(&limit, b"0"));
        set.map_err(InitError::new("set", "/proc/sys/user/max_user_namespaces"))?;
    }
    attach(&proc, place)?;
    if security == Security::Insecure {
        return Ok(());
    }
    cover(&proc, "/proc", &PROC_COVERED, stage)?;
    for path in PROC_READ_ONLY {
        let Some(found) = find(&proc, path).map_err(InitError::new("protect", format_args!("/proc/{path}")))? else { continue };
        protect(&found).map_err(InitError::new("protect", format_args!("/proc/{path}")))?;
    }
    Ok(())
}

/// The /proc that the engine has. Where parts of it are covered, as in a container, the kernel makes no fresh one, which
/// would show them. It shows the processes of the machine or container by the numbers that they have there, and the step's
/// own among them: `/proc/self` is right, `/proc/$$` is not. The step cannot signal them, being in a pid namespace of its
/// own all the same, nor look into them: that asks for rights in their user namespace. It is read-only: what /proc has of
/// other processes of the same user could be written to (`oom_score_adj`).
fn outer_proc() -> Result<OwnedFd, InitError> {
    let proc = copy_from(rustix::fs::CWD, "/proc").map_err(InitError::new("bind", "/proc"))?;
    sys::set_mount_attributes(&proc, QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY).map_err(InitError::new("protect", "/proc"))?;
    Ok(proc)
}

/// Mounts /sys, all of it read-only: a fresh one if the network namespace is the step's own, else the host's.
pub(super) fn mount_sys(place: &Place, stage: &Stage<'_>, own_network: bool, security: Security) -> Result<(), InitError> {
    let fresh = if own_network { file_system("sysfs", &[], QUIET).ok() } else { None };
    let sys = match fresh {
        Some(sys) => sys,
        None => copy_from(rustix::fs::CWD, "/sys").map_err(InitError::new("bind", "/sys"))?,
    };
    let flags = if security == Security::Insecure { QUIET } else { QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY };
    sys::set_mount_attributes(&sys, flags).map_err(InitError::new("protect", "/sys"))?;
    attach(&sys, place)?;
    if security == Security::Insecure {
        return Ok(());
    }
    let throttles = throttles(&sys).map_err(InitError::new("read", "/sys/devices/system/cpu"))?;
    let paths: Vec<&str> = SYS_COVERED.into_iter().chain(throttles.iter().map(String::as_str)).collect();
    cover(&sys, "/sys", &paths, stage)
}

/// How hot each processor is tells what others do with it.
fn throttles(sys: &OwnedFd) -> Result<Vec<String>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    // One answers for all: without it there is nothing to look for.
    let Some(_first) = find(sys, "devices/system/cpu/cpu0/thermal_throttle")? else { return Ok(Vec::new()) };
    let all = rustix::fs::openat(sys, c"devices/system/cpu", flags, Mode::empty())?;
    let mut paths = Vec::new();
    for entry in rustix::fs::Dir::read_from(&all)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let is_processor = name.strip_prefix("cpu").is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit()));
        paths.extend(is_processor.then(|| format!("devices/system/cpu/{name}/thermal_throttle")));
    }
    Ok(paths)
}

/// Directories get an empty one over them, files the null device.
fn cover(root: &OwnedFd, name: &str, paths: &[&str], stage: &Stage<'_>) -> Result<(), InitError> {
    let mut empty: Option<OwnedFd> = None;
    for path in paths {
        let failed = |errno: Errno| InitError::new("cover", format_args!("{name}/{path}"))(errno);
        let Some(found) = find(root, path).map_err(failed)? else { continue };
        let mode = rustix::fs::fstat(&found).map_err(failed)?.st_mode;
        if FileType::from_raw_mode(mode) != FileType::Directory {
            let null = devices::null().map_err(InitError::new("open", "/dev/null"))?;
            let null = copy_of(&null).map_err(failed)?;
            attach_over(&null, &found).map_err(failed)?;
            continue;
        }
        let tmpfs = if let Some(tmpfs) = empty.take() {
            tmpfs
        } else {
            let flags = QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY;
            let tmpfs = file_system("tmpfs", &[("mode", "0555"), ("size", "4k")], flags).map_err(failed)?;
            stage.attach(&tmpfs)?;
            tmpfs
        };
        copy_of(&tmpfs).and_then(|copy| attach_over(&copy, &found)).map_err(failed)?;
        empty = Some(tmpfs);
    }
    Ok(())
}

fn protect(found: &OwnedFd) -> std::io::Result<()> {
    let copy = copy_of(found)?;
    sys::set_mount_attributes(&copy, QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    Ok(attach_over(&copy, found)?)
}

/// What is there, if anything. A kernel may be without.
fn find(root: &OwnedFd, path: &str) -> Result<Option<OwnedFd>, Errno> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty(), resolve) {
        Ok(fd) => Ok(Some(fd)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
