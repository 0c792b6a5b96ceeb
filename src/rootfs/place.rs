//! Laying a selection over a draft: which path each entry lands at, what happens to what is there, owners and modes.
//!
//! - a directory's contents go into the destination; something else goes to it, or into it if it is a directory
//! - the destination's links are followed inside the tree (`--link`: they are not); names inside a copied directory are not
//! - a directory that was there keeps its metadata at the top and gets the source's below it; nothing else may become a
//!   directory or stop being one; any other thing is replaced, not written through
//! - what is made on the way has mode 0755, or the octal `--chmod`, and the owner of `--chown`, or root
//!
//! Source: docs/reference.md (COPY); fsutil `copy/copy.go` and BuildKit `backend.go` (`docopy`), by behaviour.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Error, Inode, ModeChange, Selection, Spool,
    draft::{Draft, Group, Making, Over, Put, View, ViewKind},
    laid::Laid,
    rows::Rows,
    selection::{Item, Row, Taken, Taking},
    unpack::Archive,
};
use crate::tree::{Meta, TreePath};

/// What to do where something else is than is copied.
pub(super) const OCCUPIED: &str = "copy to another path, or remove what is there in a step before";

/// Where a selection goes, and with which owners and modes.
#[derive(Debug, Clone, Default)]
pub struct Placement {
    /// Absolute; a trailing `/` makes it a directory.
    pub dest: String,
    /// `--chown`, resolved.
    pub chown: Option<(u32, u32)>,
    /// `--chmod`
    pub chmod: Option<ModeChange>,
    /// `--link`. It has no effect together with `--chmod`, as in BuildKit.
    pub link: bool,
    /// When the step began, in seconds since 1970: the time of what has none of its own.
    pub now: i64,
    /// ADD: a source that is an archive is unpacked, its bytes go here. `None`: it is copied like any file.
    pub unpack: Option<Arc<Spool>>,
}

impl Placement {
    /// Onto this very path, nothing changed.
    pub fn exactly(path: &TreePath) -> Self {
        Self { dest: path.to_string(), ..Self::default() }
    }

    pub(super) fn over(&self) -> Over {
        if self.link && self.chmod.is_none() { Over::Nothing } else { Over::Chain }
    }

    pub(super) fn making(&self) -> Making {
        let mode = self.chmod.as_ref().map_or(0o755, ModeChange::of_parents);
        Making { mode, owner: self.chown.unwrap_or_default(), now: self.now }
    }

    fn is_dir(&self) -> bool {
        self.dest.ends_with('/') || self.dest.ends_with("/.")
    }

    fn meta(&self, row: &Row) -> Meta {
        let (uid, gid) = self.chown.unwrap_or((row.uid, row.gid));
        let mode = match &self.chmod {
            Some(change) if !matches!(row.node, Taking::Symlink(_)) => change.apply(row.mode, matches!(row.node, Taking::Dir { .. })),
            Some(_) | None => row.mode,
        };
        Meta { mode, uid, gid, mtime: row.mtime.unwrap_or(self.now), xattrs: row.xattrs.clone() }
    }
}

/// The groups that inodes of one source have in the draft.
type Groups = BTreeMap<(usize, Inode), Group>;

impl Draft {
    /// Lays a selection over the tree. On an error the draft is to be thrown away.
    pub fn apply(&mut self, selection: &Selection, placement: &Placement) -> Result<(), Error> {
        self.take_up()?;
        if let [Item { what: Taken::Contents(rows), source, .. }] = selection.items.as_slice()
            && self.is_untouched()
        {
            let at = self.directory(placement)?;
            self.laid = Some(Laid::new(&self.chain, rows, *source, at, placement)?);
            return Ok(());
        }
        let mut groups = Groups::new();
        for item in &selection.items {
            self.place(item, placement, &mut groups)?;
        }
        Ok(())
    }

    /// Makes what was laid pending, row by row, because more is to come.
    pub(super) fn take_up(&mut self) -> Result<(), Error> {
        let Some(laid) = self.laid.take() else { return Ok(()) };
        self.place_rows(&laid.rows, laid.source, &laid.at, &laid.placement, &mut Groups::new())
    }

    fn place(&mut self, item: &Item, placement: &Placement, groups: &mut Groups) -> Result<(), Error> {
        let over = placement.over();
        if let (Some(spool), Some(archive)) = (&placement.unpack, archive(item))
            && archive.is_one()?
        {
            return self.unpack(&archive, spool, placement, over);
        }
        match &item.what {
            Taken::Contents(rows) => {
                let at = self.directory(placement)?;
                self.place_rows(rows, item.source, &at, placement, groups)
            }
            Taken::One(row) => {
                let at = self.destination(placement)?;
                let path = self.path_of_one(&item.name, at, placement)?;
                let group = self.group(item.source, row, groups);
                self.place_row(row, path, placement, group)
            }
        }
    }

