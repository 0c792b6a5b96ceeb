//! A layer's tar under another compression: the same diff id, another blob.

use std::io::{self, Read, Write};

use super::{Compression, Error, archive, blob};
use crate::{
    oci::{Descriptor, DiffId},
    store::Store,
    sys::PathError,
};

/// A blob of the layer under that compression: the one that is remembered, or a new one, which then is. What `from` holds
/// must have the diff id. `None`: `from` is not in the store.
pub fn recompress(store: &Store, from: &Descriptor, diff_id: &DiffId, compression: Compression) -> Result<Option<Descriptor>, Error> {
    if let Some(have) = store.layer_blob(diff_id, &compression.id())
        && store.has_blob(&have.digest, have.size)
    {
        return Ok(Some(have));
    }
    let Some(reader) = store.open_blob(from)? else { return Ok(None) };
    let broken = |error: &io::Error| Error::BadLayer { layer: from.digest.to_string(), reason: error.to_string() };
    let mut plain = archive::decompress(reader).map_err(|error| broken(&error))?;
    let ((), found, blob) = blob::pack(store, (compression, blob::Lasting::Now), |out| copy(&mut plain, out, &broken))?;
    if found != *diff_id {
        let reason = format!("its diff id is {found}, the image says {diff_id}");
        return Err(Error::BadLayer { layer: from.digest.to_string(), reason });
    }
    store.put_layer_blob(diff_id, &compression.id(), &blob)?;
    Ok(Some(blob))
}

fn copy(from: &mut dyn Read, to: &mut dyn Write, broken: &dyn Fn(&io::Error) -> Error) -> Result<(), Error> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(buffer.get(..count).unwrap_or_default()).map_err(PathError::new("write", "layer"))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(broken(&error)),
        }
    }
}
