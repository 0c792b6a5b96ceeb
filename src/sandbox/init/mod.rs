//! pid 1 of a step: makes the root complete, gives up what the program must not have, starts the program, reaps,
//! and ends with it. With pid 1 every process of its pid namespace ends.
//!
//! It is a fresh process of this program with one thread, and has open only what [`super::wire::fds`] says. It is not
//! dumpable: nobody in the sandbox can look at it, its fds, or the file that it runs.

mod chroot;
mod devices;
mod kernel;
mod mounts;

pub(super) use devices::{DEVICES, LINKS};
pub(super) use mounts::file_system;

use std::{
    ffi::{CString, OsStr, OsString},
    os::{
        fd::{AsFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    process::ExitCode,
};

use rustix::{
    event::{PollFd, PollFlags},
    fs::{Gid, Mode, OFlags, ResolveFlags, Uid},
    io::Errno,
    mount::UnmountFlags,
    process::{DumpableBehavior, Pid, Signal, WaitOptions},
    thread::{CapabilitySet, CapabilitySets},
};

use super::{
    InitError, ProcessLimit, Security,
    driver::Isolation,
    family::Family,
    single,
    wire::{Orders, Report, fds},
};
use crate::sys;

/// The hidden argument that makes this program pid 1 of a step.
pub const STEP_INIT: &str = "step-init";

/// Where programs are looked for if the environment has no PATH.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a step keeps, in its own user namespace: what Docker gives by default.
pub(super) const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// The program as pid 1 of a step: what `main` does when its only argument is [`STEP_INIT`]. Started in any other way
/// it fails.
pub fn init_main() -> ExitCode {
    let Ok(socket) = sys::inherited_fd(fds::SOCKET) else { return ExitCode::FAILURE };
    let end = match begin(&socket) {
        Ok((program, family)) => {
            let end = wait_for(program, &socket);
            // Of namespaces this process is the first: its end is everybody's.
            family.iter().for_each(Family::end);
            end
        }
        Err(error) => Some(Report::Failed(error)),
    };
    match end.map(|report| report.send(&socket)) {
        Some(Ok(())) => ExitCode::SUCCESS,
        Some(Err(_)) | None => ExitCode::FAILURE,
    }
}

fn begin(socket: &OwnedFd) -> Result<(Pid, Option<Family>), InitError> {
    let inherited = |number: u16| sys::inherited_fd(number).map_err(InitError::new("start", "pid 1 of the step"));
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(InitError::new("start", "pid 1"))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(InitError::new("start", "pid 1"))?;
    let (orders, blobs) = Orders::read(inherited(fds::ORDERS)?).map_err(InitError::new("read", "orders"))?;
    let root = inherited(fds::ROOT)?;
    if orders.isolation == Isolation::Chroot {
        return chroot::begin(socket, &orders, &root).map(|(program, family)| (program, Some(family)));
    }
    let passed = orders.mounts.iter().filter(|mount| matches!(mount.what, super::wire::Source::Host)).count();
    let passed = (fds::FIRST_MOUNT..).take(passed).map(inherited).collect::<Result<Vec<_>, _>>()?;
    let after = fds::FIRST_MOUNT + u16::try_from(passed.len()).unwrap_or(u16::MAX);
    let channel = if orders.supervised { Some(inherited(after)?) } else { None };
    rustix::process::setsid().map_err(InitError::new("start", "pid 1"))?;
    // The engine's is new and empty too, so a full quota or a missing keyctl shows the step nothing.
    sys::leave_session_keyring().ok();
    rustix::process::umask(Mode::empty());
    let stubs = mounts::complete(&root, &orders, &blobs, passed)?;
    let filter = orders.filter.map(|blob| sys::Filter::from_bytes(blobs.find(blob)).ok_or(Errno::INVAL));
    let filter = filter.transpose().map_err(InitError::new("read", "filter"))?;
    drop(blobs);
    rustix::process::umask(Mode::from_raw_mode(0o022));
    sys::set_hostname(&orders.hostname).map_err(InitError::new("set hostname", &orders.hostname))?;
    if orders.network == super::Network::None {
        sys::raise_loopback().map_err(InitError::new("raise", "lo"))?;
    }
    pivot(&root)?;
    Report::Mounted(stubs).send(socket).map_err(InitError::new("report", "mounts"))?;
    // In a fresh one this process is 1.
    if rustix::fs::readlink(c"/proc/self", Vec::new()).is_ok_and(|own| own.as_bytes() != b"1") {
        Report::OuterProc.send(socket).map_err(InitError::new("report", "/proc"))?;
    }
    standard_streams(&orders)?;
    if orders.security == Security::Sandbox {
        drop_bounding_set(None)?;
    }
    let started = start(&orders, &root, filter.as_slice(), channel);
    // What is left to do needs no right, and a program that took pid 1 over would find none.
    let none = CapabilitySet::empty();
    let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
    if let Err(errno) = rustix::thread::set_capabilities(None, none) {
        return Err(InitError::new("drop", "capabilities")(errno));
    }
    started.map(|program| (program, None))
}

/// The new root becomes `/`, and the old one is no longer anywhere.
fn pivot(root: &OwnedFd) -> Result<(), InitError> {
    let failed = |step: &'static str| InitError::new::<Errno>(step, "/");
    rustix::process::fchdir(root).map_err(failed("enter"))?;
    rustix::process::pivot_root(c".", c".").map_err(failed("pivot"))?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH).map_err(failed("detach the host from"))?;
    rustix::process::chdir(c"/").map_err(failed("enter"))
}

/// Standard input is the sandbox's own /dev/null, and the program may open /dev/stdout whoever it is.
fn standard_streams(orders: &Orders) -> Result<(), InitError> {
    let null = rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    let null = null.map_err(InitError::new("open", "/dev/null"))?;
    sys::as_standard(&null, 0).map_err(InitError::new("open", "/dev/null"))?;
    for stream in [std::io::stdout().as_fd(), std::io::stderr().as_fd()] {
        if orders.uid == u32::MAX || orders.gid == u32::MAX {
            continue;
        }
        // Fails for a user without a map, who is about to be refused.
        rustix::fs::fchown(stream, Some(Uid::from_raw(orders.uid)), Some(Gid::from_raw(orders.gid))).ok();
    }
    Ok(())
}

/// What Docker does not give a step can no longer be had. `enough`: the refusal that ends it without an error.
fn drop_bounding_set(enough: Option<Errno>) -> Result<(), InitError> {
    for number in 0..64 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if KEPT.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no more.
            Err(Errno::INVAL) if number > 0 => return Ok(()),
            Err(errno) if Some(errno) == enough => return Ok(()),
            Err(errno) => return Err(InitError::new("drop capability", number)(errno)),
        }
    }
    Ok(())
}

