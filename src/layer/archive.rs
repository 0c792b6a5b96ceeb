//! Tar archives, read one entry after the other; hostile until the last byte. The same reader serves layers, the
//! archives that ADD unpacks, and images in a tar.
//!
//! It reads ustar, PAX (records of one entry and global ones), GNU long names, base-256 numbers and sparse files. What a
//! name may mean is for the caller: names and targets are handed on byte for byte, `../` and all.

use std::io::{self, Read};

use super::{
    block::{self, BLOCK, Block},
    pax::{self, Records},
    sparse::{self, Map, Piece},
};
use crate::tree::{Meta, Xattrs};

pub use super::packing::{Packing, decompress};

/// As in Go's reader: no honest PAX header or long name is larger.
const MAX_SPECIAL: u64 = 1 << 20;
/// The kernel's `XATTR_NAME_MAX` and `XATTR_SIZE_MAX`.
const MAX_ATTRIBUTE: (usize, usize) = (255, 64 * 1024);

/// Why an archive could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no tar archive, or not one that is understood.
    #[error("the archive is damaged or hostile: {0}")]
    Damaged(String),
    /// The stream beneath failed; a decompressor's complaint is one of these.
    #[error("the archive cannot be read")]
    Io(#[from] io::Error),
}

/// What an entry of an archive is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MemberKind {
    /// A regular file; its bytes are the body.
    File {
        /// In bytes.
        size: u64,
    },
    /// A directory.
    Dir,
    /// A symbolic link with its target.
    Symlink(Vec<u8>),
    /// Another name of what an earlier entry, or something beneath the archive, has at this path from the archive's root.
    HardLink(Vec<u8>),
    /// A character device.
    Char {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A block device.
    Block {
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
}

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// As written: may be absolute, climb with `..`, end in `/`. Without a NUL; not empty.
    pub name: Vec<u8>,
    /// Attributes are filtered to what may be in a tree; times are rounded down to whole seconds.
    pub meta: Meta,
    /// What it is.
    pub kind: MemberKind,
}

/// The entries of a plain tar stream in order.
#[derive(Debug)]
pub struct Entries<R> {
    from: R,
    /// What is left of the current body, and of its padding.
    body: u64,
    padding: u64,
    /// Where the bytes of the body stand, if the file has holes.
    map: Option<Map>,
    globals: Records,
    ended: bool,
}

/// Is this, decompressed if it must be, a tar archive with at least one entry? Reads no further than its first header.
pub fn is_archive<'a>(from: impl Read + Send + 'a) -> bool {
    decompress(from).is_ok_and(|plain| matches!(Entries::new(plain).next_member(), Ok(Some(_))))
}

/// How many bytes [`begins`] wants to see.
pub const BEGINNING: usize = BLOCK;

/// Could these first bytes, [`BEGINNING`] or all there are, be those of an archive: packed, or with a header that sums up right, or
/// the end mark of an empty one?
pub fn begins(head: &[u8]) -> bool {
    Packing::of(head) != Packing::Plain
        || head.first_chunk::<BLOCK>().is_some_and(|first| first.iter().all(|byte| *byte == 0) || block::parse(first).is_ok())
}

/// When the newest of an archive's files was changed, in seconds since 1970. `None`: it is no archive, or has no file.
pub fn newest<'a>(from: impl Read + Send + 'a) -> Option<i64> {
    let mut entries = Entries::new(decompress(from).ok()?);
    let mut newest = None;
    while let Some(member) = entries.next_member().ok()? {
        if matches!(member.kind, MemberKind::File { .. } | MemberKind::HardLink(_)) {
            newest = newest.max(Some(member.meta.mtime));
        }
    }
    newest
}

fn damaged<T>(reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Damaged(reason.into()))
}

impl<R: Read> Entries<R> {
    /// Reads nothing yet.
    pub fn new(from: R) -> Self {
        Self { from, body: 0, padding: 0, map: None, globals: Records::new(), ended: false }
    }

