//! What ADD and build contexts take from far off: files over http, trees of git repositories. Only the front names this
//! room; it never runs in the engine's process.
//!
//! ```text
//! http::download ─ conditional GET → blob in the store + what it was, remembered by URL ─place→ a file in a directory
//! git::checkout  ─ ls-remote → fetch into a bare repository of the store → files in a scratch directory
//! ```
//!
//! Invariants:
//! - Nothing here reads the environment: what is needed of it comes in [`Settings`].
//! - A server, a repository and a URL of a Dockerfile are hostile. Their text names no option of a program, no path that is
//!   used as one, and no protocol but http, https, git and ssh.
//! - What is remembered between builds is disposable: whatever of it is broken is fetched anew.
//! - No message has a password, a token or a query in it.

mod date;
mod error;
pub mod git;
pub mod http;

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

pub use error::{Error, Failure};

use crate::http::{Limits, Proxies};

/// What the machine and the user have for fetching.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Where programs are looked for: `PATH`.
    pub path: OsString,
    /// Proxies.
    pub proxies: Proxies,
    /// How ssh is spoken.
    pub ssh: Ssh,
    /// Bounds in time.
    pub limits: Limits,
}

/// How ssh is spoken: never with a question, only to hosts that are known.
#[derive(Debug, Clone, Default)]
pub struct Ssh {
    /// The socket of an agent; `None`: ssh finds keys in its usual files.
    pub agent: Option<PathBuf>,
    /// The file of known hosts; `None`: ssh's usual ones.
    pub known_hosts: Option<PathBuf>,
}

/// Something that lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Bytes on their way, of so many if that is known.
    Bytes {
        /// What.
        what: String,
        /// So far.
        done: u64,
        /// In all.
        total: Option<u64>,
    },
    /// A line, for what has lasted more than a second.
    Note(String),
}

/// The bytes of a secret by its id; `Ok(None)`: there is none of that id.
pub type Secrets<'a> = dyn Fn(&str) -> Result<Option<Vec<u8>>, Box<dyn std::error::Error + Send + Sync>> + 'a;

/// On whose behalf something is fetched.
pub struct Asker<'a> {
    /// What the machine has.
    pub settings: &'a Settings,
    /// What the user gave.
    pub secrets: &'a Secrets<'a>,
    /// Is the result no longer wanted? Asked often.
    pub cancelled: &'a dyn Fn() -> bool,
    /// Sees what lasts.
    pub progress: &'a mut dyn FnMut(Progress),
}

impl Asker<'_> {
    fn secret(&self, id: &str) -> Result<Option<String>, Error> {
        let bytes = (self.secrets)(id).map_err(|source| Error::Secret { id: id.to_owned(), source })?;
        let Some(bytes) = bytes else { return Ok(None) };
        let text = String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\r', '\n']).to_owned());
        match text.filter(|text| !text.chars().any(char::is_control)) {
            Some(text) => Ok(Some(text)),
            None => {
                Err(Error::Secret { id: id.to_owned(), source: "it cannot stand in a header: it is more than one line of text".into() })
            }
        }
    }

    fn go_on(&self) -> Result<(), Error> {
        if (self.cancelled)() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

/// Says when a line about something that lasts is due: after one second, then every ten.
#[derive(Debug)]
struct Patience {
    next: Instant,
}

impl Patience {
    fn new() -> Self {
        Self { next: Instant::now() + Duration::from_secs(1) }
    }

    fn is_due(&mut self) -> bool {
        let due = Instant::now() >= self.next;
        if due {
            self.next = Instant::now() + Duration::from_secs(10);
        }
        due
    }
}
