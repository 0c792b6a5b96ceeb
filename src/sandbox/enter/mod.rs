//! The engine's process: entered once, single-threaded, into a user and a mount namespace of its own.
//!
//! The front calls [`spawn_engine`], which starts this program again; the new process calls [`become_engine`] before
//! anything else. Between them is one socket, fd 3 of the engine:
//!
//! ```text
//! front ── Enter{ids} ─▶ engine: unshare ── Unshared ─▶ front: writes the id maps ── Mapped ─▶ engine: becomes root inside, private mounts ── Ready ─▶
//! ```
//!
//! With [`Ids::Host`] nothing is unshared and nothing mapped.
//!
//! Who writes which map: an ordinary user has `newuidmap` and `newgidmap` join the ids that /etc/subuid and
//! /etc/subgid give; root (of the host, or in a namespace) maps every id that it has to itself, split along its own
//! extents, because the kernel takes no extent that spans two of the parent's. With [`Ids::Single`] whoever it is maps
//! the one id to root, which needs neither helper nor right; the kernel then wants setgroups denied.
//!
//! Source: `user_namespaces(7)`, newuidmap(1), subuid(5).

mod chroot;
mod error;
mod host;
mod maps;

pub use error::{EnterError, Knob, Tried};
pub(super) use host::may_mount;
pub(super) use maps::one_to_one;

use std::{
    ffi::{CString, OsString},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::{
    mount::MountPropagationFlags,
    net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType},
    process::{DumpableBehavior, Signal, WaitIdOptions},
};
use serde::{Deserialize, Serialize};

use super::driver::Ids;
use crate::sys;

/// Which ids own what: a short hash of the id maps. Trees of another domain have other owners on disk.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Domain(String);

impl Domain {
    /// Sixteen hex digits, or `single`; fit for a file name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Domain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// The engine as the front sees it. Dropped, it is killed.
#[derive(Debug)]
pub struct EngineProcess {
    child: sys::Child,
}

impl EngineProcess {
    /// Readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.child.pidfd.as_fd()
    }

