//! A docker archive: `manifest.json` names configs and layer tars by path; manifests are ours.
//!
//! The layers' names and order are bound to the config by nothing but this file, so each layer is checked against its
//! diff id here. The config keeps its bytes: they are the image's id in Docker.

use std::{collections::BTreeMap, io::Read};

use serde::Deserialize;

use crate::{
    layer,
    oci::{Descriptor, DiffId, Digest, ImageConfig, Reference, media_type},
    store::Store,
};

use super::{Error, Loaded, archive::Unpacked};
use crate::image::{
    CONFIG_LIMIT, Flavor,
    assemble::{ConfigBlob, Dress, seal},
    read,
};

/// One image of a `manifest.json`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DockerItem {
    pub(super) config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

impl DockerItem {
    /// Its tags, those that are image names.
    pub(super) fn names(&self) -> Vec<Reference> {
        self.repo_tags.iter().flatten().filter_map(|tag| tag.parse().ok()).collect()
    }
}

/// Reads `manifest.json`.
pub(super) fn items(what: &str, text: &[u8]) -> Result<Vec<DockerItem>, Error> {
    let items: Vec<DockerItem> = read::parse(what, text)?;
    match items.len() {
        0 => Err(Error::bad(what, "its manifest.json names no image")),
        count if count > super::IMAGES => Err(Error::bad(what, "its manifest.json names too many images")),
        _ => Ok(items),
    }
}

/// Makes the image of an item.
pub(super) fn image(store: &Store, unpacked: &Unpacked, item: &DockerItem, what: &str) -> Result<Loaded, Error> {
    let lacks = |name: &str| Error::bad(what, format!("manifest.json names `{}`, which is not there", name.escape_debug()));
    let (digest, size) = unpacked.file(&item.config).ok_or_else(|| lacks(&item.config))?;
    let config: ImageConfig = read::document(store, &Descriptor::new(media_type::DOCKER_CONFIG, digest, size), CONFIG_LIMIT, "the config")?;
    let names = item.layers.as_deref().unwrap_or_default();
    let ids = &config.rootfs.diff_ids;
    if names.len() != ids.len() {
        return Err(Error::bad(what, format!("manifest.json names {} layers, the config {}", names.len(), ids.len())));
    }
    let mut layers = Vec::with_capacity(ids.len());
    let mut known: BTreeMap<Digest, (DiffId, Descriptor)> = BTreeMap::new();
    for (name, id) in names.iter().zip(ids) {
        let (digest, size) = unpacked.file(name).ok_or_else(|| lacks(name))?;
        let blob = match known.get(&digest) {
            Some((have, blob)) if have == id => blob.clone(),
            _ => checked_layer(store, digest, size, *id)?,
        };
        drop(known.insert(digest, (*id, blob.clone())));
        layers.push(blob);
    }
    let config = ConfigBlob { digest, size, config };
    let image = seal(store, config, &layers, Dress { annotations: BTreeMap::new(), flavor: Flavor::Oci })?;
    let image = read::read(store, &image.manifest, &image.platform)?;
    Ok(Loaded { names: item.names(), ref_names: Vec::new(), target: image.manifest })
}

/// The descriptor of a layer whose uncompressed bytes have that diff id.
fn checked_layer(store: &Store, digest: Digest, size: u64, id: DiffId) -> Result<Descriptor, Error> {
    if digest == id.0 {
        return Ok(Descriptor::new(media_type::LAYER, digest, size));
    }
    let missing = || Error::Missing { digest, what: "a layer" };
    let broken = |source| Error::Stream { what: format!("the layer {digest}"), source };
    let mut magic = [0; 4];
    let mut start = store.open_blob(&Descriptor::new(media_type::LAYER, digest, size))?.ok_or_else(missing)?;
    start.read_exact(&mut magic).map_err(broken)?;
    let kind = match magic {
        [0x1f, 0x8b, ..] => media_type::LAYER_GZIP,
        [0x28, 0xb5, 0x2f, 0xfd] => media_type::LAYER_ZSTD,
        _ => return Err(Error::bad(digest.to_string(), format!("the layer should have the diff id {id}"))),
    };
    let blob = Descriptor::new(kind, digest, size);
    layer::verify(store, &blob, &id)?;
    Ok(blob)
}
