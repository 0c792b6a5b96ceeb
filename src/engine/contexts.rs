//! The directories that a build copies from: each listed once, with what earlier builds know of its files.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf, sync::Arc};

use super::Directory;
use crate::{
    context::{self, Context, Stats},
    error::Error,
    store::Store,
};

/// A directory's context, and the digests that are remembered of its files.
type Known = (Arc<Context>, Arc<Stats>);

/// The open contexts of one build.
#[derive(Default)]
pub(super) struct Contexts(RefCell<BTreeMap<PathBuf, Known>>);

impl Contexts {
    /// The context of a directory.
    pub(super) fn open(&self, store: &Store, directory: &Directory, name: &str) -> Result<Arc<Context>, Error> {
        if let Some((context, _)) = self.0.borrow().get(&directory.dir) {
            return Ok(Arc::clone(context));
        }
        let ignore = context::ignore_patterns(&directory.dir, directory.dockerfile.as_deref())?;
        let stats = Arc::new(Stats::load(store, &directory.dir)?);
        let context = Arc::new(Context::open(&directory.dir, ignore)?.called(name).remembering(Arc::clone(&stats)));
        drop(self.0.borrow_mut().insert(directory.dir.clone(), (Arc::clone(&context), stats)));
        Ok(context)
    }

    /// Lists and reads everything anew: a file turned out to be another than it was taken for.
    pub(super) fn forget(&self) {
        for (_, stats) in std::mem::take(&mut *self.0.borrow_mut()).into_values() {
            stats.forget();
        }
    }

    /// Keeps for the next build what this one learnt.
    pub(super) fn save(&self, store: &Store) -> Result<(), Error> {
        for (_, stats) in self.0.borrow().values() {
            stats.save(store)?;
        }
        Ok(())
    }
}
