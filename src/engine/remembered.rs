//! Looked up, or made: the one way from a recipe to a layer.

use super::{
    Event, How,
    behind::Pending,
    build::{At, Site, seconds},
    key::Recipe,
    whole,
};
use crate::{
    cache::{self, Outcome, StepKey, Why},
    error::Error,
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
        if let Some(outcome) = self.known(at, &key)? {
            return Ok((outcome, How::Cached));
        }
        let name = format!("step-{}", key.hex());
        let _turn = self.turns.turn(&name)?;
        if let Some(outcome) = self.known(at, &key)? {
            return Ok((outcome, How::Cached));
        }
        let lock = self.turns.lock(&name, || format!("waiting for another build that does `{}`", at.step.shown))?;
        if let Some(outcome) = self.known(at, &key)? {
            return Ok((outcome, How::Cached));
        }
        let why = self.why(at, recipe)?;
        self.front.event(Event::Missed { step: at.number, why });
        let (created, began) = (timestamp(), seconds());
        let (pending, taken) = make()?;
        // The clock of a file system is a little behind, and may know even seconds only.
        let moments = Moments::between(began - 2, seconds()).and(&taken);
        let outcome = Outcome { diff_id: pending.layer.diff_id, created, moments };
        let (description, recorded) = (recipe.description(&self.job.plan), outcome.clone());
        self.behind.commit(
            pending,
            Box::new(move |store| {
                let _until_recorded = lock;
                cache::record(store, &description.subject(), &recorded)
            }),
        );
        drop(whole(&self.made).insert(key, outcome.clone()));
        self.tell(at, &key, &outcome);
        Ok((outcome, How::Done))
    }

    /// The outcome of a recipe that was done in this build, or is recorded and has its layer still.
    fn known(&self, at: At<'_>, key: &StepKey) -> Result<Option<Outcome>, Error> {
        let made = whole(&self.made).get(key).cloned();
        let outcome = match made {
            None if self.job.without_cache(&at.stage.name).is_some() => None,
            None => cache::look_up(self.store, key)?.filter(|outcome| self.store.any_layer_blob(&outcome.diff_id).is_some()),
            made => made,
        };
        Ok(outcome.inspect(|outcome| self.tell(at, key, outcome)))
    }

    /// Why there is none.
    fn why(&self, at: At<'_>, recipe: &Recipe<'_>) -> Result<Why, Error> {
        if let Some(why) = self.job.without_cache(&at.stage.name) {
            return Ok(why);
        }
        match cache::look_up(self.store, &recipe.fields.key())? {
            Some(Outcome { diff_id, .. }) => Ok(Why::LayerGone { layer: diff_id }),
            None => Ok(cache::explain(self.store, &recipe.description(&self.job.plan).subject())?),
        }
    }

    fn tell(&self, at: At<'_>, key: &StepKey, outcome: &Outcome) {
        let Outcome { diff_id, created, .. } = outcome.clone();
        self.front.event(Event::Layer { step: at.number, key: key.hex(), layer: diff_id, created });
    }
}

/// Now, as RFC 3339 with nanoseconds, UTC.
fn timestamp() -> String {
    jiff::Timestamp::try_from(crate::sys::now()).map(|now| now.to_string()).unwrap_or_default()
}
