//! What a directory holds that is copied, on a tape: selected once, read for the key, for the record, and for each layer that is
//! made of it. A million files are no million values in memory.

use std::{os::fd::OwnedFd, sync::Arc};

use super::{
    Error, Inode,
    selection::{Row, Taking},
};
use crate::{
    layer::{Content, Part, Shown},
    store::{self, Store, Tape, TapeReader, framed},
    tree::{ContentDigest, TreePath, Xattrs},
};

/// Stands for a path that is the one before it.
const SAME: u32 = u32::MAX;

/// Rows in the order of a walk.
#[derive(Debug, Default)]
pub(super) struct Rows {
    tape: Tape,
    /// Below which the files are: one directory for a context, one for each layer of a stage.
    dirs: Vec<Arc<OwnedFd>>,
    /// What lies beside others: few, an archive's members are no rows.
    parts: Vec<Part>,
    count: usize,
}

const FILE: u8 = 0;
const DIR: u8 = 1;
const ON_THE_WAY: u8 = 2;
const SYMLINK: u8 = 3;
const CHAR: u8 = 4;
const BLOCK: u8 = 5;
const FIFO: u8 = 6;
/// What may be there or not.
const NONE: u8 = 0;
const DISK: u8 = 1;
const LAYER: u8 = 2;
const BYTES: u8 = 1;
const BELOW: u8 = 2;
const BUNDLED: u8 = 3;
/// How a file is called.
const BY_PATH: u8 = 0;
const BY_PATH_INSIDE: u8 = 1;
const IN_WORDS: u8 = 2;

impl Rows {
    /// None yet; they will lie in that store, else in memory.
    pub(super) fn new(store: Option<&Store>) -> Self {
        Self { tape: Tape::new(store), ..Self::default() }
    }

    /// One more, behind the others.
    pub(super) fn push(&mut self, row: &Row) -> Result<(), Error> {
        let mut out = Vec::with_capacity(256);
        framed(&mut out, row.path.as_bytes());
        put_path(&mut out, &row.from, &row.path);
        for number in [row.mode, row.uid, row.gid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.push(u8::from(row.mtime.is_some()));
        out.extend_from_slice(&row.mtime.unwrap_or_default().to_le_bytes());
        out.extend_from_slice(&u32::try_from(row.xattrs.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (name, value) in &row.xattrs {
            framed(&mut out, name);
            framed(&mut out, value);
        }
        match &row.node {
            Taking::File { size, digest, inode, content } => {
                out.push(FILE);
                out.extend_from_slice(&size.to_le_bytes());
                out.extend_from_slice(&digest.0);
                put_inode(&mut out, inode.as_ref(), &row.from);
                self.put_content(&mut out, content.as_ref(), &row.from);
            }
            Taking::Dir { on_the_way } => out.push(if *on_the_way { ON_THE_WAY } else { DIR }),
            Taking::Symlink(target) => {
                out.push(SYMLINK);
                framed(&mut out, target);
            }
            Taking::Char(major, minor) | Taking::Block(major, minor) => {
                out.push(if matches!(row.node, Taking::Char(..)) { CHAR } else { BLOCK });
                out.extend_from_slice(&major.to_le_bytes());
                out.extend_from_slice(&minor.to_le_bytes());
            }
            Taking::Fifo => out.push(FIFO),
        }
        self.tape.append(&out)?;
        self.count += 1;
        Ok(())
    }

    fn put_content(&mut self, out: &mut Vec<u8>, content: Option<&Content>, from: &TreePath) {
        match content {
            None => out.push(NONE),
            Some(Content::Bytes(bytes)) => {
                out.push(BYTES);
                framed(out, bytes);
            }
            Some(Content::Bundled(part)) => {
                out.push(BUNDLED);
                out.extend_from_slice(&(self.parts.len() as u64).to_le_bytes());
                self.parts.push(part.clone());
            }
            Some(Content::Below { dir, path, shown }) => {
                let number = self.dirs.iter().position(|known| Arc::ptr_eq(known, dir)).unwrap_or_else(|| {
                    self.dirs.push(Arc::clone(dir));
                    self.dirs.len() - 1
                });
                out.push(BELOW);
                out.extend_from_slice(&(number as u64).to_le_bytes());
                put_path(out, path, from);
                match shown {
                    Shown::Below => out.push(BY_PATH),
                    Shown::Inside => out.push(BY_PATH_INSIDE),
                    Shown::As(words) => {
                        out.push(IN_WORDS);
                        framed(out, words.as_bytes());
                    }
                }
            }
        }
    }

    /// All of them in their order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Result<Row, Error>> {
        let mut from = Reader { rows: self, tape: self.tape.reader(0) };
        (0..self.count).map(move |_| from.row())
    }
}

/// A path that is often the same as another one.
fn put_path(out: &mut Vec<u8>, path: &TreePath, other: &TreePath) {
    if path == other {
        out.extend_from_slice(&SAME.to_le_bytes());
    } else {
        framed(out, path.as_bytes());
    }
}

fn put_inode(out: &mut Vec<u8>, inode: Option<&Inode>, from: &TreePath) {
    match inode {
        None => out.push(NONE),
        Some(Inode::Disk(device, number)) => {
            out.push(DISK);
            out.extend_from_slice(&device.to_le_bytes());
            out.extend_from_slice(&number.to_le_bytes());
        }
        Some(Inode::Layer(layer, first)) => {
            out.push(LAYER);
            out.extend_from_slice(&(*layer as u64).to_le_bytes());
            put_path(out, first, from);
        }
    }
}

struct Reader<'a> {
    rows: &'a Rows,
    tape: TapeReader<'a>,
}

impl Reader<'_> {
    fn row(&mut self) -> Result<Row, Error> {
        let path = TreePath::parse(&self.tape.framed()?)?;
        let from = self.path(&path)?;
        let (mode, uid, gid) = (self.tape.word()?, self.tape.word()?, self.tape.word()?);
        let timed = self.byte()? != 0;
        let mtime = i64::from_le_bytes(self.tape.array()?);
        let mut xattrs = Xattrs::new();
        for _ in 0..self.tape.word()? {
            drop(xattrs.insert(self.tape.framed()?, self.tape.framed()?));
        }
        let node = self.node(&from)?;
        Ok(Row { from, path, mode, uid, gid, mtime: timed.then_some(mtime), xattrs, node })
    }

