//! What the rooms beneath say, as the public error: whose fault it is, and what to do.

use std::{error::Error as StdError, io};

use super::{Error, Kind};
use crate::{context, fetch, image, layer, output, registry, rootfs, sandbox, store, sys::PathError, tree::BadPath};

/// A full disk and a full quota: `ENOSPC`, `EDQUOT`.
const FULL: [i32; 2] = [28, 122];

/// `EROFS`.
const READ_ONLY: i32 = 30;

/// What the kernel said at the root of an error.
fn errno(error: &(dyn StdError + 'static)) -> Option<i32> {
    let mut each = Some(error);
    let mut errno = None;
    while let Some(error) = each {
        errno = errno.or_else(|| error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error));
        each = error.source();
    }
    errno
}

/// The help for what lies at the root of an error, if there is one.
fn remedy(errno: Option<i32>) -> Option<String> {
    let help = match errno? {
        full if FULL.contains(&full) => {
            "free some space (`lapstrake prune` removes what can be made again), or put the store elsewhere with `--root`"
        }
        READ_ONLY => "put the store where you may write: `--root DIR` or LAPSTRAKE_ROOT",
        _ => return None,
    };
    Some(help.to_owned())
}

/// Is it for want of permission?
fn is_denied(error: &PathError) -> bool {
    error.source.kind() == io::ErrorKind::PermissionDenied
}

