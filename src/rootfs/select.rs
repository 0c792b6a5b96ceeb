//! From what is written after COPY to entries: patterns, `--parents` with its `/./`, `--exclude`, links of the source.
//!
//! Everything is asked of a [`Source`] by path below its root, so that `../` and absolute links stay inside of it.
//!
//! Source: docs/reference.md (COPY, ADD); BuildKit `convert_copy.go`; fsutil `copy/copy.go` (`ResolveWildcards`), by behaviour.

use std::sync::{Arc, Mutex, PoisonError};

use super::{
    Error, Missing, Seen, Selection, SelectionDigest, Shape, Source, follow,
    rows::Rows,
    selection::{Item, Row, Stream, Taken, Taking},
};
use crate::{
    diag,
    layer::Content,
    pattern::{self, PatternList},
    store::Store,
    tree::{ContentDigest, TreePath, Xattrs},
};

/// What is to be selected from one source.
#[derive(Debug, Clone, Default)]
pub struct CopySpec {
    /// Paths or patterns as written, in order.
    pub paths: Vec<String>,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, in order.
    pub exclude: Vec<String>,
    /// How many threads may read files; 0 is 1.
    pub jobs: usize,
    /// Where what is selected of directories may lie until the selection is dropped. `None`: in memory.
    pub store: Option<Store>,
}

/// So many rows are in memory at once: enough for all threads, and of those directories whose listings are known still.
const AT_ONCE: usize = 2048;

/// Selects. A path that is not there is an error, a pattern without a match is nothing.
pub fn select(source: &dyn Source, spec: &CopySpec) -> Result<Selection, Error> {
    let mut items = Walk::new(source, spec)?.over(spec)?.items;
    let mut ones = Vec::new();
    for item in &mut items {
        if let Taken::One(row) = &mut item.what {
            ones.push(&mut **row);
        }
    }
    read_all(source, ones, spec.jobs)?;
    Ok(Selection { items })
}

/// The digest that the selection would have, if what the source knows without reading is nearly enough for it: nothing of
/// the selection is kept in memory. `None`: too much would have to be read.
pub fn digest(source: &dyn Source, spec: &CopySpec) -> Result<Option<SelectionDigest>, Error> {
    let mut walk = Walk::new(source, spec)?;
    walk.quick = Some(Quick { stream: Stream::new(), unread: MOST_READ });
    Ok(walk.over(spec)?.quick.filter(|quick| quick.unread > 0).map(|quick| quick.stream.finish()))
}

/// More files than these are read by several threads, and kept to be copied.
const MOST_READ: usize = 64;

/// A digest on its way.
struct Quick {
    stream: Stream,
    /// How many more files may be read; at 0 it is given up.
    unread: usize,
}

impl Quick {
    /// Completes a row; says whether to go on.
    fn complete(&mut self, source: &dyn Source, row: &mut Row) -> Result<bool, Error> {
        if let Taking::File { content: None, digest, .. } = &mut row.node {
            (*digest, row.xattrs) = match source.known(&row.from)? {
                Some(known) => known,
                None if self.unread > 1 => {
                    self.unread -= 1;
                    source.read(&row.from)?
                }
                None => {
                    self.unread = 0;
                    return Ok(false);
                }
            };
        } else if matches!(row.node, Taking::Dir { .. }) {
            row.xattrs = source.attributes(&row.from)?;
        }
        Ok(true)
    }
}

/// The state of one selection.
struct Walk<'a> {
    source: &'a dyn Source,
    exclude: Option<PatternList>,
    /// What `--parents` wants of the current source; `None`: all.
    include: Option<PatternList>,
    items: Vec<Item>,
    /// Of the current source.
    number: usize,
    /// Instead of the items.
    quick: Option<Quick>,
    jobs: usize,
    store: Option<&'a Store>,
}

/// A path that a pattern matched, or that was written.
struct Match {
    path: TreePath,
    shown: String,
    wild: bool,
}

impl<'a> Walk<'a> {
    fn new(source: &'a dyn Source, spec: &'a CopySpec) -> Result<Self, Error> {
        let exclude = if spec.exclude.is_empty() { None } else { Some(PatternList::compile(&spec.exclude)?) };
        Ok(Self { source, exclude, include: None, items: Vec::new(), number: 0, quick: None, jobs: spec.jobs, store: spec.store.as_ref() })
    }

