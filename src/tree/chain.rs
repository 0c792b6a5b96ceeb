//! Several layers as one tree, by overlayfs's rules: the highest layer that says something of a path wins; a whiteout,
//! something that is no directory, or an opaque directory ends the search for all that is below it.
//!
//! Source: image-spec `layer.md` (whiteouts); the kernel's `overlayfs.rst`; `path_resolution(7)`.

use std::{collections::BTreeMap, sync::Arc};

use super::{Entry, Index, Kind, Row, TreePath, path::dirs_above};

/// The kernel allows 40; Go's `EvalSymlinks`, which image builders use, 255.
const MAX_LINKS: usize = 255;

/// The indexes of an image's layers, base first.
#[derive(Debug, Clone, Default)]
pub struct Chain {
    layers: Vec<Arc<Index>>,
}

/// A path of the merged tree.
#[derive(Debug, Clone)]
pub struct Found {
    /// The layer that holds it, counted from the base.
    pub layer: usize,
    /// What it is.
    pub entry: Entry,
    /// The first name of its inode within that layer, if it is not itself.
    pub link: Option<TreePath>,
}

/// Why a path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// More than 255 links were followed.
    #[error("too many levels of symbolic links at `{0}`")]
    Loop(TreePath),
    /// A component in the middle is neither a directory nor a link to one.
    #[error("`{0}` is not a directory")]
    NotADirectory(TreePath),
    /// A link's target cannot be a path.
    #[error("the symbolic link `{0}` has a target that is no path")]
    BadTarget(TreePath),
}

/// What one layer says of a path that it has no row for.
enum Above {
    /// Nothing: ask the layer beneath.
    Open,
    /// A directory above it is gone, opaque or no directory: there is nothing.
    Closed,
}

impl Chain {
    /// No layer: an empty root.
    pub fn new(layers: Vec<Arc<Index>>) -> Self {
        Self { layers }
    }

    /// This chain with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: Arc<Index>) -> Self {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Self { layers }
    }

    /// The layers, base first.
    pub fn layers(&self) -> &[Arc<Index>] {
        &self.layers
    }

    /// What the merged tree has at a path, no link followed. The root is always there when asked for by
    /// [`Chain::resolve`], but has an entry only if a layer gives it one.
    pub fn look_up(&self, path: &TreePath) -> Option<Found> {
        for (layer, index) in self.layers.iter().enumerate().rev() {
            match index.row(path) {
                Some(Row::Put { entry, link, .. }) => return Some(Found { layer, entry, link }),
                Some(Row::Whiteout) => return None,
                None => {}
            }
            if matches!(above(index, path), Above::Closed) {
                return None;
            }
        }
        None
    }

    /// The names in a directory of the merged tree, sorted. Empty for what is no directory.
    pub fn names(&self, dir: &TreePath) -> Vec<Vec<u8>> {
        let mut decided: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
        for index in self.layers.iter().rev() {
            let row = index.row(dir);
            if matches!(row, Some(Row::Whiteout)) || matches!(&row, Some(Row::Put { entry, .. }) if entry.kind != Kind::Dir) {
                break;
            }
            for (child, row) in index.children(dir) {
                let _was = decided.entry(child.name().to_vec()).or_insert(matches!(row, Row::Put { .. }));
            }
            if matches!(row, Some(Row::Put { opaque: true, .. })) || matches!(above(index, dir), Above::Closed) {
                break;
            }
        }
        decided.into_iter().filter(|(_, there)| *there).map(|(name, _)| name).collect()
    }

    /// The path with every link in its directories followed inside the root, and the last component's too if
    /// `follow_last`. What does not exist is taken as it is written.
    pub fn resolve(&self, path: &TreePath, follow_last: bool) -> Result<TreePath, Unresolved> {
        resolve_with(path, follow_last, |at| match self.look_up(at)?.entry.kind {
            Kind::Dir => Some(Step::Dir),
            Kind::Symlink { target } => Some(Step::Link(target)),
            Kind::File { .. } | Kind::Char { .. } | Kind::Block { .. } | Kind::Fifo => Some(Step::Other),
        })
    }

    /// The bytes of a kept file (`etc/passwd`, `etc/group`) of the merged tree, links followed. `None`: it is not there, or not regular.
    pub fn kept(&self, path: &TreePath) -> Option<Arc<[u8]>> {
        let path = self.resolve(path, true).ok()?;
        let found = self.look_up(&path)?;
        let index = self.layers.get(found.layer)?;
        index.kept(&path).or_else(|| index.kept(&found.link?)).cloned()
    }
}

