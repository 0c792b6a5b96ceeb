//! What a record says of each path that a step took: lines in the order of a walk, on a tape.
//!
//! ```text
//! lapstrake paths 1
//! ["src/a.py","0644:0:0:file::<hex>"]
//! ```

use std::collections::BTreeMap;

use super::{
    fields::salted,
    path_value::PathValue,
    why::{Change, Of},
};
use crate::{
    store::{self, Store, Tape, TapeReader},
    tree::walk_order,
};

const HEAD: &str = "lapstrake paths 1\n";

/// The values by path, their digests salted: a file in a context may be short and secret.
#[derive(Debug, Default)]
pub struct Paths {
    tape: Tape,
    count: usize,
}

/// Paths as they are told, in any order.
#[derive(Debug)]
pub struct Telling<'a> {
    store: &'a Store,
    salt: [u8; 32],
    paths: Paths,
    last: String,
    /// All of them, as soon as one came too late: the sources of one instruction need not be in order.
    unsorted: Option<Vec<Line>>,
}

/// A path and its value.
type Line = (String, String);

impl<'a> Telling<'a> {
    /// None yet.
    pub fn new(store: &'a Store) -> Result<Self, store::Error> {
        Ok(Self { store, salt: store.salt()?, paths: Paths::new(store)?, last: String::new(), unsorted: None })
    }

    /// One more.
    pub fn tell(&mut self, path: String, value: &PathValue) -> Result<(), store::Error> {
        let part = |label: &str, value: &str| if value.is_empty() { String::new() } else { salted(&self.salt, label, value.as_bytes()) };
        // Not bound to the path: a file that only has another name is found again.
        let (attributes, digest) = (part("attributes", &value.attributes), part("content", &value.digest));
        let line = (path, PathValue { attributes, digest, ..value.clone() }.to_string());
        if let Some(unsorted) = &mut self.unsorted {
            unsorted.push(line);
            return Ok(());
        }
        if self.paths.count > 0 && walk_order(self.last.as_bytes(), line.0.as_bytes()).is_gt() {
            let mut all: Vec<Line> = self.paths.lines()?.collect::<Result<_, _>>()?;
            all.push(line);
            self.unsorted = Some(all);
            return Ok(());
        }
        self.last.clone_from(&line.0);
        self.paths.push(&line)
    }

    /// All of them, in order.
    pub fn finish(self) -> Result<Paths, store::Error> {
        let Some(mut all) = self.unsorted else { return Ok(self.paths) };
        all.sort_by(|(one, value), (other, another)| walk_order(one.as_bytes(), other.as_bytes()).then_with(|| value.cmp(another)));
        let mut paths = Paths::new(self.store)?;
        all.iter().try_for_each(|line| paths.push(line))?;
        Ok(paths)
    }
}

impl Paths {
    fn new(store: &Store) -> Result<Self, store::Error> {
        let mut tape = Tape::new(Some(store));
        tape.append(HEAD.as_bytes())?;
        Ok(Self { tape, count: 0 })
    }

    fn push(&mut self, line: &Line) -> Result<(), store::Error> {
        let mut json = serde_json::to_vec(line).map_err(garbled)?;
        json.push(b'\n');
        self.count += 1;
        self.tape.append(&json)
    }

    /// Writes them into a record. None: nothing is written.
    pub(super) fn save(&self, store: &Store, name: &str) -> Result<(), store::Error> {
        if self.count == 0 { Ok(()) } else { store.put_record_tape(name, &self.tape) }
    }

    /// Those of a record. `None`: it has none of this form.
    pub(super) fn load(store: &Store, name: &str) -> Result<Option<Self>, store::Error> {
        let Some(tape) = store.record_tape(name)? else { return Ok(None) };
        let found = Self { tape, count: 0 };
        let mut last = String::new();
        let in_order = |count, line: Result<Line, store::Error>| {
            let before = std::mem::replace(&mut last, line?.0);
            if walk_order(before.as_bytes(), last.as_bytes()).is_gt() { Err(store::garbled()) } else { Ok(count + 1) }
        };
        let lines = found.lines()?.try_fold(0, in_order);
        Ok(lines.ok().map(|count| Self { count, ..found }))
    }

