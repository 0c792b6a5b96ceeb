//! Why a step missed: what is different from the nearest earlier record of its instruction.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    BELOW, FILES,
    paths::{self, Paths},
    record::{Record, Subject, last_keys, lists, load},
    why::{Change, Of, Why},
};
use crate::store::{self, Store};

/// So many changes are listed: a directory that is another one altogether needs no longer list.
const LISTED: usize = 100;

/// What changed since the nearest earlier record of that instruction.
///
/// The nearest is the one with the fewest different fields; of several one with the same text, then the most recent.
/// A field is named by its label (`ARG GIT_SHA: changed`), a path by what is different (`package-lock.json: content`,
/// `src/a.py: mode 0644→0664`, `src/b.py: removed`); the fields [`FILES`] and [`BELOW`] are named only if nothing is known
/// of what they are digests of.
///
/// `paths` is asked for what the step took, if an earlier record says what it had taken.
pub fn explain<E: From<store::Error>>(
    store: &Store,
    subject: &Subject<'_>,
    paths: impl FnOnce() -> Result<Arc<Paths>, E>,
) -> Result<Why, E> {
    let salt = store.salt()?;
    let (key, now) = (subject.fields.key().hex(), subject.fields.salted(&salt));
    let (mut seen, mut was_here) = (BTreeSet::new(), false);
    let mut nearest: Option<(String, Record, Vec<Change>)> = None;
    for list in lists(&salt, subject.instruction) {
        for earlier in last_keys(store, &list)? {
            was_here |= earlier == key;
            if earlier == key || !seen.insert(earlier.clone()) {
                continue;
            }
            let Some(record) = load::<Record>(store, &earlier)? else { continue };
            let changes = changed_fields(&record.fields, &now);
            if nearest.as_ref().is_none_or(|(_, _, fewest)| changes.len() < fewest.len()) {
                nearest = Some((earlier, record, changes));
            }
        }
    }
    let Some((earlier, record, mut changes)) = nearest.filter(|_| !was_here) else {
        return Ok(if was_here || !seen.is_empty() { Why::RecordGone } else { Why::First });
    };
    let files = match Paths::load(store, &format!("{earlier}-0"))? {
        Some(before) => paths::changed(&before, &*paths()?)?,
        None => Vec::new(),
    };
    if !files.is_empty() {
        changes.retain(|change| !change.name.starts_with(FILES));
    }
    let (mut below, mut changes): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.name == BELOW);
    if let (Some(whole), Some((name, how))) = (below.first_mut(), subject.below.change(&record.below, &salt)) {
        *whole = Change { of: Of::Below, name, how };
    }
    // What is the step's own comes first: what is another above it has been told there.
    changes.extend(files);
    changes.extend(below);
    let mut told = BTreeSet::new();
    changes.retain(|change| told.insert(change.to_string()));
    let more = changes.len().saturating_sub(LISTED);
    changes.truncate(LISTED);
    Ok(Why::Changed { changes, more, since: record.outcome.created })
}

/// Fields that are not the same, in today's order; what is gone comes last. Fields of one label are told
/// apart by their order.
pub(super) fn changed_fields(before: &[(String, String)], now: &[(String, String)]) -> Vec<Change> {
    let mut earlier = numbered(before);
    let mut changes = Vec::new();
    let mut add = |label: &str, how: &str| {
        let of = if label == BELOW { Of::Below } else { Of::Instruction };
        changes.push(Change { of, name: label.to_owned(), how: how.to_owned() });
    };
    let mut counts = BTreeMap::new();
    for (label, value) in now {
        let number = counts.entry(label).and_modify(|count| *count += 1).or_insert(0_usize);
        match earlier.remove(&(label.as_str(), *number)) {
            Some(old) if old == value => {}
            Some(_) => add(label, "changed"),
            None => add(label, "added"),
        }
    }
    for (label, _) in earlier.into_keys() {
        add(label, "removed");
    }
    if changes.is_empty() {
        changes.push(Change { of: Of::Instruction, name: "its parts".to_owned(), how: "in another order".to_owned() });
    }
    changes
}

fn numbered(fields: &[(String, String)]) -> BTreeMap<(&str, usize), &String> {
    let mut counts = BTreeMap::new();
    let mut all = BTreeMap::new();
    for (label, value) in fields {
        let number = counts.entry(label).and_modify(|count| *count += 1).or_insert(0_usize);
        all.insert((label.as_str(), *number), value);
    }
    all
}
