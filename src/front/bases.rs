//! What a name in FROM, `--from` or `from=` stands for: a named context, an image of the store, an image of a registry, in
//! this order. Of an image, only the manifest and the config are read.

use std::{cell::RefCell, collections::BTreeMap, path::PathBuf};

use super::{Context, Registries};
use crate::{
    error::{Error, Kind},
    image,
    oci::{Descriptor, Platform, Reference},
    plan::{Base, BaseError, BaseImage, Bases, Dated},
    store::Store,
};

/// What `--build-context NAME=…` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory.
    Directory(PathBuf),
    /// An image, by name.
    Image(Reference),
    /// An image of an OCI layout: the directory or tar, and the tag or digest after it.
    Layout(PathBuf, Option<String>),
}

/// The places where names are looked up.
pub(super) struct LookUp<'a> {
    pub(super) store: &'a Store,
    pub(super) registries: &'a Registries,
    pub(super) context: &'a Context,
    pub(super) contexts: &'a BTreeMap<String, NamedContext>,
    /// Ask the registry before the store.
    pub(super) pull: bool,
    /// Says what takes time.
    pub(super) note: RefCell<&'a mut dyn FnMut(crate::engine::Event)>,
}

impl Bases for LookUp<'_> {
    fn base(&self, name: &str, platform: &Platform) -> Result<Option<Base>, BaseError> {
        self.find(name, platform).map_err(|error| BaseError {
            message: std::iter::once(error.headline.as_str()).chain(error.causes.iter().map(String::as_str)).collect::<Vec<_>>().join(": "),
            help: error.help,
            kind: error.kind,
        })
    }

    fn time(&self, of: &Dated) -> Result<Option<i64>, BaseError> {
        match of {
            Dated::Context => Ok(self.context.time()),
            // Directories and images.
            Dated::Named(_) | Dated::Far(_) => Ok(None),
        }
    }
}

impl LookUp<'_> {
    fn find(&self, name: &str, platform: &Platform) -> Result<Option<Base>, Error> {
        let reference = name.parse::<Reference>();
        let context = self.contexts.get(name).or_else(|| {
            let wanted = reference.as_ref().ok()?;
            self.contexts.iter().find(|(have, _)| have.parse::<Reference>().is_ok_and(|have| have == *wanted)).map(|(_, context)| context)
        });
        match context {
            Some(NamedContext::Directory(_)) => Ok(Some(Base::Directory(name.to_owned()))),
            Some(NamedContext::Image(reference)) => self.image(reference, platform),
            Some(NamedContext::Layout(path, selector)) => self.layout(path, selector.as_deref(), platform).map(Some),
            None => {
                let reference = reference.map_err(|error| Error::new(Kind::Request, error.to_string()))?;
                self.image(&reference, platform)
            }
        }
    }

    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Option<Base>, Error> {
        if !self.pull
            && let Some(target) = self.store.resolve_ref(reference)?
        {
            match self.read(&target, &reference.to_string(), platform) {
                Ok(base) => return Ok(Some(base)),
                // A damaged or missing blob costs a pull, no more.
                Err(error) => (self.note.borrow_mut())(crate::engine::Event::Note {
                    text: format!("the store's `{}` cannot be used: {error}", reference.familiar()),
                }),
            }
        }
        (self.note.borrow_mut())(crate::engine::Event::Note { text: format!("looking up {reference}") });
        match self.registries.pull_config(reference, platform, self.store)? {
            Some(target) => {
                self.store.put_ref(reference, &target)?;
                self.read(&target, &reference.to_string(), platform).map(Some)
            }
            None => Ok(None),
        }
    }

    fn layout(&self, path: &std::path::Path, selector: Option<&str>, platform: &Platform) -> Result<Base, Error> {
        let loaded = image::load(self.store, path)?;
        let shown = format!("oci-layout://{}", path.display());
        let chosen: Vec<&image::Loaded> = loaded
            .iter()
            .filter(|each| {
                selector
                    .is_none_or(|selector| each.ref_names.iter().any(|name| name == selector) || each.target.digest.to_string() == selector)
            })
            .collect();
        match chosen.as_slice() {
            [one] => self.read(&one.target, &shown, platform),
            [] => Err(Error::new(Kind::Request, format!("`{shown}` has no image called `{}`", selector.unwrap_or("latest")))),
            _ => {
                Err(Error::new(Kind::Request, format!("`{shown}` has more than one image"))
                    .help("name one of them: `oci-layout://PATH:TAG`"))
            }
        }
    }

    fn read(&self, target: &Descriptor, name: &str, platform: &Platform) -> Result<Base, Error> {
        let image = image::read(self.store, target, platform)?;
        Ok(Base::Image(BaseImage { name: name.to_owned(), manifest: image.manifest, config: image.config, layers: image.layers }))
    }
}
