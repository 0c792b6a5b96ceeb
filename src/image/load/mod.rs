//! Images from an OCI layout (directory or tar) or from a docker archive, into the store.
//!
//! ```text
//! directory ─────────────────────────────┐
//! stream ─unpack once→ blobs + documents ─┼→ index.json ─walk→ checked images
//!                                         └→ manifest.json ─→ manifests of our own ─→ checked images
//! ```
//!
//! Nothing is taken on trust: blobs go into the store under the digest that they have, a blob that is named by a digest must
//! have it, and what is handed back can be read with [`super::read`]. Memory is bounded; an archive is read once, so it may
//! come from a pipe, with its `manifest.json` at the end.
//!
//! Source: image-spec `image-layout.md`; moby `image/tarexport/load.go` and `save.go` (the forms before and since
//! Docker 25).

mod archive;
mod docker;
mod layout;

use std::{io::Read, path::Path};

use crate::{
    oci::{Descriptor, Digest, Index, Reference, media_type},
    store::Store,
    sys::PathError,
};

use super::{Error, read};

/// An image that was in an archive.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The names that the archive gives it.
    pub names: Vec<Reference>,
    /// Each `org.opencontainers.image.ref.name` as it stands there: a tag, or anything. `oci-layout://DIR:TAG` means these.
    pub ref_names: Vec<String>,
    /// Of its manifest, or of an index of several platforms.
    pub target: Descriptor,
}

const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
/// How many images an archive may hold.
const IMAGES: usize = 10_000;
/// How deep indexes may lie in indexes.
const DEPTH: usize = 4;

/// Loads the images of a layout directory or of an archive file, compressed or not.
pub fn load(store: &Store, path: &Path) -> Result<Vec<Loaded>, Error> {
    let found = std::fs::metadata(path).map_err(PathError::new("open", path))?;
    if found.is_dir() {
        return layout::load(store, path);
    }
    let mut file = std::fs::File::open(path).map_err(PathError::new("open", path))?;
    load_stream(store, &mut file, &path.display().to_string())
}

/// Loads the images of an archive, compressed or not, in one pass; `what` is how messages call it.
pub fn load_stream(store: &Store, stream: &mut (dyn Read + Send), what: &str) -> Result<Vec<Loaded>, Error> {
    let unpacked = archive::unpack(store, stream, what)?;
    let items = unpacked.manifest.as_deref().map(|text| docker::items(what, text)).transpose()?;
    let Some(index) = &unpacked.index else {
        let items = items.ok_or_else(|| not_an_archive(what, &unpacked))?;
        return items.iter().map(|item| docker::image(store, &unpacked, item, what)).collect();
    };
    let mut ensure = |blob: &Descriptor| Ok(store.has_blob(&blob.digest, blob.size));
    let mut images = from_index(store, index, what, &mut ensure)?;
    // Some writers name their images in manifest.json alone.
    for image in images.iter_mut().filter(|image| image.names.is_empty() && image.target.media_type != media_type::INDEX) {
        let config = read::manifest(store, &image.target)?.config.digest;
        let tags = items.iter().flatten().find(|item| unpacked.digest(&item.config) == Some(config));
        image.names = tags.map(docker::DockerItem::names).unwrap_or_default();
    }
    Ok(images)
}

fn not_an_archive(what: &str, unpacked: &archive::Unpacked) -> Error {
    let reason = if unpacked.has("repositories") {
        "it is of the form that Docker wrote before 1.10, without a manifest.json; save it again with a newer one"
    } else {
        "it has neither an index.json nor a manifest.json; `import` reads root file systems"
    };
    Error::bad(what, reason)
}

