//! The client: manifests, whole images, and the work that is done in parallel.

use std::{
    collections::BTreeMap,
    io::Read,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ureq::http::{Method, header};

use super::{
    Progress,
    endpoint::{Attempt, Call, Endpoint},
    error::Error,
    manifest::{self, Document},
    options::Options,
    token::Scope,
};
use crate::{
    http::harmless,
    oci::{Descriptor, Digest, ImageConfig, Index, Manifest, Platform, Reference},
    store::Store,
};

/// How deep indexes may be in indexes.
const DEEPEST: u32 = 2;
/// How often a transfer tells how far it is.
const OFTEN: Duration = Duration::from_millis(40);
/// How many manifests are looked at to find one for a platform.
const MOST_MANIFESTS: u32 = 16;

/// A client of all registries; shared by threads.
#[derive(Debug)]
pub struct Client {
    options: Options,
    endpoints: Mutex<BTreeMap<String, Arc<Endpoint>>>,
}

/// How much of an image is pulled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// Manifest, config and layers.
    Whole,
    /// Manifest and config.
    ConfigOnly,
}

/// An image that is now in the store.
#[derive(Debug, Clone, PartialEq)]
pub struct Pulled {
    /// As it was asked for.
    pub name: Reference,
    /// What the name stands for in the registry: an index or the manifest.
    pub resolved: Descriptor,
    /// The manifest of the platform; its bytes and the config are in the store.
    pub manifest: Descriptor,
    /// The manifest, read.
    pub image: Manifest,
    /// The config, read.
    pub config: ImageConfig,
}

/// Reports progress; `false`: stop, the result is no longer wanted.
pub(super) type Report<'a> = dyn FnMut(Progress) -> bool + 'a;

/// A manifest's bytes, its descriptor, and what it says.
pub(super) struct Fetched {
    bytes: Vec<u8>,
    descriptor: Descriptor,
    document: Document,
}

impl Client {
    /// Does not touch the network.
    pub fn new(options: Options) -> Self {
        Self { options, endpoints: Mutex::default() }
    }

    /// The bytes of the manifest or index that a name stands for, with their descriptor; the digest is checked against
    /// the name's and against the registry's. At most 4 MiB.
    pub fn manifest(&self, name: &Reference) -> Result<(Vec<u8>, Descriptor), Error> {
        let fetched = self.fetch(name, None)?;
        Ok((fetched.bytes, fetched.descriptor))
    }

