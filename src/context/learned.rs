//! What a build learnt of files, on its way into the record: the latest in memory, the rest in sorted runs on tapes. What is
//! learnt in the order of a walk is one run, whatever its length: to find a file costs its logarithm.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::stats::{Fields, Known, put_row};
use crate::{
    store::{self, Store, Tape, TapeReader, framed},
    tree::TreePath,
};

/// So many are in memory.
const RECENT: usize = 16 * 1024;
/// So many rows lie between two whose place is known.
const STEP: usize = 32;

/// Files by path; what was learnt later counts.
#[derive(Debug)]
pub(super) struct Learned {
    store: Store,
    recent: Rows,
    runs: Vec<Run>,
}

/// Files in the order of paths, each row framed.
#[derive(Debug)]
struct Run {
    tape: Tape,
    count: usize,
    /// The path of each thirty-second row, and where that row is.
    places: Vec<(TreePath, u64)>,
    last: TreePath,
}

/// The latest, on their way to a tape.
type Rows = BTreeMap<TreePath, Known>;

/// The next row of a run: by path, and of equal paths that of the latest run first.
type Next = Reverse<(TreePath, Reverse<usize>, Vec<u8>)>;

impl Learned {
    pub(super) fn new(store: &Store) -> Self {
        Self { store: store.clone(), recent: BTreeMap::new(), runs: Vec::new() }
    }

    pub(super) fn clear(&mut self) {
        *self = Self::new(&self.store);
    }

    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.runs.iter().map(|run| run.count).sum::<usize>()
    }

    pub(super) fn find(&self, path: &TreePath) -> Option<Known> {
        // A run that cannot be read is one that was never made: the file is read again.
        let older = || self.runs.iter().rev().find_map(|run| run.find(path).ok().flatten());
        self.recent.get(path).cloned().or_else(older)
    }

    /// That a tape cannot be written costs reading the files again.
    pub(super) fn put(&mut self, path: TreePath, known: Known) {
        drop(self.recent.insert(path, known));
        if self.recent.len() < RECENT {
            return;
        }
        let recent = std::mem::take(&mut self.recent);
        // Only the latest run: of what is learnt twice that of the later run counts.
        let follows = |run: &mut Run| recent.first_key_value().is_some_and(|(first, _)| run.last < *first);
        let mut run = self.runs.pop_if(follows).unwrap_or_else(|| Run::new(&self.store));
        if run.extend(&recent).is_ok() {
            self.runs.push(run);
        }
    }

    /// Hands on all of them, in the order of paths: what a row says behind its path.
    pub(super) fn each(&self, mut take: impl FnMut(&[u8], &[u8]) -> Result<(), store::Error>) -> Result<(), store::Error> {
        let mut recent = Run::new(&self.store);
        recent.extend(&self.recent)?;
        let mut readers: Vec<(TapeReader<'_>, usize)> =
            self.runs.iter().chain([&recent]).map(|run| (run.tape.reader(0), run.count)).collect();
        let mut heap = BinaryHeap::new();
        let mut next = |number: usize| -> Result<Option<Next>, store::Error> {
            let Some((reader, left)) = readers.get_mut(number).filter(|(_, left)| *left > 0) else { return Ok(None) };
            *left -= 1;
            let row = reader.framed()?;
            Ok(Some(Reverse((path_of(&row)?, Reverse(number), row))))
        };
        for number in 0..=self.runs.len() {
            heap.extend(next(number)?);
        }
        let mut last: Option<TreePath> = None;
        while let Some(Reverse((path, Reverse(number), row))) = heap.pop() {
            heap.extend(next(number)?);
            // Of equal paths that of the latest run comes first.
            if last.as_ref() != Some(&path) {
                let mut fields = Fields(&row);
                let _path = fields.framed();
                take(path.as_bytes(), fields.0)?;
                last = Some(path);
            }
        }
        Ok(())
    }
}

