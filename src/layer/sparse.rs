//! Sparse files of GNU tar: a map says where the bytes of the body stand in the file; all else is zeros.
//!
//! Three forms: a table in the header and in blocks behind it (type `S`), numbers in a PAX record (versions 0.0 and 0.1),
//! and numbers at the beginning of the body (1.0). A map must be in order, must not overlap, must end within the file and must
//! use up the body, so that no byte of an archive is hidden from who reads it.
//!
//! Source: GNU tar's manual, "Sparse Formats"; Go's `archive/tar`, which reads layers and ADD's archives for the others.

use std::{collections::VecDeque, io};

use super::{
    block::{self, BLOCK},
    pax::{self, Records},
};

/// The largest file with holes. The zeros of a larger one, which cost an archive nothing, would keep a build busy for hours.
const LARGEST: u64 = 1 << 40;
/// As many bytes as the map of one file may have.
const LONGEST_MAP: usize = 1 << 20;

/// Bytes that are there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    at: u64,
    length: u64,
}

/// Where the bytes of a body stand, and how far it has been read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    left: VecDeque<Segment>,
    at: u64,
    size: u64,
}

/// What comes next of a file, never empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// So many zeros.
    Hole(u64),
    /// So many bytes of the body.
    Bytes(u64),
    /// Nothing more.
    End,
}

/// How a PAX header says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// In its records.
    Records,
    /// At the beginning of the body.
    Body,
}

impl Map {
    fn new(numbers: &[u64], size: u64, body: u64) -> Result<Self, &'static str> {
        if size > LARGEST {
            return Err("a sparse file larger than 1 TiB");
        }
        let pairs = numbers.chunks_exact(2);
        if !pairs.remainder().is_empty() {
            return Err("a sparse file whose map is cut off");
        }
        let mut segments: VecDeque<Segment> = pairs.map(|pair| Segment { at: pair[0], length: pair[1] }).collect();
        let mut end = 0;
        for segment in &segments {
            if segment.at < end {
                return Err("a sparse file whose map is out of order");
            }
            end =
                segment.at.checked_add(segment.length).filter(|end| *end <= size).ok_or("a sparse file whose map leads beyond its end")?;
        }
        // The ends are bounded by the size, so that the sum is too.
        if segments.iter().map(|segment| segment.length).sum::<u64>() != body {
            return Err("a sparse file whose map does not fit its bytes");
        }
        // Writers mark the end by an empty one.
        segments.retain(|segment| segment.length > 0);
        Ok(Self { left: segments, at: 0, size })
    }

    /// The file's size, holes included.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What comes next.
    pub(super) fn next(&self) -> Piece {
        match self.left.front() {
            Some(segment) if segment.at == self.at => Piece::Bytes(segment.length),
            Some(segment) => Piece::Hole(segment.at - self.at),
            None if self.at < self.size => Piece::Hole(self.size - self.at),
            None => Piece::End,
        }
    }

    /// So many bytes, no more than came next, have been read.
    pub(super) fn advance(&mut self, bytes: u64) {
        if let Some(segment) = self.left.front_mut().filter(|segment| segment.at == self.at) {
            (segment.at, segment.length) = (segment.at + bytes, segment.length.saturating_sub(bytes));
            if segment.length == 0 {
                self.left.pop_front();
            }
        }
        self.at += bytes;
    }
}