/// What a path is to somebody who walks along it.
pub(crate) enum Step {
    /// A directory.
    Dir,
    /// A symbolic link with this target.
    Link(Vec<u8>),
    /// Anything else.
    Other,
}

/// [`Chain::resolve`] over any tree that can say what a path is; `None` is what does not exist.
pub(crate) fn resolve_with(path: &TreePath, follow_last: bool, look: impl Fn(&TreePath) -> Option<Step>) -> Result<TreePath, Unresolved> {
    let mut at = TreePath::root();
    let mut ahead: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == b".." {
            at = at.parent().unwrap_or_default();
            continue;
        }
        let next = at.join(&part).map_err(|_bad| Unresolved::BadTarget(at.clone()))?;
        if ahead.is_empty() && !follow_last {
            return Ok(next);
        }
        match look(&next) {
            Some(Step::Link(target)) => {
                links += 1;
                if links > MAX_LINKS {
                    return Err(Unresolved::Loop(path.clone()));
                }
                if target.is_empty() || target.contains(&0) {
                    return Err(Unresolved::BadTarget(next));
                }
                if target.starts_with(b"/") {
                    at = TreePath::root();
                }
                ahead.extend(target.split(|byte| *byte == b'/').rev().filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec));
            }
            Some(Step::Other) if !ahead.is_empty() => return Err(Unresolved::NotADirectory(next)),
            Some(Step::Other | Step::Dir) | None => at = next,
        }
    }
    Ok(at)
}

/// What a layer says of the directories above a path, the root included.
fn above(index: &Index, path: &TreePath) -> Above {
    for dir in dirs_above(path.as_bytes()) {
        match index.row_at(dir) {
            None => {}
            Some(Row::Put { entry, opaque: false, .. }) if entry.kind == Kind::Dir => {}
            Some(Row::Put { .. } | Row::Whiteout) => return Above::Closed,
        }
    }
    Above::Open
}

#[cfg(test)]
mod tests {
    use super::super::{ContentDigest, IndexBuilder, Meta, Xattrs};
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn row(kind: Kind) -> Row {
        let meta = Meta { mode: 0o755, uid: 0, gid: 0, mtime: 0, xattrs: Xattrs::new() };
        Row::Put { entry: Entry { meta, kind }, link: None, opaque: false }
    }

    fn file() -> Row {
        row(Kind::File { size: 1, content: ContentDigest::of(b"x") })
    }

    fn link(target: &str) -> Row {
        row(Kind::Symlink { target: target.into() })
    }