/// What an `index.json` names. `ensure` brings a blob into the store and says whether it is there.
fn from_index(
    store: &Store,
    text: &[u8],
    what: &str,
    ensure: &mut dyn FnMut(&Descriptor) -> Result<bool, Error>,
) -> Result<Vec<Loaded>, Error> {
    let index: Index = read::parse(what, text)?;
    if index.schema_version != 2 {
        return Err(Error::bad(what, format!("the schemaVersion of its index.json is {}", index.schema_version)));
    }
    if index.manifests.len() > IMAGES {
        return Err(Error::bad(what, "its index.json has too many entries"));
    }
    let mut images: Vec<Loaded> = Vec::new();
    let mut budget = IMAGES;
    for entry in index.manifests.iter().filter(|entry| read::is_manifest(&entry.media_type) || read::is_index(&entry.media_type)) {
        if !bring(store, entry, 0, ensure, &mut budget)? {
            return Err(Error::bad(what, format!("it lacks blobs of the image {}", entry.digest)));
        }
        let (names, ref_name) = names_of(entry);
        let target = Descriptor::new(&entry.media_type, entry.digest, entry.size);
        // One image under several names is an entry for each.
        match images.iter_mut().find(|image| image.target == target) {
            Some(image) => {
                image.names.extend(names);
                image.ref_names.extend(ref_name);
            }
            None => images.push(Loaded { names: names.into_iter().collect(), ref_names: ref_name.into_iter().collect(), target }),
        }
    }
    if images.is_empty() { Err(Error::bad(what, "it holds no image")) } else { Ok(images) }
}

/// Streams bytes into a blob; with `expected`, only if they are those.
fn keep(store: &Store, expected: Option<(Digest, u64)>, content: &mut dyn Read, what: &str) -> Result<(Digest, u64), Error> {
    let mut writer = store.blob_writer()?;
    let mut buffer = Vec::new();
    loop {
        buffer.resize(1 << 17, 0);
        match content.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => {
                buffer.truncate(count);
                buffer = writer.write_block(buffer).map_err(PathError::new("write a blob in", store.root()))?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(source) => return Err(Error::Stream { what: what.to_owned(), source }),
        }
    }
    Ok(writer.commit(expected.as_ref().map(|(digest, size)| (digest, *size)))?)
}

fn names_of(entry: &Descriptor) -> (Option<Reference>, Option<String>) {
    let text = |key: &str| entry.annotations.get(key).cloned();
    let ref_name = text(REF_NAME);
    // A word alone is a tag (BuildKit, umoci), not an image on Docker Hub.
    let complete = ref_name.clone().filter(|name| name.contains(['/', ':']));
    let name = text(IMAGE_NAME).or(complete).and_then(|name| name.parse().ok());
    (name, ref_name)
}

