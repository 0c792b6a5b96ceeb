//! Why a step missed: what is different from the nearest earlier record of its instruction.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    BELOW, FILES,
    path_value::PathValue,
    record::{Record, Subject, last_keys, lists, load, salted_paths},
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
pub fn explain(store: &Store, subject: &Subject<'_>) -> Result<Why, store::Error> {
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
    let before: Option<Vec<(String, String)>> = load(store, &format!("{earlier}-0"))?;
    let files = before.map(|before| changed_paths(&before, &salted_paths(&salt, subject.paths))).unwrap_or_default();
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

/// Walks two sorted lists of paths at once. What is gone and has come again under another name is renamed.
fn changed_paths(before: &[(String, String)], now: &[(String, String)]) -> Vec<Change> {
    let (mut changes, mut gone, mut come) = (Vec::new(), Vec::new(), Vec::new());
    let (mut old, mut new) = (before.iter().peekable(), now.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let left = if order == Ordering::Greater { None } else { old.next() };
        let right = if order == Ordering::Less { None } else { new.next() };
        match (left, right) {
            (Some((path, old)), Some((_, new))) => {
                let change = PathValue::parse(old).change(&PathValue::parse(new));
                changes.extend(change.map(|how| file(path.clone(), how)));
            }
            (Some(left), None) => gone.push(left),
            (None, Some(right)) => come.push(right),
            (None, None) => {}
        }
    }
    let mut renamed: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
    for (path, value) in gone.iter().rev() {
        renamed.entry(value).or_default().push(path);
    }
    for (path, value) in come {
        changes.push(match renamed.get_mut(value).filter(|_| !value.contains(":dir:")).and_then(Vec::pop) {
            Some(earlier) => file(format!("{earlier}→{path}"), "renamed".to_owned()),
            None => file(path.clone(), "added".to_owned()),
        });
    }
    let left = renamed.into_values().flatten().map(|path| file(path.clone(), "removed".to_owned()));
    changes.extend(left);
    changes.sort_by(|one, other| one.name.cmp(&other.name));
    changes
}

fn file(name: String, how: String) -> Change {
    Change { of: Of::File, name, how }
}
