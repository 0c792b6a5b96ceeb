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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture;

    #[test]
    fn manifest_json_names_the_blobs_and_the_familiar_tags() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let names = ["busybox:1".parse().unwrap(), "localhost:5000/x/y:2".parse().unwrap()];
        let mut bytes = Vec::new();
        docker(&store, &[Named::new(&image, &names)], Dest::Stream(&mut bytes)).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let text = archive
            .entries()
            .unwrap()
            .map(|each| each.unwrap())
            .find(|each| each.path().unwrap().ends_with("manifest.json"))
            .map(|each| serde_json::from_reader::<_, serde_json::Value>(each).unwrap())
            .unwrap();
        let expected = serde_json::json!([{
            "Config": format!("blobs/sha256/{}", image.config_digest.hex()),
            "RepoTags": ["busybox:1", "localhost:5000/x/y:2"],
            "Layers": [blob_name(&image.layers[0])],
        }]);
        assert_eq!(text, expected);
    }

    #[test]
    fn what_is_written_is_loaded_as_it_was() {
        let (dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let names = ["busybox:1".parse().unwrap(), "localhost:5000/x/y:2".parse().unwrap()];
        let all = [Named::new(&image, &names)];
        let place = |name: &str| dir.path().join(name);
        docker(&store, &all, Dest::File(&place("docker.tar"))).unwrap();
        super::super::oci(&store, &all, Dest::File(&place("oci.tar"))).unwrap();
        super::super::oci_dir(&store, &all, &place("layout")).unwrap();
        for form in ["docker.tar", "oci.tar", "layout"] {
            let (_other, other) = fixture::store();
            let loaded = image::load(&other, &place(form)).unwrap();
            assert_eq!(loaded.len(), 1, "{form}");
            assert_eq!((&loaded[0].target, loaded[0].names.as_slice()), (&image.manifest, names.as_slice()), "{form}");
            assert_eq!(loaded[0].ref_names, ["1", "2"]);
            assert_eq!(blobs(&other, &all).unwrap().len(), 4);
        }
    }
}
