//! Having a disk begin before somebody waits for it.
//!
//! Source: `sync_file_range(2)`.

use std::{
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _},
};

/// How much is written before the disk should begin with it.
const SPELL: u64 = 8 << 20;

/// A file that is written from one end to the other, as far as the disk was told of it.
#[derive(Debug, Clone, Copy)]
pub struct WriteBack {
    told: u64,
}

impl WriteBack {
    /// Nothing of what is before that place.
    pub fn from(place: u64) -> Self {
        Self { told: place }
    }

    /// The file is written as far as `to`: if that is much, its pages are on their way to the disk from now on. A hint: it waits for
    /// nothing but room in the disk's queue, and what cannot be done is left to the sync that comes in any case.
    pub fn written(&mut self, file: &File, to: u64) {
        let length = to.saturating_sub(self.told);
        if length < SPELL {
            return;
        }
        if let (Ok(from), Ok(length)) = (i64::try_from(self.told), i64::try_from(length)) {
            // SAFETY: it takes no pointer; the fd is open as long as the file is borrowed.
            let _hint = unsafe { libc::sync_file_range(file.as_fd().as_raw_fd(), from, length, libc::SYNC_FILE_RANGE_WRITE) };
        }
        self.told = to;
    }
}
