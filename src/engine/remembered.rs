//! Looked up, or made: the one way from a recipe to a layer.

use super::{
    Event, How,
    behind::Pending,
    build::{At, Site, seconds},
    key::Recipe,
    looking::unknown,
    whole,
};
use crate::{
    cache::{self, Outcome, SharedRecord, StepKey, Why},
    error::{Error, Kind},
    layer,
    oci::{Descriptor, DiffId},
    tree::Moments,
};

impl Site<'_> {
    /// Looks a recipe up, and makes its layer if it must. The key comes before the work; a step is done by one thread of one
    /// build at a time. `make` also says which times what it took had by chance.
    pub(super) fn cached_or_made(
        &self,
        at: At<'_>,
        recipe: &Recipe<'_>,
        make: impl FnOnce() -> Result<(Pending, Moments), Error>,
    ) -> Result<(Outcome, How), Error> {
        let key = recipe.fields.key();
        if let Some(found) = self.cached(at, recipe)? {
            return Ok(found);
        }
        if self.job.only_look {
            return Err(unknown());
        }
        let name = format!("step-{}", key.hex());
        let _turn = self.turns.turn(&name)?;
        if let Some(found) = self.cached(at, recipe)? {
            return Ok(found);
        }
        let lock = self.turns.lock(&name, || format!("waiting for another build that does `{}`", at.step.shown))?;
        if let Some(found) = self.cached(at, recipe)? {
            return Ok(found);
        }
        let (outcome, how) = if let Some(outcome) = self.imported(at, &key)? {
            cache::record(self.store, &recipe.description(&self.job.plan).subject(), &*recipe.paths(self.store)?, &outcome)?;
            (outcome, How::Imported)
        } else {
            let why = self.why(at, recipe)?;
            self.front.event(Event::Missed { step: at.number, why });
            let (created, began) = (timestamp(), seconds());
            let (pending, taken) = make()?;
            // The clock of a file system is a little behind, and may know even seconds only.
            let moments = Moments::between(began - 2, seconds()).and(&taken);
            let outcome = Outcome { diff_id: pending.layer.diff_id, created, moments };
            let (description, paths, recorded) = (recipe.description(&self.job.plan), recipe.paths(self.store)?, outcome.clone());
            self.behind.commit(
                at.number,
                pending,
                Box::new(move |store| {
                    let _until_recorded = lock;
                    cache::record(store, &description.subject(), &paths, &recorded)
                }),
            );
            (outcome, How::Done)
        };
        drop(whole(&self.made).insert(key, outcome.clone()));
        self.tell(at, recipe, &outcome);
        Ok((outcome, how))
    }

    /// What is known of a recipe already, and told.
    pub(super) fn cached(&self, at: At<'_>, recipe: &Recipe<'_>) -> Result<Option<(Outcome, How)>, Error> {
        let mut laps = self.laps(at.number);
        let outcome = self.known(at, &recipe.fields.key())?;
        laps.lap("made its key and looked it up");
        Ok(outcome.inspect(|outcome| self.tell(at, recipe, outcome)).map(|outcome| (outcome, How::Cached)))
    }

    /// The outcome of a recipe that was done in this build, or is recorded and has its layer still.
    fn known(&self, at: At<'_>, key: &StepKey) -> Result<Option<Outcome>, Error> {
        if let Some(outcome) = whole(&self.made).get(key) {
            return Ok(Some(outcome.clone()));
        }
        if self.job.without_cache(&at.stage.name).is_some() {
            return Ok(None);
        }
        let outcome = cache::look_up(self.store, key)?;
        Ok(outcome.filter(|outcome| self.store.any_layer_blob(&outcome.diff_id).is_some()))
    }

    /// The outcome that was made elsewhere, its layer brought here and verified. A cache that cannot give the layer is one
    /// without the record.
    fn imported(&self, at: At<'_>, key: &StepKey) -> Result<Option<Outcome>, Error> {
        if self.job.without_cache(&at.stage.name).is_some() {
            return Ok(None);
        }
        for (number, cache) in self.job.imported.iter().enumerate() {
            let Some(outcome) = cache.shared.find(key).map(SharedRecord::outcome) else { continue };
            let Some((_, blob)) = cache.blobs.iter().find(|(layer, _)| *layer == outcome.diff_id) else { continue };
            match self.bring(number, &outcome.diff_id, blob) {
                Ok(()) => return Ok(Some(outcome)),
                Err(error) if error.kind == Kind::Interrupted => return Err(error),
                Err(error) => {
                    let text = format!("the cache {} cannot give the layer of `{}`: {error}", cache.shown, at.step.shown);
                    self.front.event(Event::Note { text });
                }
            }
        }
        Ok(None)
    }

    fn bring(&self, cache: usize, layer: &DiffId, blob: &Descriptor) -> Result<(), Error> {
        if self.store.any_layer_blob(layer).is_some() {
            return Ok(());
        }
        self.front.shared(cache, blob)?;
        layer::verify(self.store, blob, layer)?;
        Ok(self.store.put_layer_blob(layer, "pulled", blob)?)
    }

    /// Why there is none.
    fn why(&self, at: At<'_>, recipe: &Recipe<'_>) -> Result<Why, Error> {
        if let Some(why) = self.job.without_cache(&at.stage.name) {
            return Ok(why);
        }
        let why = match cache::look_up(self.store, &recipe.fields.key())? {
            Some(Outcome { diff_id, .. }) => Why::LayerGone { layer: diff_id },
            None => cache::explain(self.store, &recipe.description(&self.job.plan).subject(), || recipe.paths(self.store))?,
        };
        if why != Why::First {
            return Ok(why);
        }
        let instruction = recipe.instruction();
        let elsewhere = self.job.imported.iter().find_map(|cache| cache.shared.explain(&recipe.fields, &instruction));
        Ok(elsewhere.unwrap_or(why))
    }

    fn tell(&self, at: At<'_>, recipe: &Recipe<'_>, outcome: &Outcome) {
        let Outcome { diff_id, created, .. } = outcome.clone();
        self.front.event(Event::Layer { step: at.number, key: recipe.fields.key().hex(), layer: diff_id, created });
        if let Some(salt) = &self.job.share {
            let record = SharedRecord::of(&recipe.fields, &recipe.instruction(), outcome, salt);
            self.front.event(Event::Recorded { record });
        }
    }
}

/// Now, as RFC 3339 with nanoseconds, UTC.
fn timestamp() -> String {
    jiff::Timestamp::try_from(crate::sys::now()).map(|now| now.to_string()).unwrap_or_default()
}
