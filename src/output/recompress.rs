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
