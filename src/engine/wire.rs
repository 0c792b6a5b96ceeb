//! The messages between the front's process and the engine's: JSON in frames, a length of four bytes (little endian) before each.
//!
//! ```text
//! front                          engine
//!   Job ────────────────────────▶           first
//!        ◀──────────────────────── Event     any time, no answer
//!        ◀──────────────────────── Fetch, Shared, Source, Secret, Agent
//!   Fetched, Source, Secret, Agent ▶         the answer; one question at a time
//!        ◀──────────────────────── Built, Failed   last
//! ```
//!
//! Fds go over a socket of their own, before the message that they belong to.

use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags,
    SocketType,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Event, Fetched};
use crate::{
    error::Error,
    oci::{Descriptor, Platform},
    plan::CopySource,
    store::Written,
    tree::Moments,
};

/// An image that was built.
#[derive(Debug, Serialize, Deserialize)]
pub struct BuiltImage {
    /// What it runs on.
    pub platform: Platform,
    /// Its manifest, which is in the store.
    pub manifest: Descriptor,
    /// For each of its layers, base first, which of its times are not those of what it was made of.
    pub moments: Vec<Moments>,
    /// Blobs that the engine has written, which need not be verified to be copied out.
    pub written: Vec<Written>,
}

/// From the engine.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromEngine {
    /// Something happened.
    Event(Event),
    /// Fetch a blob of an image into the store.
    Fetch {
        /// The image's complete name.
        image: String,
        /// The blob.
        blob: Descriptor,
    },
    /// Bring a blob of an imported cache into the store.
    Shared {
        /// Its place among those of the job.
        cache: usize,
        /// The blob.
        blob: Descriptor,
    },
    /// Fetch what ADD names by a URL.
    Source(CopySource),
    /// The bytes of a secret.
    Secret {
        /// Its id.
        id: String,
    },
    /// Serve the ssh agent of that id. Two fds come with it, see [`hand_over`].
    Agent {
        /// Its id.
        id: String,
    },
    /// The images.
    Built(Vec<BuiltImage>),
    /// There is no image.
    Failed(Error),
}

/// From the front.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromFront {
    /// To [`FromEngine::Fetch`] and [`FromEngine::Shared`].
    Fetched(Result<(), Error>),
    /// To [`FromEngine::Source`].
    Source(Result<Fetched, Error>),
    /// To [`FromEngine::Secret`].
    Secret(Result<Option<Vec<u8>>, Error>),
    /// To [`FromEngine::Agent`]: is it served?
    Agent(Result<bool, Error>),
}

/// The longest message: a plan of a Dockerfile of a few MiB.
const LONGEST: u32 = 256 << 20;

/// Sends one message.
pub fn send<T: Serialize>(mut to: impl Write, message: &T) -> io::Result<()> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message)?;
    let length = u32::try_from(frame.len() - 4).ok().filter(|length| *length <= LONGEST);
    let length = length.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the message is too long"))?;
    if let Some(head) = frame.get_mut(..4) {
        head.copy_from_slice(&length.to_le_bytes());
    }
    to.write_all(&frame)
}

/// Receives one message; `None` at the end.
pub fn receive<T: DeserializeOwned>(mut from: impl Read) -> io::Result<Option<T>> {
    let mut head = [0; 4];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let length = u32::from_le_bytes(head);
    if length > LONGEST {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the message is too long"));
    }
    let mut body = vec![0; length as usize];
    from.read_exact(&mut body)?;
    Ok(Some(serde_json::from_slice(&body)?))
}

/// Two ends of a socket for fds: the front's and the engine's.
pub fn fd_sockets() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Passes a socket that listens, and an fd that hangs up when it is not to be served any longer.
pub fn hand_over(to: impl AsFd, listener: BorrowedFd<'_>, until: BorrowedFd<'_>) -> io::Result<()> {
    let fds = [listener, until];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    rustix::net::sendmsg(to, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes what [`hand_over`] has passed; an error if there is nothing.
pub fn take_over(from: impl AsFd) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    rustix::net::recvmsg(from, &mut [IoSliceMut::new(&mut byte)], &mut control, flags)?;
    let rights = |message| if let RecvAncillaryMessage::ScmRights(fds) = message { Some(fds) } else { None };
    let mut fds = control.drain().filter_map(rights).flatten();
    match (fds.next(), fds.next()) {
        (Some(listener), Some(until)) => Ok((listener, until)),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
