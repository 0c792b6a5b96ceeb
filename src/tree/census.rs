//! What layers add, change, delete and waste: counted from their indexes.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Bound,
    sync::Arc,
};

use super::{Entry, Index, Kind, Meta, Row, TreePath, path::dirs_above};

/// How many paths of the tree below a layer makes different: files, directories, links and others alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Changed {
    /// That were not there.
    pub added: u64,
    /// That were there. A directory whose time alone is another one is the same.
    pub changed: u64,
    /// That are not there any more, with what was below them.
    pub deleted: u64,
}

/// The paths of a tree, while layers are laid one on the other.
#[derive(Debug, Clone, Default)]
pub struct Census {
    /// With what a directory has; other things differ whenever they are there anew.
    visible: BTreeMap<TreePath, Option<Box<Meta>>>,
}

impl Census {
    /// Lays a layer on top.
    pub fn lay(&mut self, index: &Index) -> Changed {
        let mut gone = BTreeSet::new();
        // A layer hides what is below it, never what is its own: so first all that it hides.
        for (path, row) in index.rows() {
            match row {
                Row::Whiteout => {
                    gone.extend(self.visible.remove(&path).is_some().then(|| path.clone()));
                    self.close(&path, &mut gone);
                }
                Row::Put { entry, opaque, .. } if opaque || entry.kind != Kind::Dir => self.close(&path, &mut gone),
                Row::Put { .. } => {}
            }
        }
        let mut counted = Changed::default();
        for (path, row) in index.rows() {
            let Row::Put { entry, .. } = row else { continue };
            let removed = gone.remove(&path);
            let dir = (entry.kind == Kind::Dir).then(|| Box::new(entry.meta));
            let now = dir.clone();
            match self.visible.insert(path, dir) {
                Some(before) if is_same_dir(before.as_deref(), now.as_deref()) => {}
                Some(_) => counted.changed += 1,
                None if removed => counted.changed += 1,
                None => counted.added += 1,
            }
        }
        counted.deleted = count(gone.len());
        counted
    }

    /// All that is below a path goes.
    fn close(&mut self, path: &TreePath, gone: &mut BTreeSet<TreePath>) {
        let below = (Bound::Excluded(path), Bound::Unbounded);
        let all: Vec<TreePath> =
            self.visible.range::<TreePath, _>(below).map(|(have, _)| have.clone()).take_while(|have| have.is_within(path)).collect();
        for each in all {
            drop(self.visible.remove(&each));
            let _new: bool = gone.insert(each);
        }
    }
}

/// Layers repeat the directories above what they change.
fn is_same_dir(before: Option<&Meta>, now: Option<&Meta>) -> bool {
    before
        .zip(now)
        .is_some_and(|(one, other)| (one.mode, one.uid, one.gid, &one.xattrs) == (other.mode, other.uid, other.gid, &other.xattrs))
}

/// The bytes of a layer's files, each once, whatever the number of its names.
pub fn contents(index: &Index) -> u64 {
    index.rows().filter_map(|(_, row)| own_bytes(&row)).sum()
}

fn own_bytes(row: &Row) -> Option<u64> {
    match row {
        Row::Put { entry: Entry { kind: Kind::File { size, .. }, .. }, link: None, .. } => Some(*size),
        Row::Put { .. } | Row::Whiteout => None,
    }
}

/// For each layer, base first, how many of its [`contents`] nobody sees in the end, because layers above replace or delete
/// all names of the file.
pub fn wasted(layers: &[Arc<Index>]) -> Vec<u64> {
    // What higher layers say: does it hide what is below the path too?
    let mut above: HashMap<Vec<u8>, bool> = HashMap::new();
    let mut all = Vec::new();
    let mut higher: Option<&Index> = None;
    for index in layers.iter().rev() {
        // All layers but the base, which is often the largest.
        for (path, row) in higher.into_iter().flat_map(Index::rows) {
            let closes = !matches!(row, Row::Put { entry, opaque: false, .. } if entry.kind == Kind::Dir);
            *above.entry(path.as_bytes().to_vec()).or_default() |= closes;
        }
        higher = Some(index);
        let mut seen: BTreeSet<TreePath> = BTreeSet::new();
        for (path, row) in index.rows() {
            let Row::Put { entry: Entry { kind: Kind::File { .. }, .. }, link, .. } = row else { continue };
            if !is_hidden(&above, path.as_bytes()) {
                let _new: bool = seen.insert(link.unwrap_or(path));
            }
        }
        all.push(index.rows().filter(|(path, _)| !seen.contains(path)).filter_map(|(_, row)| own_bytes(&row)).sum());
    }
    all.reverse();
    all
}

