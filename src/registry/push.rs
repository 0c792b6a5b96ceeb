//! An image, or an index of images, from the store into a registry: blobs first, then the manifests that name them.
//!
//! Source: distribution-spec "Pushing manifests".

use std::collections::BTreeMap;

use ureq::http::{Method, header};

use super::{
    Progress,
    client::{Client, Report, distinct, in_parallel},
    endpoint::{Attempt, Call, Endpoint},
    error::Error,
    manifest::{self, Document},
    token::Scope,
    upload::{Upload, confirm},
};
use crate::{
    http::{Content, Pace},
    oci::{Descriptor, Digest, Reference},
    store::Store,
};

/// How deep indexes may be in indexes.
const DEEPEST: u32 = 2;
/// How many names of the store are looked through for repositories to mount from.
const MOST_NAMES: usize = 512;

/// What is now in the registry.
#[derive(Debug, Clone, PartialEq)]
pub struct Pushed {
    /// With its digest.
    pub name: Reference,
    /// Of the manifest or index.
    pub descriptor: Descriptor,
}

/// Where a blob comes from: names of the store that have it.
type Origins = BTreeMap<Digest, Vec<Reference>>;

impl Client {
    /// Pushes an image (or an index with all its images) under a name; a name without a tag by its digest.
    /// Blobs that the store lacks are mounted from, or fetched from, where names of the store say they are.
    pub fn push(
        &self,
        name: &Reference,
        manifest: &Descriptor,
        store: &Store,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Pushed, Error> {
        let endpoint = self.endpoint(&name.registry)?;
        let origins = origins(name, store);
        self.contents(&endpoint, name, manifest, store, &origins, progress, DEEPEST)?;
        self.tag(name, manifest, store)
    }

    /// Gives an image that was pushed to a repository one more tag there.
    pub fn tag(&self, name: &Reference, manifest: &Descriptor, store: &Store) -> Result<Pushed, Error> {
        if name.digest.is_some_and(|digest| digest != manifest.digest) {
            let detail = format!("the image to be pushed under it is {}", manifest.digest);
            return Err(Error::Unusable { name: name.familiar(), detail });
        }
        let endpoint = self.endpoint(&name.registry)?;
        let target = name.tag.clone().unwrap_or_else(|| manifest.digest.to_string());
        put_manifest(&endpoint, name, &target, manifest, store)?;
        Ok(Pushed { name: Reference { digest: Some(manifest.digest), ..name.clone() }, descriptor: manifest.clone() })
    }

    /// All that a manifest names.
    #[expect(clippy::too_many_arguments, reason = "it calls itself; a struct for one function would only move them")]
    fn contents(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        manifest: &Descriptor,
        store: &Store,
        origins: &Origins,
        progress: &mut dyn FnMut(Progress),
        depth: u32,
    ) -> Result<(), Error> {
        let unusable = |detail: String| Error::Unusable { name: name.familiar(), detail };
        let bytes = store.blob(&manifest.digest, manifest::LARGEST)?.ok_or(Error::Missing { digest: manifest.digest })?;
        let index = match manifest::read(&bytes, Some(&manifest.media_type)).map_err(unusable)?.1 {
            Document::Image(image) => {
                let own = image.layers.iter().filter(|layer| !manifest::is_foreign(layer)).cloned();
                let blobs = distinct(&own.chain([image.config]).collect::<Vec<_>>());
                return in_parallel(self.options().limits.parallel, &blobs, progress, &|blob, report| {
                    self.send(endpoint, name, blob, store, origins, report)
                });
            }
            Document::Index(index) => index,
        };
        let Some(depth) = depth.checked_sub(1) else { return Err(unusable("its indexes are nested too deep".into())) };
        for child in &index.manifests {
            self.contents(endpoint, name, child, store, origins, progress, depth)?;
            put_manifest(endpoint, name, &child.digest.to_string(), child, store)?;
        }
        Ok(())
    }

    fn send(
        &self,
        endpoint: &Endpoint,
        name: &Reference,
        blob: &Descriptor,
        store: &Store,
        origins: &Origins,
        report: &mut Report<'_>,
    ) -> Result<(), Error> {
        let known = origins.get(&blob.digest).map_or(&[][..], Vec::as_slice);
        let near = known.iter().find(|other| other.registry == name.registry && other.repository != name.repository);
        let from = near.map(|near| near.repository.as_str());
        let upload = Upload { endpoint, repository: &name.repository, blob, from: None };
        let done = Progress { what: blob.digest, done: blob.size, total: blob.size };
        if endpoint.patiently(|| upload.is_there())? {
            report(done);
            return Ok(());
        }
        let mut begun = None;
        if let Some(from) = from {
            match (Upload { from: Some(from), ..upload }).mount(from) {
                Ok(Ok(())) => {
                    report(done);
                    return Ok(());
                }
                Ok(Err(session)) => begun = session,
                // A mount saves time; without it the blob is sent.
                Err(_) => {}
            }
        }
        if !store.has_blob(&blob.digest, blob.size) {
            // What the target itself lacks cannot come from there.
            let elsewhere = known.iter().find(|other| other.registry != name.registry || other.repository != name.repository);
            let origin = elsewhere.ok_or(Error::Missing { digest: blob.digest })?;
            self.download(origin, blob, store, report)?;
            begun = None;
        }
        let upload = Upload { endpoint, repository: &name.repository, blob, from: from.filter(|_| begun.is_some()) };
        upload.run(store, begun, report)
    }
}

fn put_manifest(endpoint: &Endpoint, name: &Reference, target: &str, manifest: &Descriptor, store: &Store) -> Result<(), Error> {
    let bytes = store.blob(&manifest.digest, manifest::LARGEST)?.ok_or(Error::Missing { digest: manifest.digest })?;
    endpoint.patiently(|| -> Attempt<()> {
        let scope = Scope::push(&name.repository);
        let url = endpoint.url(&format!("{}/manifests/{target}", name.repository))?;
        let mut call = Call::new(Method::PUT, url, &scope);
        call.headers.push((header::CONTENT_TYPE, manifest.media_type.clone()));
        let answer = endpoint.ask(Call { content: Content::Bytes(&bytes), pace: Pace::Commit, ..call })?;
        if !answer.status().is_success() {
            return Err(endpoint.refusal(answer, &format!("the manifest `{target}` in `{}`", name.repository)));
        }
        confirm(endpoint, &answer, &manifest.digest, "a pushed manifest")
    })
}

/// What the store knows of where blobs are: the repositories of the names whose manifests have them.
fn origins(name: &Reference, store: &Store) -> Origins {
    let mut origins = Origins::new();
    // Names that cannot be read cost a mount and nothing more.
    let mut names = store.refs().unwrap_or_default();
    names.sort_by_key(|(other, _)| other.registry != name.registry);
    for (other, target) in names.into_iter().take(MOST_NAMES) {
        let bytes = store.blob(&target.digest, manifest::LARGEST).ok().flatten();
        let document = bytes.and_then(|bytes| manifest::read(&bytes, Some(&target.media_type)).ok());
        if let Some((_, Document::Image(image))) = document {
            for blob in image.layers.iter().chain([&image.config]) {
                origins.entry(blob.digest).or_default().push(other.clone());
            }
        }
    }
    origins
}