    /// Its number on the host.
    pub fn id(&self) -> u32 {
        self.child.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Ends it at once, with every step that runs.
    pub fn kill(&self) -> io::Result<()> {
        Ok(rustix::process::pidfd_send_signal(&self.child.pidfd, Signal::KILL)?)
    }

    /// Waits for its end: its exit code, or the signal's number + 128.
    pub fn wait(self) -> io::Result<i32> {
        wait(&self.child.pidfd)
    }
}

impl Drop for EngineProcess {
    fn drop(&mut self) {
        // Both fail only if it has been waited for.
        self.kill().ok();
        wait(&self.child.pidfd).ok();
    }
}

/// What the new engine has.
#[derive(Debug)]
pub struct Entered {
    /// Which ids there are.
    pub ids: Ids,
    /// Whose trees it may use.
    pub domain: Domain,
    /// What the front passed, in the same order.
    pub fds: Vec<OwnedFd>,
}

#[derive(Debug, Serialize, Deserialize)]
enum Word {
    /// From the front, first: enter with these ids; so many fds follow the socket.
    Enter { ids: Ids, fds: u16 },
    /// From the engine: write my maps.
    Unshared,
    /// From the front: they are written.
    Mapped,
    /// From the engine: it is one.
    Ready,
    /// From either.
    Failed(EnterError),
}

/// The engine's end of the socket; what the front passes follows.
const SOCKET: u16 = 3;

/// Starts this program again as the engine: `args` are its arguments, after its name; `env` its environment; `fds`
/// are handed to it. Its standard streams are ours. It returns when the engine is inside and ready.
///
/// The engine ends when the calling *thread* does, at the latest: call it from one that stays.
pub fn spawn_engine(ids: Ids, args: &[OsString], env: &[OsString], fds: &[BorrowedFd<'_>]) -> Result<EngineProcess, EnterError> {
    let started = |tried: Tried| move |error: io::Error| EnterError::new(tried, &error);
    let (ours, theirs) = pair().map_err(started(Tried::Start))?;
    let program = sys::own_program().map_err(started(Tried::Start))?;
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    let all: Vec<BorrowedFd<'_>> =
        [stdin.as_fd(), stdout.as_fd(), stderr.as_fd(), theirs.as_fd()].into_iter().chain(fds.iter().copied()).collect();
    let named: Vec<OsString> = [OsString::from("lapstrake")].into_iter().chain(args.iter().cloned()).collect();
    let (named, env) = (strings(&named).map_err(started(Tried::Start))?, strings(env).map_err(started(Tried::Start))?);
    let launch =
        sys::Launch { program: program.as_fd(), argv: &named, env: &env, fds: &all, namespaces: sys::Namespaces::Shared, gate: None };
    let engine = EngineProcess { child: launch.start().map_err(started(Tried::Start))? };
    drop(theirs);
    engine.child.started().map_err(started(Tried::Start))?;
    let fds = u16::try_from(fds.len()).unwrap_or(u16::MAX);
    say(&ours, &Word::Enter { ids, fds }).map_err(started(Tried::Start))?;
    if ids != Ids::Host {
        expect(&ours, |word| matches!(word, Word::Unshared))?;
        // If they cannot be written the engine is killed when dropped; it need not hear why.
        maps::write(engine.child.pid, ids)?;
        say(&ours, &Word::Mapped).map_err(started(Tried::Start))?;
    }
    expect(&ours, |word| matches!(word, Word::Ready))?;
    Ok(engine)
}

/// Makes this process the engine. It must be the first thing that a process started by [`spawn_engine`] does: it has
/// one thread, and its fds from 3 on are taken over here. The front hears of an error too.
pub fn become_engine() -> Result<Entered, EnterError> {
    let socket = sys::inherited_fd(SOCKET).map_err(|error| EnterError::new(Tried::Start, &error))?;
    match enter(&socket) {
        Ok(entered) => {
            say(&socket, &Word::Ready).map_err(|error| EnterError::new(Tried::Start, &error))?;
            Ok(entered)
        }
        Err(error) => {
            // If the front is gone there is nobody to tell.
            say(&socket, &Word::Failed(error.clone())).ok();
            Err(error)
        }
    }
}

fn enter(socket: &OwnedFd) -> Result<Entered, EnterError> {
    let at = |tried: Tried| move |errno: rustix::io::Errno| EnterError::new(tried, &io::Error::from(errno));
    let Word::Enter { ids, fds } = heard(socket)? else { return Err(out_of_turn()) };
    match ids {
        Ids::Full | Ids::Single => enter_namespaces(ids, socket)?,
        Ids::Host => host::enter()?,
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    // After the ids: a change of them clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).map_err(at(Tried::BecomeRoot))?;
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).map_err(at(Tried::BecomeRoot))?;
    // Ctrl-C is the front's to hear.
    rustix::process::setsid().ok();
    // A kernel without keyrings, or a container that forbids them, has none that a step could reach.
    sys::leave_session_keyring().ok();
    let fds = (SOCKET + 1..).take(usize::from(fds)).map(sys::inherited_fd).collect::<io::Result<Vec<_>>>();
    Ok(Entered { ids, domain: domain(ids)?, fds: fds.map_err(|error| EnterError::new(Tried::Start, &error))? })
}

/// Root of a user namespace, with a mount namespace whose changes nobody else sees.
fn enter_namespaces(ids: Ids, socket: &OwnedFd) -> Result<(), EnterError> {
    let at = |tried: Tried| move |errno: rustix::io::Errno| EnterError::new(tried, &io::Error::from(errno));
    // Refused to a process with several threads.
    unshare().map_err(|error| EnterError::new(Tried::Unshare, &error))?;
    say(socket, &Word::Unshared).map_err(|error| EnterError::new(Tried::Start, &error))?;
    let Word::Mapped = heard(socket)? else { return Err(out_of_turn()) };
    let (root, group) = (rustix::process::Uid::ROOT, rustix::process::Gid::ROOT);
    if ids == Ids::Full {
        // With a single id the kernel forbids it: the user's groups stay, and are nobody's inside.
        rustix::thread::set_thread_groups(&[]).map_err(at(Tried::BecomeRoot))?;
    }
    rustix::thread::set_thread_res_gid(group, group, group).map_err(at(Tried::BecomeRoot))?;
    rustix::thread::set_thread_res_uid(root, root, root).map_err(at(Tried::BecomeRoot))?;
    let private = MountPropagationFlags::REC | MountPropagationFlags::PRIVATE;
    rustix::mount::mount_change(c"/", private).map_err(at(Tried::PrivateMounts))
}

/// A user and a mount namespace; out of a chroot first, if root is in one.
fn unshare() -> io::Result<()> {
    match sys::unshare_user_and_mounts() {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && rustix::process::geteuid().is_root() => {
            // If that is refused as well, the first answer is the one that says why.
            chroot::leave().map_err(|_no_chroot| error)?;
            sys::unshare_user_and_mounts()
        }
        result => result,
    }
}

/// Under a single id owners are marks and not ids, whoever the single one is.
fn domain(ids: Ids) -> Result<Domain, EnterError> {
    if ids == Ids::Single {
        return Ok(Domain("single".to_owned()));
    }
    let read = |path: &str| std::fs::read(path).map_err(|error| EnterError::new(Tried::WriteMap, &error));
    let (users, groups) = (read("/proc/self/uid_map")?, read("/proc/self/gid_map")?);
    let mut hasher = blake3::Hasher::new();
    hasher.update(&users).update(b"\0").update(&groups);
    if ids == Ids::Host {
        // Its trees have devices, which a user namespace cannot make and must not see.
        hasher.update(b"\0host");
    }
    Ok(Domain(hasher.finalize().to_hex().chars().take(16).collect()))
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

fn strings(all: &[OsString]) -> io::Result<Vec<CString>> {
    Ok(all.iter().map(|text| CString::new(text.as_bytes())).collect::<Result<_, _>>()?)
}

fn say(socket: &OwnedFd, word: &Word) -> io::Result<()> {
    rustix::net::send(socket, &serde_json::to_vec(word)?, SendFlags::NOSIGNAL)?;
    Ok(())
}

fn hear(socket: &OwnedFd) -> io::Result<Word> {
    let mut buffer = vec![0; 1 << 16];
    let (read, _) = rustix::net::recv(socket, &mut buffer[..], RecvFlags::empty())?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(serde_json::from_slice(buffer.get(..read).unwrap_or_default())?)
}

fn expect(socket: &OwnedFd, wanted: impl Fn(&Word) -> bool) -> Result<(), EnterError> {
    match heard(socket)? {
        Word::Failed(error) => Err(error),
        word if wanted(&word) => Ok(()),
        Word::Enter { .. } | Word::Unshared | Word::Mapped | Word::Ready => Err(out_of_turn()),
    }
}

fn heard(socket: &OwnedFd) -> Result<Word, EnterError> {
    hear(socket).map_err(|error| EnterError::new(Tried::Start, &error))
}

fn out_of_turn() -> EnterError {
    EnterError::new(Tried::Start, &io::ErrorKind::InvalidData.into())
}

fn wait(pidfd: &OwnedFd) -> io::Result<i32> {
    let ended = rustix::process::waitid(rustix::process::WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    let ended = ended.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Ok(ended.exit_status().unwrap_or_else(|| ended.terminating_signal().map_or(128, |signal| 128 + signal)))
}
