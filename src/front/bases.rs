//! What a name in FROM, `--from` or `from=` stands for: a named context, an image of the store, an image of a registry, in
//! this order. Of an image, only the manifest and the config are read.

use std::{cell::RefCell, path::PathBuf};

use super::{
    Context, Request, Session,
    named::{self, Named},
};
use crate::{
    engine::Event,
    error::{Error, Kind},
    image,
    oci::{Descriptor, Platform, Reference},
    plan::{Base, BaseError, BaseImage, Bases, Dated},
    remote::{GitAddress, HttpAddress},
};

/// What `--build-context NAME=…` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory.
    Directory(PathBuf),
    /// `docker-image://scratch`: nothing, as in FROM.
    Scratch,
    /// An image, by name.
    Image(Reference),
    /// An image of an OCI layout: the directory or tar, and the tag or digest after it.
    Layout(PathBuf, Option<String>),
    /// An archive, or any file, on a server.
    Http(HttpAddress),
    /// A repository.
    Git(GitAddress),
}

/// The places where names are looked up.
pub(super) struct LookUp<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) request: &'a Request,
    pub(super) context: &'a Context,
    pub(super) named: &'a Named,
    /// Says what takes time.
    pub(super) event: RefCell<&'a mut dyn FnMut(Event)>,
}

impl Bases for LookUp<'_> {
    fn base(&self, name: &str, platform: &Platform) -> Result<Option<Base>, BaseError> {
        self.find(name, platform).map_err(|error| base_error(&error))
    }

    fn time(&self, of: &Dated) -> Result<Option<i64>, BaseError> {
        let time = named::time(of, self.context, self.named, self.request, self.session, &mut **self.event.borrow_mut());
        time.map_err(|error| base_error(&error))
    }
}

fn base_error(error: &Error) -> BaseError {
    BaseError {
        message: std::iter::once(error.headline.as_str()).chain(error.causes.iter().map(String::as_str)).collect::<Vec<_>>().join(": "),
        help: error.help.clone(),
        kind: error.kind,
    }
}

impl LookUp<'_> {
    fn find(&self, name: &str, platform: &Platform) -> Result<Option<Base>, Error> {
        let reference = name.parse::<Reference>();
        let contexts = &self.request.contexts;
        let context = contexts.get_key_value(name).or_else(|| {
            let wanted = reference.as_ref().ok()?;
            contexts.iter().find(|(have, _)| have.parse::<Reference>().is_ok_and(|have| have == *wanted))
        });
        match context {
            Some((name, NamedContext::Directory(_))) => Ok(Some(Base::Directory(name.clone()))),
            Some((_, NamedContext::Scratch)) => Ok(Some(Base::Scratch)),
            Some((_, NamedContext::Image(reference))) => self.image(reference, platform),
            Some((_, NamedContext::Layout(path, selector))) => self.layout(path, selector.as_deref(), platform).map(Some),
            Some((name, NamedContext::Http(_) | NamedContext::Git(_))) => {
                let brought = self.named.far(name, self.request, self.session, &mut **self.event.borrow_mut())?;
                Ok(brought.map(|_context| Base::Directory(name.clone())))
            }
            None => {
                let reference = reference.map_err(|error| Error::new(Kind::Request, error.to_string()))?;
                self.image(&reference, platform)
            }
        }
    }

    fn image(&self, reference: &Reference, platform: &Platform) -> Result<Option<Base>, Error> {
        if !self.request.pull
            && let Some(target) = self.session.store.resolve_ref(reference)?
        {
            match self.read(&target, &reference.to_string(), platform) {
                Ok(base) => return Ok(Some(base)),
                // A damaged or missing blob costs a pull, no more.
                Err(error) => (self.event.borrow_mut())(Event::Note {
                    text: format!("the store's `{}` cannot be used: {error}", reference.familiar()),
                }),
            }
        }
        (self.event.borrow_mut())(Event::Note { text: format!("looking up {reference}") });
        match self.session.registries.pull_config(reference, platform, self.session.store)? {
            Some(target) => {
                self.session.store.put_ref(reference, &target)?;
                self.read(&target, &reference.to_string(), platform).map(Some)
            }
            None => Ok(None),
        }
    }

    fn layout(&self, path: &std::path::Path, selector: Option<&str>, platform: &Platform) -> Result<Base, Error> {
        let loaded = image::load(self.session.store, path)?;
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
        let image = image::read(self.session.store, target, platform)?;
        Ok(Base::Image(BaseImage { name: name.to_owned(), manifest: image.manifest, config: image.config, layers: image.layers }))
    }
}
