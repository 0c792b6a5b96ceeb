//! What a build learnt of files, on its way into the record: the latest in memory, the rest in sorted runs on tapes.

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
    recent: BTreeMap<TreePath, Known>,
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
        if self.recent.len() >= RECENT
            && let Ok(run) = Run::of(&self.store, &std::mem::take(&mut self.recent))
        {
            self.runs.push(run);
        }
    }

    /// Hands on all of them, in the order of paths: what a row says behind its path.
    pub(super) fn each(&self, mut take: impl FnMut(&[u8], &[u8]) -> Result<(), store::Error>) -> Result<(), store::Error> {
        let mut recent = Vec::new();
        if !self.recent.is_empty() {
            recent.push(Run::of(&self.store, &self.recent)?);
        }
        let mut readers: Vec<(TapeReader<'_>, usize)> =
            self.runs.iter().chain(&recent).map(|run| (run.tape.reader(0), run.count)).collect();
        let mut heap = BinaryHeap::new();
        let mut next = |number: usize| -> Result<Option<Next>, store::Error> {
            let Some((reader, left)) = readers.get_mut(number).filter(|(_, left)| *left > 0) else { return Ok(None) };
            *left -= 1;
            let row = reader.framed()?;
            Ok(Some(Reverse((path_of(&row)?, Reverse(number), row))))
        };
        for number in 0..self.runs.len() + recent.len() {
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
    fn of(store: &Store, rows: &BTreeMap<TreePath, Known>) -> Result<Self, store::Error> {
        let last = rows.last_key_value().map(|(path, _)| path.clone()).unwrap_or_default();
        let mut run = Self { tape: Tape::new(Some(store)), count: rows.len(), places: Vec::new(), last };
        let (mut row, mut out) = (Vec::new(), Vec::new());
        for (number, (path, known)) in rows.iter().enumerate() {
            if number % STEP == 0 {
                run.places.push((path.clone(), run.tape.len()));
            }
            row.clear();
            out.clear();
            put_row(&mut row, path, known);
            framed(&mut out, &row);
            run.tape.append(&out)?;
        }
        run.tape.settle()?;
        Ok(run)
    }

    fn find(&self, path: &TreePath) -> Result<Option<Known>, store::Error> {
        // A walk asks for each file, and all runs but one or two lie elsewhere: those are not searched.
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
