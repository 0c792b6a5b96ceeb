//! Records in the store: an outcome by key, the details beside it, and the last keys of an instruction.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    below::{Below, Kept},
    fields::{Fields, StepKey, salted},
    paths::Paths,
};
use crate::{
    oci::DiffId,
    store::{self, Store},
    tree::Moments,
};

/// How many records of an instruction are remembered: a few branches that take turns.
const REMEMBERED: usize = 8;

/// The longest instruction that a record shows.
const SHOWN: usize = 200;

/// What a step made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its layer.
    pub diff_id: DiffId,
    /// When it was made, RFC 3339: history lines of a cached build are those of the first.
    pub created: String,
    /// The times that files of the layer have because of when they were made, or fetched.
    pub moments: Moments,
}

/// Which instruction it is, free of values.
#[derive(Debug, Clone, Default)]
pub struct Instruction {
    /// What tells one Dockerfile's instructions from another's.
    pub project: String,
    /// Where it stands: stage, ordinal, keyword.
    pub place: String,
    /// As it is written.
    pub text: String,
}

/// All that is known of a step before it is done.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// Of its key.
    pub fields: &'a Fields,
    /// Whose records are its earlier ones.
    pub instruction: &'a Instruction,
    /// What the field [`super::BELOW`] is a digest of.
    pub below: &'a Below,
}

/// The form of `cache/<key>`.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) outcome: Outcome,
    /// The beginning of the instruction as written, for who looks into the store.
    pub(super) shown: String,
    pub(super) fields: Vec<(String, String)>,
    pub(super) below: Kept,
}

/// Finds the outcome of a key. Anything unreadable is a miss.
pub fn look_up(store: &Store, key: &StepKey) -> Result<Option<Outcome>, store::Error> {
    Ok(load::<Record>(store, &key.hex())?.map(|record| record.outcome))
}

/// Records an outcome with its decomposed key, and what the fields [`super::FILES`] are digests of.
pub fn record(store: &Store, subject: &Subject<'_>, paths: &Paths, outcome: &Outcome) -> Result<(), store::Error> {
    let salt = store.salt()?;
    let key = subject.fields.key().hex();
    // The details first: a record whose details are missing would say less than it could.
    paths.save(store, &format!("{key}-0"))?;
    let shown = subject.instruction.text.chars().take(SHOWN).collect();
    let record = Record { outcome: outcome.clone(), shown, fields: subject.fields.salted(&salt), below: subject.below.kept(&salt) };
    save(store, &key, &record)?;
    for list in lists(&salt, subject.instruction) {
        let mut last = last_keys(store, &list)?;
        if last.first() != Some(&key) {
            last.retain(|earlier| *earlier != key);
            last.insert(0, key.clone());
            last.truncate(REMEMBERED);
            save(store, &list, &last)?;
        }
    }
    Ok(())
}

/// Where the last keys of an instruction are: by its text, which may have moved, and by its place, whose text may have changed.
pub(super) fn lists(salt: &[u8; 32], instruction: &Instruction) -> [String; 2] {
    let Instruction { project, place, text } = instruction;
    [("text", text), ("place", place)].map(|(kind, value)| {
        let name = format!("{}\0{project}{value}", project.len());
        format!("{}-1", salted(salt, kind, name.as_bytes()))
    })
}

/// The keys of the last records in a list, the most recent first.
pub(super) fn last_keys(store: &Store, list: &str) -> Result<Vec<String>, store::Error> {
    Ok(load(store, list)?.unwrap_or_default())
}

/// Reads a part of the cache. What has another form than ours is missing.
pub(super) fn load<T: DeserializeOwned>(store: &Store, name: &str) -> Result<Option<T>, store::Error> {
    Ok(store.record(name)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn save<T: Serialize>(store: &Store, name: &str, value: &T) -> Result<(), store::Error> {
    let json = serde_json::to_vec(value).map_err(|error| store::Error::encoding(&store.root().join("cache").join(name), error))?;
    store.put_record(name, &json)
}