    fn lines(&self) -> Result<Lines<'_>, store::Error> {
        let mut tape = self.tape.reader(0);
        let sound = tape.line()?.as_deref() == Some(HEAD.as_bytes());
        Ok(Lines { tape, sound })
    }
}

/// Lines as they are read.
struct Lines<'a> {
    tape: TapeReader<'a>,
    sound: bool,
}

impl Iterator for Lines<'_> {
    type Item = Result<Line, store::Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if !self.sound {
            self.sound = true;
            return Some(Err(store::garbled()));
        }
        let line = self.tape.line().transpose()?;
        Some(line.and_then(|json| serde_json::from_slice(&json).map_err(garbled)))
    }
}

fn garbled(_error: serde_json::Error) -> store::Error {
    store::garbled()
}

/// Walks two lists at once. What is gone and has come again under another name is renamed.
pub(super) fn changed(before: &Paths, now: &Paths) -> Result<Vec<Change>, store::Error> {
    let (mut changes, mut gone, mut come) = (Vec::new(), Vec::new(), Vec::new());
    let (mut old, mut new) = (before.lines()?, now.lines()?);
    let (mut left, mut right) = (old.next().transpose()?, new.next().transpose()?);
    loop {
        let order = match (&left, &right) {
            (None, None) => break,
            (Some(_), None) => std::cmp::Ordering::Less,
            (None, Some(_)) => std::cmp::Ordering::Greater,
            (Some((one, _)), Some((other, _))) => walk_order(one.as_bytes(), other.as_bytes()),
        };
        let was = if order.is_gt() { None } else { std::mem::replace(&mut left, old.next().transpose()?) };
        let is = if order.is_lt() { None } else { std::mem::replace(&mut right, new.next().transpose()?) };
        match (was, is) {
            (Some((path, old)), Some((_, new))) => {
                let change = if old == new { None } else { PathValue::parse(&old).change(&PathValue::parse(&new)) };
                changes.extend(change.map(|how| file(path, how)));
            }
            (Some(line), None) => gone.push(line),
            (None, Some(line)) => come.push(line),
            (None, None) => {}
        }
    }
    let mut renamed: BTreeMap<&String, Vec<&String>> = BTreeMap::new();
    for (path, value) in gone.iter().rev() {
        renamed.entry(value).or_default().push(path);
    }
    for (path, value) in &come {
        changes.push(match renamed.get_mut(value).filter(|_| !value.contains(":dir:")).and_then(Vec::pop) {
            Some(earlier) => file(format!("{earlier}→{path}"), "renamed".to_owned()),
            None => file(path.clone(), "added".to_owned()),
        });
    }
    changes.extend(renamed.into_values().flatten().map(|path| file(path.clone(), "removed".to_owned())));
    changes.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(changes)
}

fn file(name: String, how: String) -> Change {
    Change { of: Of::File, name, how }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_in_the_order_of_a_walk_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let load = |text: &[u8]| {
            store.put_record("ab-0", text).unwrap();
            Paths::load(&store, "ab-0").unwrap().map(|paths| paths.count)
        };
        let lines = |paths: &[&str]| paths.iter().fold(HEAD.to_owned(), |all, path| format!("{all}[\"{path}\",\"x\"]\n")).into_bytes();
        // Two sources may have files of one name.
        assert_eq!(load(&lines(&["a", "a/b", "a/b", "a-b"])), Some(4));
        assert_eq!(load(&lines(&["a-b", "a/b"])), None, "what is compared with it would be added and removed");
        assert_eq!(load(&lines(&["b", "a"])), None);
        let whole = lines(&["a", "b"]);
        for part in (0..whole.len()).map(|cut| &whole[..cut]).filter(|part| !part.ends_with(b"\n") && !part.ends_with(b"]")) {
            assert_eq!(load(part), None, "{}", part.escape_ascii());
        }
    }
}