    /// Pulls an image for a platform. A name that is no index is taken whatever its platform is: see the config.
    pub fn pull(
        &self,
        name: &Reference,
        platform: &Platform,
        store: &Store,
        what: What,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Pulled, Error> {
        let resolved = self.fetch(name, None)?;
        let (target, offered) = (resolved.descriptor.clone(), offered(&resolved));
        let mut left = MOST_MANIFESTS;
        let found = match &resolved.document {
            Document::Image(_) => Some(resolved),
            Document::Index(index) => self.descend(name, index, platform, store, DEEPEST, &mut left)?,
        };
        let Some(Fetched { bytes, descriptor, document: Document::Image(image) }) = found else {
            return Err(Error::NoPlatform { name: name.familiar(), wanted: platform.to_string(), offered });
        };
        let config = self.config(name, &image, store)?;
        if what == What::Whole {
            let layers = distinct(&image.layers);
            in_parallel(self.options.limits.parallel, &layers, progress, &|layer, report| self.download(name, layer, store, report))?;
        }
        // The manifest comes last: what is named by one in the store is there.
        let _digest = store.put_blob(&bytes)?;
        Ok(Pulled { name: name.clone(), resolved: target, manifest: descriptor, image: *image, config })
    }

    /// One blob of a repository, into the store, verified. Nothing is done if it is there.
    pub fn blob(&self, repository: &Reference, blob: &Descriptor, store: &Store, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
        self.download(repository, blob, store, &mut |step| {
            progress(step);
            true
        })
    }

    /// What registries wanted their users to know (`Warning: 299`), each once: the registry and its words.
    pub fn warnings(&self) -> Vec<(String, String)> {
        let endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        let of = |endpoint: &Arc<Endpoint>| endpoint.take_warnings().into_iter().map(|text| (endpoint.registry.clone(), text)).collect();
        endpoints.values().flat_map(|endpoint| -> Vec<_> { of(endpoint) }).collect()
    }

    pub(super) fn endpoint(&self, registry: &str) -> Result<Arc<Endpoint>, Error> {
        let mut endpoints = self.endpoints.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(endpoint) = endpoints.get(registry) {
            return Ok(Arc::clone(endpoint));
        }
        let endpoint = Arc::new(Endpoint::new(registry, &self.options)?);
        drop(endpoints.insert(registry.to_owned(), Arc::clone(&endpoint)));
        Ok(endpoint)
    }

    pub(super) fn options(&self) -> &Options {
        &self.options
    }

    /// The config blob, checked and read.
    fn config(&self, name: &Reference, image: &Manifest, store: &Store) -> Result<ImageConfig, Error> {
        let unusable = |detail: String| Error::Unusable { name: name.familiar(), detail };
        manifest::check_image(image).map_err(unusable)?;
        self.download(name, &image.config, store, &mut |_| true)?;
        let bytes = store.blob(&image.config.digest, manifest::LARGEST_CONFIG)?;
        let bytes = bytes.ok_or(Error::Missing { digest: image.config.digest })?;
        serde_json::from_slice(&bytes).map_err(|error| unusable(format!("its config cannot be read: {}", harmless(&error.to_string()))))
    }

    /// The manifest for a platform in an index, which may have indexes in it.
    fn descend(
        &self,
        name: &Reference,
        index: &Index,
        platform: &Platform,
        store: &Store,
        depth: u32,
        left: &mut u32,
    ) -> Result<Option<Fetched>, Error> {
        for entry in manifest::candidates(index, platform) {
            if *left == 0 {
                break;
            }
            *left -= 1;
            let fetched = self.fetch(&name.at(entry.digest), Some(entry))?;
            match &fetched.document {
                Document::Image(image) => {
                    // An entry that does not say its platform: its config does.
                    let fits = entry.platform.is_some() || {
                        let config = self.config(name, image, store)?;
                        platform.matches(&platform_of(&config))
                    };
                    if fits {
                        return Ok(Some(fetched));
                    }
                }
                Document::Index(_) if depth == 0 => {
                    return Err(Error::Unusable { name: name.familiar(), detail: "its indexes are nested too deep".into() });
                }
                Document::Index(inner) => {
                    if let Some(found) = self.descend(name, inner, platform, store, depth - 1, left)? {
                        return Ok(Some(found));
                    }
                }
            }
        }
        Ok(None)
    }

    fn fetch(&self, name: &Reference, expected: Option<&Descriptor>) -> Result<Fetched, Error> {
        let endpoint = self.endpoint(&name.registry)?;
        let wanted = name.digest.map(|digest| digest.to_string()).or_else(|| name.tag.clone()).unwrap_or_else(|| "latest".into());
        let what = format!("`{}`", name.familiar());
        let (bytes, served) = endpoint.patiently(|| manifest_bytes(&endpoint, name, &wanted, &what))?;
        let digest = Digest::of(&bytes);
        if let Some(promised) = name.digest.filter(|promised| *promised != digest) {
            return Err(endpoint.mismatch(&format!("the manifest {what}"), &promised, &digest));
        }
        if let Some(promised) = served.digest.filter(|promised| *promised != digest) {
            return Err(endpoint.mismatch(&format!("the manifest {what}"), &promised, &digest));
        }
        let size = bytes.len() as u64;
        if let Some(promised) = expected.map(|expected| expected.size).filter(|promised| *promised != size) {
            return Err(endpoint.mismatch(&format!("the size of the manifest {what}"), &promised, &size));
        }
        let unusable = |detail: String| Error::Unusable { name: name.familiar(), detail };
        let (kind, document) = manifest::read(&bytes, served.kind.as_deref()).map_err(unusable)?;
        if let Some(promised) = expected.map(|expected| &expected.media_type).filter(|promised| *promised != kind) {
            return Err(unusable(format!("its index calls a manifest `{promised}` that is a `{kind}`")));
        }
        Ok(Fetched { bytes, descriptor: Descriptor::new(kind, digest, size), document })
    }
}

/// What the head of an answer says about a manifest.
struct Served {
    kind: Option<String>,
    digest: Option<Digest>,
}

fn manifest_bytes(endpoint: &Endpoint, name: &Reference, wanted: &str, what: &str) -> Attempt<(Vec<u8>, Served)> {
    let scope = Scope::pull(&name.repository);
    let url = endpoint.url(&format!("{}/manifests/{wanted}", name.repository))?;
    let mut call = Call::new(Method::GET, url, &scope);
    call.headers.push((header::ACCEPT, manifest::TYPES.join(", ")));
    let answer = endpoint.ask(call)?;
    if !answer.status().is_success() {
        return Err(endpoint.refusal(answer, what));
    }
    let text = |key: &str| answer.headers().get(key).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let digest = text("docker-content-digest").filter(|digest| digest.starts_with("sha256:"));
    let digest = digest.map(|digest| digest.parse()).transpose();
    let digest = digest.map_err(|_odd: crate::oci::BadDigest| endpoint.protocol("its `Docker-Content-Digest` is no digest"))?;
    let served = Served { kind: text("content-type"), digest };
    let mut bytes = Vec::new();
    let read = answer.into_body().into_reader().take(manifest::LARGEST + 1).read_to_end(&mut bytes);
    read.map_err(|error| endpoint.lost(&error))?;
    if bytes.len() as u64 > manifest::LARGEST {
        return Err(endpoint.protocol(&format!("the manifest {what} is larger than {} bytes", manifest::LARGEST)).into());
    }
    Ok((bytes, served))
}

fn offered(fetched: &Fetched) -> Vec<String> {
    match &fetched.document {
        Document::Index(index) => manifest::offered(index),
        Document::Image(_) => Vec::new(),
    }
}

fn platform_of(config: &ImageConfig) -> Platform {
    Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os_version: None,
        os_features: Vec::new(),
    }
}

