//! Why a step missed: what is different from the nearest earlier record of its instruction.

use std::{cmp::Ordering, collections::BTreeMap};

use super::{
    FILES,
    fields::Fields,
    path_value::PathValue,
    record::{Record, last_keys, load, salted_paths},
};
use crate::store::{self, Store};

/// What changed since the nearest earlier record of that instruction: labels of fields, and paths. Empty: there is none.
///
/// The nearest is the one with the fewest different fields; of several, the most recent. A field is named by its label
/// (`base`, `ARG GIT_SHA`, `ARG NEW: added`), a path by what is different (`package-lock.json: content`,
/// `src/a.py: mode 0644→0664`, `src/b.py: removed`); the field [`FILES`] is named only if no path is different.
pub fn explain(store: &Store, fields: &Fields, instruction: &str, paths: &[(String, String)]) -> Result<Vec<String>, store::Error> {
    let salt = store.salt()?;
    let (key, now) = (fields.key().hex(), fields.salted(&salt));
    let mut nearest: Option<(String, Vec<String>)> = None;
    for earlier in last_keys(store, instruction)? {
        let Some(record) = load::<Record>(store, &earlier)?.filter(|record| earlier != key && record.instruction == instruction) else {
            continue;
        };
        let changes = changed_fields(&record.fields, &now);
        if nearest.as_ref().is_none_or(|(_, fewest)| changes.len() < fewest.len()) {
            nearest = Some((earlier, changes));
        }
    }
    let Some((earlier, mut changes)) = nearest else { return Ok(Vec::new()) };
    let before: Option<Vec<(String, String)>> = load(store, &format!("{earlier}-0"))?;
    let changed_paths = before.map(|before| changed_paths(&before, &salted_paths(&salt, paths))).unwrap_or_default();
    if !changed_paths.is_empty() {
        changes.retain(|label| label != FILES);
    }
    changes.extend(changed_paths);
    Ok(changes)
}

/// Labels of fields that are not the same, in today's order; what is gone comes last. Fields of one label are told
/// apart by their order.
fn changed_fields(before: &[(String, String)], now: &[(String, String)]) -> Vec<String> {
    let mut earlier = numbered(before);
    let mut changes = Vec::new();
    let mut counts = BTreeMap::new();
    for (label, value) in now {
        let number = counts.entry(label).and_modify(|count| *count += 1).or_insert(0_usize);
        match earlier.remove(&(label.as_str(), *number)) {
            Some(old) if old == value => {}
            Some(_) => changes.push(label.clone()),
            None => changes.push(format!("{label}: added")),
        }
    }
    changes.extend(earlier.into_keys().map(|(label, _)| format!("{label}: removed")));
    if changes.is_empty() { vec!["the order of its fields".to_owned()] } else { changes }
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

/// Walks two sorted lists of paths at once.
fn changed_paths(before: &[(String, String)], now: &[(String, String)]) -> Vec<String> {
    let mut changes = Vec::new();
    let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return changes,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let gone = if order == Ordering::Greater { None } else { old.next() };
        let come = if order == Ordering::Less { None } else { new.next() };
        match (gone, come) {
            (Some((path, old)), Some((_, new))) => {
                let change = PathValue::parse(old).change(&PathValue::parse(new));
                changes.extend(change.map(|change| format!("{path}: {change}")));
            }
            (Some((path, _)), None) => changes.push(format!("{path}: removed")),
            (None, Some((path, _))) => changes.push(format!("{path}: added")),
            (None, None) => {}
        }
    }
}
