//! Bytes that are written from front to back once and read any number of times: in memory while they are few, then in a file
//! without a name. What grows with the number of files of a build lies on one.

use std::{
    fs::File,
    io::{self, BufRead},
    os::unix::fs::FileExt as _,
};

use super::{Error, Store};
use crate::sys::PathError;

/// What is in memory is written to the file when it is this long.
const TAIL: usize = 256 * 1024;
/// How much is read of the file at once.
const AHEAD: usize = 32 * 1024;

/// A tape. Without a store all of it is in memory.
#[derive(Debug, Default)]
pub struct Tape {
    store: Option<Store>,
    /// The beginning, `in_file` bytes long.
    file: Option<File>,
    in_file: u64,
    /// What follows.
    tail: Vec<u8>,
}

impl Tape {
    /// An empty one, whose file would be in this store.
    pub fn new(store: Option<&Store>) -> Self {
        Self { store: store.cloned(), ..Self::default() }
    }

    /// What is in memory already, as one.
    pub fn of(bytes: Vec<u8>) -> Self {
        Self { tail: bytes, ..Self::default() }
    }

    /// All of it in memory, of a tape without a store.
    pub fn into_bytes(self) -> Vec<u8> {
        self.tail
    }

    /// Makes room for so many bytes that are to come.
    pub(super) fn reserve(&mut self, length: u64) {
        let most = if self.store.is_some() { TAIL } else { usize::MAX };
        self.tail.reserve_exact(usize::try_from(length).unwrap_or(usize::MAX).min(most));
    }

    /// Hands on all of it, in pieces.
    pub(super) fn each(&self, mut take: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut from = self.reader(0);
        while from.at < self.in_file {
            let length = from.fill_buf()?.len();
            take(&from.ahead)?;
            from.consume(length);
        }
        take(&self.tail)
    }

    /// How many bytes it has.
    pub fn len(&self) -> u64 {
        self.in_file + self.tail.len() as u64
    }

    /// Has it none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Puts bytes behind the last.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.tail.extend_from_slice(bytes);
        let Some(store) = self.store.as_ref().filter(|_| self.tail.len() >= TAIL) else { return Ok(()) };
        if self.file.is_none() {
            self.file = Some(store.nameless_file()?);
        }
        self.spill()
    }

    /// Nothing is put on it for now: what it has in a file already lies there whole, and no memory waits for more.
    pub fn settle(&mut self) -> Result<(), Error> {
        self.spill()?;
        self.tail.shrink_to_fit();
        Ok(())
    }

    /// Writes what is in memory to the file, if there is one.
    fn spill(&mut self) -> Result<(), Error> {
        let Some(file) = &self.file else { return Ok(()) };
        file.write_all_at(&self.tail, self.in_file).map_err(PathError::new("write", "a temporary file"))?;
        self.in_file += self.tail.len() as u64;
        self.tail.clear();
        Ok(())
    }

    /// Reads from a place on, in bytes from the first. Several may read at once.
    pub fn reader(&self, from: u64) -> TapeReader<'_> {
        TapeReader { tape: self, at: from, ahead: Vec::new(), used: 0 }
    }

    /// The bytes at a place, as many as there are and as fit.
    fn read_at(&self, into: &mut [u8], at: u64) -> io::Result<usize> {
        if let Some(file) = self.file.as_ref().filter(|_| at < self.in_file) {
            let most = usize::try_from(self.in_file - at).unwrap_or(usize::MAX).min(into.len());
            loop {
                match file.read_at(into.get_mut(..most).unwrap_or_default(), at) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // Somebody cut it short.
                    Ok(0) if most > 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                    read => return read,
                }
            }
        }
        let tail = usize::try_from(at - self.in_file).ok().and_then(|skip| self.tail.get(skip..)).unwrap_or_default();
        let length = tail.len().min(into.len());
        into.get_mut(..length).unwrap_or_default().copy_from_slice(tail.get(..length).unwrap_or_default());
        Ok(length)
    }
}

/// A place on a tape. What a file does not give back, or what ends too early, is an error each time it is asked for.
#[derive(Debug)]
pub struct TapeReader<'a> {
    tape: &'a Tape,
    /// Of what was not read yet.
    at: u64,
    ahead: Vec<u8>,
    used: usize,
}

impl TapeReader<'_> {
    /// So many bytes, the next ones. Where there are not so many it is an error, and no memory is taken for them.
    pub fn exactly(&mut self, length: usize) -> Result<Vec<u8>, Error> {
        let left = (self.ahead.len() - self.used) as u64 + self.tape.len().saturating_sub(self.at);
        if length as u64 > left {
            return Err(PathError::new("read", "a temporary file")(io::Error::from(io::ErrorKind::UnexpectedEof)).into());
        }
        let mut bytes = vec![0; length];
        io::Read::read_exact(self, &mut bytes).map_err(PathError::new("read", "a temporary file"))?;
        Ok(bytes)
    }

    /// The bytes up to the end of a line, which they have with them. `None`: there are no more.
    pub fn line(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let mut line = Vec::new();
        let length = self.read_until(b'\n', &mut line).map_err(PathError::new("read", "a temporary file"))?;
        Ok((length > 0).then_some(line))
    }

    /// Are all bytes read?
    pub fn is_at_end(&self) -> bool {
        self.used == self.ahead.len() && self.at >= self.tape.len()
    }

    /// Bytes behind their length, as [`framed`] gives them.
    pub fn framed(&mut self) -> Result<Vec<u8>, Error> {
        let length = self.word()?;
        self.exactly(usize::try_from(length).unwrap_or(usize::MAX))
    }

    /// A number of 32 bits.
    pub fn word(&mut self) -> Result<u32, Error> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// A number of 64 bits.
    pub fn number(&mut self) -> Result<u64, Error> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Bytes whose number is known.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut bytes = [0; N];
        io::Read::read_exact(self, &mut bytes).map_err(PathError::new("read", "a temporary file"))?;
        Ok(bytes)
    }
}

