//! ssh agents that steps may ask: the user's own, behind its socket, or keys of files that are kept in memory here.
//!
//! ```text
//! step: ssh ─ /run/buildkit/ssh_agent.0 ─▶ listener ─ thread (here) ─ filter ─▶ the user's agent, or Keys
//! ```
//!
//! The engine makes the listening socket and passes it here; a key or the way to the user's agent never leaves this process.
//! A step may list keys and have something signed. It may not add, remove or lock: those are refused here. Threads end when
//! the engine says that the step is over, when the step's end of a connection is closed, or with the process.
//!
//! Source: draft-ietf-sshm-ssh-agent; OpenSSH PROTOCOL.agent.

mod conversation;
mod keys;

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::FileTypeExt as _, net::UnixStream},
    },
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags},
    io::Errno,
    net::SocketFlags,
};

use crate::error::{Error, Kind};
use keys::Key;

/// The most connections of one mount at a time. `ssh` makes one, and closes it when it is logged in.
const MOST: usize = 32;

/// An agent that steps may ask.
#[derive(Debug)]
pub struct Agent(Source);

#[derive(Debug)]
enum Source {
    /// The user's own, at this socket.
    Socket(PathBuf),
    /// Keys of files.
    Keys(Vec<Key>),
}

impl Agent {
    /// What `--ssh ID=PATH,…` names: one socket, or key files, which are read now. `id` is for messages.
    pub fn open(id: &str, paths: &[PathBuf]) -> Result<Self, Error> {
        let mut keys = Vec::new();
        let mut sockets = Vec::new();
        for path in paths {
            let unreadable =
                |error: io::Error| Error::new(Kind::Request, format!("cannot read `{}` of `--ssh {id}`", path.display())).because(&error);
            if std::fs::metadata(path).map_err(unreadable)?.file_type().is_socket() {
                sockets.push(path.clone());
            } else {
                keys.push(Key::read(id, path)?);
            }
        }
        match (sockets.pop(), keys.is_empty(), sockets.is_empty()) {
            (Some(socket), true, true) => Ok(Self(Source::Socket(socket))),
            (None, false, _) => Ok(Self(Source::Keys(keys))),
            (Some(_), ..) => Err(Error::new(Kind::Usage, format!("`--ssh {id}` names a socket and something else"))
                .help("give one socket, or key files; several agents have several ids")),
            (None, true, _) => Err(Error::new(Kind::Usage, format!("`--ssh {id}` names no socket and no key"))),
        }
    }
}

/// Serves it on a listening socket until `until` hangs up. An error if the user's agent cannot be reached.
pub(super) fn serve(agent: &Arc<Agent>, id: &str, listener: OwnedFd, until: OwnedFd) -> Result<(), Error> {
    if let Source::Socket(path) = &agent.0 {
        // Said now, where the mount is, and not by an `ssh` that finds no key.
        drop(UnixStream::connect(path).map_err(|error| {
            Error::new(Kind::Request, format!("cannot reach the ssh agent of `--ssh {id}` at `{}`", path.display())).because(&error)
        })?);
    }
    let agent = Arc::clone(agent);
    let accepting = std::thread::Builder::new().name("ssh agent".to_owned()).spawn(move || accept(&agent, &listener, &Arc::new(until)));
    drop(accepting.map_err(|error| Error::new(Kind::Environment, "cannot start a thread for the ssh agent").because(&error))?);
    Ok(())
}

fn accept(agent: &Arc<Agent>, listener: &OwnedFd, until: &Arc<OwnedFd>) {
    loop {
        if wait(listener, until).is_err() {
            return;
        }
        match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
            // Each conversation holds one; the other is ours.
            Ok(_refused) if Arc::strong_count(until) > MOST => {}
            Ok(step) => {
                let (agent, until) = (Arc::clone(agent), Arc::clone(until));
                let talk = move || conversation::hold(&agent.0, &UnixStream::from(step), &until);
                // Without a thread the connection is closed, and `ssh` goes on without an agent.
                let _no_thread = std::thread::Builder::new().name("ssh agent".to_owned()).spawn(talk);
            }
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
            // Out of fds: some come back when conversations end.
            Err(_) => std::thread::sleep(Duration::from_millis(100)),
        }
    }
}

/// Waits until something can be read. An error when the step is over.
fn wait(what: impl std::os::fd::AsFd, until: &OwnedFd) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(&what, PollFlags::IN), PollFd::new(until, PollFlags::IN)];
        match rustix::event::poll(&mut fds, None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno.into()),
        }
        let [ready, over] = fds.map(|fd| !fd.revents().is_empty());
        if over {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        if ready {
            return Ok(());
        }
    }
}