    /// The next entry; what is left of the last one's body is skipped. `None`: the end mark, or the end of the stream
    /// where a header could begin.
    pub fn next_member(&mut self) -> Result<Option<Member>, Error> {
        let mut records = Records::new();
        let (mut long_name, mut long_link) = (None, None);
        loop {
            self.skip_body()?;
            let Some(block) = self.header()? else {
                let pending = !records.is_empty() || long_name.is_some() || long_link.is_some();
                return if pending { damaged("it ends after an extended header") } else { Ok(None) };
            };
            match block.type_flag {
                b'x' => {
                    records.extend(pax::parse(&self.special(&block)?).or_else(damaged)?);
                    if records.iter().map(|(key, value)| (key.len() + value.len()) as u64).sum::<u64>() > MAX_SPECIAL {
                        return damaged("extended headers without end");
                    }
                }
                b'g' => {
                    let more = pax::parse(&self.special(&block)?).or_else(damaged)?;
                    if more.keys().any(|key| matches!(key.as_slice(), b"path" | b"linkpath" | b"size")) {
                        return damaged("a global header that names every entry alike");
                    }
                    // Of the others none is ever read; keeping them would let an archive fill the memory.
                    let known = |key: &[u8]| matches!(key, b"uid" | b"gid" | b"mtime") || key.starts_with(b"GNU.sparse.major");
                    self.globals.extend(more.into_iter().filter(|(key, _)| known(key)));
                }
                b'L' => long_name = Some(c_string(self.special(&block)?)),
                b'K' => long_link = Some(c_string(self.special(&block)?)),
                // A volume's label.
                b'V' => self.arm(&block, &Records::new())?,
                _ => {
                    let mut all = self.globals.clone();
                    all.extend(records);
                    return self.member(&block, &all, long_name, long_link).map(Some);
                }
            }
        }
    }

