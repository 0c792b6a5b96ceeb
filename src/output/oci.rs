//! The OCI image layout, as a tar or as a directory.
//!
//! ```text
//! oci-layout              {"imageLayoutVersion":"1.0.0"}
//! index.json              one descriptor for each name of each image
//! blobs/sha256/<hex>
//! ```
//!
//! A directory that is there already is merged into, as `BuildKit` does: images under other names stay; an image of the same name
//! is replaced in the index; blobs are never deleted, but one whose bytes are not those of its name is written anew.
//! `index.json` is exchanged last, so that at each moment the layout is whole. Blobs are copied, not hard-linked: who edits
//! a layout must not reach the store; the kernel copies, and shares blocks where a file system can; every byte is verified.
//!
//! Source: image-spec `image-layout.md`; containerd's `io.containerd.image.name`.

use std::{
    fs::{self, File},
    io::{ErrorKind, Read, Write},
    path::{Path, PathBuf},
};

use crate::{
    image::MANIFEST_LIMIT,
    oci::{Descriptor, Digest, Index, Reference, media_type},
    store::Store,
    sys::PathError,
};

use super::{
    Dest, Error, Named,
    archive::{Archive, blob_name},
    blobs,
    pending::{self, PendingFile},
};

/// What `oci-layout` holds.
pub(super) const MARKER: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;
const REF_NAME: &str = "org.opencontainers.image.ref.name";
const IMAGE_NAME: &str = "io.containerd.image.name";
const CREATED: &str = "org.opencontainers.image.created";

/// Writes images as a tar of an OCI layout.
pub fn oci(store: &Store, images: &[Named<'_>], dest: Dest<'_>) -> Result<(), Error> {
    let all = blobs(store, images)?;
    let index = index(images, Vec::new())?;
    dest.fill(|stream| {
        let mut archive = Archive::new(stream);
        archive.file("oci-layout", MARKER)?;
        archive.file("index.json", &index)?;
        archive.dir("blobs/")?;
        archive.dir("blobs/sha256/")?;
        all.iter().try_for_each(|blob| archive.blob(store, blob))?;
        archive.finish()
    })
}

/// Writes images into the OCI layout directory at `dest`; it and the directories above it are made if they are not there.
pub fn oci_dir(store: &Store, images: &[Named<'_>], dest: &Path) -> Result<(), Error> {
    let all = blobs(store, images)?;
    let mut made = Made(Vec::new());
    made.dirs(&dest.join("blobs/sha256"))?;
    let dir = File::open(dest).map_err(PathError::new("open", dest))?;
    // Two builds into one directory would lose one's index.
    dir.lock().map_err(PathError::new("lock", dest))?;
    let text = index(images, present(dest)?)?;
    for blob in &all {
        place_blob(store, blob, &dest.join(blob_name(blob)), &mut made)?;
    }
    pending::sync_dir(&dest.join("blobs/sha256"))?;
    place(&dest.join("oci-layout"), MARKER, &mut made)?;
    place(&dest.join("index.json"), &text, &mut made)?;
    made.keep();
    Ok(())
}

/// What was made so far; dropped, it is removed.
struct Made(Vec<PathBuf>);

impl Made {
    fn keep(mut self) {
        self.0.clear();
    }

    fn dirs(&mut self, dir: &Path) -> Result<(), Error> {
        let mut missing: Vec<&Path> = dir.ancestors().take_while(|each| !each.as_os_str().is_empty() && !each.exists()).collect();
        while let Some(each) = missing.pop() {
            match fs::create_dir(each) {
                Ok(()) => self.0.push(each.to_owned()),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(PathError::new("create", each)(error).into()),
            }
        }
        Ok(())
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // A directory that somebody else put something into stays.
            drop(fs::remove_file(path).or_else(|_| fs::remove_dir(path)));
        }
    }
}

/// What the directory's `index.json` names already.
fn present(dest: &Path) -> Result<Vec<Descriptor>, Error> {
    let path = dest.join("index.json");
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(PathError::new("open", path)(error).into()),
    };
    let mut bytes = Vec::new();
    file.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes).map_err(PathError::new("read", &path))?;
    let sound = (bytes.len() as u64 <= MANIFEST_LIMIT).then(|| serde_json::from_slice::<Index>(&bytes).ok()).flatten();
    sound
        .filter(|index| index.schema_version == 2)
        .map(|index| index.manifests)
        .ok_or_else(|| Error::dest(path, "there is a file that is no index of an OCI layout"))
}

