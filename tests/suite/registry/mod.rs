//! The registry client, from outside: against a registry that is told what to do wrong, and against a real one.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "a test's helper that cannot go on may say so by a panic")]

mod faulty;
mod hostile;
mod real;

use std::{collections::BTreeMap, time::Duration};

use lapstrake::{
    oci::{Descriptor, Digest, Platform, Reference, media_type},
    registry::{Client, Credentials, Host, Limits, Options},
    store::Store,
};
use serde_json::json;
use tempfile::TempDir;

/// A store in a directory of its own.
struct Shelf {
    store: Store,
    _dir: TempDir,
}

fn shelf() -> Shelf {
    let dir = tempfile::tempdir().unwrap();
    Shelf { store: Store::open(dir.path()).unwrap(), _dir: dir }
}

/// An image as bytes.
struct Image {
    layers: Vec<Vec<u8>>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

impl Image {
    /// Of layers that look like random bytes; `salt` makes them different.
    fn of(sizes: &[usize], architecture: &str, salt: &str) -> Self {
        let layers: Vec<Vec<u8>> = sizes.iter().enumerate().map(|(place, size)| noise(*size, &format!("{salt}{place}"))).collect();
        let diff_ids: Vec<String> = layers.iter().map(|layer| Digest::of(layer).to_string()).collect();
        let config = json!({"architecture": architecture, "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}});
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::MANIFEST,
            "config": described(media_type::CONFIG, &config),
            "layers": layers.iter().map(|layer| described(media_type::LAYER, layer)).collect::<Vec<_>>(),
        });
        Self { layers, config, manifest: manifest.to_string().into_bytes() }
    }

    fn put(&self, store: &Store) -> Descriptor {
        for blob in self.layers.iter().chain([&self.config, &self.manifest]) {
            store.put_blob(blob).unwrap();
        }
        described(media_type::MANIFEST, &self.manifest)
    }
}

fn described(kind: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(kind, Digest::of(bytes), bytes.len() as u64)
}

fn noise(size: usize, salt: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(size + 32);
    let mut last = Digest::of(salt.as_bytes());
    while bytes.len() < size {
        bytes.extend_from_slice(last.as_bytes());
        last = Digest::of(last.as_bytes());
    }
    bytes.truncate(size);
    bytes
}

fn name(text: &str) -> Reference {
    text.parse().unwrap()
}

fn linux(text: &str) -> Platform {
    text.parse().unwrap()
}

fn limits() -> Limits {
    Limits {
        connect: Duration::from_secs(5),
        silence: Duration::from_secs(5),
        answer: Duration::from_secs(10),
        window: Duration::from_secs(10),
        attempts: 3,
        backoff: Duration::from_millis(5),
        patience: Duration::from_secs(2),
        ..Limits::default()
    }
}

fn client() -> Client {
    Client::new(Options { limits: limits(), ..Options::default() })
}

fn client_of(registry: &str, host: Host) -> Client {
    Client::new(Options { limits: limits(), hosts: BTreeMap::from([(registry.to_owned(), host)]), ..Options::default() })
}

fn basic(username: &str, password: &str) -> Host {
    let credentials = Credentials::Basic { username: username.into(), password: password.into() };
    Host { credentials: Some(credentials), ..Host::default() }
}
