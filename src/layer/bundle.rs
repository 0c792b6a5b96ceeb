//! The bytes of many small files in one file, one behind the other: in memory they would be what an archive has of them, and a file for
//! each would have to be made and removed.

use std::{
    fs::File,
    io::{self, Read},
    os::{fd::OwnedFd, unix::fs::FileExt as _},
    sync::Arc,
};

use crate::sys::{PathError, dir};

/// What it is called in its directory.
const NAME: &str = "small";

/// A file that parts are put into. It is made for the first of them.
#[derive(Debug)]
pub struct Bundle {
    dir: Arc<OwnedFd>,
    file: Option<Arc<File>>,
    end: u64,
}

/// The bytes of one of its files.
#[derive(Debug, Clone)]
pub struct Part {
    file: Arc<File>,
    at: u64,
    size: u64,
}

impl Bundle {
    /// In a directory that has no file `small`, and is not removed before the parts are read.
    pub fn within(dir: Arc<OwnedFd>) -> Self {
        Self { dir, file: None, end: 0 }
    }

    /// Puts bytes behind the last.
    pub fn put(&mut self, bytes: &[u8]) -> Result<Part, PathError> {
        let file = match &self.file {
            Some(file) => Arc::clone(file),
            None => Arc::clone(self.file.insert(Arc::new(dir::create_file(&*self.dir, NAME.as_bytes())?))),
        };
        file.write_all_at(bytes, self.end).map_err(PathError::new("write", NAME))?;
        let part = Part { file, at: self.end, size: bytes.len() as u64 };
        self.end += part.size;
        Ok(part)
    }
}

impl Part {
    /// Its bytes, from the first on.
    pub fn reader(&self) -> impl Read + Send + use<> {
        PartReader { left: self.clone() }
    }
}

/// What of a part is not read yet.
struct PartReader {
    left: Part,
}

impl Read for PartReader {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left.size).unwrap_or(usize::MAX).min(to.len());
        let count = self.left.file.read_at(to.get_mut(..most).unwrap_or_default(), self.left.at)?;
        self.left.at += count as u64;
        self.left.size -= count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_is_read_back_as_it_was_put_and_no_further() {
        let dir = tempfile::tempdir().unwrap();
        let mut bundle = Bundle::within(Arc::new(File::open(dir.path()).unwrap().into()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
        let files: Vec<Vec<u8>> = [3, 0, 1, 5000].map(|size| vec![b'a' + u8::try_from(size % 7).unwrap(); size]).into();
        let parts: Vec<Part> = files.iter().map(|bytes| bundle.put(bytes).unwrap()).collect();
        for (bytes, part) in files.iter().zip(&parts).rev() {
            let mut read = Vec::new();
            let _size = part.reader().read_to_end(&mut read).unwrap();
            assert!(read == *bytes);
        }
    }
}
