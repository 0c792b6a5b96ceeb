//! The messages between the front's process and the engine's: JSON in frames, a length of four bytes (little endian) before each.
//!
//! ```text
//! front                          engine
//!   Job ────────────────────────▶           first
//!        ◀──────────────────────── Event     any time, no answer
//!        ◀──────────────────────── Fetch, Secret
//!   Fetched, Secret ─────────────▶           the answer; one question at a time
//!        ◀──────────────────────── Built, Failed   last
//! ```

use std::io::{self, Read, Write};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::Event;
use crate::{
    error::Error,
    oci::{Descriptor, Platform},
};

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
    /// The bytes of a secret.
    Secret {
        /// Its id.
        id: String,
    },
    /// The images: their manifests are in the store.
    Built(Vec<(Platform, Descriptor)>),
    /// There is no image.
    Failed(Error),
}

/// From the front.
#[derive(Debug, Serialize, Deserialize)]
pub enum FromFront {
    /// To [`FromEngine::Fetch`].
    Fetched(Result<(), Error>),
    /// To [`FromEngine::Secret`].
    Secret(Result<Option<Vec<u8>>, Error>),
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
