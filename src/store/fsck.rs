//! `fsck`: every file of the store is read and checked; what is wrong is removed, and told.
//!
//! Trees are checked against their indexes by who can read them (`engine::upkeep`); their marks are checked here.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    Error, Store,
    census::{entries, hex_name},
    measure::{note_of, noted},
    refs::hashed,
    remove::remove_all,
};
use crate::oci::{Descriptor, DiffId};

/// Something that was not as it should be, and is gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wrong {
    /// What, by its path in the store.
    pub what: String,
    /// Why it is.
    pub why: String,
}

/// What a check found.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Checked {
    /// How many things were looked at.
    pub things: u64,
    /// What was removed.
    pub wrong: Vec<Wrong>,
}

impl Checked {
    /// One more was looked at.
    pub fn saw(&mut self) {
        self.things += 1;
    }

    /// It was wrong.
    pub fn found(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.wrong.push(Wrong { what: what.into(), why: why.into() });
    }
}

impl Store {
    /// Checks all but what is in trees, cache mounts and git repositories.
    pub fn fsck(&self) -> Result<Checked, Error> {
        let mut checked = Checked::default();
        self.check_blobs(&mut checked)?;
        self.check_layers(&mut checked)?;
        self.check_records(&mut checked)?;
        // After the blobs: a name whose manifest is gone leads nowhere.
        self.check_refs(&mut checked)?;
        self.check_marks(&mut checked);
        // Counted anew, so that nothing is believed of it.
        let census = self.alone(|state| self.recount(state, super::census::Census::take(self).total()));
        if census.is_none() {
            checked.found("ledger", "no lock is to be had on the store");
        }
        Ok(checked)
    }

    /// The trees of an ownership domain, and the layers that they are to be.
    pub fn trees_of(&self, domain: &str) -> Vec<(DiffId, PathBuf)> {
        let dir = self.root.join("trees").join(super::sealed::file_name(domain));
        let trees = entries(&dir).into_iter().filter(|(_, found)| found.is_dir());
        trees.filter_map(|(path, _)| Some((DiffId(hex_name(&path)?), path))).collect()
    }

    fn below(&self, path: &Path) -> String {
        super::census::below(self, path)
    }

    fn check_blobs(&self, checked: &mut Checked) -> Result<(), Error> {
        for (path, _) in entries(&self.blobs()) {
            checked.saw();
            let Some(digest) = hex_name(&path) else {
                self.stray(&path, checked);
                continue;
            };
            // Reads it to its end; what is not what its name says is gone after that.
            if self.verified_size(&digest)?.is_none() {
                checked.found(self.below(&path), "its bytes are not what its name says");
            }
        }
        Ok(())
    }

    fn check_layers(&self, checked: &mut Checked) -> Result<(), Error> {
        for (path, _) in entries(&self.root.join("index")) {
            checked.saw();
            match hex_name(&path).map(DiffId) {
                None => self.stray(&path, checked),
                Some(layer) if self.index(&layer)?.is_none() => checked.found(self.below(&path), "it does not check"),
                Some(_) => {}
            }
        }
        for (dir, _) in entries(&self.root.join("layers")) {
            let Some(layer) = hex_name(&dir).map(DiffId) else {
                self.stray(&dir, checked);
                continue;
            };
            for (path, _) in entries(&dir) {
                checked.saw();
                match Self::entry(&layer, &path) {
                    None => {
                        checked.found(self.below(&path), "it does not check");
                        drop(remove_all(&path));
                    }
                    // What became of its blob is said elsewhere, or somebody pruned it.
                    Some(blob) if !self.is_there(&blob.digest, blob.size) => drop(fs::remove_file(&path)),
                    Some(_) => {}
                }
            }
        }
        Ok(())
    }

    fn check_records(&self, checked: &mut Checked) -> Result<(), Error> {
        for (path, _) in entries(&self.root.join("cache")) {
            checked.saw();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match self.record(name) {
                Ok(Some(_)) => {}
                Ok(None) => checked.found(self.below(&path), "it does not check"),
                Err(_) => self.stray(&path, checked),
            }
        }
        let salt = self.root.join("salt");
        if fs::symlink_metadata(&salt).is_ok() {
            checked.saw();
            if !self.salt_is_sound()? {
                checked.found("salt", "it does not check");
            }
        }
        Ok(())
    }

    fn check_refs(&self, checked: &mut Checked) -> Result<(), Error> {
        for (path, _) in entries(&self.refs_dir()) {
            checked.saw();
            let file = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match self.named(file)? {
                None => checked.found(self.below(&path), "it does not check"),
                Some((name, _)) if hashed(&name) != file => self.stray(&path, checked),
                Some((name, target)) if !self.leads_to_an_image(&target)? => {
                    let _gone: bool = self.remove_ref(&name)?;
                    checked.found(format!("the image {}", name.familiar()), "its manifest is not in the store");
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn leads_to_an_image(&self, target: &Descriptor) -> Result<bool, Error> {
        Ok(self.verified_size(&target.digest)? == Some(target.size))
    }

    /// Marks of trees that are not there, notes that are none.
    fn check_marks(&self, checked: &mut Checked) {
        for (domain, _) in entries(&self.root.join("trees")) {
            for (path, found) in entries(&domain) {
                checked.saw();
                let tree = path.with_extension("");
                let known = path.extension().is_some_and(|end| end == "unsynced" || end == "size");
                match found.is_dir() {
                    true if hex_name(&path).is_none() => self.stray(&path, checked),
                    true if noted(&path).is_none() && fs::symlink_metadata(note_of(&path)).is_ok() => {
                        checked.found(self.below(&note_of(&path)), "it does not check");
                        let _size = self.measured(hex_name(&path).map(DiffId).as_ref(), &path);
                    }
                    false if !known => self.stray(&path, checked),
                    // A tree that is about to be there has its mark first.
                    false if !tree.exists() && found.modified().is_ok_and(is_old) => drop(fs::remove_file(&path)),
                    true | false => {}
                }
            }
        }
    }

    fn stray(&self, path: &Path, checked: &mut Checked) {
        checked.found(self.below(path), "it is nothing that belongs there");
        drop(remove_all(path));
    }
}

fn is_old(time: std::time::SystemTime) -> bool {
    crate::sys::now().duration_since(time).is_ok_and(|age| age.as_secs() > 3600)
}
