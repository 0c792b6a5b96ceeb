//! The public error: what kind it is, what it says, what to do, and the exit code.

mod convert;

use std::fmt;

use crate::diag::Diagnostic;

/// Whose fault, and the exit code that says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum Kind {
    /// The Dockerfile or the request is wrong: 1.
    Request,
    /// The command line is wrong: 2.
    Usage,
    /// A step failed: 3.
    Step,
    /// The kernel, the disk, user namespaces: 4.
    Environment,
    /// A registry or the network: 5.
    Remote,
    /// A bug: 101.
    Bug,
    /// Ctrl-C: 130.
    Interrupted,
}

impl Kind {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Usage => 2,
            Self::Step => 3,
            Self::Environment => 4,
            Self::Remote => 5,
            Self::Bug => 101,
            Self::Interrupted => 130,
        }
    }
}

/// What went wrong, for a user.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Error {
    /// Whose fault.
    pub kind: Kind,
    /// Lower case, no full stop. Empty if `places` say it all.
    pub headline: String,
    /// What the layers beneath said, outermost first.
    pub causes: Vec<String>,
    /// Places in the Dockerfile, all errors in order.
    pub places: Vec<Diagnostic>,
    /// One thing to do.
    pub help: Option<String>,
    /// Something of the store was damaged or missing, and is gone now: another try does without it.
    pub spoiled: bool,
    /// A file of the user's may not be read by the user, but by root of a user namespace of the user's.
    pub denied: bool,
    /// The file system was full, and has some room now: another try may go well.
    #[serde(default)]
    pub full: bool,
}

impl Error {
    /// An error without a place.
    pub fn new(kind: Kind, headline: impl Into<String>) -> Self {
        Self {
            kind,
            headline: headline.into(),
            causes: Vec::new(),
            places: Vec::new(),
            help: None,
            spoiled: false,
            denied: false,
            full: false,
        }
    }

    /// Errors in a Dockerfile.
    pub fn at(kind: Kind, places: Vec<Diagnostic>) -> Self {
        Self { places, ..Self::new(kind, "") }
    }

    /// An error of a room beneath: its words are the headline, its sources the causes.
    pub fn of(kind: Kind, error: &dyn std::error::Error) -> Self {
        let mut public = Self::new(kind, error.to_string());
        public.causes.extend(std::iter::successors(error.source(), |next| next.source()).map(ToString::to_string));
        public
    }

    /// Adds what lies beneath, with its own sources.
    #[must_use]
    pub fn because(mut self, cause: &dyn std::error::Error) -> Self {
        self.causes.extend(std::iter::successors(Some(cause), |next| next.source()).map(ToString::to_string));
        self
    }

    /// Of something that is not in the store: who misses it may have removed it, or another thread that found it damaged.
    #[must_use]
    pub fn spoiled(mut self) -> Self {
        self.spoiled = true;
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn help(mut self, text: impl Into<String>) -> Self {
        self.help = Some(text.into());
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = self.places.first().map_or("", |place| place.headline.as_str());
        f.write_str(if self.headline.is_empty() { first } else { &self.headline })?;
        self.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {}
