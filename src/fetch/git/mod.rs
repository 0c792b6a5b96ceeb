//! Trees of git repositories, by the system's `git`, which is told nothing by the machine and believed nothing.
//!
//! ```text
//! resolve (ls-remote: which commit?) → Repository (bare, in the store, locked) ─fetch→ commit ─read-tree→ files
//!                                                                                └ submodules, each the same way
//! ```
//!
//! Git runs without system and user configuration, hooks, filters, prompts and helpers, and may speak the one protocol of
//! the address ([`command`]). A ref that could be an option is refused, also when the remote's HEAD names it. Submodules are
//! fetched here and not by `git submodule`, whose names and paths have been executed and followed before. Addresses are in
//! no argument.
//!
//! Source: BuildKit `source/git/source.go`, by behaviour; git's release notes on CVE-2017-1000117, CVE-2018-11235,
//! CVE-2018-17456, CVE-2019-19604, CVE-2022-39253, CVE-2024-32002; moby's CVE-2019-13139; BuildKit's CVE-2026-33747.

mod access;
mod command;
mod files;
mod refs;
mod repository;
mod submodules;

use std::path::{Path, PathBuf};

use self::{access::Access, command::Git, refs::Found, repository::Repository, submodules::Link};
use super::{Asker, Error};
use crate::{
    remote::{GitAddress, Times},
    store::{Scratch, Store},
};

/// How deep submodules may be in submodules.
const DEEPEST: usize = 16;

/// Files of a commit. They are gone when this is dropped.
#[derive(Debug)]
pub struct Checkout {
    /// Holds the directory.
    pub scratch: Scratch,
    /// Where the files are: the subdirectory, if one was asked for.
    pub dir: PathBuf,
    /// The commit.
    pub commit: String,
    /// When it was committed, in seconds since 1970.
    pub commit_time: i64,
    /// The complete name of the branch or tag; `None`: a commit was asked for.
    pub reference: Option<String>,
}

/// Fetches a commit and makes its files: modes 0644 and 0755, no `.git` unless the address keeps it.
pub fn checkout(store: &Store, address: &GitAddress, asker: &mut Asker<'_>) -> Result<Checkout, Error> {
    let scratch = store.scratch()?;
    let access = Access::of(address, asker)?;
    let mut work = Work { store, access: &access, scratch: scratch.path(), count: 0 };
    let tree = scratch.path().join("tree");
    files::make_dir(&tree)?;
    let subdir = address.subdir.as_deref().map(|subdir| files::plain(subdir.as_bytes(), address)).transpose()?.unwrap_or_default();
    let found = refs::resolve(&work.git(address)?, address, asker)?;
    let made = work.populate(address, &found, &tree, &subdir, 0, asker)?;
    let dir = files::subdirectory(&tree, &subdir, address)?;
    let time = (address.times == Times::Commit).then_some(made.commit_time);
    files::normalise(&dir, time)?;
    Ok(Checkout { dir, scratch, commit: made.commit, commit_time: made.commit_time, reference: made.reference })
}

/// One checkout, with all the repositories that are in it.
struct Work<'a> {
    store: &'a Store,
    access: &'a Access,
    scratch: &'a Path,
    /// For names of files that only this process uses.
    count: usize,
}

/// What was checked out.
struct Made {
    commit: String,
    commit_time: i64,
    reference: Option<String>,
}

impl Work<'_> {
    /// Git for an address, outside of any repository.
    fn git<'g>(&'g self, address: &'g GitAddress) -> Result<Git<'g>, Error> {
        Git::new(address, self.access, self.scratch)
    }

    /// Makes the files of a commit in an empty directory; of submodules only what is below or above `wanted`.
    fn populate(
        &mut self,
        address: &GitAddress,
        found: &Found,
        into: &Path,
        wanted: &[Vec<u8>],
        depth: usize,
        asker: &mut Asker<'_>,
    ) -> Result<Made, Error> {
        self.count += 1;
        let index = self.scratch.join(format!("index-{}", self.count));
        let reference = found.reference.clone();
        let (commit, commit_time, links) = {
            let repository = Repository::open(self.store, self.git(address)?, found, asker)?;
            let commit = repository.check_out(found, into, &index, asker)?;
            let links = if address.submodules { repository.links(&commit, &index, asker)? } else { Vec::new() };
            if address.keep_git_dir == Some(true) && wanted.is_empty() {
                repository.make_git_dir(&commit, reference.as_deref(), into, asker)?;
            }
            (commit.id.clone(), repository.time(&commit, asker)?, links)
            // The lock goes here: two builds may have each other's repository as a submodule.
        };
        let links: Vec<Link> = links.into_iter().filter(|link| link.concerns(wanted)).collect();
        if !links.is_empty() && depth == DEEPEST {
            return Err(Error::Refused {
                what: address.to_string(),
                detail: format!("submodules are nested deeper than {DEEPEST}"),
                help: None,
            });
        }
        for link in links {
            asker.go_on()?;
            let place = files::submodule_place(into, &link.path, address)?;
            let below = link.remaining(wanted);
            let inner = link.address(address)?;
            let made = self.populate(&inner, &Found::commit(&link.commit), &place, &below, depth + 1, asker);
            let _made: Made = made.map_err(|error| submodules::within(error, &link))?;
        }
        Ok(Made { commit, commit_time, reference })
    }
}
