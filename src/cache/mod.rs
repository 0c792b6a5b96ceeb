//! Step keys and records: labelled, length-framed, versioned fields. What a step is, this room does not know.
//!
//! A key is the BLAKE3 of its fields. Its record keeps the fields decomposed, values only as digests salted with the
//! store's own salt, so that a later miss can say which field changed; the digests by path of what a COPY selected
//! are kept beside it.

use serde::{Deserialize, Serialize};

use crate::{
    oci::DiffId,
    store::{self, Store},
};

/// The version of the schema; it is in every key.
pub const VERSION: u32 = 1;

/// The name of a step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepKey([u8; 32]);

impl StepKey {
    /// 64 hex digits.
    pub fn hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }
}

/// The fields of a key, in order.
#[derive(Debug, Clone, Default)]
pub struct Fields(Vec<(String, Vec<u8>)>);

impl Fields {
    /// No field yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field. The label is shown to users when the field is the reason of a miss: `ARG GIT_SHA`, `base`.
    #[must_use]
    pub fn field(mut self, label: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.0.push((label.into(), value.as_ref().to_vec()));
        self
    }

    /// The key.
    pub fn key(&self) -> StepKey {
        StepKey(*blake3::hash(b"").as_bytes())
    }
}

/// What a step made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Its layer.
    pub diff_id: DiffId,
    /// When it was made, RFC 3339: history lines of a cached build are those of the first.
    pub created: String,
}

/// Finds the outcome of a key. Anything unreadable is a miss.
pub fn look_up(store: &Store, key: &StepKey) -> Result<Option<Outcome>, store::Error> {
    let _ = (store, key);
    unimplemented!("cache")
}

/// Records an outcome with its decomposed key. `instruction` names the place in a Dockerfile independent of values
/// (stage, ordinal, keyword), to find the nearest earlier record; `paths` are the digests by path of what was selected.
pub fn record(
    store: &Store,
    fields: &Fields,
    instruction: &str,
    paths: &[(String, String)],
    outcome: &Outcome,
) -> Result<(), store::Error> {
    let _ = (store, fields, instruction, paths, outcome);
    unimplemented!("cache")
}

/// What changed since the nearest earlier record of that instruction: labels of fields, and paths. Empty: there is none.
pub fn explain(store: &Store, fields: &Fields, instruction: &str, paths: &[(String, String)]) -> Result<Vec<String>, store::Error> {
    let _ = (store, fields, instruction, paths);
    unimplemented!("cache")
}
