//! One directory's contents laid over a chain where nothing else is laid: the usual COPY. What it changes follows from each row
//! and the chain alone, so that it is made of the rows again whenever it is wanted, and held nowhere.

use std::{collections::BTreeMap, io, sync::Arc};

use super::{
    Error, Inode, Placement,
    draft::{Over, Put, View, view},
    place::placed,
    rows::Rows,
    selection::{Row, Taking},
};
use crate::{
    layer::{self, Change, Node},
    sys::PathError,
    tree::{Chain, Meta, TreePath},
};

/// Rows, and where they go.
#[derive(Debug)]
pub(super) struct Laid {
    chain: Chain,
    pub(super) rows: Arc<Rows>,
    /// Of the instruction's sources.
    pub(super) source: usize,
    /// A directory; nothing is pending below it.
    pub(super) at: TreePath,
    pub(super) placement: Placement,
    /// Inodes with several names.
    links: BTreeMap<Inode, Names>,
}

/// The names of one inode.
#[derive(Debug)]
struct Names {
    /// In the order of paths.
    all: Vec<TreePath>,
    /// Has the chain the same, in one layer: which?
    as_before: Option<usize>,
}

impl Laid {
    /// Looks at each row: what cannot be laid is an error now.
    pub(super) fn new(chain: &Chain, rows: &Arc<Rows>, source: usize, at: TreePath, placement: &Placement) -> Result<Self, Error> {
        let mut laid =
            Self { chain: chain.clone(), rows: Arc::clone(rows), source, at, placement: placement.clone(), links: BTreeMap::new() };
        let mut links: BTreeMap<Inode, Names> = BTreeMap::new();
        for row in rows.iter() {
            let row = row?;
            let path = laid.at.join_path(&row.path);
            if let (Some((meta, put)), Taking::File { inode: Some(inode), .. }) = (laid.put(&row, &path)?, row.node) {
                laid.name(&mut links, inode, path, &meta, &put);
            }
        }
        links.retain(|_, names| names.all.len() > 1);
        laid.links = links;
        Ok(laid)
    }

    fn name(&self, links: &mut BTreeMap<Inode, Names>, inode: Inode, path: TreePath, meta: &Meta, put: &Put) {
        let found = self.chain.look_up(&path).filter(|found| put.is_same(meta, &found.entry));
        let Some(names) = links.get_mut(&inode) else {
            let as_before = found.filter(|found| found.link.is_none()).map(|found| found.layer);
            drop(links.insert(inode, Names { all: vec![path], as_before }));
            return;
        };
        let same = found.filter(|found| names.as_before == Some(found.layer) && found.link.as_ref() == names.all.first());
        names.as_before = same.map(|found| found.layer);
        names.all.push(path);
    }

    /// What a row puts at its path.
    fn put(&self, row: &Row, path: &TreePath) -> Result<Option<(Meta, Put)>, Error> {
        let found = if self.placement.over() == Over::Chain { self.chain.look_up(path) } else { None };
        let there = found.map(|found| View { meta: found.entry.meta.clone(), kind: view(&found.entry.kind) });
        placed(row, path, &self.placement, there, None)
    }

    /// What a row changes.
    fn change(&self, row: &Row, path: &TreePath) -> Result<Option<Change>, Error> {
        let Some((meta, put)) = self.put(row, path)? else { return Ok(None) };
        let names = if let Taking::File { inode: Some(inode), .. } = &row.node { self.links.get(inode) } else { None };
        let node = match names.and_then(|names| names.all.first().map(|first| (names, first))) {
            Some((names, _)) if names.as_before.is_some() => return Ok(None),
            Some((_, first)) if first != path => Node::HardLink(first.clone()),
            Some(_) => put.node(),
            None => {
                let found = self.chain.look_up(path);
                if found.is_some_and(|found| found.link.is_none() && put.is_same(&meta, &found.entry)) {
                    return Ok(None);
                }
                put.node()
            }
        };
        Ok(Some(Change::Put(meta, node)))
    }

    /// Hands on each change, in the order of paths; none is a whiteout.
    pub(super) fn each(&self, take: &mut dyn FnMut(&TreePath, &Change) -> Result<(), layer::Error>) -> Result<(), layer::Error> {
        for row in self.rows.iter() {
            let row = row.map_err(unreadable)?;
            let path = self.at.join_path(&row.path);
            if let Some(change) = self.change(&row, &path).map_err(unreadable)? {
                take(&path, &change)?;
            }
        }
        Ok(())
    }
}

/// The disk did not give back what was laid.
fn unreadable(error: Error) -> layer::Error {
    match error {
        Error::Path(error) => error.into(),
        Error::Store(error) => error.into(),
        Error::Layer(error) => error,
        other @ (Error::Missing(_)
        | Error::Refused { .. }
        | Error::Unresolved(_)
        | Error::NeedsTrees { .. }
        | Error::Name(_)
        | Error::Pattern(_)
        | Error::Context(_)
        | Error::Account(_)) => PathError::new("read", "a temporary file")(io::Error::other(other)).into(),
    }
}