impl Run {
    /// An empty one.
    fn new(store: &Store) -> Self {
        Self { tape: Tape::new(Some(store)), count: 0, places: Vec::new(), last: TreePath::default() }
    }

    /// Puts rows behind the last. After an error it is of no use.
    fn extend(&mut self, rows: &Rows) -> Result<(), store::Error> {
        let (mut row, mut out) = (Vec::new(), Vec::new());
        for (path, known) in rows {
            if self.count.is_multiple_of(STEP) {
                self.places.push((path.clone(), self.tape.len()));
            }
            row.clear();
            out.clear();
            put_row(&mut row, path, known);
            framed(&mut out, &row);
            self.tape.append(&out)?;
            self.count += 1;
        }
        self.tape.settle()?;
        self.last = rows.last_key_value().map(|(path, _)| path.clone()).unwrap_or_default();
        Ok(())
    }

    fn find(&self, path: &TreePath) -> Result<Option<Known>, store::Error> {
        // A walk asks for each file, and most lie elsewhere: those are not searched for.
        if *path > self.last || self.places.first().is_none_or(|(first, _)| path < first) {
            return Ok(None);
        }
        let after = self.places.partition_point(|(first, _)| first <= path);
        let Some((_, at)) = after.checked_sub(1).and_then(|number| self.places.get(number)) else { return Ok(None) };
        let mut from = self.tape.reader(*at);
        for _ in 0..STEP {
            if from.is_at_end() {
                break;
            }
            let row = from.framed()?;
            let mut fields = Fields(&row);
            match fields.framed() {
                Some(have) if have == path.as_bytes() => return Ok(fields.known()),
                Some(_) => {}
                None => return Err(store::garbled()),
            }
        }
        Ok(None)
    }
}

fn path_of(row: &[u8]) -> Result<TreePath, store::Error> {
    Fields(row).framed().and_then(|path| TreePath::parse(path).ok()).ok_or_else(store::garbled)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    /// Of a file of this size.
    fn known(size: u64) -> Known {
        let row = [[0; 8], size.to_le_bytes(), [0; 8]].concat();
        Fields(&[row, vec![0; 52]].concat()).known().unwrap()
    }

    fn path(number: u64) -> TreePath {
        TreePath::parse(format!("d{:03}/f{:03}", number / 1000, number % 1000).as_bytes()).unwrap()
    }

    const MANY: u64 = 5 * RECENT as u64 + 7;

    fn finds_all(all: &Learned) {
        for number in (0..MANY).step_by(97) {
            assert_eq!(all.find(&path(number)), Some(known(number)), "{number}");
        }
        let mut count = 0;
        all.each(|have, _| {
            assert_eq!(have, path(count).as_bytes());
            count += 1;
            Ok(())
        })
        .unwrap();
        assert_eq!(count, MANY);
    }

    #[test]
    fn what_is_learnt_in_the_order_of_a_walk_is_one_run_however_many_files_it_is() {
        let (_dir, store) = store();
        let mut all = Learned::new(&store);
        (0..MANY).for_each(|number| all.put(path(number), known(number)));
        assert_eq!(all.runs.len(), 1);
        finds_all(&all);
    }

    #[test]
    fn a_second_walk_over_files_before_the_first_is_a_run_of_its_own_and_goes_on_as_one() {
        let (_dir, store) = store();
        let mut all = Learned::new(&store);
        let middle = 3 * RECENT as u64;
        (middle..MANY).chain(0..middle).for_each(|number| all.put(path(number), known(number)));
        // What was in memory when the first ended went with the second's.
        assert!((2..=3).contains(&all.runs.len()), "{}", all.runs.len());
        finds_all(&all);
    }

    #[test]
    fn what_is_learnt_again_counts_though_the_run_before_went_on() {
        let (_dir, store) = store();
        let mut all = Learned::new(&store);
        (0..MANY).for_each(|number| all.put(path(number), known(number + 1)));
        (0..MANY).for_each(|number| all.put(path(number), known(number)));
        finds_all(&all);
    }
}