    fn over(mut self, spec: &CopySpec) -> Result<Self, Error> {
        for (number, text) in spec.paths.iter().enumerate() {
            self.number = number;
            if spec.parents { self.with_parents(text)? } else { self.plain(text)? }
        }
        Ok(self)
    }

    /// All that is selected of a directory.
    fn take_contents(&mut self, name: &[u8], shown: String, at: &TreePath) -> Result<(), Error> {
        if let Some(mut quick) = self.quick.take() {
            quick.stream.begin();
            let done = self.contents(at, &mut |mut row| {
                let more = quick.unread > 0 && quick.complete(self.source, &mut row)?;
                quick.stream.row(&row);
                Ok(more)
            });
            quick.stream.end();
            self.quick = Some(quick);
            return done;
        }
        let (mut rows, mut some) = (Rows::new(self.store), Vec::new());
        self.contents(at, &mut |row| {
            some.push(row);
            if some.len() == AT_ONCE {
                self.complete(&mut some, &mut rows)?;
            }
            Ok(true)
        })?;
        self.complete(&mut some, &mut rows)?;
        let what = Taken::Contents(Arc::new(rows));
        self.items.push(Item { name: name.to_vec(), shown, source: self.number, as_it_is: false, what });
        Ok(())
    }

    /// Reads what some rows stand for.
    fn complete(&self, some: &mut Vec<Row>, rows: &mut Rows) -> Result<(), Error> {
        read_all(self.source, some.iter_mut().collect(), self.jobs)?;
        some.drain(..).try_for_each(|row| rows.push(&row))
    }

    fn take_one(&mut self, name: &[u8], shown: &str, mut row: Row) -> Result<(), Error> {
        if let Some(quick) = &mut self.quick {
            let _more: bool = quick.unread > 0 && quick.complete(self.source, &mut row)?;
            quick.stream.one(name, false, &row);
            return Ok(());
        }
        let what = Taken::One(Box::new(row));
        self.items.push(Item { name: name.to_vec(), shown: shown.to_owned(), source: self.number, as_it_is: false, what });
        Ok(())
    }

    fn plain(&mut self, text: &str) -> Result<(), Error> {
        for found in self.matches(text)? {
            self.take(&found)?;
        }
        Ok(())
    }

    /// The part before `/./` says from where paths are kept, the rest is a pattern (`**` too) below it.
    fn with_parents(&mut self, text: &str) -> Result<(), Error> {
        let (top, wanted) = text.split_once("/./").unwrap_or(("/", text));
        let wanted = TreePath::clean(wanted.as_bytes())?;
        let wild = is_wild(wanted.as_bytes());
        let tops = self.matches(if top.is_empty() { "/" } else { top })?;
        let pattern = String::from_utf8_lossy(wanted.as_bytes()).into_owned();
        self.include = if wanted.is_root() { None } else { Some(PatternList::compile(&[pattern])?) };
        for top in tops {
            let (at, seen) = self.followed(&top, text)?;
            if seen.shape != Shape::Dir {
                // Nothing is below a file that a pattern happens to match.
                if top.wild {
                    continue;
                }
                return Err(Error::refused(
                    format!("`{}` in {} is not a directory", top.shown, self.source.name()),
                    "with `--parents`, only a directory can stand before `/./`",
                ));
            }
            if !wild && !wanted.is_root() && self.source.look_up(&at.join_path(&wanted))?.is_none() {
                if top.wild {
                    continue;
                }
                return Err(self.missing(text, &at.join_path(&wanted))?);
            }
            // A pattern without a match still makes the destination, as in BuildKit; without `--parents` it does not.
            self.take_contents(top.path.name(), top.shown, &at)?;
        }
        self.include = None;
        Ok(())
    }