    /// The bytes of the entry that was handed out last; ends with it. Nothing for what is no regular file.
    pub fn body(&mut self) -> Body<'_, R> {
        Body { entries: self }
    }

    /// The stream, where the last read left it: what follows the end mark is still in it.
    pub fn into_inner(self) -> R {
        self.from
    }

    fn member(&mut self, block: &Block, records: &Records, name: Option<Vec<u8>>, link: Option<Vec<u8>>) -> Result<Member, Error> {
        let record = |key: &[u8]| records.get(key).filter(|value| !value.is_empty());
        let form = sparse::form(records).filter(|_form| is_file(block.type_flag));
        let name = form.and_then(|_form| record(b"GNU.sparse.name").cloned()).or(name);
        let name = name.or_else(|| record(b"path").cloned()).unwrap_or_else(|| block.name.clone());
        let link = link.or_else(|| record(b"linkpath").cloned()).unwrap_or_else(|| block.link.clone());
        if name.is_empty() {
            return damaged("an entry without a name");
        }
        let meta = meta(block, records)?;
        let device = || match (u32::try_from(block.major), u32::try_from(block.minor)) {
            (Ok(major), Ok(minor)) => Ok((major, minor)),
            _ => damaged("a device number that is none"),
        };
        let kind = match block.type_flag {
            b'1' => MemberKind::HardLink(link),
            b'2' => MemberKind::Symlink(link),
            b'3' => device().map(|(major, minor)| MemberKind::Char { major, minor })?,
            b'4' => device().map(|(major, minor)| MemberKind::Block { major, minor })?,
            b'5' => MemberKind::Dir,
            b'6' => MemberKind::Fifo,
            // Before ustar a directory was a file with a slash.
            b'0' | 0 | b'7' if name.ends_with(b"/") => MemberKind::Dir,
            b'0' | 0 | b'7' | b'S' => {
                self.arm(block, records)?;
                self.map = self.sparse(block, records, form)?;
                MemberKind::File { size: self.map.as_ref().map_or(self.body, Map::size) }
            }
            other => return damaged(format!("an entry of the unknown type {:?}", char::from(other))),
        };
        // Anything but a file has no body, whatever its size says (as Go reads it).
        Ok(Member { name, meta, kind })
    }

    /// The map of a file with holes; what it takes of the body is read.
    fn sparse(&mut self, block: &Block, records: &Records, form: Option<sparse::Form>) -> Result<Option<Map>, Error> {
        let body = self.body;
        let next = || match self.block() {
            Ok(Some(bytes)) => Ok(bytes),
            Ok(None) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off inside the map of a sparse file")),
            Err(Error::Io(error)) => Err(error),
            Err(Error::Damaged(reason)) => Err(io::Error::new(io::ErrorKind::InvalidData, reason)),
        };
        if block.type_flag == b'S' {
            return sparse::of_header(&block.sparse, next, body)?.map(Some).or_else(damaged);
        }
        match form {
            None => Ok(None),
            Some(sparse::Form::Records) => sparse::of_records(records, body).map(Some).or_else(damaged),
            Some(sparse::Form::Body) => {
                let (map, read) = sparse::of_body(records, body, next)?.or_else(damaged)?;
                self.body = body - read;
                Ok(Some(map))
            }
        }
    }

    /// So many bytes of a file with holes have been read.
    fn advance(&mut self, bytes: u64) {
        if let Some(map) = &mut self.map {
            map.advance(bytes);
        }
    }

    /// Sets the body of an entry.
    fn arm(&mut self, block: &Block, records: &Records) -> Result<(), Error> {
        let size = match records.get(&b"size"[..]).filter(|value| !value.is_empty()) {
            Some(value) => pax::number(value).map(i128::from),
            None => Some(block.size),
        };
        let Some(size) = size.and_then(|size| i64::try_from(size).ok()).and_then(|size| u64::try_from(size).ok()) else {
            return damaged("an entry with a size that is none");
        };
        self.body = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    /// The body of an extended header.
    fn special(&mut self, block: &Block) -> Result<Vec<u8>, Error> {
        self.arm(block, &Records::new())?;
        if self.body > MAX_SPECIAL {
            return damaged(format!("an extended header of {} bytes", self.body));
        }
        let mut bytes = Vec::new();
        let _read = self.body().read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn skip_body(&mut self) -> Result<(), Error> {
        let left = self.body.saturating_add(self.padding);
        (self.body, self.padding, self.map) = (0, 0, None);
        if left > 0 && io::copy(&mut (&mut self.from).take(left), &mut io::sink())? < left {
            return damaged("it is cut off inside an entry");
        }
        Ok(())
    }

    /// The next block that is not the end. The mark is two blocks of zeros; one alone, as some writers leave at the
    /// end of the stream, counts too.
    fn header(&mut self) -> Result<Option<Block>, Error> {
        if self.ended {
            return Ok(None);
        }
        let first = self.block()?;
        let Some(bytes) = first.filter(|bytes| bytes.iter().any(|byte| *byte != 0)) else {
            self.ended = true;
            let second = if first.is_some() { self.block()? } else { None };
            return match second {
                Some(bytes) if bytes.iter().any(|byte| *byte != 0) => damaged("entries after half an end mark"),
                Some(_) | None => Ok(None),
            };
        };
        block::parse(&bytes).map(Some).or_else(damaged)
    }

    /// A block, or `None` at the end of the stream.
    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut bytes = [0; BLOCK];
        let mut have = 0;
        while have < BLOCK {
            match self.from.read(bytes.get_mut(have..).unwrap_or_default()) {
                Ok(0) if have == 0 => return Ok(None),
                Ok(0) => return damaged("it is cut off inside a header"),
                Ok(more) => have += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Some(bytes))
    }
}

/// The bytes of one entry.
#[derive(Debug)]
pub struct Body<'a, R> {
    entries: &'a mut Entries<R>,
}