/// A blob in the directory, unless it is there already with the right bytes.
fn place_blob(store: &Store, blob: &Descriptor, path: &Path, made: &mut Made) -> Result<(), Error> {
    let exists = fs::symlink_metadata(path).is_ok();
    if exists && is_sound(path, blob) {
        return Ok(());
    }
    let mut file = PendingFile::create_exactly(path)?;
    file.blob(store, blob)?;
    file.commit()?;
    if !exists {
        made.0.push(path.to_owned());
    }
    Ok(())
}

fn place(path: &Path, bytes: &[u8], made: &mut Made) -> Result<(), Error> {
    let exists = path.exists();
    let mut file = PendingFile::create_exactly(path)?;
    file.write_all(bytes).map_err(PathError::new("write", path))?;
    file.commit()?;
    if !exists {
        made.0.push(path.to_owned());
    }
    Ok(())
}

fn is_sound(path: &Path, blob: &Descriptor) -> bool {
    let regular = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() && found.len() == blob.size);
    regular && File::open(path).and_then(Digest::of_stream).is_ok_and(|(found, size)| (found, size) == (blob.digest, blob.size))
}

/// The text of `index.json`: what was there, without what these images replace, and a descriptor for each name.
pub(super) fn index(images: &[Named<'_>], present: Vec<Descriptor>) -> Result<Vec<u8>, Error> {
    let ours: Vec<Descriptor> = images.iter().flat_map(descriptors).collect();
    let name = |each: &Descriptor| [IMAGE_NAME, REF_NAME].map(|key| each.annotations.get(key).cloned());
    let replaced = |old: &Descriptor| {
        ours.iter().any(|new| match (name(old), name(new)) {
            // A layout written by others may have the short name only.
            ([Some(old), _], [Some(new), _]) | ([None, Some(old)], [_, Some(new)]) => old == new,
            ([None, None], _) => old.digest == new.digest,
            _ => false,
        })
    };
    let mut manifests: Vec<Descriptor> = present.into_iter().filter(|old| !replaced(old)).collect();
    manifests.extend(ours.iter().cloned());
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::INDEX.to_owned()),
        manifests,
        annotations: std::collections::BTreeMap::new(),
        other: std::collections::BTreeMap::new(),
    };
    serde_json::to_vec(&index).map_err(|error| Error::Stream(error.into()))
}