fn public(kind: Kind, error: &(dyn StdError + 'static)) -> Error {
    let errno = errno(error);
    Error { help: remedy(errno), full: errno.is_some_and(|errno| FULL.contains(&errno)), ..Error::of(kind, error) }
}

impl Error {
    /// If the file system was full: removes what nobody needs from the store, so that another try has more room. Without
    /// anything to remove another try is none.
    #[must_use]
    pub fn with_room(self, store: &store::Store) -> Self {
        let full = self.full && !store.make_room().is_nothing();
        Self { full, ..self }
    }
}

impl From<PathError> for Error {
    fn from(error: PathError) -> Self {
        public(Kind::Environment, &error)
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        public(Kind::Environment, &error)
    }
}

impl From<layer::Error> for Error {
    fn from(error: layer::Error) -> Self {
        let (kind, help) = match &error {
            layer::Error::Path(_) | layer::Error::Store(_) => (Kind::Environment, None),
            layer::Error::Changed { .. } => (Kind::Environment, Some("build again when nothing writes to it")),
            layer::Error::BadName { .. } => (Kind::Request, Some("rename it, or keep it out of the image")),
            layer::Error::BadLayer { .. } => (Kind::Request, Some("pull or make the image again")),
        };
        let public = public(kind, &error);
        let spoiled = matches!(error, layer::Error::BadLayer { .. });
        let denied = matches!(&error, layer::Error::Path(error) if is_denied(error));
        Self { help: public.help.or(help.map(str::to_owned)), spoiled, denied, ..public }
    }
}

impl From<image::Error> for Error {
    fn from(error: image::Error) -> Self {
        // The one who misses it may have removed it: what the engine can read of a user's store the user cannot always.
        let spoiled = matches!(error, image::Error::Missing { .. });
        Self { spoiled, ..public(error.kind(), &error) }
    }
}

impl From<output::Error> for Error {
    fn from(error: output::Error) -> Self {
        let spoiled = match &error {
            output::Error::Blob { .. } | output::Error::Missing(_) | output::Error::Layer(layer::Error::BadLayer { .. }) => true,
            output::Error::Path(_)
            | output::Error::Store(_)
            | output::Error::Image(_)
            | output::Error::Layer(_)
            | output::Error::Stream(_)
            | output::Error::Dest { .. } => false,
        };
        Self { spoiled, ..public(error.kind(), &error) }
    }
}

impl From<context::Error> for Error {
    fn from(error: context::Error) -> Self {
        let denied = matches!(&error, context::Error::Path(error) if is_denied(error));
        let kind = match &error {
            context::Error::Path(_) if !denied => Kind::Environment,
            context::Error::Changed { .. } => Kind::Environment,
            context::Error::Path(_)
            | context::Error::Unresolved(_)
            | context::Error::Name(_)
            | context::Error::IgnoreFile { .. }
            | context::Error::TooLong { .. }
            | context::Error::Archive { .. } => Kind::Request,
        };
        let public = public(kind, &error);
        let help = match &error {
            context::Error::IgnoreFile { .. } => {
                Some("correct the pattern on that line; `[` begins a class, and `\\[` is the character itself")
            }
            context::Error::TooLong { .. } => Some("shorten it"),
            context::Error::Changed { .. } => Some("build again when nothing writes to it"),
            context::Error::Path(_) | context::Error::Unresolved(_) | context::Error::Name(_) | context::Error::Archive { .. } => None,
        };
        Self { denied, help: public.help.or(help.map(str::to_owned)), ..public }
    }
}

impl From<BadPath> for Error {
    fn from(error: BadPath) -> Self {
        public(Kind::Request, &error)
    }
}

impl From<rootfs::Error> for Error {
    fn from(error: rootfs::Error) -> Self {
        let help = error.help();
        let converted = match error {
            rootfs::Error::Context(error) => Self::from(error),
            rootfs::Error::Layer(error) => Self::from(error),
            rootfs::Error::Path(error) => Self::from(error),
            rootfs::Error::Store(error) => Self::from(error),
            other @ (rootfs::Error::Missing(_)
            | rootfs::Error::Refused { .. }
            | rootfs::Error::Unresolved(_)
            | rootfs::Error::NeedsTrees { .. }
            | rootfs::Error::Name(_)
            | rootfs::Error::Pattern(_)
            | rootfs::Error::Account(_)) => public(Kind::Request, &other),
        };
        Self { help: help.or(converted.help), ..converted }
    }
}

impl From<registry::Error> for Error {
    /// An image that does not exist is the request's fault, the store's disk the machine's; the rest is remote.
    fn from(error: registry::Error) -> Self {
        let help = error.help();
        let kind = match error.failure() {
            registry::Failure::NotFound | registry::Failure::Options => Kind::Request,
            registry::Failure::Store => Kind::Environment,
            registry::Failure::Unauthorized | registry::Failure::Network | registry::Failure::Protocol | registry::Failure::Mismatch => {
                Kind::Remote
            }
        };
        Self { help, ..public(kind, &error) }
    }
}

impl From<fetch::Error> for Error {
    /// A wrong address, ref or checksum is the request's fault, a missing program the machine's; the rest is remote.
    fn from(error: fetch::Error) -> Self {
        let kind = match error.failure() {
            fetch::Failure::Request => Kind::Request,
            fetch::Failure::Remote => Kind::Remote,
            fetch::Failure::Environment => Kind::Environment,
            fetch::Failure::Interrupted => Kind::Interrupted,
        };
        let public = public(kind, &error);
        Self { help: error.help().map(str::to_owned).or(public.help), ..public }
    }
}

impl From<sandbox::InitError> for Error {
    /// A program that is not there is the step's fault; a sandbox that cannot be made is the machine's.
    fn from(error: sandbox::InitError) -> Self {
        if error.step == "exec" {
            return public(Kind::Step, &error);
        }
        if let Some(path) = error.changed() {
            return Self::new(
                Kind::Environment,
                format!("the step changed `{path}`, which is mounted read-only; nothing can prevent that here"),
            )
            .help("write elsewhere, or mount it with `rw`: what is written there is thrown away");
        }
        Self::new(Kind::Environment, "the step's sandbox could not be made")
            .because(&error)
            .help(error.help().unwrap_or("`lapstrake doctor` tries each part and names what is missing"))
    }
}

impl From<sandbox::enter::EnterError> for Error {
    fn from(error: sandbox::enter::EnterError) -> Self {
        let help = error.knob.as_ref().and_then(sandbox::enter::Knob::help);
        let help = help.unwrap_or_else(|| "`lapstrake doctor` tries each part and names what is missing".to_owned());
        public(Kind::Environment, &error).help(help)
    }
}