    fn opaque() -> Row {
        match row(Kind::Dir) {
            Row::Put { entry, link, .. } => Row::Put { entry, link, opaque: true },
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

    fn names(chain: &Chain, dir: &str) -> Vec<String> {
        chain.names(&path(dir)).into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
    }

    #[test]
    fn a_whiteout_hides_what_lower_layers_have() {
        let base = layer(vec![("a", row(Kind::Dir)), ("a/x", file()), ("a/y", file()), ("b", file())]);
        let top = layer(vec![("a", Row::Whiteout)]);
        let chain = Chain::new(vec![base, top]);
        assert!(chain.look_up(&path("a")).is_none());
        assert!(chain.look_up(&path("a/x")).is_none());
        assert_eq!(names(&chain, ""), ["b"]);
        assert!(names(&chain, "a").is_empty());
    }

    #[test]
    fn an_opaque_directory_hides_what_is_below_it_but_not_its_own_entries() {
        let base = layer(vec![("a", row(Kind::Dir)), ("a/x", file()), ("a/d", row(Kind::Dir)), ("a/d/z", file())]);
        let top = layer(vec![("a", opaque()), ("a/d", row(Kind::Dir)), ("a/new", file())]);
        let chain = Chain::new(vec![base, top]);
        assert!(chain.look_up(&path("a/x")).is_none());
        assert!(chain.look_up(&path("a/d/z")).is_none());
        assert_eq!(chain.look_up(&path("a/new")).unwrap().layer, 1);
        assert_eq!(names(&chain, "a"), ["d", "new"]);
        assert!(names(&chain, "a/d").is_empty());
    }

    #[test]
    fn a_directory_that_was_a_file_in_between_does_not_show_its_old_entries() {
        let base = layer(vec![("a", row(Kind::Dir)), ("a/x", file())]);
        let chain = Chain::new(vec![base, layer(vec![("a", file())]), layer(vec![("a", row(Kind::Dir)), ("a/y", file())])]);
        assert!(chain.look_up(&path("a/x")).is_none());
        assert_eq!(names(&chain, "a"), ["y"]);
        assert_eq!(names(&chain, ""), ["a"]);
    }

    #[test]
    fn a_whiteout_then_a_new_entry_shows_the_new_one() {
        let base = layer(vec![("a", row(Kind::Dir)), ("a/x", file())]);
        let chain = Chain::new(vec![base, layer(vec![("a", Row::Whiteout)]), layer(vec![("a", row(Kind::Dir))])]);
        assert!(chain.look_up(&path("a")).is_some());
        assert!(chain.look_up(&path("a/x")).is_none());
        assert!(names(&chain, "a").is_empty());
    }

    #[test]
    fn siblings_that_share_a_prefix_are_not_mistaken_for_children() {
        let chain = Chain::new(vec![layer(vec![
            ("a", row(Kind::Dir)),
            ("a/b", row(Kind::Dir)),
            ("a/b/c", file()),
            ("a-b", file()),
            ("a.b", file()),
            ("ab", row(Kind::Dir)),
            ("ab/z", file()),
        ])]);
        assert_eq!(names(&chain, ""), ["a", "a-b", "a.b", "ab"]);
        assert_eq!(names(&chain, "a"), ["b"]);
        assert_eq!(names(&chain, "ab"), ["z"]);
    }

    #[test]
    fn links_are_followed_inside_the_root_and_stop_at_it() {
        let chain = Chain::new(vec![
            layer(vec![("usr", row(Kind::Dir)), ("usr/bin", row(Kind::Dir)), ("bin", link("usr/bin"))]),
            layer(vec![("usr", row(Kind::Dir)), ("usr/up", link("../../../etc//./x")), ("abs", link("/bin/sh")), ("last", link("usr"))]),
        ]);
        let resolve = |text: &str, last| chain.resolve(&path(text), last).unwrap();
        assert_eq!(resolve("bin/foo", false), path("usr/bin/foo"));
        assert_eq!(resolve("usr/up/y", false), path("etc/x/y"));
        assert_eq!(resolve("abs", true), path("usr/bin/sh"));
        assert_eq!(resolve("last", false), path("last"));
        assert_eq!(resolve("last", true), path("usr"));
        assert_eq!(resolve("", true), TreePath::root());
    }

    #[test]
    fn loops_files_in_the_middle_and_bad_targets_are_refused() {
        let chain = Chain::new(vec![layer(vec![("e", link("e")), ("a", link("b")), ("b", link("a")), ("f", file()), ("n", link("x\0y"))])]);
        assert_eq!(chain.resolve(&path("e"), true), Err(Unresolved::Loop(path("e"))));
        assert_eq!(chain.resolve(&path("a/x"), false), Err(Unresolved::Loop(path("a/x"))));
        assert_eq!(chain.resolve(&path("f/x"), false), Err(Unresolved::NotADirectory(path("f"))));
        assert_eq!(chain.resolve(&path("n"), true), Err(Unresolved::BadTarget(path("n"))));
        assert_eq!(chain.resolve(&path("n"), false), Ok(path("n")));
    }

    #[test]
    fn a_kept_file_is_found_through_links_and_only_if_it_is_the_top_one() {
        let mut builder = IndexBuilder::default();
        builder.put(path("etc"), row(Kind::Dir));
        builder.put(path("etc/passwd"), file());
        builder.keep(path("etc/passwd"), Arc::from(&b"x"[..]));
        let base = Arc::new(builder.finish());
        let chain = Chain::new(vec![base, layer(vec![("l", link("/etc"))])]);
        assert_eq!(chain.kept(&path("l/passwd")).as_deref(), Some(&b"x"[..]));
        let gone = chain.with(layer(vec![("etc", row(Kind::Dir)), ("etc/passwd", Row::Whiteout)]));
        assert_eq!(gone.kept(&path("etc/passwd")), None);
        let dir = chain.with(layer(vec![("etc", row(Kind::Dir)), ("etc/passwd", row(Kind::Dir))]));
        assert_eq!(dir.kept(&path("etc/passwd")), None);
    }

    /// Two layers of random rows against a tree that is laid down naively.
    mod model {
        use std::collections::BTreeSet;

        use proptest::prelude::*;

        use super::*;

        const PATHS: [&str; 7] = ["a", "a/b", "a/b/c", "a/d", "e", "e/f", "e/f/g"];

        fn rows() -> impl Strategy<Value = Vec<Option<u8>>> {
            proptest::collection::vec(proptest::option::of(0_u8..4), PATHS.len())
        }

        /// Rows as a layer may have them: below a directory of the same layer only.
        fn sound(choice: &[Option<u8>]) -> Vec<(&'static str, Row)> {
            let mut all: Vec<(&'static str, Row)> = Vec::new();
            for (name, pick) in PATHS.iter().zip(choice) {
                let parent = path(name).parent().unwrap();
                let placed = parent.is_root()
                    || all
                        .iter()
                        .any(|(have, row)| path(have) == parent && matches!(row, Row::Put { entry, .. } if entry.kind == Kind::Dir));
                match pick {
                    Some(kind) if placed => {
                        all.push((
                            name,
                            match kind {
                                0 => file(),
                                1 => Row::Whiteout,
                                2 => opaque(),
                                _ => row(Kind::Dir),
                            },
                        ));
                    }
                    Some(_) | None => {}
                }
            }
            all
        }

        fn lay_down(tree: &mut BTreeMap<TreePath, bool>, rows: &[(&str, Row)]) {
            let before = tree.clone();
            for (name, row) in rows {
                let at = path(name);
                let dir = matches!(row, Row::Put { entry, .. } if entry.kind == Kind::Dir);
                let plain = matches!(row, Row::Put { opaque: false, .. });
                if !(dir && plain && before.get(&at) == Some(&true)) {
                    tree.retain(|have, _| !have.is_within(&at));
                }
                if matches!(row, Row::Put { .. }) {
                    let _was = tree.insert(at, dir);
                }
            }
        }

        proptest! {
            #[test]
            fn a_chain_shows_what_laying_down_its_layers_gives(picks in proptest::collection::vec(rows(), 1..5)) {
                let mut tree = BTreeMap::new();
                let mut chain = Chain::default();
                for pick in &picks {
                    let rows = sound(pick);
                    lay_down(&mut tree, &rows);
                    chain = chain.with(layer(rows));
                }
                for name in PATHS {
                    let found = chain.look_up(&path(name)).map(|found| found.entry.kind == Kind::Dir);
                    prop_assert_eq!(found, tree.get(&path(name)).copied(), "{}", name);
                    let have: BTreeSet<Vec<u8>> = chain.names(&path(name)).into_iter().collect();
                    let want: BTreeSet<Vec<u8>> = tree.keys().filter(|at| at.parent() == Some(path(name))).map(|at| at.name().to_vec()).collect();
                    prop_assert_eq!(have, want, "{}", name);
                }
            }
        }
    }
}
