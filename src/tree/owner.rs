//! Owners of files that cannot have them: where a tree lies with one user id alone, who owns what is a mark on each file,
//! and a table for what can carry no mark.
//!
//! A mark is the attribute [`MARK`] with the text `UID:GID`; none means 0:0. The kernel allows `user.` attributes on files
//! and directories only, so links, pipes and sockets are in a table, by inode and the time at which it was born: a number
//! is used again as soon as its inode is gone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The attribute.
pub const MARK: &str = "user.lapstrake.owner";

/// A user and a group, as the image has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Owner {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

impl Owner {
    /// 0:0, which needs no mark.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// Of a mark's value; `None` for bytes that are none.
    pub fn parse(mark: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(mark).ok()?;
        let (uid, gid) = text.split_once(':')?;
        Some(Self { uid: uid.parse().ok()?, gid: gid.parse().ok()? })
    }

    /// A mark's value.
    pub fn mark(self) -> Vec<u8> {
        format!("{}:{}", self.uid, self.gid).into_bytes()
    }
}

/// An inode for as long as it lives: its number, and when it was born.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Inode {
    /// Its number.
    pub number: u64,
    /// Seconds and nanoseconds; zeros on a file system that does not say.
    pub born: (i64, u32),
}

/// Owners of inodes that carry no mark.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnerTable(Vec<(Inode, Owner)>);

impl OwnerTable {
    /// Of all of them.
    pub fn new(owners: BTreeMap<Inode, Owner>) -> Self {
        Self(owners.into_iter().collect())
    }

    /// Who owns it; 0:0 if nobody said otherwise.
    pub fn owner(&self, inode: Inode) -> Owner {
        let found = self.0.binary_search_by(|(have, _)| have.cmp(&inode)).ok().and_then(|at| self.0.get(at));
        found.map_or(Owner::ROOT, |(_, owner)| *owner)
    }

    /// Has it none?
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_what_was_marked_and_nothing_else_is_one() {
        let owner = Owner { uid: 0, gid: u32::MAX };
        assert_eq!(Owner::parse(&owner.mark()), Some(owner));
        for bad in ["", ":", "1", "1:", ":1", "a:1", "1:2:3", "-1:0", "4294967296:0", " 1:2"] {
            assert_eq!(Owner::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn an_inode_that_was_born_at_another_time_is_another_one() {
        let (old, new) = (Inode { number: 7, born: (1, 2) }, Inode { number: 7, born: (1, 3) });
        let table = OwnerTable::new(BTreeMap::from([(old, Owner { uid: 1, gid: 2 })]));
        assert_eq!(table.owner(old), Owner { uid: 1, gid: 2 });
        assert_eq!(table.owner(new), Owner::ROOT);
    }
}