    /// The paths that a source stands for. What is written without a pattern is there or is an error.
    fn matches(&self, text: &str) -> Result<Vec<Match>, Error> {
        let clean = TreePath::clean(text.as_bytes())?;
        let parts: Vec<&[u8]> = clean.components().collect();
        let Some(fixed) = parts.iter().position(|part| is_wild(part)) else {
            return Ok(vec![self.literal(text, clean)?]);
        };
        let (fixed, wild) = parts.split_at(fixed);
        let mut dirs = vec![follow(self.source, &TreePath::parse(&fixed.join(&b'/'))?)?];
        for (number, part) in wild.iter().enumerate() {
            let last = number + 1 == wild.len();
            let mut next = Vec::new();
            for dir in dirs {
                for name in self.source.names(&dir)? {
                    let path = dir.join(&name)?;
                    // A link in the middle of a pattern is not followed, so what is found is what a walk would find.
                    if pattern::matches(part, &name)? && (last || self.source.look_up(&path)?.is_some_and(|seen| seen.shape == Shape::Dir))
                    {
                        next.push(path);
                    }
                }
            }
            dirs = next;
        }
        Ok(dirs.into_iter().map(|path| Match { shown: shown(&path), path, wild: true }).collect())
    }

    /// A path without a pattern. A backslash before a character of patterns stands for that character, unless a file has it in its name.
    fn literal(&self, text: &str, clean: TreePath) -> Result<Match, Error> {
        let shown = text.to_owned();
        if !clean.as_bytes().contains(&b'\\') || self.source.look_up(&follow(self.source, &clean)?)?.is_some() {
            return Ok(Match { path: clean, shown, wild: false });
        }
        let mut bytes = Vec::new();
        let mut rest = clean.as_bytes().iter();
        while let Some(byte) = rest.next() {
            bytes.push(if *byte == b'\\' { *rest.next().unwrap_or(byte) } else { *byte });
        }
        Ok(Match { path: TreePath::parse(&bytes)?, shown, wild: false })
    }

    /// Where a match leads when all its links are followed, and what is there.
    fn followed(&self, found: &Match, text: &str) -> Result<(TreePath, Seen), Error> {
        let at = follow(self.source, &found.path)?;
        match self.source.look_up(&at)? {
            Some(seen) => Ok((at, seen)),
            None => Err(self.missing(text, &found.path)?),
        }
    }

    fn take(&mut self, found: &Match) -> Result<(), Error> {
        let name = found.path.name();
        let (at, seen) = match self.followed(found, &found.shown) {
            // A pattern takes a link that leads nowhere as it is: nobody asked for what is behind it.
            Err(Error::Missing(missing)) if found.wild => match self.source.look_up(&found.path)? {
                Some(seen) => (found.path.clone(), seen),
                None => return Err(Error::Missing(missing)),
            },
            followed => followed?,
        };
        if seen.shape == Shape::Dir {
            return self.take_contents(name, found.shown.clone(), &at);
        }
        if self.is_excluded(name) { Ok(()) } else { self.take_one(name, &found.shown, row(at, TreePath::root(), seen)) }
    }

    fn is_excluded(&self, below: &[u8]) -> bool {
        self.exclude.as_ref().is_some_and(|list| list.excludes(below))
    }

    /// Hands on what is selected of a directory's contents, in the order of a walk, for as long as it is wanted. A directory that is not
    /// selected itself comes only before something below it that is.
    fn contents(&self, top: &TreePath, take: &mut dyn FnMut(Row) -> Result<bool, Error>) -> Result<(), Error> {
        // Directories above the current path that nothing was selected of yet.
        let mut waiting: Vec<Row> = Vec::new();
        let mut ahead: Vec<TreePath> = self.below(top, &TreePath::root())?;
        while let Some(path) = ahead.pop() {
            let at = top.join_path(&path);
            // What went away since the names were read is nothing that was selected.
            let Some(seen) = self.source.look_up(&at)? else { continue };
            waiting.retain(|dir| path.is_within(&dir.path));
            let excluded = self.is_excluded(path.as_bytes());
            let included = !excluded && self.include.as_ref().is_none_or(|list| list.excludes(path.as_bytes()));
            let is_dir = seen.shape == Shape::Dir;
            let mut row = row(at, path.clone(), seen);
            if included {
                for row in waiting.drain(..).chain([row]) {
                    if !take(row)? {
                        return Ok(());
                    }
                }
            } else if is_dir {
                row.node = Taking::Dir { on_the_way: true };
                waiting.push(row);
            }
            let enter = !excluded || self.exclude.as_ref().is_some_and(|list| list.may_reinclude_below(path.as_bytes()));
            if is_dir && enter {
                ahead.extend(self.below(top, &path)?);
            }
        }
        Ok(())
    }

