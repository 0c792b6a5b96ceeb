//! A bare repository of the store: what was fetched from one URL before, locked while it is used.
//!
//! Each object that was asked for has a ref of its own name, written when all below it is there; an object without one is
//! fetched. Settings, hooks and links to other repositories are none of what is kept: they are made anew, or removed, each
//! time. What git cannot use is thrown away, and fetched once more.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{
    super::{Asker, Error, Progress},
    command::{Failed, Git, Reach},
    refs::{self, Found, is_object, remote_error},
    submodules::{self, Link},
};
use crate::{
    store::{Lock, Store},
    sys::PathError,
};

/// A commit that is in the repository with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Commit {
    /// The commit.
    pub(super) id: String,
    /// What led to it: itself, or a tag.
    pub(super) object: String,
}

/// A bare repository, locked.
pub(super) struct Repository<'a> {
    store: &'a Store,
    git: Git<'a>,
    key: String,
    dir: PathBuf,
    long: bool,
    _lock: Lock,
}

/// Below this a repository keeps what it got.
const OURS: &str = "refs/lapstrake";
/// What may change what git does, and is not ours.
const FOREIGN: [&str; 9] =
    ["hooks", "info", "objects/info", "worktrees", "modules", "commondir", "config.worktree", "shallow.lock", "packed-refs.lock"];

impl<'a> Repository<'a> {
    /// Opens or makes it; waits for who uses it.
    pub(super) fn open(store: &'a Store, git: Git<'a>, found: &Found, asker: &mut Asker<'_>) -> Result<Self, Error> {
        let long = found.object.len() == 64;
        let name = format!("{}\0{long}", git.address.url());
        let hash = blake3::derive_key("lapstrake fetch: a git repository, version 1", name.as_bytes());
        let key = blake3::Hash::from_bytes(hash).to_hex().to_string();
        let waiting = format!("waiting for another build that fetches {}", git.address);
        let lock = store.lock(&format!("git-{key}"), &mut || (asker.progress)(Progress::Note(waiting.clone())))?;
        let repository = Self { store, dir: store.repository(&key), git, key, long, _lock: lock };
        repository.prepare().map_err(PathError::new("prepare", &repository.dir))?;
        Ok(repository)
    }

