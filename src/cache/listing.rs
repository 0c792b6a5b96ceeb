//! All records, for who wants to see what is kept.

use super::{
    Outcome,
    record::{Record, load},
};
use crate::store::{self, Store};

/// The beginning of each recorded instruction, and what it made, in the order of keys. What does not check is left out.
pub fn list(store: &Store) -> Result<Vec<(String, Outcome)>, store::Error> {
    let mut all = Vec::new();
    for key in store.record_keys() {
        all.extend(load::<Record>(store, &key)?.map(|record| (record.shown, record.outcome)));
    }
    Ok(all)
}
