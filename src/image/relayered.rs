//! An image with other layers: another image.

use crate::{
    oci::{Descriptor, DiffId, Digest, ImageConfig, RootFs},
    store::Store,
};

use super::{
    Error, Image,
    assemble::{ConfigBlob, Dress, json, seal},
    read,
};

impl Image {
    /// The image with these layers in the place of its own: as many, base first. Its config is written anew, with their diff ids; its
    /// history, annotations and media types stay.
    pub fn relayered(&self, store: &Store, layers: &[(DiffId, Descriptor)]) -> Result<Self, Error> {
        if layers.len() != self.layers.len() {
            return Err(Error::bad(self.manifest.digest.to_string(), "the number of layers would change"));
        }
        let diff_ids: Vec<DiffId> = layers.iter().map(|(id, _)| *id).collect();
        let blobs: Vec<Descriptor> = layers.iter().map(|(_, blob)| blob.clone()).collect();
        if diff_ids == self.config.rootfs.diff_ids && blobs == self.layers {
            return Ok(self.clone());
        }
        let rootfs = RootFs { diff_ids, ..self.config.rootfs.clone() };
        let config = ImageConfig { rootfs, ..self.config.clone() };
        let text = json("config", &config)?;
        let digest: Digest = store.put_blob(&text)?;
        let annotations = read::manifest(store, &self.manifest)?.annotations;
        let config = ConfigBlob { digest, size: text.len() as u64, config };
        let image = seal(store, config, &blobs, Dress { annotations, flavor: self.flavor() })?;
        Ok(Self { base_layers: self.base_layers, platform: self.platform.clone(), ..image })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture;

    #[test]
    fn other_layers_make_another_image_with_the_same_history() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let own = image.config.rootfs.diff_ids[0];
        let other = fixture::layer(&store, &[("b", "3")]);
        let made = image.relayered(&store, &[(own, image.layers[0].clone()), other.clone()]).unwrap();
        assert_eq!(made.config.rootfs.diff_ids, [own, other.0]);
        assert_eq!(made.layers[1].digest, other.1.digest);
        assert_eq!(made.config.history, image.config.history);
        assert_ne!(made.config_digest, image.config_digest);
        assert_eq!(read::read(&store, &made.manifest, &fixture::platform()).unwrap().config, made.config);
        assert!(image.relayered(&store, &[other]).is_err());
        let same: Vec<_> = image.config.rootfs.diff_ids.iter().copied().zip(image.layers.iter().cloned()).collect();
        assert_eq!(image.relayered(&store, &same).unwrap().manifest, image.manifest);
    }
}