impl io::Read for TapeReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let ready = self.fill_buf()?;
        let length = ready.len().min(into.len());
        into.get_mut(..length).unwrap_or_default().copy_from_slice(ready.get(..length).unwrap_or_default());
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for TapeReader<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.used == self.ahead.len() {
            self.ahead.resize(AHEAD, 0);
            let read = self.tape.read_at(&mut self.ahead, self.at);
            // After an error nothing of it may look as if it had been read.
            self.ahead.truncate(read.as_ref().map_or(0, |length| *length));
            self.used = 0;
            self.at += read? as u64;
        }
        Ok(self.ahead.get(self.used..).unwrap_or_default())
    }

    fn consume(&mut self, length: usize) {
        self.used = (self.used + length).min(self.ahead.len());
    }
}

/// What a tape gave back is not what was written.
pub fn garbled() -> Error {
    PathError::new("read", "a temporary file")(io::Error::from(io::ErrorKind::InvalidData)).into()
}

/// Bytes behind their length. Nothing that is framed is near 4 GiB: paths, targets, attributes.
pub fn framed(into: &mut Vec<u8>, bytes: &[u8]) {
    into.extend_from_slice(&u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    /// Lines of several lengths.
    fn line(number: u32) -> Vec<u8> {
        vec![number.to_le_bytes()[0]; usize::try_from(number % 301).unwrap()]
    }

    #[test]
    fn what_was_written_is_read_back_from_memory_and_from_a_file_any_number_of_times() {
        let (_dir, store) = store();
        for (store, in_file) in [(None, false), (Some(&store), true)] {
            let mut tape = Tape::new(store);
            let mut places = Vec::new();
            for number in 0..5000 {
                places.push(tape.len());
                let mut bytes = Vec::new();
                framed(&mut bytes, &line(number));
                tape.append(&bytes).unwrap();
            }
            assert_eq!(tape.file.is_some(), in_file);
            assert!(!in_file || tape.tail.len() < TAIL);
            tape.settle().unwrap();
            // What is in a file needs no memory.
            assert_eq!(tape.tail.capacity(), if in_file { 0 } else { tape.tail.len() });
            let (mut one, mut other) = (tape.reader(0), tape.reader(places[4321]));
            for number in 0..5000 {
                assert_eq!(one.framed().unwrap(), line(number));
                if number >= 4321 {
                    assert_eq!(other.framed().unwrap(), line(number));
                }
            }
            assert!(one.is_at_end() && other.is_at_end());
            assert!(one.word().is_err());
        }
    }

    #[test]
    fn what_the_disk_does_not_give_back_is_an_error_each_time_and_never_made_up() {
        let (dir, store) = store();
        let mut tape = Tape::new(Some(&store));
        tape.append(&vec![1; TAIL]).unwrap();
        let name = dir.path().join("unreadable");
        std::fs::write(&name, vec![1; TAIL]).unwrap();
        tape.file = Some(File::options().write(true).open(&name).unwrap());
        let mut reader = tape.reader(0);
        for _ in 0..2 {
            // Who was interrupted asks again.
            assert!(reader.fill_buf().is_err() && reader.number().is_err());
        }
        assert!(tape.each(|_| Ok(())).is_err());
    }

    #[test]
    fn a_file_that_was_cut_short_is_an_error_and_not_an_end() {
        let (_dir, store) = store();
        let mut tape = Tape::new(Some(&store));
        tape.append(&b"line\n".repeat(TAIL / 4)).unwrap();
        tape.file.as_ref().unwrap().set_len(5000).unwrap();
        let mut reader = tape.reader(0);
        let whole = (0..1000).map(|_| reader.line().unwrap()).all(|line| line == Some(b"line\n".to_vec()));
        assert!(whole && reader.line().is_err() && !reader.is_at_end());
        let mut handed = 0;
        let result = tape.each(|bytes| {
            handed += bytes.len();
            if handed < 2 * TAIL && !bytes.is_empty() { Ok(()) } else { Err(io::Error::other("for ever")) }
        });
        assert_eq!((handed, result.unwrap_err().kind()), (5000, io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn nothing_of_a_tape_is_left_in_the_store() {
        let (_dir, store) = store();
        let mut tape = Tape::new(Some(&store));
        tape.append(&vec![1; TAIL]).unwrap();
        assert_eq!(std::fs::read_dir(store.tmp()).unwrap().count(), 0);
    }
}
