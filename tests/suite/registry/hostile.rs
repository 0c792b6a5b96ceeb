//! What a broken or hostile registry does must end in an error that says so, soon, and nothing in the store.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use lapstrake::registry::{Client, Credentials, Error, Failure, Host, Options, What};

use super::{
    Image, Shelf, basic, client, client_of, described,
    faulty::{Body, Faulty, Heard, Reply},
    limits, linux, name, noise, shelf,
};
use lapstrake::oci::{Descriptor, Digest, media_type};

/// Serves one blob, whatever is asked for, by `answer(request, how often before)`.
fn blob_server(answer: impl Fn(&Heard, usize, &[u8]) -> Reply + Send + Sync + 'static) -> (Faulty, Descriptor, Vec<u8>) {
    let bytes = noise(300_000, "blob");
    let blob = described(media_type::LAYER, &bytes);
    let copy = bytes.clone();
    (Faulty::serve(move |heard, before| answer(heard, before, &copy)), blob, bytes)
}

fn fetch(client: &Client, server: &Faulty, blob: &Descriptor, shelf: &Shelf) -> Result<(), Error> {
    client.blob(&name(&format!("{}/app", server.registry())), blob, &shelf.store, &mut |_| {})
}

/// Serves a manifest of these bytes.
fn manifest_server(kind: &'static str, bytes: impl Into<Vec<u8>>) -> Faulty {
    let bytes = bytes.into();
    Faulty::serve(move |_, _| Reply::new(200).header("Content-Type", kind).body(bytes.clone()))
}

fn pull(server: &Faulty) -> Error {
    let name = name(&format!("{}/app:v1", server.registry()));
    client().pull(&name, &linux("linux/amd64"), &shelf().store, What::Whole, &mut |_| {}).unwrap_err()
}

#[test]
fn a_blob_of_another_digest_is_refused() {
    let (server, blob, _) = blob_server(|_, _, bytes| Reply::new(200).body(noise(bytes.len(), "other")));
    let shelf = shelf();
    let error = fetch(&client(), &server, &blob, &shelf).unwrap_err();
    assert_eq!(error.failure(), Failure::Mismatch, "{error}");
    assert!(error.to_string().contains(&blob.digest.to_string()), "{error}");
    assert!(!shelf.store.has_blob(&blob.digest, blob.size));
    assert_eq!(server.heard().len(), 1, "the same again would be the same");
}

#[test]
fn a_lost_transfer_goes_on_where_it_was() {
    let (server, blob, bytes) = blob_server(|heard, before, bytes| match (before, heard.header("range")) {
        (0, None) => Reply::new(200).with(Body::Cut(bytes.to_vec(), 100_000)),
        (1, Some("bytes=100000-")) => {
            let range = format!("bytes 100000-{}/{}", bytes.len() - 1, bytes.len());
            Reply::new(206).header("Content-Range", range).with(Body::Cut(bytes[100_000..].to_vec(), 50_000))
        }
        // A server that knows no ranges.
        (2, Some("bytes=150000-")) => Reply::new(200).body(bytes),
        other => panic!("{other:?}"),
    });
    let shelf = shelf();
    let mut steps = Vec::new();
    let name = name(&format!("{}/app", server.registry()));
    client().blob(&name, &blob, &shelf.store, &mut |step| steps.push(step.done)).unwrap();
    assert_eq!(shelf.store.blob(&blob.digest, u64::MAX).unwrap().unwrap(), bytes);
    assert_eq!(server.heard().len(), 3);
    assert!(steps.is_sorted() && steps.last() == Some(&blob.size), "{steps:?}");
}

#[test]
fn parts_that_do_not_fit_are_fetched_once_more_in_one_piece() {
    let (server, blob, _) = blob_server(|_, before, bytes| match before {
        0 => Reply::new(200).with(Body::Cut(noise(bytes.len(), "other"), 1000)),
        1 => Reply::new(206).header("Content-Range", format!("bytes 1000-{0}/{0}", bytes.len())).body(&bytes[1000..]),
        _ => Reply::new(200).body(bytes),
    });
    let shelf = shelf();
    fetch(&client(), &server, &blob, &shelf).unwrap();
    assert_eq!(server.heard().len(), 3);
}