impl<R: Read> Read for Body<'_, R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let into = match self.entries.map.as_ref().map(Map::next) {
            None => into,
            Some(Piece::End) => return Ok(0),
            Some(Piece::Bytes(length)) => first(into, length),
            Some(Piece::Hole(length)) => {
                let hole = first(into, length);
                hole.fill(0);
                self.entries.advance(hole.len() as u64);
                return Ok(hole.len());
            }
        };
        let left = usize::try_from(self.entries.body).unwrap_or(usize::MAX).min(into.len());
        let Some(into) = into.get_mut(..left).filter(|into| !into.is_empty()) else { return Ok(0) };
        let read = self.entries.from.read(into)?;
        if read == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it is cut off inside an entry"));
        }
        self.entries.body -= read as u64;
        self.entries.advance(read as u64);
        Ok(read)
    }
}

/// At most so many bytes of it.
fn first(into: &mut [u8], most: u64) -> &mut [u8] {
    let end = usize::try_from(most).unwrap_or(usize::MAX).min(into.len());
    into.get_mut(..end).unwrap_or_default()
}

fn is_file(type_flag: u8) -> bool {
    matches!(type_flag, b'0' | 0 | b'7')
}

fn c_string(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

fn meta(block: &Block, records: &Records) -> Result<Meta, Error> {
    let record = |key: &[u8]| records.get(key).filter(|value| !value.is_empty());
    let id = |key: &[u8], plain: i128| {
        let id = record(key).map_or(Some(plain), |value| pax::number(value).map(i128::from));
        // The last number is the kernel's "no id".
        id.and_then(|id| u32::try_from(id).ok()).filter(|id| *id != u32::MAX).map_or_else(|| damaged("an owner that is none"), Ok)
    };
    let mtime = record(b"mtime").map_or_else(|| i64::try_from(block.mtime).ok(), |value| pax::seconds(value));
    let Some(mtime) = mtime else { return damaged("a time that is none") };
    // The type's bits, which some writers add, and nothing else that is no permission.
    let mode = u32::try_from(block.mode & 0o7777).unwrap_or(0);
    Ok(Meta { mode, uid: id(b"uid", block.uid)?, gid: id(b"gid", block.gid)?, mtime, xattrs: attributes(records)? })
}

/// What may be in a tree: a capability in its version 2 form, and users' own attributes.
fn attributes(records: &Records) -> Result<Xattrs, Error> {
    let mut xattrs = Xattrs::new();
    for (key, value) in records {
        let Some(name) = key.strip_prefix(pax::XATTR) else { continue };
        if name.len() > MAX_ATTRIBUTE.0 || value.len() > MAX_ATTRIBUTE.1 {
            return damaged("an attribute larger than the kernel takes");
        }
        if name == b"security.capability" {
            drop(xattrs.insert(name.to_vec(), capability(value)?));
        } else if name.len() > 5 && name.starts_with(b"user.") {
            drop(xattrs.insert(name.to_vec(), value.clone()));
        }
    }
    Ok(xattrs)
}

/// The version 2 form of a capability. Version 3 adds the root of the user namespace it holds in; for the real root the two say the same.
pub(super) fn capability(value: &[u8]) -> Result<Vec<u8>, Error> {
    match value {
        [flags, 0, 0, 2, rest @ ..] if rest.len() == 16 => Ok([&[*flags, 0, 0, 2], rest].concat()),
        [flags, 0, 0, 3, rest @ .., 0, 0, 0, 0] if rest.len() == 16 => Ok([&[*flags, 0, 0, 2], rest].concat()),
        _ => damaged("a capability that is none, or of another user namespace"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as any writer might make it, its checksum right.
    fn header(name: &str, type_flag: u8, size: &[u8; 12]) -> Vec<u8> {
        let mut block = vec![0_u8; BLOCK];
        block[..name.len()].copy_from_slice(name.as_bytes());
        block[100..107].copy_from_slice(b"0000644");
        block[124..136].copy_from_slice(size);
        block[156] = type_flag;
        block[257..265].copy_from_slice(b"ustar\x0000");
        sum(block)
    }

    fn sum(mut block: Vec<u8>) -> Vec<u8> {
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    }

    fn octal(size: usize) -> [u8; 12] {
        format!("{size:011o}\0").into_bytes().try_into().unwrap()
    }

    fn with_body(name: &str, type_flag: u8, body: &[u8]) -> Vec<u8> {
        let mut all = header(name, type_flag, &octal(body.len()));
        all.extend_from_slice(body);
        all.resize(all.len().next_multiple_of(BLOCK), 0);
        all
    }

    fn records(pairs: &[(&str, &[u8])]) -> Vec<u8> {
        pax::format(&pairs.iter().map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec())).collect())
    }

    fn read(bytes: &[u8]) -> Result<Vec<(Member, Vec<u8>)>, Error> {
        let mut entries = Entries::new(bytes);
        let mut all = Vec::new();
        while let Some(member) = entries.next_member()? {
            let mut body = Vec::new();
            let _read = entries.body().read_to_end(&mut body)?;
            all.push((member, body));
        }
        Ok(all)
    }

    fn names(bytes: &[u8]) -> Vec<String> {
        read(bytes).unwrap().into_iter().map(|(member, _)| String::from_utf8_lossy(&member.name).into_owned()).collect()
    }

    const END: [u8; 2 * BLOCK] = [0; 2 * BLOCK];

    #[test]
    fn what_another_writer_writes_is_read() {
        let mut builder = tar::Builder::new(Vec::new());
        let long = format!("{}/file", "d".repeat(200));
        for (name, body) in [("a", "body"), (long.as_str(), ""), ("c", "x")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(body.len() as u64);
            header.set_mode(0o640);
            header.set_uid(5_000_000_000 % 4_000_000_000);
            header.set_mtime(77);
            builder.append_data(&mut header, name, body.as_bytes()).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        builder.append_link(&mut header, "hard", format!("{}/target", "t".repeat(150))).unwrap();
        let all = read(&builder.into_inner().unwrap()).unwrap();
        assert_eq!(all[0].1, b"body");
        assert_eq!((all[0].0.meta.mode, all[0].0.meta.uid, all[0].0.meta.mtime), (0o640, 1_000_000_000, 77));
        assert_eq!(all[1].0.name, long.as_bytes());
        assert_eq!(all[3].0.kind, MemberKind::HardLink(format!("{}/target", "t".repeat(150)).into_bytes()));
    }

    #[test]
    fn pax_records_override_and_cannot_smuggle_others() {
        let body =
            records(&[("path", b"really"), ("size", b"3"), ("mtime", b"1.5"), ("SCHILY.xattr.user.x", b"v\n30 linkpath=/etc/passwd\n")]);
        let mut all = with_body("x", b'x', &body);
        all.extend(header("lie", b'0', &octal(0)));
        all.extend(b"abc");
        all.resize(all.len().next_multiple_of(BLOCK), 0);
        all.extend(END);
        let read = read(&all).unwrap();
        assert_eq!((read[0].0.name.as_slice(), read[0].1.as_slice(), read[0].0.meta.mtime), (&b"really"[..], &b"abc"[..], 1));
        assert_eq!(read[0].0.kind, MemberKind::File { size: 3 });
        assert_eq!(read[0].0.meta.xattrs.len(), 1);
    }

    #[test]
    fn global_records_hold_for_all_but_may_not_rename_them() {
        let global = with_body("g", b'g', &records(&[("uid", b"7"), ("comment", b"c")]));
        let all = [global, with_body("a", b'0', b""), with_body("b", b'0', b""), END.to_vec()].concat();
        assert!(read(&all).unwrap().iter().all(|(member, _)| member.meta.uid == 7));
        let bad = [with_body("g", b'g', &records(&[("path", b"p")])), with_body("a", b'0', b""), END.to_vec()].concat();
        assert!(read(&bad).is_err());
    }

    #[test]
    fn sizes_that_are_none_are_refused() {
        let size = |bytes: &[u8; 12]| read(&[header("a", b'0', bytes), END.to_vec()].concat());
        assert!(size(b"-0000000001\0").is_err());
        assert!(size(&[0xff; 12]).is_err(), "negative in base 256");
        assert!(size(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]).is_err(), "more than an i64");
        assert!(size(b"77777777777\0").is_err(), "cut off");
        for bad in ["-1", "99999999999999999999", "x", "9223372036854775807"] {
            let all = [with_body("x", b'x', &records(&[("size", bad.as_bytes())])), header("a", b'0', &octal(0)), END.to_vec()].concat();
            assert!(read(&all).is_err(), "{bad}");
        }
        let mut names = with_body("L", b'L', &vec![b'a'; (1 << 20) + 1]);
        names.extend(with_body("a", b'0', b""));
        assert!(read(&names).is_err(), "a long name of more than a MiB");
        assert!(read(&header("x", b'x', b"77777777777\0")).is_err(), "an extended header of 8 GiB");
    }

    #[test]
    fn sparse_files_without_a_map_and_unknown_types_are_refused_with_a_reason() {
        let sparse = [header("s", b'S', &octal(0)), END.to_vec()].concat();
        assert!(read(&sparse).unwrap_err().to_string().contains("without a map"));
        let version = records(&[("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0")]);
        let pax = [with_body("x", b'x', &version), with_body("a", b'0', b""), END.to_vec()].concat();
        assert!(read(&pax).unwrap_err().to_string().contains("sparse"));
        assert!(read(&header("q", b'Q', &octal(0))).unwrap_err().to_string().contains("unknown type"));
    }

    #[test]
    fn cuts_and_flipped_bits_are_errors_and_a_missing_end_mark_is_not() {
        let all = [with_body("a", b'0', b"0123"), with_body("b", b'0', &[1; 700]), END.to_vec()].concat();
        assert_eq!(names(&all), ["a", "b"]);
        for cut in 0..all.len() - END.len() {
            let ends_before_a_header = cut % BLOCK == 0 && (cut == 0 || cut == 2 * BLOCK);
            assert_eq!(read(&all[..cut]).is_ok(), ends_before_a_header, "cut at {cut}");
        }
        let mut other = all.clone();
        other[0] ^= 1;
        assert!(read(&other).is_err());
        assert!(read(&with_body("L", b'L', b"name\0")).is_err(), "an extended header and nothing after it");
        assert_eq!(names(&[all.clone(), b"garbage".to_vec()].concat()), ["a", "b"]);
    }

    #[test]
    fn a_capability_of_version_3_is_read_as_version_2_if_it_is_the_real_roots() {
        let v2 = [vec![1, 0, 0, 2], vec![9; 16]].concat();
        let v3 = |root: u8| [vec![1, 0, 0, 3], vec![9; 16], vec![root, 0, 0, 0]].concat();
        assert_eq!(capability(&v2).unwrap(), v2);
        assert_eq!(capability(&v3(0)).unwrap(), v2);
        assert!(capability(&v3(1)).is_err());
        assert!(capability(b"").is_err());
    }

    #[test]
    fn an_archive_is_told_from_other_files() {
        let all = [with_body("a", b'0', b"0123"), END.to_vec()].concat();
        assert!(is_archive(all.as_slice()));
        assert!(is_archive(zstd::encode_all(all.as_slice(), 1).unwrap().as_slice()));
        assert!(!is_archive(&END[..]));
        assert!(!is_archive(&b"#!/bin/sh\n"[..]));
        assert!(!is_archive(&b""[..]));
    }
}