    fn node(&mut self, from: &TreePath) -> Result<Taking, Error> {
        Ok(match self.byte()? {
            FILE => {
                let (size, digest) = (self.tape.number()?, ContentDigest(self.tape.array()?));
                Taking::File { size, digest, inode: self.inode(from)?, content: self.content(from)? }
            }
            DIR => Taking::Dir { on_the_way: false },
            ON_THE_WAY => Taking::Dir { on_the_way: true },
            SYMLINK => Taking::Symlink(self.tape.framed()?),
            CHAR => Taking::Char(self.tape.word()?, self.tape.word()?),
            BLOCK => Taking::Block(self.tape.word()?, self.tape.word()?),
            FIFO => Taking::Fifo,
            _ => return Err(garbled()),
        })
    }

    fn inode(&mut self, from: &TreePath) -> Result<Option<Inode>, Error> {
        Ok(match self.byte()? {
            NONE => None,
            DISK => Some(Inode::Disk(self.tape.number()?, self.tape.number()?)),
            LAYER => Some(Inode::Layer(usize::try_from(self.tape.number()?).map_err(|_large| garbled())?, self.path(from)?)),
            _ => return Err(garbled()),
        })
    }

    fn content(&mut self, from: &TreePath) -> Result<Option<Content>, Error> {
        Ok(match self.byte()? {
            NONE => None,
            BYTES => Some(Content::Bytes(self.tape.framed()?.into())),
            BUNDLED => {
                let number = self.tape.number()?;
                let part = usize::try_from(number).ok().and_then(|number| self.rows.parts.get(number)).ok_or_else(garbled)?;
                Some(Content::Bundled(part.clone()))
            }
            BELOW => {
                let number = self.tape.number()?;
                let dir = usize::try_from(number).ok().and_then(|number| self.rows.dirs.get(number)).ok_or_else(garbled)?;
                let path = self.path(from)?;
                let shown = match self.byte()? {
                    BY_PATH => Shown::Below,
                    BY_PATH_INSIDE => Shown::Inside,
                    IN_WORDS => Shown::As(String::from_utf8(self.tape.framed()?).map_err(|_bytes| garbled())?),
                    _ => return Err(garbled()),
                };
                Some(Content::Below { dir: Arc::clone(dir), path, shown })
            }
            _ => return Err(garbled()),
        })
    }

