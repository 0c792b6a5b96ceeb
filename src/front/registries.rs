//! Registries as the rest of the front uses them: mirrors before the registry itself, and every transfer an event.

use std::collections::BTreeMap;

use crate::{
    engine::Event,
    error::{Error, Kind},
    oci::{Descriptor, Platform, Reference},
    registry::{self, Client, Host, Options, Progress, Proxies, What},
    store::Store,
};

/// What the user's configuration says of a registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistrySettings {
    /// URLs of registries that have the same images, asked first.
    pub mirrors: Vec<String>,
    /// Certificates are not checked, and HTTP is spoken where HTTPS is not.
    pub insecure: bool,
    /// Certificates of authorities, PEM.
    pub ca: Option<Vec<u8>>,
}

/// The registries, and how they are spoken to.
#[derive(Debug)]
pub struct Registries {
    client: Client,
    /// Hosts of mirrors by registry.
    mirrors: BTreeMap<String, Vec<String>>,
}

impl Registries {
    /// With the user's settings.
    pub fn new(settings: BTreeMap<String, RegistrySettings>, proxies: Proxies) -> Result<Self, Error> {
        let mut options = Options { proxies, ..Options::default() };
        let mut mirrors = BTreeMap::new();
        for (name, registry) in settings {
            let hosts = registry.mirrors.iter().map(|url| mirror_host(url)).collect::<Result<Vec<_>, _>>()?;
            for (url, host) in registry.mirrors.iter().zip(&hosts) {
                let entry: &mut Host = options.hosts.entry(host.clone()).or_default();
                entry.insecure |= url.starts_with("http://");
            }
            let entry = options.hosts.entry(name.clone()).or_default();
            entry.insecure |= registry.insecure;
            entry.ca = registry.ca;
            drop(mirrors.insert(name, hosts));
        }
        Ok(Self { client: Client::new(options), mirrors })
    }

    /// The names under which an image is asked for, in order.
    fn candidates(&self, name: &Reference) -> Vec<Reference> {
        let mirrors = self.mirrors.get(&name.registry).into_iter().flatten();
        mirrors.map(|host| Reference { registry: host.clone(), ..name.clone() }).chain([name.clone()]).collect()
    }

    /// The first answer of a mirror, else the registry's.
    fn first<T>(&self, name: &Reference, mut ask: impl FnMut(&Reference) -> Result<T, registry::Error>) -> Result<T, registry::Error> {
        let mut candidates = self.candidates(name);
        let last = candidates.pop();
        for mirror in &candidates {
            if let Ok(answer) = ask(mirror) {
                return Ok(answer);
            }
        }
        ask(last.as_ref().unwrap_or(name))
    }

    /// Fetches manifest and config of an image; `None`: there is no such image.
    pub(super) fn pull_config(&self, name: &Reference, platform: &Platform, store: &Store) -> Result<Option<Descriptor>, Error> {
        found(self.first(name, |name| self.client.pull(name, platform, store, What::ConfigOnly, &mut |_progress| ())))
    }

    /// Fetches a whole image; `None`: there is no such image.
    pub fn pull(
        &self,
        name: &Reference,
        platform: &Platform,
        store: &Store,
        event: &mut dyn FnMut(Event),
    ) -> Result<Option<Descriptor>, Error> {
        found(
            self.first(name, |name| {
                self.client.pull(name, platform, store, What::Whole, &mut |progress| event(transfer("pulling", progress)))
            }),
        )
    }

    /// Fetches one blob of an image.
    pub(super) fn blob(&self, image: &str, blob: &Descriptor, store: &Store, event: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let name: Reference = image.parse().map_err(|_not_a_name| missing(image, blob))?;
        let fetched = self.first(&name, |name| self.client.blob(name, blob, store, &mut |progress| event(transfer("pulling", progress))));
        fetched.map_err(Error::from)
    }

    /// Sends an image.
    pub fn push(&self, name: &Reference, manifest: &Descriptor, store: &Store, event: &mut dyn FnMut(Event)) -> Result<(), Error> {
        let pushed = self.client.push(name, manifest, store, &mut |progress| event(transfer("pushing", progress)));
        pushed.map(drop).map_err(Error::from)
    }
}

fn found(pulled: Result<registry::Pulled, registry::Error>) -> Result<Option<Descriptor>, Error> {
    match pulled {
        Ok(pulled) => Ok(Some(pulled.manifest)),
        Err(registry::Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// The registry that a mirror's URL names.
fn mirror_host(url: &str) -> Result<String, Error> {
    let host = url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).unwrap_or(url).trim_end_matches('/');
    if host.is_empty() || host.contains(['/', '@', '?', '#']) {
        return Err(Error::new(Kind::Usage, "a mirror in the configuration is not of the form `https://HOST[:PORT]`"));
    }
    Ok(host.to_owned())
}

fn transfer(verb: &str, progress: Progress) -> Event {
    Event::Transfer { what: format!("{verb} {}", progress.what), done: progress.done, total: progress.total }
}

/// A blob of an image that no registry has: of a layout, whose blobs were loaded and then deleted from the store.
fn missing(image: &str, blob: &Descriptor) -> Error {
    Error::new(Kind::Environment, format!("the blob {} of `{image}` is not in the store", blob.digest))
        .help("load the image again")
        .spoiled()
}
