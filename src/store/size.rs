//! How much something takes of a file system: bytes in whole blocks, and inodes.

use std::{fmt, iter::Sum, ops::Add};

use serde::{Deserialize, Serialize};

use crate::tree::{Entry, Index, Kind, Row};

/// What nearly every file system gives at least to a file that is not empty.
const BLOCK: u64 = 4096;

/// Bytes and inodes. Differences and sums end at nothing and at all there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Bytes, each file rounded up to a block of 4,096.
    pub bytes: u64,
    /// Files, directories and whatever else has an inode.
    pub inodes: u64,
}

impl Size {
    /// One file of that length.
    pub fn of_file(length: u64) -> Self {
        Self { bytes: length.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX), inodes: 1 }
    }

    /// The tree that an index describes.
    pub(super) fn of_tree(index: &Index) -> Self {
        let top = Self::of_file(BLOCK);
        let row = |row: &Row| match row {
            // The second name of an inode is a name.
            Row::Put { link: Some(_), .. } => Self::default(),
            Row::Put { entry: Entry { kind: Kind::File { size, .. }, .. }, .. } => Self::of_file(*size),
            Row::Put { entry: Entry { kind: Kind::Dir, .. }, .. } => Self::of_file(BLOCK),
            Row::Put { .. } | Row::Whiteout => Self::of_file(0),
        };
        top + index.rows().map(|(_, each)| row(&each)).sum()
    }

    /// What is left of it without `other`.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_sub(other.bytes), inodes: self.inodes.saturating_sub(other.inodes) }
    }

    /// Is it nothing?
    pub fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

impl Add for Size {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { bytes: self.bytes.saturating_add(other.bytes), inodes: self.inodes.saturating_add(other.inodes) }
    }
}

impl Sum for Size {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), Add::add)
    }
}

/// Bytes in the unit that leaves three digits or fewer: `17.2MB`.
pub fn shown_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.*}{}", usize::from(unit > 0 && value < 100.0), UNITS.get(unit).unwrap_or(&"B"))
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let files = if self.inodes == 1 { "file" } else { "files" };
        write!(f, "{} in {} {files}", shown_bytes(self.bytes), self.inodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_takes_whole_blocks() {
        assert_eq!(Size::of_file(0), Size { bytes: 0, inodes: 1 });
        assert_eq!(Size::of_file(1).bytes, 4096);
        assert_eq!(Size::of_file(4097).bytes, 8192);
        assert_eq!(Size::of_file(u64::MAX).bytes, u64::MAX);
    }

    #[test]
    fn sizes_are_shown_with_three_digits() {
        assert_eq!(Size { bytes: 17_200_000, inodes: 1 }.to_string(), "17.2MB in 1 file");
        assert_eq!([0, 999, 1500, 172_000_000].map(shown_bytes), ["0B", "999B", "1.5kB", "172MB"]);
    }
}
