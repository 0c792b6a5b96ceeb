//! A context that came as an archive: what its entries are is data, only the bytes of its files are on a disk.
//!
//! ```text
//! files/     the bytes, see `layer::unpack`
//! index      what each entry is, in the form of an index on disk
//! ```
//!
//! A name is resolved in the index; a link of the archive leads nowhere else than inside of it. The ignore file of an archive
//! is not applied, as in BuildKit: it says what is sent, and here somebody has sent it already.
//!
//! Source: BuildKit `frontend/dockerui/context.go` (`DetectHTTPContext`, `archiveMaxTimeFromHTTPArchive`), `config.go`
//! (`MainContext`); docker buildx `build/opt.go`.

use std::{
    io::{self, Read},
    os::fd::OwnedFd,
    path::Path,
    sync::Arc,
};

use super::{Error, bounded};
use crate::{
    layer,
    sys::{PathError, dir},
    tree::{Chain, Index, Kind, Row, TreePath},
};

const FILES: &str = "files";
const INDEX: &str = "index";

/// An unpacked archive.
#[derive(Debug, Clone)]
pub struct Unpacked {
    chain: Chain,
    files: Arc<OwnedFd>,
}

impl Unpacked {
    /// Unpacks an archive, compressed or not, into a directory that is the caller's and empty. The archive is read to its end.
    pub fn unpack<'a>(archive: impl Read + Send + 'a, dir: &Path) -> Result<Self, Error> {
        let files = dir::make_root(&dir.join(FILES))?;
        let index = layer::unpack(archive, &files).map_err(refused)?;
        let path = dir.join(INDEX);
        std::fs::write(&path, index.encode()).map_err(PathError::new("write", &path))?;
        Ok(Self::of(index, files))
    }

    /// What [`Unpacked::unpack`] left in a directory.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(INDEX);
        let bytes = std::fs::read(&path).map_err(PathError::new("read", &path))?;
        let index = Index::decode(bytes).map_err(|error| PathError::new("read", &path)(io::Error::other(error)))?;
        Ok(Self::of(index, dir::open_root(&dir.join(FILES))?))
    }

    fn of(index: Index, files: OwnedFd) -> Self {
        Self { chain: Chain::new(vec![Arc::new(index)]), files: Arc::new(files) }
    }

    /// What its entries are.
    pub fn chain(&self) -> &Chain {
        &self.chain
    }

    /// Where its files' bytes are, each under its own path.
    pub fn files(&self) -> &Arc<OwnedFd> {
        &self.files
    }

    /// When the newest of its files was changed, in seconds since 1970. `None`: it has no file.
    pub fn newest(&self) -> Option<i64> {
        let rows = self.chain.layers().iter().flat_map(|index| index.rows());
        let times = rows.filter_map(|(_, row)| match row {
            Row::Put { entry, .. } if matches!(entry.kind, Kind::File { .. }) => Some(entry.meta.mtime),
            Row::Put { .. } | Row::Whiteout => None,
        });
        times.max()
    }

    /// A small file whole, links followed inside the archive. `None`: it is not there.
    pub fn small_file(&self, path: &str, limit: u64) -> Result<Option<Vec<u8>>, Error> {
        let path = TreePath::clean(path.as_bytes())?;
        let at = self.chain.resolve(&path, true)?;
        let Some(found) = self.chain.look_up(&at) else { return Ok(None) };
        let on_disk = found.link.unwrap_or(at);
        let file = dir::open_file(&*self.files, on_disk.as_os_path()).map_err(|error| super::refused("open", &path, error))?;
        bounded(file, &path, limit).map(Some)
    }
}

/// What is wrong with an archive is the archive's fault, what the disk says is not.
fn refused(error: layer::Error) -> Error {
    match error {
        layer::Error::Path(error) => Error::Path(error),
        layer::Error::BadLayer { reason, .. } => Error::Archive { reason },
        other @ (layer::Error::Store(_) | layer::Error::Changed { .. } | layer::Error::BadName { .. }) => {
            Error::Archive { reason: other.to_string() }
        }
    }
}