fn descriptors(named: &Named<'_>) -> Vec<Descriptor> {
    let image = named.image;
    let mut bare = image.manifest.clone();
    bare.platform = Some(image.platform.clone());
    bare.annotations.clone_from(&named.annotations);
    if let Some(created) = &image.config.created {
        let _old = bare.annotations.entry(CREATED.to_owned()).or_insert_with(|| created.clone());
    }
    if named.names.is_empty() {
        return vec![bare];
    }
    let with_name = |name: &Reference| {
        let mut each = bare.clone();
        drop(each.annotations.insert(IMAGE_NAME.to_owned(), name.to_string()));
        if let Some(tag) = &name.tag {
            drop(each.annotations.insert(REF_NAME.to_owned(), tag.clone()));
        }
        each
    };
    named.names.iter().map(with_name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::fixture;

    fn entries(dir: &Path) -> Vec<Descriptor> {
        present(dir).unwrap()
    }

    fn name(text: &str) -> Vec<Reference> {
        vec![text.parse().unwrap()]
    }

    #[test]
    fn a_layout_directory_holds_every_blob_under_its_digest() {
        let (dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let dest = dir.path().join("new/out");
        oci_dir(&store, &[Named::new(&image, &name("busybox:1"))], &dest).unwrap();
        assert_eq!(fs::read(dest.join("oci-layout")).unwrap(), MARKER);
        let found: Vec<_> = fs::read_dir(dest.join("blobs/sha256")).unwrap().map(|each| each.unwrap()).collect();
        assert_eq!(found.len(), 4);
        for each in found {
            assert_eq!(Digest::of(&fs::read(each.path()).unwrap()).hex(), each.file_name().to_str().unwrap());
        }
        let entry = &entries(&dest)[0];
        assert_eq!(entry.digest, image.manifest.digest);
        assert_eq!(entry.annotations[IMAGE_NAME], "docker.io/library/busybox:1");
        assert_eq!(entry.annotations[REF_NAME], "1");
    }

    #[test]
    fn an_image_of_the_same_name_is_replaced_and_others_stay() {
        let (dir, store) = fixture::store();
        let (old, new) = (fixture::image(&store, &[("a", "1")]), fixture::image(&store, &[("a", "2")]));
        let dest = dir.path().join("out");
        oci_dir(&store, &[Named::new(&old, &name("x:1"))], &dest).unwrap();
        oci_dir(&store, &[Named::new(&old, &name("x:2"))], &dest).unwrap();
        oci_dir(&store, &[Named::new(&new, &name("x:1"))], &dest).unwrap();
        oci_dir(&store, &[Named::new(&new, &[])], &dest).unwrap();
        oci_dir(&store, &[Named::new(&new, &[])], &dest).unwrap();
        let have: Vec<_> = entries(&dest).into_iter().map(|each| (each.annotations.get(REF_NAME).cloned(), each.digest)).collect();
        let (old, new) = (old.manifest.digest, new.manifest.digest);
        assert_eq!(have, [(Some("2".into()), old), (Some("1".into()), new), (None, new)]);
    }

    #[test]
    fn a_damaged_blob_in_the_directory_is_written_anew() {
        let (dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let dest = dir.path().join("out");
        oci_dir(&store, &[Named::new(&image, &[])], &dest).unwrap();
        let blob = dest.join(blob_name(&image.layers[0]));
        let bytes = fs::read(&blob).unwrap();
        fs::write(&blob, vec![0; bytes.len()]).unwrap();
        oci_dir(&store, &[Named::new(&image, &[])], &dest).unwrap();
        assert_eq!(fs::read(&blob).unwrap(), bytes);
    }

    #[test]
    fn a_directory_with_an_index_that_is_none_is_left_alone() {
        let (dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        fs::write(dir.path().join("index.json"), "{}").unwrap();
        let error = oci_dir(&store, &[Named::new(&image, &[])], dir.path()).unwrap_err();
        assert!(error.to_string().contains("no index of an OCI layout"), "{error}");
        assert_eq!(fs::read(dir.path().join("index.json")).unwrap(), b"{}");
        assert!(!dir.path().join("blobs").exists());
    }

    #[test]
    fn blobs_that_are_not_there_are_named_before_anything_is_written() {
        let (dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        fs::remove_file(store.root().join(blob_name(&image.layers[0]))).unwrap();
        let dest = dir.path().join("out.tar");
        let error = oci(&store, &[Named::new(&image, &[])], Dest::File(&dest)).unwrap_err();
        assert!(matches!(&error, Error::Missing(blobs) if *blobs == image.layers), "{error}");
        assert!(!dest.exists());
    }

    #[test]
    fn a_blob_that_is_damaged_in_the_store_leaves_nothing_behind() {
        let (dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1")]);
        let blob = store.root().join(blob_name(&image.layers[0]));
        fs::remove_file(&blob).unwrap();
        fs::write(&blob, vec![0; usize::try_from(image.layers[0].size).unwrap()]).unwrap();
        oci_dir(&store, &[Named::new(&image, &[])], &dir.path().join("out")).unwrap_err();
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|each| each.unwrap().file_name()).collect();
        assert_eq!(left, ["store"]);
    }

    #[test]
    fn a_tar_on_a_stream_is_the_same_each_time() {
        let (_dir, store) = fixture::store();
        let image = fixture::image(&store, &[("a", "1"), ("b", "2")]);
        let write = || {
            let mut bytes = Vec::new();
            oci(&store, &[Named::new(&image, &name("x:1"))], Dest::Stream(&mut bytes)).unwrap();
            bytes
        };
        let bytes = write();
        assert_eq!(bytes, write());
        let mut names = Vec::new();
        for each in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
            names.push(each.unwrap().path().unwrap().display().to_string());
        }
        assert_eq!(names[..4], ["oci-layout", "index.json", "blobs/", "blobs/sha256/"]);
        assert_eq!(names.len(), 8);
    }
}
