//! Base images, made here: no test needs a public registry.
//!
//! `busybox` is made of Debian's busybox-static, written as an OCI layout by this file. A Debian root file system
//! comes from the directory `LAPSTRAKE_TEST_BASES`, which `tests/run` fills.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::json;

use super::{need, sha256, skipped};

const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nnobody:x:65534:65534:nobody:/:/bin/false\n";
const GROUP: &str = "root:x:0:\nstaff:x:50:\nwww-data:x:33:\nnobody:x:65534:\n";

/// The root file system of Debian as a tar.
pub(crate) fn debian_rootfs() -> Option<PathBuf> {
    let found = std::env::var_os("LAPSTRAKE_TEST_BASES").map(|dir| PathBuf::from(dir).join("debian.tar")).filter(|tar| tar.exists());
    if found.is_none() {
        skipped("`LAPSTRAKE_TEST_BASES` names no directory with a debian.tar; `tests/run` makes one");
    }
    found
}

/// Writes the busybox image as an OCI layout. `None`, and a message: the machine has no static busybox.
pub(crate) fn busybox_layout(dir: &Path) -> Option<PathBuf> {
    static LAYER: OnceLock<Vec<u8>> = OnceLock::new();
    let busybox = need("busybox")?;
    let layer = LAYER.get_or_init(|| busybox_layer(&busybox));
    write_layout(dir, &[layer], "busybox");
    Some(dir.to_owned())
}

/// The same with more layers on it, each a tar.
pub(crate) fn busybox_layout_with(dir: &Path, more: &[&[u8]]) -> Option<PathBuf> {
    let base = busybox_layer(&need("busybox")?);
    let layers: Vec<&[u8]> = std::iter::once(base.as_slice()).chain(more.iter().copied()).collect();
    write_layout(dir, &layers, "busybox");
    Some(dir.to_owned())
}

fn busybox_layer(busybox: &Path) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, owner: u64, link: Option<&str>, bytes: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(owner);
        header.set_gid(owner);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        if let Some(link) = link {
            header.set_link_name(link).unwrap();
        }
        tar.append_data(&mut header, path, bytes).unwrap();
    };
    let (dir, file, link) = (tar::EntryType::Directory, tar::EntryType::Regular, tar::EntryType::Symlink);
    add("bin/", dir, 0o755, 0, None, b"");
    add("bin/busybox", file, 0o755, 0, None, &fs::read(busybox).unwrap());
    let applets = Command::new(busybox).arg("--list").output().unwrap().stdout;
    for applet in String::from_utf8(applets).unwrap().lines().filter(|name| *name != "busybox") {
        add(&format!("bin/{applet}"), link, 0o777, 0, Some("busybox"), b"");
    }
    add("etc/", dir, 0o755, 0, None, b"");
    add("etc/group", file, 0o644, 0, None, GROUP.as_bytes());
    add("etc/passwd", file, 0o644, 0, None, PASSWD.as_bytes());
    add("root/", dir, 0o700, 0, None, b"");
    add("tmp/", dir, 0o1777, 0, None, b"");
    for path in ["usr/", "usr/bin/", "usr/sbin/", "var/"] {
        add(path, dir, 0o755, 0, None, b"");
    }
    add("usr/bin/env", link, 0o777, 0, Some("../../bin/busybox"), b"");
    add("var/www/", dir, 0o755, 33, None, b"");
    tar.into_inner().unwrap()
}

/// An OCI layout of these layers, base first.
fn write_layout(dir: &Path, layers: &[&[u8]], name: &str) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let blob = |media_type: &str, bytes: &[u8]| {
        let hex = sha256(bytes);
        fs::write(blobs.join(&hex), bytes).unwrap();
        json!({"mediaType": media_type, "digest": format!("sha256:{hex}"), "size": bytes.len()})
    };
    let packed = |layer: &&[u8]| {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(layer).unwrap();
        blob("application/vnd.oci.image.layer.v1.tar+gzip", &gzip.finish().unwrap())
    };
    let layer_blobs: Vec<_> = layers.iter().map(packed).collect();
    let diff_ids: Vec<String> = layers.iter().map(|layer| format!("sha256:{}", sha256(layer))).collect();
    let history: Vec<_> = layers.iter().map(|_| json!({"created": "1970-01-01T00:00:00Z", "created_by": format!("base {name}")})).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "1970-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    });
    let config = blob("application/vnd.oci.image.config.v1+json", config.to_string().as_bytes());
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layer_blobs,
    });
    let mut entry = blob("application/vnd.oci.image.manifest.v1+json", manifest.to_string().as_bytes());
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
    fs::write(dir.join("index.json"), json!({"schemaVersion": 2, "manifests": [entry]}).to_string()).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}