    /// The destination as a directory, which is made.
    fn directory(&mut self, placement: &Placement) -> Result<TreePath, Error> {
        let over = placement.over();
        let at = self.destination(placement)?;
        if self.look_up(&at, over).is_some_and(|view| view.kind != ViewKind::Dir) {
            return Err(Error::refused(format!("cannot copy to non-directory: {at}"), OCCUPIED));
        }
        self.make_dirs(&at, placement.making(), over)?;
        Ok(at)
    }

    fn place_rows(&mut self, rows: &Rows, source: usize, at: &TreePath, placement: &Placement, groups: &mut Groups) -> Result<(), Error> {
        for row in rows.iter() {
            let row = &row?;
            let group = self.group(source, row, groups);
            self.place_row(row, at.join_path(&row.path), placement, group)?;
        }
        Ok(())
    }

    /// The destination with its links followed; the directory that holds it, or that it is, is made.
    pub(super) fn destination(&mut self, placement: &Placement) -> Result<TreePath, Error> {
        let over = placement.over();
        let dest = TreePath::clean(placement.dest.as_bytes())?;
        let holder = if placement.is_dir() { dest.clone() } else { dest.parent().unwrap_or_default() };
        let holder = self.resolve(&holder, true, over)?;
        self.make_dirs(&holder, placement.making(), over)?;
        self.resolve(&dest, true, over)
    }

    /// Something that is no directory goes into the destination if that is one, else to its very path.
    fn path_of_one(&mut self, name: &[u8], at: TreePath, placement: &Placement) -> Result<TreePath, Error> {
        let over = placement.over();
        if self.look_up(&at, over).is_some_and(|view| view.kind == ViewKind::Dir) {
            return Ok(at.join(name)?);
        }
        if self.exact.as_ref() == Some(&at) {
            let what = format!("several sources cannot go to `{}`, which is no directory", placement.dest);
            return Err(Error::refused(what, "end the destination with `/`, and it becomes a directory"));
        }
        // A link that leads to nothing may lead to where no directory is.
        self.make_dirs(&at.parent().unwrap_or_default(), placement.making(), over)?;
        self.exact = Some(at.clone());
        Ok(at)
    }

    fn group(&mut self, source: usize, row: &Row, groups: &mut Groups) -> Option<Group> {
        let Taking::File { inode: Some(inode), .. } = &row.node else { return None };
        Some(*groups.entry((source, inode.clone())).or_insert_with(|| self.new_group()))
    }

    fn place_row(&mut self, row: &Row, path: TreePath, placement: &Placement, group: Option<Group>) -> Result<(), Error> {
        let over = placement.over();
        let there = self.look_up(&path, over);
        let was_dir = there.as_ref().is_some_and(|view| view.kind == ViewKind::Dir);
        if let Some((meta, put)) = placed(row, &path, placement, there, group)? {
            self.put_over(was_dir, path, meta, put, over);
        }
        Ok(())
    }
}

/// What a row makes of what is at its path. `None`: nothing.
pub(super) fn placed(
    row: &Row,
    path: &TreePath,
    placement: &Placement,
    there: Option<View>,
    group: Option<Group>,
) -> Result<Option<(Meta, Put)>, Error> {
    if let Taking::Dir { on_the_way } = row.node {
        return match there {
            Some(View { kind: ViewKind::Dir, meta }) if on_the_way => {
                Ok((!path.is_root()).then_some((Meta { mode: row.mode, ..meta }, Put::Dir)))
            }
            Some(View { kind: ViewKind::Dir, .. }) | None => Ok(Some((placement.meta(row), Put::Dir))),
            Some(_) => Err(Error::refused(format!("cannot copy to non-directory: {path}"), OCCUPIED)),
        };
    }
    if there.is_some_and(|view| view.kind == ViewKind::Dir) {
        return Err(Error::refused(format!("cannot replace to directory {path} with file"), OCCUPIED));
    }
    let put = match row.node.clone() {
        Taking::File { size, digest, content: Some(content), .. } => Put::File { size, digest, content, group },
        Taking::File { content: None, .. } => {
            return Err(Error::refused(format!("{path}: its source has no files on disk, only an index"), "build again"));
        }
        Taking::Dir { .. } => Put::Dir,
        Taking::Symlink(target) => Put::Symlink(target),
        Taking::Char(major, minor) => Put::Char(major, minor),
        Taking::Block(major, minor) => Put::Block(major, minor),
        Taking::Fifo => Put::Fifo,
    };
    Ok(Some((placement.meta(row), put)))
}

/// The item as an archive, if it could be one: a regular file with bytes.
fn archive(item: &Item) -> Option<Archive<'_>> {
    match &item.what {
        Taken::One(_) if item.as_it_is => None,
        Taken::One(row) => match &row.node {
            Taking::File { size, digest, content: Some(content), .. } if *size > 0 => {
                Some(Archive { shown: &item.shown, content, digest: *digest })
            }
            Taking::File { .. } | Taking::Dir { .. } | Taking::Symlink(_) | Taking::Char(..) | Taking::Block(..) | Taking::Fifo => None,
        },
        Taken::Contents(_) => None,
    }
}