fn is_hidden(above: &HashMap<Vec<u8>, bool>, path: &[u8]) -> bool {
    above.contains_key(path) || dirs_above(path).any(|dir| above.get(dir) == Some(&true))
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::{ContentDigest, IndexBuilder, Meta, Xattrs};
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn put(kind: Kind) -> Row {
        let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
        Row::Put { entry: Entry { meta, kind }, link: None, opaque: false }
    }

    fn dir() -> Row {
        put(Kind::Dir)
    }

    fn opaque() -> Row {
        match dir() {
            Row::Put { entry, link, .. } => Row::Put { entry, link, opaque: true },
            Row::Whiteout => Row::Whiteout,
        }
    }

    fn file(size: u64) -> Row {
        put(Kind::File { size, content: ContentDigest::of(b"x") })
    }

    fn name_of(first: &str, size: u64) -> Row {
        match file(size) {
            Row::Put { entry, opaque, .. } => Row::Put { entry, link: Some(path(first)), opaque },
            Row::Whiteout => Row::Whiteout,
        }
    }

    fn layer(rows: Vec<(&str, Row)>) -> Arc<Index> {
        let mut builder = IndexBuilder::default();
        for (name, row) in rows {
            builder.put(path(name), row);
        }
        Arc::new(builder.finish())
    }

    fn counted(layers: &[Arc<Index>]) -> Vec<(u64, u64, u64)> {
        let mut census = Census::default();
        layers.iter().map(|index| census.lay(index)).map(|Changed { added, changed, deleted }| (added, changed, deleted)).collect()
    }

    #[test]
    fn what_is_below_a_whiteout_is_deleted_with_it() {
        let base = layer(vec![("a", dir()), ("a/x", file(1)), ("a/y", file(2)), ("ab", file(4))]);
        let top = layer(vec![("a", Row::Whiteout), ("none", Row::Whiteout)]);
        let layers = [base, top];
        assert_eq!(counted(&layers), [(4, 0, 0), (0, 0, 3)]);
        assert_eq!(wasted(&layers), [3, 0]);
    }

    #[test]
    fn an_opaque_directory_deletes_what_it_does_not_have_again() {
        let base = layer(vec![("a", dir()), ("a/x", file(1)), ("a/y", file(2)), ("a/d", dir()), ("a/d/z", file(4))]);
        let top = layer(vec![("a", opaque()), ("a/x", file(8)), ("a/new", file(16))]);
        let layers = [base, top];
        assert_eq!(counted(&layers), [(5, 0, 0), (1, 1, 3)]);
        assert_eq!(wasted(&layers), [7, 0]);
    }

    #[test]
    fn a_file_in_the_place_of_a_directory_hides_all_below_it_and_a_directory_nothing() {
        let base = layer(vec![("a", dir()), ("a/x", file(1)), ("b", dir()), ("b/x", file(2))]);
        let top = layer(vec![("a", file(4)), ("b", dir()), ("b/y", file(8))]);
        let layers = [base, top];
        assert_eq!(counted(&layers), [(4, 0, 0), (1, 1, 1)]);
        assert_eq!(wasted(&layers), [1, 0]);
    }

    #[test]
    fn bytes_with_two_names_are_wasted_when_both_are_gone() {
        let base = layer(vec![("a", file(5)), ("b", name_of("a", 5))]);
        assert_eq!(contents(&base), 5);
        let one = layer(vec![("a", Row::Whiteout)]);
        let both = layer(vec![("a", Row::Whiteout), ("b", file(1))]);
        assert_eq!(wasted(&[Arc::clone(&base), one]), [0, 0]);
        assert_eq!(wasted(&[base, both]), [5, 0]);
    }

    #[test]
    fn a_path_that_comes_back_is_wasted_each_time() {
        let (first, gone, again) = (layer(vec![("a", file(3))]), layer(vec![("a", Row::Whiteout)]), layer(vec![("a", file(7))]));
        let layers = [first, gone, again];
        assert_eq!(counted(&layers), [(1, 0, 0), (0, 0, 1), (1, 0, 0)]);
        assert_eq!(wasted(&layers), [3, 0, 0]);
    }
}