/// Reads the old form: `table` is the header from [`block::SPARSE`] on, `more` the blocks behind it, `body` what the header gives as size.
pub(super) fn of_header(
    table: &[u8],
    mut more: impl FnMut() -> io::Result<[u8; BLOCK]>,
    body: u64,
) -> io::Result<Result<Map, &'static str>> {
    const ENTRY: usize = 24;
    let mut numbers = Vec::new();
    let mut take = |entries: &[u8]| -> Result<(), &'static str> {
        for entry in entries.chunks_exact(ENTRY).take_while(|entry| entry[0] != 0) {
            for field in entry.chunks_exact(ENTRY / 2) {
                numbers.push(u64::try_from(block::number(field)?).map_err(|_negative| "a sparse file with a number that is none")?);
            }
        }
        if numbers.len() * (ENTRY / 2) > LONGEST_MAP { Err("a sparse file whose map has no end") } else { Ok(()) }
    };
    // Four entries, is there more, the size.
    let (entries, rest) = table.split_at_checked(4 * ENTRY).unwrap_or_default();
    let Some((mut extended, size)) = rest.split_first().map(|(flag, size)| (*flag != 0, block::number(size))) else {
        return Ok(Err("a sparse file without a map"));
    };
    if let Err(reason) = take(entries) {
        return Ok(Err(reason));
    }
    while extended {
        let block = more()?;
        let (entries, flag) = block.split_at(21 * ENTRY);
        extended = flag.first().is_some_and(|flag| *flag != 0);
        if let Err(reason) = take(entries) {
            return Ok(Err(reason));
        }
    }
    let size = size.and_then(|size| u64::try_from(size).map_err(|_negative| "a sparse file with a size that is none"));
    Ok(size.and_then(|size| Map::new(&numbers, size, body)))
}

/// Does a PAX header describe a sparse file, and how? Of an unknown version: none, as Go has it.
pub(super) fn form(records: &Records) -> Option<Form> {
    let version = |key: &[u8]| records.get(key).map_or(&b""[..], Vec::as_slice);
    match (version(b"GNU.sparse.major"), version(b"GNU.sparse.minor")) {
        (b"0", b"0" | b"1") => Some(Form::Records),
        (b"1", b"0") => Some(Form::Body),
        // The first two versions did not say which they were.
        (b"", b"") if records.contains_key(pax::SPARSE_MAP) => Some(Form::Records),
        _ => None,
    }
}

/// The map in the records of a header whose entry has a body of that size.
pub(super) fn of_records(records: &Records, body: u64) -> Result<Map, &'static str> {
    let text = records.get(pax::SPARSE_MAP).map(Vec::as_slice).unwrap_or_default();
    let numbers = text.split(|byte| *byte == b',').filter(|text| !text.is_empty()).map(number).collect::<Result<Vec<_>, _>>()?;
    Map::new(&numbers, size(records, body)?, body)
}

/// The map at the beginning of a body; `next` gives its blocks. Also how many bytes it took.
pub(super) fn of_body(
    records: &Records,
    body: u64,
    mut next: impl FnMut() -> io::Result<[u8; BLOCK]>,
) -> io::Result<Result<(Map, u64), &'static str>> {
    let mut text: Vec<u8> = Vec::new();
    let mut ends = 0;
    loop {
        if text.len() >= LONGEST_MAP || (text.len() + BLOCK) as u64 > body {
            return Ok(Err("a sparse file whose map has no end"));
        }
        let block = next()?;
        text.extend_from_slice(&block);
        ends += block.split(|byte| *byte == b'\n').count() - 1;
        if ends == 0 {
            continue;
        }
        let mut lines = text.split(|byte| *byte == b'\n');
        let wanted = match number(lines.next().unwrap_or_default()) {
            Ok(count) => usize::try_from(count).unwrap_or(usize::MAX).saturating_mul(2),
            Err(reason) => return Ok(Err(reason)),
        };
        if ends > wanted {
            let read = text.len() as u64;
            let numbers = lines.take(wanted).map(number).collect::<Result<Vec<_>, _>>();
            let map = numbers.and_then(|numbers| Map::new(&numbers, size(records, body)?, body - read));
            return Ok(map.map(|map| (map, read)));
        }
    }
}

fn size(records: &Records, body: u64) -> Result<u64, &'static str> {
    let named = records.get(&b"GNU.sparse.size"[..]).or_else(|| records.get(&b"GNU.sparse.realsize"[..]));
    named.map_or(Ok(body), |text| number(text))
}

