//! Names of images: `refs/<hex>`, one sealed file each with the name and what it stands for.
//!
//! The file name is a digest of the name: names are longer than file names may be.

use std::{fs, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{Error, Store, pin::Pin, reserve::touch, sealed::Sealed};
use crate::{
    oci::{Descriptor, Digest, Reference},
    sys::PathError,
};

const REF: Sealed = Sealed { kind: "ref", limit: 64 << 10, durable: true };

/// The form on disk: the parts of the name as they are, so that reading never depends on how names are parsed.
#[derive(Serialize, Deserialize)]
struct Named {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
    target: Descriptor,
}

impl Store {
    /// Names an image. The descriptor is that of its manifest or index.
    pub fn put_ref(&self, name: &Reference, target: &Descriptor) -> Result<(), Error> {
        let Reference { registry, repository, tag, digest } = name.clone();
        let file = hashed(name);
        let path = self.refs_dir().join(&file);
        let named = Named { registry, repository, tag, digest, target: target.clone() };
        let json = serde_json::to_vec(&named).map_err(|error| Error::encoding(&path, error))?;
        REF.put(self, &path, &file, json.as_slice(), Some(Pin::Blob(target.digest)))
    }

    /// What a name stands for.
    pub fn resolve_ref(&self, name: &Reference) -> Result<Option<Descriptor>, Error> {
        let file = hashed(name);
        let found = self.named(&file)?.filter(|(found, _)| found == name).map(|(_, target)| target);
        if let (Some(target), true) = (&found, self.holding) {
            let _there: bool = touch(&self.refs_dir().join(file));
            self.pin(Pin::Blob(target.digest));
        }
        Ok(found)
    }

    /// All names, sorted.
    pub fn refs(&self) -> Result<Vec<(Reference, Descriptor)>, Error> {
        let dir = self.refs_dir();
        let mut all = Vec::new();
        for entry in fs::read_dir(&dir).map_err(PathError::new("read", &dir))? {
            let entry = entry.map_err(PathError::new("read", &dir))?;
            if let Some(name) = entry.file_name().to_str() {
                all.extend(self.named(name)?);
            }
        }
        all.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(all)
    }

    /// Forgets a name; was it there?
    pub fn remove_ref(&self, name: &Reference) -> Result<bool, Error> {
        let path = self.refs_dir().join(hashed(name));
        match fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(PathError::new("remove", path)(error).into()),
        }
    }

    pub(super) fn named(&self, file: &str) -> Result<Option<(Reference, Descriptor)>, Error> {
        let Some(bytes) = REF.read(&self.refs_dir().join(file), file)? else { return Ok(None) };
        let named: Option<Named> = serde_json::from_slice(&bytes).ok();
        Ok(named.map(|Named { registry, repository, tag, digest, target }| (Reference { registry, repository, tag, digest }, target)))
    }

    pub(super) fn refs_dir(&self) -> PathBuf {
        self.root.join("refs")
    }
}

pub(super) fn hashed(name: &Reference) -> String {
    blake3::hash(name.to_string().as_bytes()).to_hex().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::tests::store;

    fn name(repository: &str, tag: &str) -> Reference {
        Reference { registry: "localhost:5000".into(), repository: repository.into(), tag: Some(tag.into()), digest: None }
    }

    #[test]
    fn a_name_stands_for_what_it_was_last_put_on() {
        let (_dir, store) = store();
        let (one, two) = (Descriptor::new("x", Digest::of(b"1"), 1), Descriptor::new("x", Digest::of(b"2"), 1));
        let long = "a/".repeat(120) + "b";
        store.put_ref(&name(&long, "t"), &one).unwrap();
        store.put_ref(&name("a", "t"), &one).unwrap();
        store.put_ref(&name("a", "t"), &two).unwrap();
        assert_eq!(store.resolve_ref(&name("a", "t")).unwrap(), Some(two.clone()));
        assert_eq!(store.resolve_ref(&name("a", "u")).unwrap(), None);
        assert_eq!(store.refs().unwrap(), [(name("a", "t"), two), (name(&long, "t"), one)]);
        assert!(store.remove_ref(&name("a", "t")).unwrap());
        assert!(!store.remove_ref(&name("a", "t")).unwrap());
        assert_eq!(store.refs().unwrap().len(), 1);
    }

    #[test]
    fn a_damaged_name_is_gone_and_the_others_are_not() {
        let (_dir, store) = store();
        let target = Descriptor::new("x", Digest::of(b"1"), 1);
        store.put_ref(&name("a", "t"), &target).unwrap();
        store.put_ref(&name("b", "t"), &target).unwrap();
        fs::write(store.refs_dir().join(hashed(&name("a", "t"))), "cut").unwrap();
        assert_eq!(store.refs().unwrap().len(), 1);
        assert_eq!(store.resolve_ref(&name("a", "t")).unwrap(), None);
    }
}
