//! The archive that `docker load` reads: an OCI layout with `manifest.json` beside `index.json`.
//!
//! Old engines (before 25) and podman read `manifest.json`, new ones `index.json`; both name the same blobs.
//!
//! Source: moby `image/tarexport/load.go`; containerd `images/archive/exporter.go`.

use serde::Serialize;

use crate::{image, store::Store};

use super::{Dest, Error, Named, archive::Archive, archive::blob_name, blobs, oci};

/// One image in `manifest.json`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Item {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Writes images as an archive for `docker load`. Names with a tag become its `RepoTags`.
pub fn docker(store: &Store, images: &[Named<'_>], dest: Dest<'_>) -> Result<(), Error> {
    let all = blobs(store, images)?;
    let items = images.iter().map(|each| item(store, each)).collect::<Result<Vec<_>, _>>()?;
    let items = serde_json::to_vec(&items).map_err(|error| Error::Stream(error.into()))?;
    let index = oci::index(images, Vec::new())?;
    dest.fill(|stream| {
        let mut archive = Archive::new(stream);
        archive.file("oci-layout", oci::MARKER)?;
        archive.file("index.json", &index)?;
        archive.file("manifest.json", &items)?;
        archive.dir("blobs/")?;
        archive.dir("blobs/sha256/")?;
        all.iter().try_for_each(|blob| archive.blob(store, blob))?;
        archive.finish()
    })
}

fn item(store: &Store, named: &Named<'_>) -> Result<Item, Error> {
    let manifest = image::manifest(store, &named.image.manifest)?;
    let tags: Vec<String> = named
        .names
        .iter()
        .filter(|name| name.tag.is_some())
        .map(|name| crate::oci::Reference { digest: None, ..name.clone() }.familiar())
        .collect();
    Ok(Item {
        config: blob_name(&manifest.config),
        repo_tags: Some(tags).filter(|tags| !tags.is_empty()),
        layers: manifest.layers.iter().map(blob_name).collect(),
    })
}