/// Brings a manifest or index with all that it needs. `false`: something is not there. Of an index the images that
/// are not there are passed over, as long as one is.
fn bring(
    store: &Store,
    entry: &Descriptor,
    depth: usize,
    ensure: &mut dyn FnMut(&Descriptor) -> Result<bool, Error>,
    budget: &mut usize,
) -> Result<bool, Error> {
    let what = entry.digest.to_string();
    *budget = budget.checked_sub(1).ok_or_else(|| Error::bad(&what, "too many images"))?;
    if depth > DEPTH {
        return Err(Error::bad(what, "indexes lie too deep in indexes"));
    }
    if entry.size > super::MANIFEST_LIMIT {
        return Err(Error::bad(what, format!("the manifest has {} bytes, more than {}", entry.size, super::MANIFEST_LIMIT)));
    }
    if !ensure(entry)? {
        return Ok(false);
    }
    if read::is_index(&entry.media_type) {
        let mut any = false;
        for each in &read::index(store, entry)?.manifests {
            if read::is_manifest(&each.media_type) || read::is_index(&each.media_type) {
                any |= bring(store, each, depth + 1, ensure, budget)?;
            }
        }
        return Ok(any);
    }
    let manifest = read::any_manifest(store, entry)?;
    for blob in std::iter::once(&manifest.config).chain(&manifest.layers) {
        if !ensure(blob)? {
            return Ok(false);
        }
    }
    // An artifact (an attestation beside its image) is not an image and is not checked as one.
    if read::is_config(&manifest.config.media_type) && entry.platform.as_ref().is_none_or(|platform| platform.os != "unknown") {
        drop(read::read(store, entry, &crate::oci::Platform::host())?);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Image, fixture};

    /// A tar whose members are regular files, or links where the text begins with `->`.
    fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_mode(0o644);
            if let Some(target) = bytes.strip_prefix(b"->") {
                header.set_entry_type(tar::EntryType::Symlink);
                header.set_link_name(std::str::from_utf8(target).unwrap()).unwrap();
                header.set_size(0);
                header.set_cksum();
                builder.append(&header, &[][..]).unwrap();
            } else {
                header.set_size(bytes.len() as u64);
                header.set_cksum();
                builder.append(&header, *bytes).unwrap();
            }
        }
        builder.into_inner().unwrap()
    }

    fn load_bytes(store: &Store, bytes: &[u8]) -> Result<Vec<Loaded>, Error> {
        load_stream(store, &mut &*bytes, "app.tar")
    }

    fn refusal(bytes: &[u8]) -> String {
        let (_dir, store) = fixture::store();
        let error = load_bytes(&store, bytes).unwrap_err();
        // Of who gave it, not of this machine.
        assert_eq!(error.kind(), crate::error::Kind::Request);
        let cause = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {cause}")
    }

    fn config(image: &Image) -> Vec<u8> {
        serde_json::to_vec(&image.config).unwrap()
    }

    fn old_form(layers: &[&[u8]], config: &[u8]) -> Vec<u8> {
        let names: Vec<String> = (0..layers.len()).map(|at| format!("{at}/layer.tar")).collect();
        let text = serde_json::json!([{ "Config": "c.json", "RepoTags": ["x/y:1"], "Layers": names }]).to_string();
        let mut members: Vec<(&str, &[u8])> = names.iter().map(String::as_str).zip(layers.iter().copied()).collect();
        members.extend([
            ("c.json", config),
            ("0/VERSION", b"1.0"),
            ("0/json", b"{}"),
            ("repositories", b"{}"),
            ("manifest.json", text.as_bytes()),
        ]);
        archive(&members)
    }

    #[test]
    fn a_docker_archive_whose_manifest_comes_last_is_loaded_in_one_pass() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let (one, two) = (fixture::tar_of(&[("a", "1")]), fixture::tar_of(&[("b", "2")]));
        let bytes = old_form(&[&one, &two], &config(&image));
        for form in [fixture::gzip(&bytes), bytes] {
            let (_dir, store) = fixture::store();
            let loaded = load_bytes(&store, &form).unwrap();
            assert_eq!(loaded[0].names, ["x/y:1".parse().unwrap()]);
            let found = read::read(&store, &loaded[0].target, &fixture::platform()).unwrap();
            assert_eq!(found.config_digest, image.config_digest);
            assert_eq!(found.layers[0].digest, Digest::of(&one));
            assert_eq!(found.layers[0].media_type, media_type::LAYER);
        }
    }

    #[test]
    fn compressed_layers_and_layers_behind_links_are_found() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("a", "1")]);
        let blob = fixture::gzip(&fixture::tar_of(&[("a", "1")]));
        let loaded = load_bytes(&store, &old_form(&[&blob, b"->../0/layer.tar"], &config(&image))).unwrap();
        let found = read::read(&store, &loaded[0].target, &fixture::platform()).unwrap();
        assert_eq!(found.layers[0], found.layers[1]);
        assert_eq!(found.layers[0].media_type, media_type::LAYER_GZIP);
    }

    #[test]
    fn links_in_a_circle_or_out_of_the_archive_lead_to_nothing() {
        let (_dir, store) = fixture::store();
        let config = config(&fixture::image(&store, &[("a", "1")]));
        for target in ["->../0/layer.tar", "->../../../../etc/passwd", "->/etc/passwd"] {
            assert!(refusal(&old_form(&[target.as_bytes()], &config)).contains("names `0/layer.tar`, which is not there"));
        }
    }

    #[test]
    fn a_layer_that_is_not_the_config_s_is_refused() {
        let (_dir, store) = fixture::store();
        let config = config(&fixture::image(&store, &[("a", "1")]));
        let other = fixture::tar_of(&[("a", "2")]);
        assert!(refusal(&old_form(&[&other], &config)).contains("should have the diff id"));
        assert!(refusal(&old_form(&[&fixture::gzip(&other)], &config)).contains("its tar should be"));
        assert!(refusal(&old_form(&[], &config)).contains("manifest.json names 0 layers, the config 1"));
        let cut = fixture::gzip(&fixture::tar_of(&[("a", "1")]));
        assert!(refusal(&old_form(&[&cut[..cut.len() - 9]], &config)).contains("is damaged or hostile"));
    }

    #[test]
    fn a_blob_that_does_not_have_the_digest_of_its_name_is_refused() {
        let name = format!("blobs/sha256/{}", "0".repeat(64));
        assert!(refusal(&archive(&[(&name, b"x")])).contains("expected sha256:000"));
    }

    #[test]
    fn names_that_climb_are_refused() {
        assert!(refusal(&archive(&[("../x", b"x")])).contains("not a path inside a tree"));
    }

    #[test]
    fn a_root_file_system_is_told_from_an_image() {
        let deep = archive(&[("usr/share/doc/x", b"x")]);
        assert!(refusal(&deep).contains("`import` reads root file systems"));
        assert!(refusal(&archive(&[("etc/passwd", b"x")])).contains("neither an index.json nor a manifest.json"));
        assert!(refusal(&archive(&[("repositories", b"{}")])).contains("before 1.10"));
        assert!(refusal(b"not a tar at all, but long enough to be one? no").contains("app.tar"));
    }

    #[test]
    fn a_document_that_is_there_twice_is_refused() {
        assert!(refusal(&archive(&[("index.json", b"{}"), ("index.json", b"{}")])).contains("is there twice"));
    }

    #[test]
    fn of_an_index_the_platforms_that_are_there_are_enough() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let absent =
            Descriptor { platform: Some("linux/arm64".parse().unwrap()), ..Descriptor::new(media_type::MANIFEST, Digest::of(b"?"), 9) };
        let here = Descriptor { platform: Some(image.platform.clone()), ..image.manifest.clone() };
        let text = serde_json::json!({ "schemaVersion": 2, "manifests": [absent, here] }).to_string();
        let index = Descriptor::new(media_type::INDEX, store.put_blob(text.as_bytes()).unwrap(), text.len() as u64);
        let top = |entry: &Descriptor| serde_json::json!({ "schemaVersion": 2, "manifests": [entry] }).to_string();
        let mut ensure = |blob: &Descriptor| Ok(store.has_blob(&blob.digest, blob.size));
        let loaded = from_index(&store, top(&index).as_bytes(), "x", &mut ensure).unwrap();
        assert_eq!(loaded[0].target, index);
        let error = from_index(&store, top(&absent).as_bytes(), "x", &mut ensure).unwrap_err();
        assert!(error.to_string().contains("it lacks blobs of the image"), "{error}");
    }

    #[test]
    fn a_word_alone_is_a_tag_and_no_image_name() {
        let entry = |name: &str| {
            let mut entry = Descriptor::new(media_type::MANIFEST, Digest::of(b""), 0);
            drop(entry.annotations.insert(REF_NAME.into(), name.into()));
            names_of(&entry)
        };
        assert_eq!(entry("latest"), (None, Some("latest".into())));
        assert_eq!(entry("localhost/x:1").0, Some("localhost/x:1".parse().unwrap()));
    }
}