fn start(orders: &Orders, root: &OwnedFd, filters: &[sys::Filter], channel: Option<OwnedFd>) -> Result<Pid, InitError> {
    let name = orders.argv.first().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    // No magic links: a working directory below /proc/self/fd is not one.
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let cwd = rustix::fs::openat2(root, orders.cwd.as_os_path(), flags, Mode::empty(), resolve);
    let cwd = cwd.map_err(InitError::new("enter", &orders.cwd))?;
    // The kernel takes -1 for "as it is", which is root.
    if [orders.uid, orders.gid].iter().chain(&orders.groups).any(|id| *id == u32::MAX) {
        return Err(InitError::new("become user", format_args!("{}:{}", orders.uid, orders.gid))(Errno::INVAL));
    }
    let strings = |all: &[OsString]| all.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<Vec<_>, _>>();
    let exec = |_: std::ffi::NulError| InitError::new("exec", &name)(Errno::INVAL);
    let candidates = strings(&candidates(&orders.argv, &orders.env)).map_err(exec)?;
    let (argv, env) = (strings(&orders.argv).map_err(exec)?, strings(&orders.env).map_err(exec)?);
    // In a network namespace of its own it has abstract sockets of its own too. Without a user namespace there is no right to it.
    let may = orders.isolation == Isolation::Namespaces && orders.security == Security::Sandbox;
    let scope = if may && orders.network == super::Network::Host { sys::own_abstract_sockets() } else { None };
    let limits: Vec<_> = orders.limits.iter().map(ProcessLimit::raw).collect();
    let supervised = channel.map(|channel| (single::filter(), channel));
    let program = sys::Program {
        candidates: &candidates,
        argv: &argv,
        env: &env,
        cwd: cwd.as_fd(),
        uid: orders.uid,
        gid: orders.gid,
        groups: &orders.groups,
        scope: scope.as_ref().map(AsFd::as_fd),
        limits: &limits,
        filters,
        supervised: supervised.as_ref().map(|(filter, channel)| sys::Supervised {
            filter,
            channel: channel.as_fd(),
            number: single::FIRST,
        }),
    };
    program.start().map_err(|(stage, error)| match stage {
        sys::Stage::Cwd => InitError::new("enter", &orders.cwd)(error),
        sys::Stage::User => InitError::new("become user", format_args!("{}:{}", orders.uid, orders.gid))(error),
        sys::Stage::Limits => InitError::new("set", "limits of processes")(error),
        sys::Stage::Filter => InitError::new("install", "seccomp filter")(error),
        sys::Stage::Supervise => InitError::new("supervise", &name)(error),
        sys::Stage::Exec => InitError::new("exec", &name)(error),
    })
}

