//! Something noted in an image's config, in a field of its own that runtimes pass over.

use serde_json::Value;

use crate::{
    oci::{Config, Descriptor, DiffId, History, ImageConfig, Platform, RootFs},
    store::Store,
};

use super::{
    Error, Flavor, Image,
    assemble::{ConfigBlob, Dress, json, seal},
    read::{self, CONFIG_LIMIT},
};

impl Image {
    /// The image with a value in a field of its config that has no other meaning: another image, with the same layers and history.
    pub fn noting(&self, store: &Store, field: &str, value: Value) -> Result<Self, Error> {
        let mut config = self.config.clone();
        drop(config.other.insert(field.to_owned(), value));
        let annotations = read::manifest(store, &self.manifest)?.annotations;
        let image = seal(store, written(store, config)?, &self.layers, Dress { annotations, flavor: self.flavor() })?;
        Ok(Self { base_layers: self.base_layers, platform: self.platform.clone(), ..image })
    }
}

/// An image that is nothing but its layers and what is noted of them: it is kept and carried like any, and made to be run by nobody.
pub fn carrier(store: &Store, layers: &[(DiffId, Descriptor)], platform: &Platform, field: &str, value: Value) -> Result<Image, Error> {
    let config = ImageConfig {
        created: None,
        author: None,
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        variant: platform.variant.clone(),
        config: Config::default(),
        rootfs: RootFs { diff_ids: layers.iter().map(|(id, _)| *id).collect(), ..RootFs::default() },
        // As many lines as layers: who reads it as an image finds it sound.
        history: layers.iter().map(|_| History { created_by: Some("a layer of a cache".to_owned()), ..History::default() }).collect(),
        other: std::iter::once((field.to_owned(), value)).collect(),
    };
    let blobs: Vec<Descriptor> = layers.iter().map(|(_, blob)| blob.clone()).collect();
    seal(store, written(store, config)?, &blobs, Dress { annotations: std::collections::BTreeMap::new(), flavor: Flavor::Oci })
}

fn written(store: &Store, config: ImageConfig) -> Result<ConfigBlob, Error> {
    let text = json("config", &config)?;
    if text.len() as u64 > CONFIG_LIMIT {
        return Err(Error::bad("the config", "what is noted in it is larger than any config may be"));
    }
    Ok(ConfigBlob { digest: store.put_blob(&text)?, size: text.len() as u64, config })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture;

    #[test]
    fn what_is_noted_is_read_again_and_changes_nothing_else() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let noted = image.noting(&store, "x.note", Value::from(7)).unwrap();
        let again = read::read(&store, &noted.manifest, &fixture::platform()).unwrap();
        assert_eq!(again.config.other["x.note"], 7);
        assert_eq!((again.layers, again.config.history), (image.layers, image.config.history));
    }

    #[test]
    fn a_carrier_is_a_sound_image() {
        let (_dir, store) = fixture::store();
        let layer = fixture::layer(&store, &[("b", "3")]);
        let image = carrier(&store, std::slice::from_ref(&layer), &fixture::platform(), "x.note", Value::from(7)).unwrap();
        let again = read::read(&store, &image.manifest, &fixture::platform()).unwrap();
        assert_eq!((again.config.rootfs.diff_ids, again.layers.len()), (vec![layer.0], 1));
    }
}
