//! Records in the store: an outcome by key, the details beside it, and the last keys of an instruction.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    fields::{Fields, StepKey, salted},
    path_value::PathValue,
};
use crate::{
    oci::DiffId,
    store::{self, Store},
    tree::Moments,
};

/// How many records of an instruction are remembered: a few branches that take turns.
const REMEMBERED: usize = 8;

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

/// The form of `cache/<key>`.
#[derive(Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) outcome: Outcome,
    pub(super) instruction: String,
    pub(super) fields: Vec<(String, String)>,
}

/// Finds the outcome of a key. Anything unreadable is a miss.
pub fn look_up(store: &Store, key: &StepKey) -> Result<Option<Outcome>, store::Error> {
    Ok(load::<Record>(store, &key.hex())?.map(|record| record.outcome))
}

/// Records an outcome with its decomposed key. `instruction` names the place in a Dockerfile independent of values
/// (stage, ordinal, keyword), to find the nearest earlier record; `paths` are the digests by path of what was selected,
/// each value in the form of [`PathValue`].
pub fn record(
    store: &Store,
    fields: &Fields,
    instruction: &str,
    paths: &[(String, String)],
    outcome: &Outcome,
) -> Result<(), store::Error> {
    let salt = store.salt()?;
    let key = fields.key().hex();
    // The details first: a record whose details are missing would say less than it could.
    if !paths.is_empty() {
        save(store, &format!("{key}-0"), &salted_paths(&salt, paths))?;
    }
    let record = Record { outcome: outcome.clone(), instruction: instruction.to_owned(), fields: fields.salted(&salt) };
    save(store, &key, &record)?;
    let mut last = last_keys(store, instruction)?;
    last.retain(|earlier| *earlier != key);
    last.insert(0, key);
    last.truncate(REMEMBERED);
    save(store, &place(instruction), &last)
}

/// The keys of the last records of an instruction, the most recent first.
pub(super) fn last_keys(store: &Store, instruction: &str) -> Result<Vec<String>, store::Error> {
    Ok(load(store, &place(instruction))?.unwrap_or_default())
}

/// The paths sorted, each value's digest salted: a file in a context may be short and secret.
pub(super) fn salted_paths(salt: &[u8; 32], paths: &[(String, String)]) -> Vec<(String, String)> {
    let mut all: Vec<_> = paths
        .iter()
        .map(|(path, value)| {
            let parsed = PathValue::parse(value);
            let digest = salted(salt, path, parsed.digest.as_bytes());
            (path.clone(), PathValue { digest, ..parsed }.to_string())
        })
        .collect();
    all.sort();
    all
}

/// Reads a part of the cache. What has another form than ours is missing.
pub(super) fn load<T: DeserializeOwned>(store: &Store, name: &str) -> Result<Option<T>, store::Error> {
    Ok(store.record(name)?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
}

fn save<T: Serialize>(store: &Store, name: &str, value: &T) -> Result<(), store::Error> {
    let json = serde_json::to_vec(value).map_err(|error| store::Error::encoding(&store.root().join("cache").join(name), error))?;
    store.put_record(name, &json)
}

fn place(instruction: &str) -> String {
    let hash = blake3::Hash::from_bytes(blake3::derive_key("lapstrake: an instruction's records", instruction.as_bytes()));
    format!("{}-1", hash.to_hex())
}