/// Where the program may be: as it is named if the name has a slash, else in each directory of PATH.
fn candidates(argv: &[OsString], env: &[OsString]) -> Vec<OsString> {
    let Some(name) = argv.first().filter(|name| !name.is_empty()) else { return Vec::new() };
    if name.as_bytes().contains(&b'/') {
        return vec![name.clone()];
    }
    let path = env.iter().rev().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH);
    let in_dir = |dir: &[u8]| {
        let dir = if dir.is_empty() { b"." } else { dir };
        OsStr::from_bytes(&[dir, b"/", name.as_bytes()].concat()).to_owned()
    };
    path.split(|byte| *byte == b':').map(in_dir).collect()
}

/// Reaps until the program has ended; `None` if the engine ends first.
fn wait_for(program: Pid, socket: &OwnedFd) -> Option<Report> {
    let ended = sys::child_signals().ok()?;
    loop {
        // Children that ended before the signal was an fd are found here too.
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) if pid == program => {
                    return status.exit_status().map(Report::Exited).or(status.terminating_signal().map(Report::Signalled));
                }
                Ok(Some(_)) | Err(Errno::INTR) => {}
                Ok(None) => break,
                Err(_) => return None,
            }
        }
        let mut polled = [PollFd::new(&ended, PollFlags::IN), PollFd::new(socket, PollFlags::IN)];
        if !matches!(rustix::event::poll(&mut polled, None), Ok(_) | Err(Errno::INTR)) {
            return None;
        }
        let [_, engine] = polled.map(|fd| !fd.revents().is_empty());
        if engine {
            return None;
        }
        let mut information = [0; 128];
        // Only the wake-up matters; it may be gone already.
        rustix::io::read(&ended, &mut information).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, env: &[&str]) -> Vec<OsString> {
        candidates(&[name.into()], &env.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn a_name_with_a_slash_is_not_looked_for() {
        assert_eq!(found("./a", &["PATH=/bin"]), ["./a"]);
    }

    #[test]
    fn a_bare_name_is_looked_for_in_the_path_of_the_step() {
        assert_eq!(found("a", &["PATH=/bin::/x"]), ["/bin/a", "./a", "/x/a"]);
        assert_eq!(found("a", &[]).len(), 6);
        assert_eq!(found("", &[]).len(), 0);
    }

    #[test]
    fn the_rights_kept_are_those_of_docker() {
        assert_eq!(KEPT.bits(), 0xa804_25fb);
    }
}