fn number(text: &[u8]) -> Result<u64, &'static str> {
    pax::number(text).ok_or("a sparse file with a number that is none")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;
    use crate::layer::archive::{Entries, Error, MemberKind};

    /// The only file of an archive, in reads of odd sizes.
    fn only(archive: &[u8]) -> Result<(Vec<u8>, u64, Vec<u8>), Error> {
        let mut entries = Entries::new(archive);
        let member = entries.next_member()?.unwrap();
        let MemberKind::File { size } = member.kind else { return Err(Error::Damaged("no file".to_owned())) };
        let (mut bytes, mut some) = (Vec::new(), [0; 37]);
        let mut body = entries.body();
        loop {
            match body.read(&mut some)? {
                0 => break,
                read => bytes.extend_from_slice(&some[..read]),
            }
        }
        assert_eq!(entries.next_member()?, None);
        Ok((member.name, size, bytes))
    }

    /// As GNU tar writes a file with these pieces: in the format, and what the file is.
    fn of_tar(format: &[&str], pieces: usize) -> (Vec<u8>, Vec<u8>) {
        use std::os::unix::fs::FileExt as _;
        let dir = tempfile::tempdir().unwrap();
        let file = std::fs::File::create(dir.path().join("holes")).unwrap();
        for piece in 0..pieces as u64 {
            file.write_all_at(format!("piece {piece}").as_bytes(), piece * 65536 + 8192).unwrap();
        }
        file.set_len(pieces as u64 * 65536 + 100_000).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the reference writer of this format")]
        let tar =
            std::process::Command::new("tar").args(["-c", "--sparse", "-C"]).arg(dir.path()).args(format).arg("holes").output().unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        (tar.stdout, std::fs::read(dir.path().join("holes")).unwrap())
    }

    #[test]
    fn what_gnu_tar_writes_is_read_in_every_form() {
        let forms: [&[&str]; 4] = [
            &["--format=gnu"],
            &["--format=posix", "--sparse-version=0.0"],
            &["--format=posix", "--sparse-version=0.1"],
            &["--format=posix", "--sparse-version=1.0"],
        ];
        for form in forms {
            // 60 pieces fill the old form's header and two blocks behind it, and the new one's first block.
            for pieces in [0, 1, 4, 5, 60] {
                let (archive, file) = of_tar(form, pieces);
                assert!(archive.len() < file.len(), "{form:?}: no holes");
                let (name, size, bytes) = only(&archive).unwrap();
                assert_eq!((name.as_slice(), size), (&b"holes"[..], file.len() as u64), "{form:?}");
                assert!(bytes == file, "{form:?} with {pieces} pieces");
            }
        }
    }

    #[test]
    fn a_map_that_lies_is_refused() {
        let refused = |numbers: &[u64], size, body| Map::new(numbers, size, body).unwrap_err();
        assert!(refused(&[0, 5, 4, 5], 20, 10).contains("order"));
        assert!(refused(&[5, 5, 0, 5], 20, 10).contains("order"));
        assert!(refused(&[16, 5], 20, 5).contains("beyond"));
        assert!(refused(&[u64::MAX, 2], 20, 2).contains("beyond"));
        assert!(refused(&[0, 5], 20, 6).contains("fit"));
        assert!(refused(&[0, 5, 7], 20, 5).contains("cut off"));
        assert!(refused(&[0, 5], u64::MAX, 5).contains("1 TiB"));
        assert!(Map::new(&[0, 5, 20, 0], 20, 5).is_ok(), "the mark of the end");
    }

    #[test]
    fn a_map_in_a_body_ends() {
        let empty = Records::new();
        let refused = |text: &'static [u8], body| {
            let mut block = [b'1'; BLOCK];
            block[..text.len()].copy_from_slice(text);
            of_body(&empty, body, || Ok(block)).unwrap().unwrap_err()
        };
        assert!(refused(b"", 1 << 30).contains("no end"), "no newline ever");
        assert!(refused(b"2\n0\n1\n", 512).contains("no end"), "fewer numbers than it says");
        assert!(refused(b"x\n", 512).contains("number"));
        assert!(refused(b"99999999999999999\n", 1 << 30).contains("no end"));
    }

    #[test]
    fn keys_that_come_again_must_be_in_turn() {
        let of = |text: &str| pax::parse(text.as_bytes());
        let good = of("23 GNU.sparse.offset=1\n25 GNU.sparse.numbytes=2\n").unwrap();
        assert_eq!(good.get(pax::SPARSE_MAP).unwrap(), b"1,2");
        assert!(of("25 GNU.sparse.numbytes=2\n23 GNU.sparse.offset=1\n").is_err());
    }
}