#[test]
fn a_range_that_was_not_asked_for_is_not_taken() {
    let (server, blob, _) = blob_server(|heard, before, bytes| match (before, heard.header("range")) {
        (0, None) => Reply::new(200).with(Body::Cut(bytes.to_vec(), 1000)),
        (1, Some(_)) => Reply::new(206).header("Content-Range", format!("bytes 500-{0}/{0}", bytes.len())).body(&bytes[500..]),
        (2, None) => Reply::new(200).body(bytes),
        other => panic!("{other:?}"),
    });
    fetch(&client(), &server, &blob, &shelf()).unwrap();
}

#[test]
fn a_body_that_never_ends_is_left_at_its_promised_size() {
    let (server, blob, _) = blob_server(|_, _, _| Reply::new(200).with(Body::Endless));
    let error = fetch(&client(), &server, &blob, &shelf()).unwrap_err();
    assert_eq!(error.failure(), Failure::Mismatch, "{error}");
}

#[test]
fn a_length_that_is_not_the_promised_one_is_seen_at_once() {
    let (server, blob, _) = blob_server(|_, _, bytes| Reply::new(200).body([bytes, b"more"].concat()));
    let error = fetch(&client(), &server, &blob, &shelf()).unwrap_err();
    assert_eq!(error.failure(), Failure::Mismatch, "{error}");
}

#[test]
fn a_body_that_always_ends_too_soon_is_given_up() {
    let (server, blob, _) = blob_server(|_, _, bytes| Reply::new(200).with(Body::Cut(bytes.to_vec(), 10)));
    let error = fetch(&client(), &server, &blob, &shelf()).unwrap_err();
    assert_eq!(error.failure(), Failure::Network, "{error}");
    assert_eq!(server.heard().len(), 3);
}