    /// The paths in a directory, the last first.
    fn below(&self, top: &TreePath, dir: &TreePath) -> Result<Vec<TreePath>, Error> {
        let names = self.source.names(&top.join_path(dir))?;
        Ok(names.iter().rev().map(|name| dir.join(name)).collect::<Result<_, _>>()?)
    }

    fn missing(&self, text: &str, path: &TreePath) -> Result<Error, Error> {
        let link = match self.source.look_up(path)? {
            Some(Seen { shape: Shape::Symlink(target), .. }) => {
                Some((shown(path), String::from_utf8_lossy(&target).escape_debug().to_string()))
            }
            Some(_) | None => None,
        };
        let ignored = if link.is_none() { self.source.hidden_by(path) } else { None };
        let near = if ignored.is_some() || link.is_some() { None } else { self.near(path)? };
        Ok(Error::Missing(Box::new(Missing { path: text.to_owned(), of: self.source.name(), ignored, link, near })))
    }

    /// The name in the same directory, or of the directory itself, that was probably meant.
    fn near(&self, path: &TreePath) -> Result<Option<String>, Error> {
        let mut at = TreePath::root();
        for part in path.components() {
            let next = at.join(part)?;
            if self.source.look_up(&follow(self.source, &next)?)?.is_some() {
                at = next;
                continue;
            }
            let names = self.source.names(&follow(self.source, &at)?)?;
            let names: Vec<String> = names.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            let word = String::from_utf8_lossy(part);
            let Some(close) = diag::closest(&word, names.iter().map(String::as_str)) else { return Ok(None) };
            let rest = path.below(&next).unwrap_or_default();
            return Ok(Some(shown(&at.join(close.as_bytes())?.join_path(&rest))));
        }
        Ok(None)
    }
}

/// A row for what was seen. Digests and attributes are read when all is selected.
fn row(from: TreePath, path: TreePath, seen: Seen) -> Row {
    let node = match seen.shape {
        Shape::File { size, inode } => Taking::File { size, digest: ContentDigest([0; 32]), inode, content: None },
        Shape::Dir => Taking::Dir { on_the_way: false },
        Shape::Symlink(target) => Taking::Symlink(target),
        Shape::Char(major, minor) => Taking::Char(major, minor),
        Shape::Block(major, minor) => Taking::Block(major, minor),
        Shape::Fifo => Taking::Fifo,
        Shape::Socket => Taking::File { size: 0, digest: ContentDigest::of(b""), inode: None, content: Some(Content::Bytes([].into())) },
    };
    Row { from, path, mode: seen.mode, uid: seen.uid, gid: seen.gid, mtime: Some(seen.mtime), xattrs: Xattrs::new(), node }
}

/// Takes the digests of all files and the attributes of files and directories.
fn read_all(source: &dyn Source, mut rows: Vec<&mut Row>, jobs: usize) -> Result<(), Error> {
    rows.retain(|row| matches!(row.node, Taking::File { content: None, .. } | Taking::Dir { .. }));
    if jobs <= 1 || rows.len() < 2 * jobs {
        return rows.into_iter().try_for_each(|row| read(source, row));
    }
    let queue = Mutex::new(rows.into_iter());
    let failed: Mutex<Option<Error>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs {
            let _handle = scope.spawn(|| {
                loop {
                    let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(row) = next else { return };
                    if let Err(error) = read(source, row) {
                        // Nothing is left to do for the others.
                        queue.lock().unwrap_or_else(PoisonError::into_inner).by_ref().for_each(drop);
                        drop(failed.lock().unwrap_or_else(PoisonError::into_inner).replace(error));
                        return;
                    }
                }
            });
        }
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

fn read(source: &dyn Source, row: &mut Row) -> Result<(), Error> {
    match &mut row.node {
        Taking::File { digest, content, .. } => {
            (*digest, row.xattrs) = source.read(&row.from)?;
            *content = source.content(&row.from)?;
        }
        Taking::Dir { .. } => row.xattrs = source.attributes(&row.from)?,
        Taking::Symlink(_) | Taking::Char(..) | Taking::Block(..) | Taking::Fifo => {}
    }
    Ok(())
}

/// Has the component a character of patterns that is not escaped?
fn is_wild(part: &[u8]) -> bool {
    let mut bytes = part.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

fn shown(path: &TreePath) -> String {
    String::from_utf8_lossy(path.as_bytes()).escape_debug().to_string()
}
