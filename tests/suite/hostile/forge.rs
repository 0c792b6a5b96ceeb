//! Tars, images and layouts as somebody hostile writes them: any byte in any field.

use std::{fs, io::Write as _, path::PathBuf};

use serde_json::{Value, json};

use crate::harness::{Project, sha256};

/// A tar, entry by entry, without any rule.
#[derive(Clone, Default)]
pub(super) struct Tar(Vec<u8>);

impl Tar {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A header with these fields and this size, and the body padded.
    pub(super) fn raw(mut self, name: &[u8], kind: u8, mode: u32, link: &[u8], size: &[u8], body: &[u8]) -> Self {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name);
        block[100..107].copy_from_slice(format!("{mode:07o}").as_bytes());
        block[108..115].copy_from_slice(b"0000000");
        block[116..123].copy_from_slice(b"0000000");
        block[124..124 + size.len()].copy_from_slice(size);
        block[136..147].copy_from_slice(b"00000000000");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        // A device, where the kind is one: 1:3.
        block[329..336].copy_from_slice(b"0000001");
        block[337..344].copy_from_slice(b"0000003");
        block[148..156].copy_from_slice(b"        ");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        self.0.extend_from_slice(body);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    /// Names of more than 100 bytes get a PAX record before.
    pub(super) fn entry(self, name: &str, kind: u8, mode: u32, link: &str, body: &[u8]) -> Self {
        let mut records = String::new();
        if name.len() > 100 {
            records += &record("path", name);
        }
        if link.len() > 100 {
            records += &record("linkpath", link);
        }
        let this = if records.is_empty() { self } else { self.pax(records.as_bytes()) };
        let size = format!("{:011o}", body.len());
        let cut = |text: &str| text.as_bytes()[..text.len().min(100)].to_vec();
        this.raw(&cut(name), kind, mode, &cut(link), size.as_bytes(), body)
    }

    pub(super) fn file(self, name: &str, body: &str) -> Self {
        self.entry(name, b'0', 0o644, "", body.as_bytes())
    }

    pub(super) fn dir(self, name: &str) -> Self {
        self.entry(name, b'5', 0o755, "", b"")
    }

    pub(super) fn link(self, name: &str, target: &str) -> Self {
        self.entry(name, b'2', 0o777, target, b"")
    }

    pub(super) fn hard(self, name: &str, target: &str) -> Self {
        self.entry(name, b'1', 0o644, target, b"")
    }

    /// Extended headers for the next entry.
    pub(super) fn pax(self, records: &[u8]) -> Self {
        let size = format!("{:011o}", records.len());
        self.raw(b"pax", b'x', 0o644, b"", size.as_bytes(), records)
    }

    /// With the two blocks of zeros.
    pub(super) fn end(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 1024, 0);
        self.0
    }

    /// As it is.
    pub(super) fn cut(self) -> Vec<u8> {
        self.0
    }
}

/// A PAX record with its right length.
pub(super) fn record(key: &str, value: &str) -> String {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length.to_string().len() + rest != length {
        length = length.to_string().len() + rest;
    }
    format!("{length} {key}={value}\n")
}

/// Compressed.
pub(super) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// An image to be: `busybox`, or nothing, and more layers.
pub(super) struct Forged {
    dir: PathBuf,
    pub(super) manifest: Value,
    pub(super) config: Value,
}

impl Forged {
    /// On `busybox`, in a new directory of the project.
    pub(super) fn on_busybox(project: &Project, name: &str) -> Self {
        let base = project.path("busybox-layout");
        let read = |descriptor: &Value| -> Value {
            let hex = descriptor["digest"].as_str().unwrap().replace("sha256:", "");
            serde_json::from_slice(&fs::read(base.join("blobs/sha256").join(hex)).unwrap()).unwrap()
        };
        let index: Value = serde_json::from_slice(&fs::read(base.join("index.json")).unwrap()).unwrap();
        let manifest = read(&index["manifests"][0]);
        let config = read(&manifest["config"]);
        let dir = project.path(name);
        fs::create_dir_all(dir.join("blobs/sha256")).unwrap();
        let layer = manifest["layers"][0]["digest"].as_str().unwrap().replace("sha256:", "");
        let blob = PathBuf::from("blobs/sha256").join(layer);
        fs::hard_link(base.join(&blob), dir.join(&blob)).unwrap();
        Self { dir, manifest, config }
    }

    /// Writes a blob, and says what it is.
    pub(super) fn blob(&self, media_type: &str, bytes: &[u8]) -> Value {
        let hex = sha256(bytes);
        fs::write(self.dir.join("blobs/sha256").join(&hex), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    }

    /// One layer more: an uncompressed tar.
    pub(super) fn layer(self, tar: &[u8]) -> Self {
        self.packed(tar, tar, "application/vnd.oci.image.layer.v1.tar")
    }

    /// One layer more: what its blob is, and what it is unpacked.
    pub(super) fn packed(mut self, blob: &[u8], tar: &[u8], media_type: &str) -> Self {
        let descriptor = self.blob(media_type, blob);
        self.manifest["layers"].as_array_mut().unwrap().push(descriptor);
        self.config["rootfs"]["diff_ids"].as_array_mut().unwrap().push(format!("sha256:{}", sha256(tar)).into());
        self.config["history"].as_array_mut().unwrap().push(json!({"created_by": "forged"}));
        self
    }

    /// Sets a field of `config.config`.
    pub(super) fn set(mut self, key: &str, value: Value) -> Self {
        self.config["config"][key] = value;
        self
    }

    /// The layout, with the digests right.
    pub(super) fn layout(mut self) -> PathBuf {
        self.manifest["config"] = self.blob("application/vnd.oci.image.config.v1+json", self.config.to_string().as_bytes());
        let manifest = self.manifest.to_string();
        self.layout_of("application/vnd.oci.image.manifest.v1+json", manifest.as_bytes())
    }

    /// The layout of these bytes as the manifest.
    pub(super) fn layout_of(self, media_type: &str, manifest: &[u8]) -> PathBuf {
        let entry = self.blob(media_type, manifest);
        fs::write(self.dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).unwrap();
        fs::write(self.dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
        self.dir
    }
}