    fn path(&mut self, other: &TreePath) -> Result<TreePath, Error> {
        match self.tape.word()? {
            SAME => Ok(other.clone()),
            length => Ok(TreePath::parse(&self.tape.exactly(usize::try_from(length).map_err(|_large| garbled())?)?)?),
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(u8::from_le_bytes(self.tape.array()?))
    }
}

fn garbled() -> Error {
    store::garbled().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Bundle;

    /// One of each kind, below a directory.
    fn samples() -> Vec<Row> {
        let dir: Arc<OwnedFd> = Arc::new(std::fs::File::open("/").unwrap().into());
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        let below = |at: &str| Content::Below {
            dir: Arc::clone(&dir),
            path: path(at),
            shown: if at == "first" { Shown::Inside } else { Shown::As(format!("{at} in it")) },
        };
        let place = tempfile::tempdir().unwrap();
        let part = Bundle::within(Arc::new(std::fs::File::open(place.path()).unwrap().into())).put(b"abc").unwrap();
        let file = |inode, content| Taking::File { size: 7, digest: ContentDigest::of(b"x"), inode, content };
        let nodes = [
            file(None, None),
            file(Some(Inode::Disk(1, u64::MAX)), Some(Content::Bytes((*b"abc").into()))),
            file(Some(Inode::Layer(3, path("from/f2"))), Some(below("from/f2"))),
            file(Some(Inode::Layer(3, path("first"))), Some(below("first"))),
            Taking::Dir { on_the_way: false },
            Taking::Dir { on_the_way: true },
            Taking::Symlink(b"\xff/x".to_vec()),
            Taking::Char(1, 3),
            Taking::Block(8, 0),
            Taking::Fifo,
            file(None, Some(Content::Bundled(part))),
        ];
        let xattrs = Xattrs::from([(b"user.a".to_vec(), b"1".to_vec())]);
        let rows = nodes.into_iter().enumerate().map(|(number, node)| Row {
            from: path(&format!("from/f{number}")),
            path: path(&format!("{}f{number}", if number % 2 == 0 { "" } else { "from/" })),
            mode: 0o4755,
            uid: 7,
            gid: u32::MAX,
            mtime: (number % 3 != 0).then_some(-5),
            xattrs: if number % 2 == 0 { xattrs.clone() } else { Xattrs::new() },
            node,
        });
        rows.collect()
    }

    fn on_a_tape(rows: &[Row]) -> Rows {
        let mut written = Rows::new(None);
        for row in rows {
            written.push(row).unwrap();
        }
        written
    }

    #[test]
    fn rows_are_read_back_as_they_were_pushed() {
        let rows = samples();
        let read: Vec<Row> = on_a_tape(&rows).iter().map(Result::unwrap).collect();
        assert_eq!(format!("{read:?}"), format!("{rows:?}"));
    }

    #[test]
    fn what_a_disk_gives_back_changed_or_cut_is_read_without_a_panic_and_with_no_more_memory_than_it_has() {
        let Rows { tape, dirs, parts, count } = on_a_tape(&samples());
        let whole = tape.into_bytes();
        let read = |bytes: Vec<u8>| {
            let rows = Rows { tape: Tape::of(bytes), dirs: dirs.clone(), parts: parts.clone(), count };
            rows.iter().collect::<Result<Vec<Row>, Error>>()
        };
        assert!(read(whole.clone()).is_ok());
        for at in 0..whole.len() {
            assert!(read(whole[..at].to_vec()).is_err(), "cut at {at}");
            for bits in [1, 0x10, 0x80, 0xff] {
                let mut other = whole.clone();
                other[at] ^= bits;
                let _rows_or_none = read(other);
            }
        }
    }
}