    /// Makes what a bare repository is made of, and removes what could make git do something else.
    fn prepare(&self) -> io::Result<()> {
        for name in FOREIGN {
            let path = self.dir.join(name);
            match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => fs::remove_dir_all(&path)?,
                Ok(_) => fs::remove_file(&path)?,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(error) => return Err(error),
            }
        }
        for name in ["objects", "refs"] {
            fs::create_dir_all(self.dir.join(name))?;
        }
        fs::write(self.dir.join("config"), settings(self.long, true))?;
        fs::write(self.dir.join("HEAD"), "ref: refs/heads/none\n")
    }

    fn here(&self) -> Git<'a> {
        self.git.with("GIT_DIR", &self.dir)
    }

    /// Fetches what is not there, and makes its files in an empty directory. A repository that was there before and cannot
    /// be used is made anew.
    pub(super) fn check_out(&self, found: &Found, into: &Path, index: &Path, asker: &mut Asker<'_>) -> Result<Commit, Error> {
        let used = self.dir.join("packed-refs").exists() || self.dir.join(OURS).exists();
        match self.attempt(found, into, index, asker) {
            Err(Failed::Said(words))
                if used && !matches!(remote_error(self.git.address, Failed::Said(words.clone())), Error::Denied { .. }) =>
            {
                self.store.remove_repository(&self.key)?;
                self.prepare().map_err(PathError::new("prepare", &self.dir))?;
                super::files::empty(into)?;
                self.attempt(found, into, index, asker).map_err(|failed| remote_error(self.git.address, failed))
            }
            result => result.map_err(|failed| remote_error(self.git.address, failed)),
        }
    }

    fn attempt(&self, found: &Found, into: &Path, index: &Path, asker: &mut Asker<'_>) -> Result<Commit, Failed> {
        let commit = self.bring(found, asker)?;
        refs::verify(self.git.address, &commit.object, &commit.id)?;
        let git = self.here().with("GIT_WORK_TREE", into).with("GIT_INDEX_FILE", index);
        let _nothing: Vec<u8> = git.run(Reach::Nowhere, &["read-tree", "--reset", "-u", &commit.id], asker)?;
        Ok(commit)
    }

    /// The object, fetched if it is not there.
    fn bring(&self, found: &Found, asker: &mut Asker<'_>) -> Result<Commit, Failed> {
        let had = self.object(&name(&found.object), asker)?.filter(|object| *object == found.object);
        let known = had.is_some();
        let object = match had {
            Some(object) => object,
            None => self.fetch(found, asker)?,
        };
        match self.object(&format!("{}^{{commit}}", name(&object)), asker)? {
            Some(id) => Ok(Commit { id, object }),
            None if known => Err(Failed::Said(format!("{object} was there and is damaged"))),
            None => {
                let detail = format!("{object} is no commit");
                Err(Error::Refused { what: self.git.address.to_string(), detail, help: None }.into())
            }
        }
    }

    /// What a name stands for in the repository.
    fn object(&self, name: &str, asker: &mut Asker<'_>) -> Result<Option<String>, Error> {
        match self.here().run(Reach::Nowhere, &["rev-parse", "--verify", "--quiet", "--end-of-options", name], asker) {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output).trim().to_owned()).filter(|object| is_object(object))),
            Err(Failed::Said(_)) => Ok(None),
            Err(Failed::Other(error)) => Err(error),
        }
    }

    /// Fetches, without history if the server can. The result is what the name stands for by now.
    fn fetch(&self, found: &Found, asker: &mut Asker<'_>) -> Result<String, Failed> {
        let source = found.reference.as_ref().filter(|_| !found.pinned).unwrap_or(&found.object);
        let into = name(&found.object);
        let refspec = format!("+{source}:{into}");
        let fetched = self.fetched(&["--depth=1", "--", "origin", &refspec], asker);
        let fetched = match fetched {
            Err(Failed::Said(words)) if words.contains("shallow") || words.contains("--depth") => {
                self.fetched(&["--", "origin", &refspec], asker)
            }
            other => other,
        };
        match fetched {
            Ok(()) => {}
            // The server gives only what has a name: the object may be in its history.
            Err(Failed::Said(words)) if found.pinned && is_unadvertised(&words) => return self.search(found, asker),
            Err(failed) => return Err(failed),
        }
        let object = self.object(&into, asker)?.ok_or_else(|| Failed::Said("git fetched nothing".to_owned()))?;
        if object != found.object {
            // The name was moved meanwhile.
            let _nothing: Vec<u8> = self.here().run(Reach::Nowhere, &["update-ref", &name(&object), &object], asker)?;
            let _nothing: Vec<u8> = self.here().run(Reach::Nowhere, &["update-ref", "-d", &into], asker)?;
        }
        Ok(object)
    }

    /// Fetches all branches and tags with their history, and looks for the object in them.
    fn search(&self, found: &Found, asker: &mut Asker<'_>) -> Result<String, Failed> {
        let heads = format!("+refs/heads/*:{OURS}-all/heads/*");
        let tags = format!("+refs/tags/*:{OURS}-all/tags/*");
        let mut args = vec!["--", "origin", &heads, &tags];
        if self.dir.join("shallow").exists() {
            args.insert(0, "--unshallow");
        }
        self.fetched(&args, asker)?;
        match self.object(&format!("{}^{{commit}}", found.object), asker)? {
            Some(_) => {
                let _nothing: Vec<u8> = self.here().run(Reach::Nowhere, &["update-ref", &name(&found.object), &found.object], asker)?;
                Ok(found.object.clone())
            }
            None => Err(Failed::Other(Error::Missing {
                what: self.git.address.to_string(),
                detail: format!("the repository has no commit {}", found.object),
                help: None,
            })),
        }
    }

    fn fetched(&self, args: &[&str], asker: &mut Asker<'_>) -> Result<(), Failed> {
        let fixed =
            ["fetch", "--progress", "--force", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules", "--no-auto-maintenance"];
        let all: Vec<&str> = fixed.iter().chain(args).copied().collect();
        self.here().run(Reach::Remote, &all, asker).map(drop)
    }

    /// When it was committed.
    pub(super) fn time(&self, commit: &Commit, asker: &mut Asker<'_>) -> Result<i64, Error> {
        let output = self.here().must(&["log", "-1", "--no-show-signature", "--format=%ct", &commit.id, "--"], asker)?;
        Ok(String::from_utf8_lossy(&output).trim().parse().unwrap_or(0))
    }

    /// The submodules of a commit whose index was just read.
    pub(super) fn links(&self, commit: &Commit, index: &Path, asker: &mut Asker<'_>) -> Result<Vec<Link>, Error> {
        let listed = self.here().with("GIT_INDEX_FILE", index).must(&["ls-files", "--stage", "-z"], asker)?;
        let places = submodules::places(&listed);
        if places.is_empty() {
            return Ok(Vec::new());
        }
        let blob = format!("{}:.gitmodules", commit.id);
        let settings = match self.here().run(Reach::Nowhere, &["config", "--no-includes", "--blob", &blob, "--null", "--list"], asker) {
            Ok(settings) => settings,
            Err(Failed::Said(_)) => Vec::new(),
            Err(Failed::Other(error)) => return Err(error),
        };
        submodules::links(places, &settings, self.git.address)
    }

    /// Makes a `.git` beside the files: one commit without history, HEAD on it, nothing of this machine, and an index that
    /// is the same for all who make it.
    pub(super) fn make_git_dir(&self, commit: &Commit, reference: Option<&str>, tree: &Path, asker: &mut Asker<'_>) -> Result<(), Error> {
        let dir = tree.join(".git");
        let made = fs::create_dir(&dir)
            .and_then(|()| fs::create_dir(dir.join("objects")))
            .and_then(|()| fs::create_dir(dir.join("refs")))
            .and_then(|()| fs::write(dir.join("config"), settings(self.long, false)))
            .and_then(|()| fs::write(dir.join("HEAD"), format!("{}\n", commit.id)));
        made.map_err(PathError::new("create", &dir))?;
        let git = self.git.with("GIT_DIR", &dir).with("GIT_WORK_TREE", tree);
        let named = reference.filter(|reference| reference.starts_with("refs/"));
        let refspec = match named {
            Some(named) => format!("+{}:{named}", name(&commit.object)),
            None => name(&commit.object),
        };
        let fixed =
            ["-c", "pack.threads=1", "fetch", "--quiet", "--depth=1", "--force", "--no-tags", "--update-head-ok", "--no-write-fetch-head"];
        let args: Vec<&str> =
            fixed.into_iter().chain(["--no-recurse-submodules", "--no-auto-maintenance", "--", "origin", &refspec]).collect();
        let failed = |failed| remote_error(self.git.address, failed);
        let _nothing: Vec<u8> = git.run(Reach::Store(&self.dir), &args, asker).map_err(failed)?;
        let _nothing: Vec<u8> = git.must(&["read-tree", &commit.id], asker)?;
        let origin = self.git.address.shown_url();
        let _nothing: Vec<u8> = git.must(&["config", "--local", "remote.origin.url", &origin], asker)?;
        let all = "+refs/heads/*:refs/remotes/origin/*";
        let _nothing: Vec<u8> = git.must(&["config", "--local", "remote.origin.fetch", all], asker)?;
        Ok(())
    }
}

/// The ref that says that an object is there.
fn name(object: &str) -> String {
    format!("{OURS}/{object}")
}

fn settings(long: bool, bare: bool) -> String {
    let format = if long { "\trepositoryformatversion = 1\n" } else { "\trepositoryformatversion = 0\n" };
    let objects = if long { "[extensions]\n\tobjectformat = sha256\n" } else { "" };
    format!("[core]\n{format}\tfilemode = true\n\tbare = {bare}\n{objects}")
}

fn is_unadvertised(words: &str) -> bool {
    ["not our ref", "unadvertised object", "no such remote ref", "couldn't find remote ref"].iter().any(|part| words.contains(part))
}
