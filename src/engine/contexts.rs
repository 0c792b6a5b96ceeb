//! The contexts that a build copies from: a directory is listed once, with what earlier builds know of its files; of an archive
//! that was unpacked all is known.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use super::{Files, whole};
use crate::{
    context::{self, Context, Stats, Unpacked},
    error::Error,
    pattern::PatternList,
    rootfs::Tree,
    store::Store,
};

/// An open context.
#[derive(Clone)]
pub(super) enum Opening {
    /// A directory.
    Directory(Arc<Context>),
    /// An archive.
    Archive(Tree),
}

/// A context, and the digests that are remembered of a directory's files.
struct Known(Opening, Option<Arc<Stats>>);

/// The open contexts of one build.
#[derive(Default)]
pub(super) struct Contexts(Mutex<BTreeMap<PathBuf, Known>>);

impl Contexts {
    /// Opens a context; `name` is what messages call it.
    pub(super) fn open(&self, store: &Store, files: &Files, name: &str) -> Result<Opening, Error> {
        let (Files::Directory { dir, .. } | Files::Fetched(dir) | Files::Unpacked(dir)) = files;
        // Held until it is open: of two steps that begin at once one opens it for both.
        let mut all = whole(&self.0);
        if let Some(Known(opening, _)) = all.get(dir) {
            return Ok(opening.clone());
        }
        let known = match files {
            Files::Directory { dockerfile, .. } => directory(store, dir, dockerfile.as_deref(), name)?,
            Files::Fetched(_) => Known(Opening::Directory(Arc::new(Context::open(dir, PatternList::default())?.called(name))), None),
            Files::Unpacked(_) => {
                let unpacked = Unpacked::open(dir)?;
                Known(Opening::Archive(Tree::extracted(unpacked.chain().clone(), vec![Arc::clone(unpacked.files())], name)), None)
            }
        };
        let opening = known.0.clone();
        drop(all.insert(dir.clone(), known));
        Ok(opening)
    }

    /// Lists and reads everything anew: a file turned out to be another than it was taken for.
    pub(super) fn forget(&self) {
        for Known(_, stats) in std::mem::take(&mut *whole(&self.0)).into_values() {
            if let Some(stats) = stats {
                stats.forget();
            }
        }
    }

    /// Keeps for the next build what this one learnt.
    pub(super) fn save(&self, store: &Store) -> Result<(), Error> {
        for Known(_, stats) in whole(&self.0).values() {
            if let Some(stats) = stats {
                stats.save(store)?;
            }
        }
        Ok(())
    }
}

fn directory(store: &Store, dir: &Path, dockerfile: Option<&Path>, name: &str) -> Result<Known, Error> {
    let ignore = context::ignore_patterns(dir, dockerfile)?;
    let stats = Arc::new(Stats::load(store, dir)?);
    let context = Context::open(dir, ignore.patterns)?.called(name).ignoring_by(ignore.file).remembering(Arc::clone(&stats));
    Ok(Known(Opening::Directory(Arc::new(context)), Some(stats)))
}
