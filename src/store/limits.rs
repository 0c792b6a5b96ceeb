//! How much a store may hold: what the user says, and what that is on its file system.

use serde::{Deserialize, Serialize};

use super::size::Size;

/// A number of bytes or inodes, or a part of what the file system has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// So many.
    Number(u64),
    /// So many hundredths of all.
    Percent(u8),
}

/// The limits as written; `None`: the default. A limit of 0 is none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// So many bytes are kept even if the file system is short of space. Default: 10 % of it, at most 10 GB.
    pub reserved_space: Option<Amount>,
    /// No more bytes than this. Default: 60 % of the file system, at most 100 GB.
    pub max_used_space: Option<Amount>,
    /// So many bytes of the file system stay free. Default: 5 % of it, at most 10 GB.
    pub min_free_space: Option<Amount>,
    /// No more inodes than this. Default: 60 % of the file system's, if it has a number of them.
    pub max_used_inodes: Option<Amount>,
}

/// What a file system has.
#[derive(Debug, Clone, Copy)]
pub(super) struct Disk {
    pub(super) bytes: u64,
    pub(super) free: u64,
    pub(super) inodes: u64,
}

/// The limits as numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bounds {
    /// See [`Limits::reserved_space`].
    pub reserved_space: u64,
    /// See [`Limits::max_used_space`].
    pub max_used_space: u64,
    /// See [`Limits::min_free_space`].
    pub min_free_space: u64,
    /// See [`Limits::max_used_inodes`].
    pub max_used_inodes: u64,
}

const GB: u64 = 1_000_000_000;

impl Amount {
    fn of(self, all: u64) -> u64 {
        match self {
            Self::Number(number) => number,
            Self::Percent(percent) => percent_of(all, percent),
        }
    }
}

fn percent_of(all: u64, percent: u8) -> u64 {
    u64::try_from(u128::from(all) * u128::from(percent) / 100).unwrap_or(u64::MAX)
}

impl Limits {
    /// The same, but for what `other` says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            reserved_space: other.reserved_space.or(self.reserved_space),
            max_used_space: other.max_used_space.or(self.max_used_space),
            min_free_space: other.min_free_space.or(self.min_free_space),
            max_used_inodes: other.max_used_inodes.or(self.max_used_inodes),
        }
    }

    /// What they are on a file system.
    pub(super) fn on(&self, disk: Disk) -> Bounds {
        let said = |amount: Option<Amount>, all: u64, default: u64| amount.map_or(default, |amount| amount.of(all));
        let unlimited = |limit: u64| if limit == 0 { u64::MAX } else { limit };
        Bounds {
            reserved_space: said(self.reserved_space, disk.bytes, percent_of(disk.bytes, 10).min(10 * GB)),
            max_used_space: unlimited(said(self.max_used_space, disk.bytes, percent_of(disk.bytes, 60).min(100 * GB))),
            min_free_space: said(self.min_free_space, disk.bytes, percent_of(disk.bytes, 5).min(10 * GB)),
            max_used_inodes: unlimited(said(self.max_used_inodes, disk.inodes, percent_of(disk.inodes, 60))),
        }
    }
}

impl Bounds {
    /// What must go so that a store which will hold `used` keeps to them, with some to spare. `free`: what the file system will have.
    pub(super) fn excess(&self, used: Size, free: Option<u64>) -> Size {
        let over = |used: u64, most: u64| if used > most { used - most / 10 * 9 } else { 0 };
        let short = free.map_or(0, |free| self.min_free_space.saturating_sub(free));
        let bytes = over(used.bytes, self.max_used_space).max(short).min(used.bytes.saturating_sub(self.reserved_space));
        Size { bytes, inodes: over(used.inodes, self.max_used_inodes) }
    }

    /// By how much they are exceeded.
    pub(super) fn exceeded_by(&self, used: Size) -> Size {
        used.without(Size { bytes: self.max_used_space, inodes: self.max_used_inodes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Disk = Disk { bytes: 50 * GB, free: 20 * GB, inodes: 1000 };

    #[test]
    fn defaults_are_parts_of_the_file_system() {
        let bounds = Limits::default().on(DISK);
        assert_eq!((bounds.reserved_space, bounds.max_used_space), (5 * GB, 30 * GB));
        assert_eq!((bounds.min_free_space, bounds.max_used_inodes), (2_500_000_000, 600));
        let huge = Limits::default().on(Disk { bytes: 10_000 * GB, inodes: 0, ..DISK });
        assert_eq!((huge.reserved_space, huge.max_used_space, huge.min_free_space), (10 * GB, 100 * GB, 10 * GB));
        assert_eq!(huge.max_used_inodes, u64::MAX);
    }

    #[test]
    fn what_is_over_a_limit_must_go_but_for_what_is_reserved() {
        let limits = Limits { max_used_space: Some(Amount::Number(1000)), max_used_inodes: Some(Amount::Percent(1)), ..Limits::default() };
        let bounds = Bounds { reserved_space: 100, min_free_space: 50, ..limits.on(DISK) };
        let size = |bytes, inodes| Size { bytes, inodes };
        assert_eq!(bounds.excess(size(1000, 10), Some(50)), size(0, 0));
        assert_eq!(bounds.excess(size(1001, 11), None), size(101, 2));
        assert_eq!(bounds.excess(size(120, 1), Some(10)), size(20, 0));
        assert_eq!(bounds.excess(size(90, 1), Some(10)), size(0, 0));
        assert_eq!(bounds.exceeded_by(size(1100, 9)), size(100, 0));
    }
}
