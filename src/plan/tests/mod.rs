//! What a Dockerfile means, seen from outside the room: text in, plan or messages out.

mod meaning;
mod messages;
mod yardstick;

use std::{cell::RefCell, collections::BTreeMap};

use super::{Base, BaseError, BaseImage, Bases, CopySource, Dated, Plan, Request, Unresolved, resolve};
use crate::{
    diag::Diagnostic,
    dockerfile,
    error::Kind,
    oci::{Config, Descriptor, Digest, ImageConfig, Platform, media_type},
};

/// Images and directories by name; it remembers what it was asked for.
#[derive(Default)]
struct Shelf {
    images: BTreeMap<String, ImageConfig>,
    directories: Vec<String>,
    /// Times by name and URL.
    times: BTreeMap<String, i64>,
    offline: bool,
    asked: RefCell<Vec<String>>,
}

impl Shelf {
    /// One with `busybox` and nothing in its config but PATH.
    fn new() -> Self {
        Self::default().with("busybox", Config { env: Some(vec!["PATH=/bin".into()]), ..Config::default() })
    }

    fn with(mut self, name: &str, config: Config) -> Self {
        let config = ImageConfig { architecture: "amd64".into(), os: "linux".into(), config, ..ImageConfig::default() };
        self.images.insert(name.to_owned(), config);
        self
    }

    fn dated(mut self, name: &str, time: i64) -> Self {
        self.times.insert(name.to_owned(), time);
        self
    }

    fn directory(mut self, name: &str) -> Self {
        self.directories.push(name.to_owned());
        self
    }
}

fn image(name: &str, config: ImageConfig) -> Base {
    let manifest = Descriptor::new(media_type::MANIFEST, Digest::of(name.as_bytes()), 1);
    Base::Image(BaseImage { name: name.to_owned(), manifest, config, layers: Vec::new() })
}

impl Bases for Shelf {
    fn base(&self, name: &str, _platform: &Platform) -> Result<Option<Base>, BaseError> {
        self.asked.borrow_mut().push(name.to_owned());
        if self.directories.iter().any(|directory| directory == name) {
            return Ok(Some(Base::Directory(name.to_owned())));
        }
        match self.images.get(name) {
            Some(config) => Ok(Some(image(name, config.clone()))),
            None if self.offline => Err(BaseError {
                message: format!("`{name}` is not in the store, and the registry cannot be reached"),
                help: Some("pull it first".into()),
                kind: Kind::Remote,
            }),
            None => Ok(None),
        }
    }

    fn time(&self, of: &Dated) -> Result<Option<i64>, BaseError> {
        let name = match of {
            Dated::Context => "context",
            Dated::Named(name) => name,
            Dated::Far(CopySource::Http { url, .. }) => url.url(),
            Dated::Far(CopySource::Git(address)) => address.url(),
            Dated::Far(CopySource::Path(_) | CopySource::Inline(_)) => panic!("{of:?} is not far"),
        };
        Ok(self.times.get(name).copied())
    }
}

fn amd64() -> Request {
    Request { platform: Some("linux/amd64".parse().unwrap()), ..Request::default() }
}

fn resolved(text: &str, request: &Request, bases: &dyn Bases) -> Result<Plan, Unresolved> {
    let parsed = dockerfile::parse(text);
    assert!(parsed.errors.is_empty(), "{:?} in {text}", parsed.errors);
    resolve(&parsed.dockerfile, request, bases)
}

/// The plan of a text that has one.
fn plan(text: &str) -> Plan {
    resolved(text, &amd64(), &Shelf::new()).unwrap_or_else(|error| panic!("{:#?} in {text}", error.places))
}

/// The messages of a text that has no plan, in one line each: headline, marked text, label, notes, help.
fn messages(text: &str, request: &Request, bases: &dyn Bases) -> Vec<String> {
    let error = resolved(text, request, bases).expect_err(text);
    error.places.iter().map(|place| message(text, place)).collect()
}

fn message(text: &str, diagnostic: &Diagnostic) -> String {
    let mut parts = vec![diagnostic.headline.clone()];
    parts.extend(diagnostic.labels.iter().map(|label| {
        let (start, end) = (label.span.start as usize, label.span.end as usize);
        format!("{:?} {}", text.get(start..end).unwrap_or("?"), label.text)
    }));
    parts.extend(diagnostic.notes.iter().map(|note| format!("note: {note}")));
    parts.extend(diagnostic.help.iter().map(|help| format!("help: {help}")));
    parts.join(" | ")
}
