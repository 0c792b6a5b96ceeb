//! An OCI layout that is a directory.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read},
    path::Path,
};

use crate::{oci::Descriptor, store::Store, sys::PathError};

use super::{Error, Loaded, from_index, keep};

/// Manifests and configs are no larger.
const SMALL: u64 = 1 << 20;

/// Loads all images of the layout. Paths are made of digests, so the layout names no file outside of itself.
pub(super) fn load(store: &Store, dir: &Path) -> Result<Vec<Loaded>, Error> {
    let what = dir.display().to_string();
    let Some(index) = document(&dir.join("index.json"))? else {
        return Err(Error::bad(what, "the directory has no index.json, it is no OCI layout"));
    };
    from_index(store, &index, &what, &mut |blob| bring(store, dir, blob))
}

fn bring(store: &Store, dir: &Path, blob: &Descriptor) -> Result<bool, Error> {
    // What is small is read, so that one that is damaged comes from here again; a layer's damage is found when it is read.
    let there = if blob.size <= SMALL { store.has_whole_blob(blob) } else { store.has_blob(&blob.digest, blob.size) };
    if there {
        return Ok(true);
    }
    let path = dir.join("blobs/sha256").join(blob.digest.hex());
    // Looked at before it is opened: a pipe would wait for ever.
    match fs::metadata(&path) {
        Ok(found) if found.is_file() && found.len() == blob.size => {}
        Ok(_) => return Err(Error::bad(path.display().to_string(), "it is no file of the size that its descriptor says")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(PathError::new("open", path)(error).into()),
    }
    let mut file = File::open(&path).map_err(PathError::new("open", &path))?.take(blob.size);
    let _kept = keep(store, Some((blob.digest, blob.size)), &mut file, &path.display().to_string())?;
    Ok(true)
}

fn document(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match fs::metadata(path) {
        Ok(found) if found.is_file() => File::open(path).map_err(PathError::new("open", path))?,
        Ok(_) => return Err(Error::bad(path.display().to_string(), "it is no regular file")),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PathError::new("open", path)(error).into()),
    };
    let mut bytes = Vec::new();
    file.take(super::super::MANIFEST_LIMIT + 1).read_to_end(&mut bytes).map_err(PathError::new("read", path))?;
    if bytes.len() as u64 > super::super::MANIFEST_LIMIT {
        return Err(Error::bad(path.display().to_string(), "it is too large"));
    }
    Ok(Some(bytes))
}