#[test]
fn a_body_that_drips_is_given_up() {
    let (server, blob, _) = blob_server(|_, _, _| Reply::new(200).with(Body::Drip));
    let options = Options { limits: lapstrake::registry::Limits { window: Duration::from_millis(200), ..limits() }, ..Options::default() };
    let begun = Instant::now();
    let error = fetch(&Client::new(options), &server, &blob, &shelf()).unwrap_err();
    assert!(error.to_string().contains("too slow"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_manifest_that_drips_is_given_up() {
    let server = Faulty::serve(|_, _| Reply::new(200).with(Body::Drip));
    let options = Options { limits: lapstrake::registry::Limits { answer: Duration::from_millis(300), ..limits() }, ..Options::default() };
    let begun = Instant::now();
    let error = Client::new(options).manifest(&name(&format!("{}/app", server.registry()))).unwrap_err();
    assert_eq!(error.failure(), Failure::Network, "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[test]
fn a_head_without_end_is_refused() {
    let server = Faulty::serve(|_, _| (0..100_000).fold(Reply::new(200), |reply, place| reply.header(&format!("X-{place}"), place)));
    let error = client().manifest(&name(&format!("{}/app", server.registry()))).unwrap_err();
    assert!(matches!(error.failure(), Failure::Protocol | Failure::Network), "{error}");
}

#[test]
fn a_registry_that_is_busy_is_waited_for() {
    let (server, blob, _) = blob_server(|_, before, bytes| match before {
        0 => Reply::new(429).header("Retry-After", 1),
        1 => Reply::new(503),
        _ => Reply::new(200).body(bytes),
    });
    let begun = Instant::now();
    fetch(&client(), &server, &blob, &shelf()).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_registry_that_asks_for_an_hour_is_not_waited_for() {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u001b[31m down"}]}"#;
    let server = Faulty::serve(move |_, _| Reply::new(429).header("Retry-After", 3600).body(body));
    let error = client().manifest(&name(&format!("{}/app", server.registry()))).unwrap_err();
    assert_eq!(error.failure(), Failure::Network, "{error}");
    let text = error.to_string();
    assert!(text.contains("3600") && text.contains("TOOMANYREQUESTS") && !text.contains('\u{1b}'), "{text}");
    assert_eq!(server.heard().len(), 1);
}

#[test]
fn redirects_in_a_circle_end() {
    let (server, blob, _) = blob_server(|heard, _, _| Reply::new(307).header("Location", heard.target.clone()));
    let error = fetch(&client(), &server, &blob, &shelf()).unwrap_err();
    assert!(error.to_string().contains("redirects"), "{error}");
    assert_eq!(error.failure(), Failure::Protocol);
    assert!(server.heard().len() < 10);
}

#[test]
fn a_redirect_to_another_host_has_no_credentials() {
    let (storage, blob, _) = blob_server(|_, _, bytes| Reply::new(200).body(bytes));
    let location = format!("http://{}/elsewhere?signature=hunter2", storage.registry());
    let server = Faulty::serve(move |_, _| Reply::new(307).header("Location", &location));
    let host = Host { credentials: Some(Credentials::Bearer("secret-token".into())), ..Host::default() };
    fetch(&client_of(&server.registry(), host), &server, &blob, &shelf()).unwrap();
    assert_eq!(server.heard()[0].header("authorization"), Some("Bearer secret-token"));
    let [there] = &storage.heard()[..] else { panic!("one request") };
    assert_eq!(there.target, "/elsewhere?signature=hunter2");
    assert_eq!(there.header("authorization"), None);
}

#[test]
fn a_location_with_a_password_or_another_scheme_is_refused() {
    for location in ["http://me:hunter2@127.0.0.1:1/", "file:///etc/passwd", "http://127.0.0.1:1/a b", ""] {
        let (server, blob, _) = blob_server(move |_, _, _| Reply::new(307).header("Location", location));
        let error = fetch(&client(), &server, &blob, &shelf()).unwrap_err();
        assert_eq!(error.failure(), Failure::Protocol, "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}

/// A name of this machine that does not look like one: not a loopback host for the client.
fn stranger(server: &Faulty) -> String {
    format!("2130706433:{}", server.address.port())
}

#[test]
fn plain_http_from_afar_must_be_configured() {
    let server = manifest_server(media_type::MANIFEST, Image::of(&[10], "amd64", "").manifest);
    let registry = stranger(&server);
    let error = client().manifest(&name(&format!("{registry}/app"))).unwrap_err();
    assert_eq!(error.failure(), Failure::Network, "{error}");
    let help = error.help().unwrap();
    assert!(help.contains("insecure = true") && help.contains(&registry), "{help}");
    assert_eq!(server.heard().len(), 0);
    let host = Host { insecure: true, ..Host::default() };
    client_of(&registry, host).manifest(&name(&format!("{registry}/app"))).unwrap();
}

#[test]
fn a_stranger_cannot_send_us_to_this_machine() {
    let inner = Faulty::serve(|_, _| Reply::new(200).body("secret"));
    let inside = format!("http://{}/token", inner.registry());
    let realm = format!("Bearer realm=\"{inside}\",service=\"x\"");
    for reply in [Reply::new(307).header("Location", &inside), Reply::new(401).header("WWW-Authenticate", &realm)] {
        let server = Faulty::serve(move |_, _| reply.clone());
        let registry = stranger(&server);
        let host = Host { insecure: true, ..basic("me", "hunter2") };
        let error = client_of(&registry, host).manifest(&name(&format!("{registry}/app"))).unwrap_err();
        assert!(error.to_string().contains("this machine"), "{error}");
    }
    assert_eq!(inner.heard().len(), 0);
}

#[test]
fn a_token_is_fetched_for_what_is_done_and_kept() {
    let image = Image::of(&[1000], "amd64", "");
    let manifest = image.manifest.clone();
    let issued = AtomicUsize::new(0);
    let server = Faulty::serve(move |heard, _| {
        if heard.target.starts_with("/token") {
            issued.fetch_add(1, Ordering::Relaxed);
            return Reply::new(200).body(r#"{"access_token":"abc.def","expires_in":300}"#);
        }
        if heard.header("authorization") == Some("Bearer abc.def") {
            return Reply::new(200).header("Content-Type", media_type::MANIFEST).body(manifest.clone());
        }
        let host = heard.header("host").unwrap();
        let scope = "repository:app:pull repository:victim:delete";
        Reply::new(401)
            .header("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token?x=y\",service=\"reg istry\",scope=\"{scope}\""))
    });
    let host = basic("me", "hunter2");
    let client = client_of(&server.registry(), host);
    let name = name(&format!("{}/app", server.registry()));
    client.manifest(&name).unwrap();
    client.manifest(&name).unwrap();
    let lines = server.lines();
    let get = "GET /v2/app/manifests/latest";
    assert_eq!(lines, [get, "GET /token?x=y&service=reg%20istry&scope=repository:app:pull", get, get]);
    assert_eq!(server.heard()[1].header("authorization"), Some("Basic bWU6aHVudGVyMg=="));
    assert_eq!(server.heard()[0].header("authorization"), None);
}

#[test]
fn a_token_that_does_not_help_is_an_error() {
    let server = Faulty::serve(move |heard, _| {
        if heard.target.starts_with("/token") {
            return Reply::new(200).body(r#"{"token":"hunter2"}"#);
        }
        Reply::new(401).header("WWW-Authenticate", format!("Bearer realm=\"http://{}/token\"", heard.header("host").unwrap()))
    });
    let error = client().manifest(&name(&format!("{}/app", server.registry()))).unwrap_err();
    assert_eq!(error.failure(), Failure::Unauthorized, "{error}");
    assert!(!error.to_string().contains("hunter2"));
    assert_eq!(server.heard().len(), 3);
}

#[test]
fn a_realm_that_is_no_web_address_is_refused() {
    for realm in ["file:///etc/passwd", "//", "https://me:hunter2@r.io/", ""] {
        let server = Faulty::serve(move |_, _| Reply::new(401).header("WWW-Authenticate", format!("Bearer realm=\"{realm}\"")));
        let error = client().manifest(&name(&format!("{}/app", server.registry()))).unwrap_err();
        assert_eq!(error.failure(), Failure::Protocol, "{error}");
        assert!(!error.to_string().contains("hunter2"));
    }
}

#[test]
fn a_manifest_must_have_the_digest_it_is_asked_by_and_served_with() {
    let manifest = Image::of(&[10], "amd64", "").manifest;
    let other = Digest::of(b"other");
    let server = manifest_server(media_type::MANIFEST, manifest.clone());
    let error = client().manifest(&name(&format!("{}/app@{other}", server.registry()))).unwrap_err();
    assert_eq!(error.failure(), Failure::Mismatch, "{error}");
    let server = Faulty::serve(move |_, _| Reply::new(200).header("Docker-Content-Digest", other).body(manifest.clone()));
    let error = client().manifest(&name(&format!("{}/app", server.registry()))).unwrap_err();
    assert_eq!(error.failure(), Failure::Mismatch, "{error}");
}

#[test]
fn a_huge_manifest_is_refused() {
    for body in [Body::Whole(vec![b' '; 4 * 1024 * 1024 + 1]), Body::Endless] {
        let server = Faulty::serve(move |_, _| Reply::new(200).header("Content-Type", media_type::MANIFEST).with(body.clone()));
        assert!(pull(&server).to_string().contains("larger than"));
    }
}

#[test]
fn images_that_cannot_be_used_are_refused_with_the_reason() {
    let config = described(media_type::CONFIG, b"{}");
    let with_layer = |layer: serde_json::Value| serde_json::json!({"schemaVersion": 2, "config": config, "layers": [layer]}).to_string();
    let mut foreign = serde_json::to_value(described("application/vnd.oci.image.layer.nondistributable.v1.tar", b"x")).unwrap();
    foreign["urls"] = serde_json::json!(["http://127.0.0.1/"]);
    let two_faces = serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "manifests": []}).to_string();
    for (kind, bytes, reason) in [
        (media_type::MANIFEST, with_layer(foreign), "foreign"),
        (media_type::MANIFEST, with_layer(serde_json::to_value(described("text/html", b"x")).unwrap()), "text/html"),
        (media_type::INDEX, two_faces.clone(), "at once"),
        (media_type::MANIFEST, two_faces, "at once"),
        (media_type::INDEX, with_layer(serde_json::json!({})), "is none"),
        (media_type::DOCKER_MANIFEST, r#"{"schemaVersion":1,"fsLayers":[]}"#.into(), "schema 1"),
    ] {
        let error = pull(&manifest_server(kind, bytes));
        assert!(error.to_string().contains(reason), "{error}");
        assert_eq!(error.failure(), Failure::Protocol);
    }
}

#[test]
fn an_index_in_itself_ends() {
    // No index can have its own digest; but one in one in one can be made.
    let mut bytes = serde_json::json!({"schemaVersion": 2, "manifests": []}).to_string();
    let mut all = vec![bytes.clone()];
    for _ in 0..10 {
        let entry = described(media_type::INDEX, bytes.as_bytes());
        bytes = serde_json::json!({"schemaVersion": 2, "manifests": [entry]}).to_string();
        all.push(bytes.clone());
    }
    let server = Faulty::serve(move |heard, _| {
        let named = all.iter().find(|bytes| heard.target.ends_with(&Digest::of(bytes.as_bytes()).to_string()));
        Reply::new(200).header("Content-Type", media_type::INDEX).body(named.unwrap_or(&bytes).clone())
    });
    assert!(pull(&server).to_string().contains("nested"));
    assert!(server.heard().len() < 10);
}

#[test]
fn a_push_goes_on_after_a_mount_that_was_not_one() {
    let image = Image::of(&[200_000], "amd64", "");
    let server = Faulty::serve(move |heard, _| match heard.method.as_str() {
        "HEAD" => Reply::new(404),
        // 202: the blob is not mounted, an upload is open.
        "POST" => Reply::new(202).header("Location", "/upload/1?state=a%2Fb="),
        "PATCH" => Reply::new(202).header("Location", "/upload/2").header("Range", format!("0-{}", heard.body.len() - 1)),
        _ => Reply::new(201),
    });
    let shelf = shelf();
    let manifest = image.put(&shelf.store);
    let registry = server.registry();
    shelf.store.put_ref(&name(&format!("{registry}/base:v1")), &manifest).unwrap();
    client().push(&name(&format!("{registry}/app:v1")), &manifest, &shelf.store, &mut |_| {}).unwrap();
    let layer = Digest::of(&image.layers[0]);
    let lines = server.lines();
    let position = |line: &str| lines.iter().position(|other| other == line).unwrap_or_else(|| panic!("{line} in {lines:#?}"));
    let mount = position(&format!("POST /v2/app/blobs/uploads/?mount={layer}&from=base"));
    assert!(mount < position("PATCH /upload/1?state=a%2Fb="));
    let put = position(&format!("PUT /upload/2?digest={layer}"));
    assert!(put < position("PUT /v2/app/manifests/v1"));
    assert_eq!(lines.iter().filter(|line| line.starts_with("POST")).count(), 2, "one for each blob: {lines:#?}");
    let heard = server.heard();
    let patched: Vec<u8> = heard.iter().filter(|heard| heard.method == "PATCH").flat_map(|heard| heard.body.clone()).collect();
    assert_eq!(patched, image.layers[0]);
    let last = heard.last().unwrap();
    assert_eq!((last.body.clone(), last.header("content-type")), (image.manifest, Some(media_type::MANIFEST)));
}

#[test]
fn an_upload_goes_on_where_the_server_says_it_is() {
    let image = Image::of(&[300_000], "amd64", "");
    let layer = image.layers[0].clone();
    let server = Faulty::serve(move |heard, before| match (heard.method.as_str(), heard.header("content-range")) {
        ("HEAD", _) => Reply::new(404),
        ("POST", _) => Reply::new(202).header("Location", "/upload"),
        ("PATCH", Some("0-299999")) if before == 0 => Reply::new(500),
        ("GET", _) => Reply::new(204).header("Location", "/again").header("Range", "0-99999"),
        // It takes less than it is given.
        ("PATCH", Some("100000-299999")) => Reply::new(202).header("Location", "/again").header("Range", "0-199999"),
        ("PATCH", Some("200000-299999")) => Reply::new(202).header("Location", "/again").header("Range", "0-299999"),
        ("PUT", _) => Reply::new(201),
        other => panic!("{other:?}"),
    });
    let shelf = shelf();
    let manifest = image.put(&shelf.store);
    client().push(&name(&format!("{}/app:v1", server.registry())), &manifest, &shelf.store, &mut |_| {}).unwrap();
    let patches: Vec<Heard> = server.heard().into_iter().filter(|heard| heard.method == "PATCH").collect();
    assert_eq!(patches.len(), 3);
    assert_eq!(patches[1].body, layer[100_000..]);
    assert_eq!(patches[2].body, layer[200_000..]);
}

#[test]
fn a_registry_that_stores_something_else_is_found_out() {
    let image = Image::of(&[10], "amd64", "");
    let server = Faulty::serve(move |heard, _| match heard.method.as_str() {
        "HEAD" => Reply::new(200),
        _ => Reply::new(201).header("Docker-Content-Digest", Digest::of(b"other")),
    });
    let shelf = shelf();
    let manifest = image.put(&shelf.store);
    let error = client().push(&name(&format!("{}/app:v1", server.registry())), &manifest, &shelf.store, &mut |_| {}).unwrap_err();
    assert_eq!(error.failure(), Failure::Mismatch, "{error}");
}

#[test]
fn a_push_of_what_nobody_has_says_so() {
    let image = Image::of(&[10], "amd64", "");
    let server = Faulty::serve(move |heard, _| if heard.method == "HEAD" { Reply::new(404) } else { Reply::new(201) });
    let shelf = shelf();
    shelf.store.put_blob(&image.manifest).unwrap();
    let manifest = described(media_type::MANIFEST, &image.manifest);
    let error = client().push(&name(&format!("{}/app:v1", server.registry())), &manifest, &shelf.store, &mut |_| {}).unwrap_err();
    assert_eq!(error.failure(), Failure::Store, "{error}");
}

#[test]
fn nobody_there_is_said_at_once() {
    let port = crate::harness::free_port();
    let begun = Instant::now();
    let error = client().manifest(&name(&format!("127.0.0.1:{port}/app"))).unwrap_err();
    assert!(error.to_string().contains("connection refused"), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(2));
}

#[test]
fn a_name_without_an_address_is_no_matter_of_plain_http() {
    let error = client().manifest(&name("nowhere.invalid/app")).unwrap_err();
    assert_eq!(error.failure(), Failure::Network, "{error}");
    let Error::Network { detail, help, .. } = error else { panic!("{error}") };
    assert_eq!(detail, "no address is known for its name");
    assert!(help.is_some_and(|help| help.starts_with("check the name and the network")));
}

#[test]
fn a_token_that_ends_during_a_push_is_renewed() {
    let image = Image::of(&[300_000], "amd64", "");
    let server = Faulty::serve(move |heard, before| {
        let host = heard.header("host").unwrap();
        let challenge = || Reply::new(401).header("WWW-Authenticate", format!("Bearer realm=\"http://{host}/token\""));
        match (heard.method.as_str(), heard.header("authorization")) {
            ("GET", None) => Reply::new(200).body(format!("{{\"token\":\"t{before}\"}}")),
            ("PATCH", Some("Bearer t0")) | (_, None) => challenge(),
            ("HEAD" | "GET", _) => Reply::new(404),
            ("POST", _) => Reply::new(202).header("Location", "/upload"),
            ("PATCH", Some("Bearer t1")) => Reply::new(202),
            ("PUT", _) => Reply::new(201),
            other => panic!("{other:?}"),
        }
    });
    let shelf = shelf();
    let manifest = image.put(&shelf.store);
    let options = Options { limits: lapstrake::registry::Limits { parallel: 1, ..limits() }, ..Options::default() };
    let name = name(&format!("{}/app:v1", server.registry()));
    Client::new(options).push(&name, &manifest, &shelf.store, &mut |_| {}).unwrap();
    let patches = server.heard().into_iter().filter(|heard| heard.method == "PATCH").map(|heard| heard.body.len());
    assert_eq!(patches.collect::<Vec<_>>(), [300_000, 300_000]);
}

#[test]
fn a_name_with_another_digest_is_not_pushed() {
    let server = Faulty::serve(|_, _| Reply::new(200));
    let shelf = shelf();
    let manifest = Image::of(&[10], "amd64", "").put(&shelf.store);
    let other = name(&format!("{}/app:v1@{}", server.registry(), Digest::of(b"other")));
    assert!(client().push(&other, &manifest, &shelf.store, &mut |_| {}).is_err());
    assert!(server.lines().iter().all(|line| !line.starts_with("PUT")));
}

#[test]
fn a_warning_is_told_once() {
    let manifest = Image::of(&[10], "amd64", "").manifest;
    let server = Faulty::serve(move |_, _| Reply::new(200).header("Warning", "299 - \"going away soon\"").body(manifest.clone()));
    let (client, name) = (client(), name(&format!("{}/app", server.registry())));
    for expected in [1, 0] {
        client.manifest(&name).unwrap();
        let warnings = client.warnings();
        assert_eq!(warnings.len(), expected);
        assert!(warnings.iter().all(|(registry, text)| *registry == server.registry() && text == "going away soon"));
    }
}

#[test]
fn a_proxy_is_used_if_it_is_configured() {
    let proxy = Faulty::serve(|_, _| Reply::new(502));
    let url = Some(format!("http://me:hunter2@{}", proxy.registry()));
    let proxies = lapstrake::registry::Proxies { https: url, ..Default::default() };
    let options = Options { limits: limits(), proxies, ..Options::default() };
    let error = Client::new(options).manifest(&name("registry.invalid/app")).unwrap_err();
    assert_eq!(error.failure(), Failure::Network, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(proxy.lines()[0], "CONNECT registry.invalid:443");
}