/// Each digest once.
pub(super) fn distinct(blobs: &[Descriptor]) -> Vec<Descriptor> {
    let mut kept: Vec<Descriptor> = Vec::new();
    for blob in blobs {
        if !kept.iter().any(|other| other.digest == blob.digest && other.size == blob.size) {
            kept.push(blob.clone());
        }
    }
    kept
}

/// A transfer of one blob.
pub(super) type Job<'a> = dyn Fn(&Descriptor, &mut Report<'_>) -> Result<(), Error> + Sync + 'a;

/// Does a job for each blob, a few at once. The first error stops the others, and is returned.
pub(super) fn in_parallel(workers: usize, blobs: &[Descriptor], progress: &mut dyn FnMut(Progress), job: &Job<'_>) -> Result<(), Error> {
    let (next, stop, failed) = (AtomicUsize::new(0), AtomicBool::new(false), Mutex::new(None));
    let (sender, steps) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..workers.clamp(1, blobs.len().max(1)) {
            let sender = sender.clone();
            let (next, stop, failed) = (&next, &stop, &failed);
            let work = move || {
                let mut told = Instant::now();
                let mut report = |step: Progress| {
                    // Nobody sees more than this, and each wakes who tells it.
                    let due = step.done == step.total || told.elapsed() >= OFTEN;
                    if due {
                        told = Instant::now();
                    }
                    // A receiver that is gone has no interest in progress.
                    (!due || sender.send(step).is_ok()) && !stop.load(Ordering::Relaxed)
                };
                while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| !stop.load(Ordering::Relaxed)) {
                    if let Err(error) = job(blob, &mut report) {
                        let mut first = failed.lock().unwrap_or_else(PoisonError::into_inner);
                        // Those that were told to stop fail too, later.
                        *first = first.take().or(Some(error));
                        stop.store(true, Ordering::Relaxed);
                    }
                }
            };
            let _joined_by_the_scope = scope.spawn(work);
        }
        drop(sender);
        steps.iter().for_each(progress);
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}
