//! A build that only looks: if every step is known it is done, and what runs steps was never started; else it is as if it had never
//! been, and is begun anew with all that steps need.

use std::os::fd::BorrowedFd;

use super::{Event, Fetched, Front};
use crate::{
    error::{Error, Kind},
    oci::Descriptor,
    plan::CopySource,
};

/// The user's side for who only looks: it is asked for nothing, and hears what happens.
pub(super) struct Looking<'a>(pub(super) &'a dyn Front);

/// There is something to do. Nobody is shown it.
pub(super) fn unknown() -> Error {
    Error::new(Kind::Interrupted, "there is something to do")
}

impl Front for Looking<'_> {
    fn fetch(&self, _image: &str, _blob: &Descriptor) -> Result<(), Error> {
        Err(unknown())
    }

    fn shared(&self, _cache: usize, _blob: &Descriptor) -> Result<(), Error> {
        Err(unknown())
    }

    fn source(&self, _source: &CopySource) -> Result<Fetched, Error> {
        Err(unknown())
    }

    fn secret(&self, _id: &str) -> Result<Option<Vec<u8>>, Error> {
        Err(unknown())
    }

    fn agent(&self, _id: &str, _listener: BorrowedFd<'_>, _until: BorrowedFd<'_>) -> Result<bool, Error> {
        Err(unknown())
    }

    fn event(&self, event: Event) {
        self.0.event(event);
    }

    fn cancelled(&self) -> BorrowedFd<'_> {
        self.0.cancelled()
    }
}
