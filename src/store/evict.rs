//! Removing what can be made again, the least recently used first.

use std::fs;

use super::{
    Store,
    census::{Census, Item, Kept, Kind},
    pin,
    size::Size,
    temp::Scratch,
};

/// What an eviction did.
#[derive(Debug, Default)]
pub(super) struct Evicted {
    /// What is gone.
    pub(super) removed: Size,
    /// By kind: how many things.
    pub(super) items: Vec<(Kind, Size)>,
    /// Directories that have lost their names; dropped, their files go.
    pub(super) graves: Vec<Scratch>,
}

impl Store {
    /// Removes things until `excess` is gone, or nothing more can be. Under the lock, alone.
    pub(super) fn evict(&self, census: Census, excess: Size) -> Evicted {
        let kept = Kept { named: self.named_blobs(), pins: pin::read_all(&self.locks()).0, all_ids: has_all_ids() };
        let mut evicted = Evicted::default();
        for item in census.into_items(self, &kept) {
            if excess.without(evicted.removed).is_nothing() {
                break;
            }
            if !item.held && !item.size.is_nothing() && self.remove_item(&item, &mut evicted.graves) {
                evicted.removed = evicted.removed + item.size;
                evicted.items.push((item.kind, item.size));
            }
        }
        evicted
    }

    /// Was all of it removed? What is left of one that was not is of no use to anybody, and no harm.
    fn remove_item(&self, item: &Item, graves: &mut Vec<Scratch>) -> bool {
        let mut whole = true;
        for tree in &item.trees {
            match self.unname(tree) {
                Ok(grave) => graves.extend(grave),
                Err(_) => whole = false,
            }
        }
        for file in &item.files {
            whole &= match fs::remove_file(file) {
                Err(error) => error.kind() == std::io::ErrorKind::NotFound,
                Ok(()) => true,
            };
        }
        if let Some(dir) = &item.dir {
            // It may have a name that is needed.
            drop(fs::remove_dir(dir));
        }
        whole
    }
}

/// Is this root, of more than one id? The trees of others are not a user's to delete.
pub(super) fn has_all_ids() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let ids: u64 = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
    rustix::process::geteuid().is_root() && ids > 1
}
