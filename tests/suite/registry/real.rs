//! Against Debian's `docker-registry`, where it is installed.

use std::{
    fs,
    net::{SocketAddr, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::atomic::Ordering,
};

use lapstrake::{
    oci::{Descriptor, Digest, media_type},
    registry::{Failure, Host, Progress, What},
};
use tempfile::TempDir;

use super::{Image, basic, client, client_of, described, faulty, linux, name, shelf};
use crate::harness::{free_port, wait_until};

/// Ends when it is dropped.
struct Running {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Running {
    fn registry(&self) -> String {
        self.address.to_string()
    }
}

#[expect(clippy::disallowed_methods, reason = "a test starts what it tests against")]
fn program(name: &str) -> Command {
    Command::new(name)
}

/// `None`, with a word: this machine lacks what the test needs, which is an error in CI.
#[expect(clippy::disallowed_methods, reason = "the test asks where it runs")]
fn skipped(what: &str) -> Option<Running> {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{what} is not installed");
    eprintln!("skipped: {what} is not installed");
    None
}

/// A registry on a free port; `http` is put into its configuration, `auth` beside it.
fn start(dir: TempDir, http: &str, auth: &str) -> Option<Running> {
    let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
    let root = dir.path().display();
    let storage = format!("storage:\n  filesystem:\n    rootdirectory: {root}/data\n  delete:\n    enabled: true\n");
    let text = format!("version: 0.1\nlog:\n  level: error\n{storage}http:\n  addr: {address}\n{http}{auth}");
    let config = dir.path().join("config.yml");
    fs::write(&config, text).unwrap();
    let spawned = program("docker-registry").arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(child) = spawned else { return skipped("docker-registry") };
    let running = Running { child, address, dir };
    drop(wait_until("docker-registry", || TcpStream::connect(address).ok()));
    Some(running)
}

fn plain() -> Option<Running> {
    start(tempfile::tempdir().unwrap(), "", "")
}

fn run(command: &mut Command) -> bool {
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

/// An authority and a certificate of 127.0.0.1 by it; the authority's PEM.
fn certificates(dir: &Path) -> bool {
    let at = |name: &str| dir.join(name).display().to_string();
    fs::write(dir.join("ext"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    let (ca, ca_key, key, request, cert) = (at("ca.pem"), at("ca.key"), at("key.pem"), at("req.pem"), at("cert.pem"));
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    run(program("openssl").args(["req", "-x509", "-days", "2", "-subj", "/CN=test"]).args(ec).args(["-keyout", &ca_key, "-out", &ca]))
        && run(program("openssl").args(["req", "-subj", "/CN=registry"]).args(ec).args(["-keyout", &key, "-out", &request]))
        && run(program("openssl").args(["x509", "-req", "-days", "2", "-in", &request, "-CA", &ca, "-CAkey", &ca_key]).args([
            "-CAcreateserial",
            "-extfile",
            &at("ext"),
            "-out",
            &cert,
        ]))
}

#[test]
fn what_is_pushed_is_what_is_pulled() {
    let Some(registry) = plain() else { return };
    let image = Image::of(&[3_000_000, 10, 70_000, 10], "amd64", "");
    let (from, to) = (shelf(), shelf());
    let manifest = image.put(&from.store);
    let name = name(&format!("{}/some/app:v1", registry.registry()));
    let mut last = std::collections::BTreeMap::new();
    let pushed = client().push(&name, &manifest, &from.store, &mut |step| last.extend([(step.what, (step.done, step.total))])).unwrap();
    assert_eq!(pushed.descriptor, manifest);
    assert!(last.len() >= 4 && last.values().all(|(done, total)| done == total), "{last:?}");
    let pulled = client().pull(&name, &linux("linux/amd64"), &to.store, What::Whole, &mut |_| {}).unwrap();
    assert_eq!(pulled.manifest, manifest);
    assert_eq!(to.store.blob(&manifest.digest, u64::MAX).unwrap().unwrap(), image.manifest);
    for layer in &image.layers {
        assert_eq!(&to.store.blob(&Digest::of(layer), u64::MAX).unwrap().unwrap(), layer);
    }
}

#[test]
fn a_tag_more_is_the_same_image_and_a_tag_that_is_not_there_is_said() {
    let Some(registry) = plain() else { return };
    let image = Image::of(&[100], "amd64", "");
    let from = shelf();
    let manifest = image.put(&from.store);
    let at = |tail: &str| name(&format!("{}/app{tail}", registry.registry()));
    let client = client();
    client.push(&at(":v1"), &manifest, &from.store, &mut |_| {}).unwrap();
    client.tag(&at(":v2"), &manifest, &from.store).unwrap();
    assert_eq!(client.manifest(&at(":v2")).unwrap(), (image.manifest.clone(), manifest.clone()));
    assert_eq!(client.manifest(&at(&format!("@{}", manifest.digest))).unwrap().1, manifest);
    let error = client.manifest(&at(":v3")).unwrap_err();
    assert_eq!(error.failure(), Failure::NotFound);
    assert!(error.to_string().contains("app:v3"), "{error}");
}

#[test]
fn a_push_by_digest_leaves_no_tag() {
    let Some(registry) = plain() else { return };
    let from = shelf();
    let manifest = Image::of(&[100], "amd64", "").put(&from.store);
    let name = name(&format!("{}/app@{}", registry.registry(), manifest.digest));
    client().push(&name, &manifest, &from.store, &mut |_| {}).unwrap();
    assert_eq!(client().manifest(&name).unwrap().1, manifest);
    assert!(client().manifest(&super::name(&format!("{}/app", registry.registry()))).is_err());
}

#[test]
fn layers_that_are_not_here_are_mounted_from_their_repository_or_fetched_from_their_registry() {
    let (Some(one), Some(two)) = (plain(), plain()) else { return };
    let image = Image::of(&[200_000], "amd64", "");
    let (from, lazy) = (shelf(), shelf());
    let manifest = image.put(&from.store);
    let base = name(&format!("{}/base:v1", one.registry()));
    client().push(&base, &manifest, &from.store, &mut |_| {}).unwrap();
    client().pull(&base, &linux("linux/amd64"), &lazy.store, What::ConfigOnly, &mut |_| {}).unwrap();
    lazy.store.put_ref(&base, &manifest).unwrap();
    let layer = Digest::of(&image.layers[0]);

    client().push(&name(&format!("{}/app:v1", one.registry())), &manifest, &lazy.store, &mut |_| {}).unwrap();
    assert!(!lazy.store.has_blob(&layer, 200_000), "mounted, not fetched");

    let there = name(&format!("{}/app:v1", two.registry()));
    client().push(&there, &manifest, &lazy.store, &mut |_| {}).unwrap();
    let check = shelf();
    client().pull(&there, &linux("linux/amd64"), &check.store, What::Whole, &mut |_| {}).unwrap();
    assert!(check.store.has_blob(&layer, 200_000));
}

#[test]
fn an_index_gives_the_image_of_the_platform() {
    let Some(registry) = plain() else { return };
    let from = shelf();
    let entry = |architecture: &str, kind: &str| {
        let descriptor = Image::of(&[100], architecture, architecture).put(&from.store);
        Descriptor { platform: Some(linux(&format!("linux/{kind}"))), ..descriptor }
    };
    let manifests = [entry("386", "386"), entry("amd64", "amd64"), entry("arm64", "arm64")];
    let bytes = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": manifests}).to_string();
    from.store.put_blob(bytes.as_bytes()).unwrap();
    let index = described(media_type::INDEX, bytes.as_bytes());
    let name = name(&format!("{}/app:v1", registry.registry()));
    client().push(&name, &index, &from.store, &mut |_| {}).unwrap();

    let to = shelf();
    let pull = |platform: &str| client().pull(&name, &linux(platform), &to.store, What::ConfigOnly, &mut |_| {});
    let pulled = pull("linux/amd64").unwrap();
    assert_eq!((pulled.config.architecture.as_str(), &pulled.resolved), ("amd64", &index));
    assert_eq!(pull("linux/arm64/v8").unwrap().config.architecture, "arm64");
    let error = pull("linux/s390x").unwrap_err();
    assert_eq!(error.failure(), Failure::NotFound);
    assert!(error.to_string().contains("linux/386, linux/amd64, linux/arm64"), "{error}");
}

/// This registry forgets an upload whose last part was cut, so that a second one begins anew; that one from the
/// middle is continued is seen in `hostile`.
#[test]
fn an_upload_and_a_download_survive_a_cut_wire() {
    let Some(registry) = plain() else { return };
    let image = Image::of(&[3_000_000], "amd64", "");
    let (from, to) = (shelf(), shelf());
    let manifest = image.put(&from.store);
    let wire = || faulty::cutting_wire(registry.address, 1_000_000);
    let ((up, up_was_cut), (down, down_was_cut)) = (wire(), wire());
    client().push(&name(&format!("{up}/app:v1")), &manifest, &from.store, &mut |_| {}).unwrap();
    let mut steps = Vec::new();
    let mut note = |step: Progress| steps.extend((step.total == 3_000_000).then_some(step.done));
    client().pull(&name(&format!("{down}/app:v1")), &linux("linux/amd64"), &to.store, What::Whole, &mut note).unwrap();
    assert!(up_was_cut.load(Ordering::Relaxed) && down_was_cut.load(Ordering::Relaxed));
    assert!(steps.is_sorted(), "continued, not begun anew: {steps:?}");
    assert_eq!(to.store.blob(&Digest::of(&image.layers[0]), u64::MAX).unwrap().unwrap(), image.layers[0]);
}

#[test]
fn a_certificate_of_our_own_must_be_trusted_first() {
    let dir = tempfile::tempdir().unwrap();
    if !certificates(dir.path()) {
        drop(skipped("openssl"));
        return;
    }
    let at = |name: &str| dir.path().join(name).display().to_string();
    let tls = format!("  tls:\n    certificate: {}\n    key: {}\n", at("cert.pem"), at("key.pem"));
    let ca = fs::read(dir.path().join("ca.pem")).unwrap();
    let Some(registry) = start(dir, &tls, "") else { return };
    let host = registry.registry();
    let from = shelf();
    let manifest = Image::of(&[100_000], "amd64", "").put(&from.store);
    let name = name(&format!("{host}/app:v1"));

    let error = client().push(&name, &manifest, &from.store, &mut |_| {}).unwrap_err();
    assert_eq!(error.failure(), Failure::Network, "{error}");
    assert!(error.to_string().contains("certificate"), "{error}");
    assert!(error.help().unwrap().contains("ca = "), "{:?}", error.help());

    let trusting = client_of(&host, Host { ca: Some(ca), ..Host::default() });
    trusting.push(&name, &manifest, &from.store, &mut |_| {}).unwrap();
    let careless = client_of(&host, Host { insecure: true, ..Host::default() });
    assert_eq!(careless.manifest(&name).unwrap().1, manifest);
    let broken = client_of(&host, Host { ca: Some(b"no PEM".to_vec()), ..Host::default() });
    assert_eq!(broken.manifest(&name).unwrap_err().failure(), Failure::Options);
}

#[test]
fn a_registry_that_asks_for_a_password_gets_it() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("htpasswd");
    if !run(program("htpasswd").arg("-Bbc").arg(&file).args(["me", "hunter2"])) {
        drop(skipped("htpasswd"));
        return;
    }
    let auth = format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", file.display());
    let Some(registry) = start(dir, "", &auth) else { return };
    let host = registry.registry();
    let (from, to) = (shelf(), shelf());
    let manifest = Image::of(&[1_000_000, 500_000, 80_000], "amd64", "").put(&from.store);
    let name = name(&format!("{host}/app:v1"));

    for client in [client(), client_of(&host, basic("me", "wrong-password"))] {
        let error = client.push(&name, &manifest, &from.store, &mut |_| {}).unwrap_err();
        assert_eq!(error.failure(), Failure::Unauthorized, "{error}");
        assert!(error.help().unwrap().contains("credentials") && !error.to_string().contains("wrong-password"));
    }
    let client = client_of(&host, basic("me", "hunter2"));
    client.push(&name, &manifest, &from.store, &mut |_| {}).unwrap();
    client.pull(&name, &linux("linux/amd64"), &to.store, What::Whole, &mut |_| {}).unwrap();
    assert!(registry.dir.path().join("data").is_dir());
}

#[test]
fn skopeo_reads_what_we_push_and_we_read_what_it_pushes() {
    let Some(registry) = plain() else { return };
    let (from, to) = (shelf(), shelf());
    let manifest = Image::of(&[100_000, 10], "amd64", "").put(&from.store);
    let at = |repository: &str| format!("{}/{repository}:v1", registry.registry());
    client().push(&name(&at("ours")), &manifest, &from.store, &mut |_| {}).unwrap();
    let mut copy = program("skopeo");
    copy.args(["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false", "--format", "v2s2"]);
    copy.args([format!("docker://{}", at("ours")), format!("docker://{}", at("theirs"))]);
    let Ok(output) = copy.output() else {
        drop(skipped("skopeo"));
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let pulled = client().pull(&name(&at("theirs")), &linux("linux/amd64"), &to.store, What::Whole, &mut |_| {}).unwrap();
    assert_eq!(pulled.manifest.media_type, media_type::DOCKER_MANIFEST);
    assert!(pulled.image.layers.iter().all(|layer| to.store.has_blob(&layer.digest, layer.size)));
}
