//! An image whose layers are compressed otherwise: another image with the same id.

use crate::{
    image::Image,
    layer::{self, Compression},
    oci::media_type,
    store::Store,
};

use super::Error;

/// The same image with its layers compressed that way. As in `BuildKit`, what came with the base stays as it is unless
/// `force`, and then only where the kind of compression differs. Layers that only their owner may distribute stay.
pub fn recompress(store: &Store, image: &Image, compression: Compression, force: bool) -> Result<Image, Error> {
    let ids = &image.config.rootfs.diff_ids;
    let mut layers = Vec::with_capacity(image.layers.len());
    for (at, (blob, id)) in image.layers.iter().zip(ids).enumerate() {
        let stays = foreign(&blob.media_type) || at < image.base_layers && (!force || same_kind(&blob.media_type, compression));
        layers.push(if stays {
            blob.clone()
        } else {
            layer::recompress(store, blob, id, compression)?.ok_or_else(|| Error::Missing(vec![blob.clone()]))?
        });
    }
    if layers == image.layers { Ok(image.clone()) } else { Ok(image.with_layers(store, &layers)?) }
}

fn foreign(kind: &str) -> bool {
    kind.contains(".nondistributable.") || kind.contains(".foreign.")
}

fn same_kind(kind: &str, compression: Compression) -> bool {
    match compression {
        Compression::Gzip(_) => [media_type::LAYER_GZIP, media_type::DOCKER_LAYER_GZIP].contains(&kind),
        Compression::Zstd(_) => kind == media_type::LAYER_ZSTD,
        Compression::Uncompressed => [media_type::LAYER, media_type::DOCKER_LAYER].contains(&kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        image::{BaseParts, assemble, fixture},
        oci::Digest,
    };

    fn kinds(image: &Image) -> Vec<&str> {
        image.layers.iter().map(|layer| layer.media_type.rsplit('.').next().unwrap_or_default()).collect()
    }

    #[test]
    fn layers_get_the_compression_and_the_image_keeps_its_id() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let zstd = recompress(&store, &image, Compression::Zstd(3), false).unwrap();
        assert_eq!(kinds(&zstd), ["tar+zstd", "tar+zstd"]);
        assert_eq!(zstd.config_digest, image.config_digest);
        let plain = recompress(&store, &zstd, Compression::Uncompressed, false).unwrap();
        let ids: Vec<Digest> = image.config.rootfs.diff_ids.iter().map(|id| id.0).collect();
        assert_eq!(plain.layers.iter().map(|layer| layer.digest).collect::<Vec<_>>(), ids);
        assert_eq!(recompress(&store, &image, Compression::Zstd(3), false).unwrap().manifest, zstd.manifest);
    }

    #[test]
    fn what_came_with_the_base_changes_only_by_force_and_only_in_kind() {
        let (_dir, store) = fixture::store();
        let base = fixture::image(&store, &[("a", "1")]);
        let (id, blob) = fixture::layer(&store, &[("b", "2")]);
        let items = [crate::image::Item { layer: Some((id, blob, "2024-01-01T00:00:00Z".into())), ..crate::image::Item::new("RUN x") }];
        let parts = BaseParts { config: &base.config, layers: &base.layers };
        let image = assemble(&store, Some(parts), base.config.clone(), &items, &fixture::platform()).unwrap();
        let change = |compression, force| recompress(&store, &image, compression, force).unwrap();
        assert_eq!(kinds(&change(Compression::Zstd(3), false)), ["tar+gzip", "tar+zstd"]);
        assert_eq!(kinds(&change(Compression::Zstd(3), true)), ["tar+zstd", "tar+zstd"]);
        assert_eq!(change(Compression::Gzip(9), true).layers[0], image.layers[0]);
    }

    #[test]
    fn a_layer_that_is_not_what_the_image_says_is_refused() {
        let (_dir, store) = fixture::store();
        let mut image = fixture::image(&store, &[("a", "1")]);
        image.config.rootfs.diff_ids[0] = crate::oci::DiffId(Digest::of(b"other"));
        let error = recompress(&store, &image, Compression::Zstd(3), false).unwrap_err();
        assert!(error.to_string().contains("its diff id is"), "{error}");
    }
}
