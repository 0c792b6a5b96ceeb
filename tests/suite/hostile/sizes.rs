//! Groups 9, 10 and 11: sizes and forms that lie, bombs, documents that mean two things.

use std::{fmt::Write as _, fs, io::Write as _};

use serde_json::{Value, json};

use super::{
    Ground,
    forge::{Forged, Tar, gzip, record},
};
use crate::harness::sha256;

const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";

/// As a layer of a base that a step runs on, and as what ADD unpacks. Each ends well or names what is wrong.
fn both(ground: &Ground, what: &str, blob: &[u8], tar: &[u8], media_type: &str, refused: bool) {
    let name = format!("size-{}", ground.case());
    let layout = Forged::on_busybox(&ground.project, &name).packed(blob, tar, media_type).layout();
    let loaded = ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", &name]);
    let ran = if loaded.code == Some(0) { ground.builds(&format!("FROM {name}\nRUN true\n"), &[]) } else { loaded };
    let reason = ran.code == Some(0) || ran.stderr.contains("sha256:");
    ground.check(reason && (ran.code != Some(0)) == refused, &format!("{what}, as a layer"), &ran);
    let _case = ground.case();
    let _file = ground.project.file("size.tar", blob);
    let ran = ground.builds("FROM busybox\nADD size.tar /d/\n", &[]);
    ground.check(ran.code == Some(0) || ran.code == Some(1) && ran.stderr.contains("Dockerfile:2"), &format!("{what}, added"), &ran);
    fs::remove_dir_all(layout).unwrap();
}

/// An attack, a tar, and whether it must be refused as a layer.
type Case = (&'static str, Vec<u8>, bool);

/// Headers that lie.
#[expect(clippy::too_many_lines, reason = "a table")]
fn lies() -> Vec<Case> {
    let hidden = Tar::new().file("../pwned", "x").cut();
    let huge = |size: &[u8]| Tar::new().raw(b"f", b'0', 0o644, b"", size, b"").end();
    vec![
        ("9: octal without end", huge(b"77777777777"), true),
        ("9: negative in base 256", huge(b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), true),
        ("9: 2⁶³ in base 256", huge(b"\x80\0\0\0\x80\0\0\0\0\0\0\0"), true),
        ("9: 2⁸⁷ in base 256", huge(b"\x80\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"), true),
        ("9: no digits", huge(b"-0000000001"), true),
        (
            "9: PAX size of a file",
            Tar::new().pax(record("size", "1024").as_bytes()).raw(b"f", b'0', 0o644, b"", b"00000000000", &hidden).end(),
            false,
        ),
        ("9: PAX size, negative", Tar::new().pax(record("size", "-1").as_bytes()).file("f", "x").end(), true),
        ("9: PAX size, beyond all", Tar::new().pax(record("size", "18446744073709551616").as_bytes()).file("f", "x").end(), true),
        ("9: a PAX record that says it is longer", Tar::new().pax(b"99 path=x\n").file("f", "x").end(), true),
        ("9: a PAX record of length 0", Tar::new().pax(b"0 path=x\n").file("f", "x").end(), true),
        ("9: a PAX record of no length", Tar::new().pax(b"path=x\n").file("f", "x").end(), true),
        ("9: PAX header of 1 GiB", Tar::new().raw(b"p", b'x', 0o644, b"", b"10000000000", b"").end(), true),
        ("9: GNU long name of 1 GiB", Tar::new().raw(b"././@LongLink", b'L', 0o644, b"", b"10000000000", b"").end(), true),
        ("9: a GNU long name and then nothing", Tar::new().raw(b"././@LongLink", b'L', 0o644, b"", b"00000000002", b"x\0").end(), true),
        ("9: a link with a body", Tar::new().raw(b"l", b'2', 0o777, b"x", b"00000001000", &hidden).end(), true),
        ("9: a directory with a body", Tar::new().raw(b"d/", b'5', 0o755, b"", b"00000001000", &hidden).end(), true),
        ("9: an unknown kind", Tar::new().raw(b"u", b'Z', 0o644, b"", b"00000000001", b"x").end(), true),
        (
            "9: a global PAX header that names all",
            Tar::new().raw(b"g", b'g', 0o644, b"", b"00000000012", b"10 path=a\n").file("f", "x").end(),
            true,
        ),
        ("9: cut in a header", Tar::new().file("f", "x").cut()[..300].to_vec(), true),
        ("9: cut in a body", Tar::new().file("f", &"x".repeat(5000)).cut()[..2000].to_vec(), true),
        (
            "9: a wrong checksum",
            {
                let mut tar = Tar::new().file("f", "x").end();
                tar[0] = b'g';
                tar
            },
            true,
        ),
        ("9: garbage after the end", [Tar::new().file("f", "x").end(), b"garbage".repeat(2000)].concat(), false),
        ("9: another archive after the end", [Tar::new().file("f", "x").end(), Tar::new().file("../pwned", "x").end()].concat(), false),
        (
            "9: GNU sparse with a map of 2⁶⁰ bytes",
            Tar::new()
                .pax(
                    [
                        record("GNU.sparse.major", "1"),
                        record("GNU.sparse.minor", "0"),
                        record("GNU.sparse.name", "s"),
                        record("GNU.sparse.realsize", "1152921504606846976"),
                    ]
                    .concat()
                    .as_bytes(),
                )
                .file("s", "0\n")
                .end(),
            true,
        ),
        ("9: nothing at all", Vec::new(), false),
    ]
}

/// Group 9. CVE-2025-62518 (tokio-tar: a PAX size that another reader does not see), and its relatives: what is read as a
/// header is one, whatever the sizes say.
#[test]
fn a_size_that_lies_ends_in_a_reason() {
    let ground = Ground::new();
    for (what, tar, refused) in &lies() {
        both(&ground, what, tar, tar, TAR, *refused);
    }
    // Each a tar of its own: what is extracted already is not extracted again.
    let plain = |name: &str| Tar::new().file(name, "x").end();
    let tar = plain("packed");
    let (after, short, cut) = (plain("after"), plain("short"), plain("cut"));
    let zipped = gzip(&tar);
    let zstd = zstd::encode_all(tar.as_slice(), 1).unwrap();
    let skippable = [b"\x50\x2a\x4d\x18\x04\0\0\0skip".as_slice(), &zstd].concat();
    both(&ground, "9: two gzip members", &[gzip(&tar[..700]), gzip(&tar[700..])].concat(), &tar, GZIP, false);
    both(&ground, "9: gzip with garbage after it", &[gzip(&after).as_slice(), b"garbage"].concat(), &after, GZIP, true);
    both(&ground, "9: gzip, cut", &gzip(&short)[..gzip(&short).len() - 9], &short, GZIP, true);
    both(&ground, "9: zstd with a skippable frame", &skippable, &tar, ZSTD, false);
    let packed = zstd::encode_all(cut.as_slice(), 1).unwrap();
    both(&ground, "9: zstd, cut", &packed[..packed.len() - 3], &cut, ZSTD, true);
    both(&ground, "9: gzip that is said to be zstd", &zipped, &tar, ZSTD, false);
    both(&ground, "9: a tar that is said to be gzip", &tar, &tar, GZIP, false);
    ground.holds("9");
}

/// A gzip of this many MiB of zeros, after this.
fn bomb(before: &[u8], mib: usize) -> Vec<u8> {
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    gzip.write_all(before).unwrap();
    let zeros = vec![0; 1 << 20];
    for _ in 0..mib {
        gzip.write_all(&zeros).unwrap();
    }
    gzip.finish().unwrap()
}

/// Group 10. What becomes large is read as it comes, in memory of a fixed size, and no larger than it says.
#[test]
fn a_bomb_takes_time_and_no_memory() {
    let ground = Ground::new();
    // 64 MiB in a sixteenth of one; more of the same is only longer.
    let file = Tar::new().raw(b"zeros", b'0', 0o644, b"", b"00400000000", b"").cut();
    let _file = ground.project.file("bomb.tar.gz", bomb(&file, 65));
    let _case = ground.case();
    ground.inside("10: a file of 64 MiB", &ground.builds("FROM scratch\nADD bomb.tar.gz /\n", &[]));
    // Names take memory: there are limits.
    let pax = Tar::new().raw(b"p", b'x', 0o644, b"", b"00400000000", b"").cut();
    let _file = ground.project.file("bomb.tar.gz", bomb(&pax, 65));
    let _case = ground.case();
    let ran = ground.builds("FROM scratch\nADD --unpack=true bomb.tar.gz /\n", &[]);
    // What does not begin as an archive is none, and is copied.
    ground.check(matches!(ran.code, Some(0 | 1)), "10: a PAX header of 64 MiB", &ran);
    let mut many = Vec::new();
    let records: String = (0..3000).fold(String::new(), |mut all, at| {
        write!(all, "{}", record(&format!("SCHILY.xattr.user.{at}"), &"v".repeat(200))).unwrap();
        all
    });
    for at in 0..150 {
        many.extend(Tar::new().pax(records.as_bytes()).file(&format!("f{at}"), "").cut());
    }
    many.extend([0; 1024]);
    let _file = ground.project.file("bomb.tar.gz", gzip(&many));
    let _case = ground.case();
    let ran = ground.builds("FROM scratch\nADD bomb.tar.gz /\n", &[]);
    ground.check(matches!(ran.code, Some(0 | 1)), "10: attributes of 100 MB", &ran);
    // 20,000 entries, each in a directory of its own.
    let mut entries = Vec::new();
    for at in 0..20_000 {
        entries.extend(Tar::new().raw(format!("d{}/e{at}/f", at % 7).as_bytes(), b'0', 0o644, b"", b"00000000000", b"").cut());
    }
    entries.extend([0; 1024]);
    let _file = ground.project.file("bomb.tar.gz", gzip(&entries));
    let _case = ground.case();
    ground.inside("10: 20,000 entries", &ground.builds("FROM scratch\nADD bomb.tar.gz /\n", &[]));
    // Each further name of a file has its attributes in an index: 20 GB of them.
    let records: String = (0..60).fold(String::new(), |mut all, at| {
        write!(all, "{}", record(&format!("SCHILY.xattr.user.{at}"), &"v".repeat(16_000))).unwrap();
        all
    });
    let mut names = Tar::new().pax(records.as_bytes()).file("f", "").cut();
    for at in 0..20_000 {
        names.extend(Tar::new().hard(&format!("n{at}"), "f").cut());
    }
    names.extend([0; 1024]);
    both(&ground, "10: 20,000 names of a file with a MB of attributes", &gzip(&names), &names, GZIP, true);
    // zstd says how much memory its window needs: 2 GiB here.
    let window = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00".to_vec();
    for (what, blob) in [("10: a zstd window of 2 GiB", window), ("10: a bomb in a bomb", gzip(&bomb(&[], 64)))] {
        both(&ground, what, &blob, &[0; 1024], ZSTD, true);
    }
    ground.holds("10");
}

/// Group 11. CVE-2021-41190: a document that is a manifest to one and an index to another; sizes and digests that are not
/// theirs; JSON that is deep, huge, double.
#[test]
#[expect(clippy::too_many_lines, reason = "two tables")]
fn a_document_that_is_not_what_it_says_is_refused() {
    let ground = Ground::new();
    let layout = |change: &dyn Fn(&mut Forged)| {
        let name = format!("doc-{}", ground.case());
        let mut forged = Forged::on_busybox(&ground.project, &name).layer(&Tar::new().file("f", "x").end());
        change(&mut forged);
        let layout = forged.layout();
        let loaded = ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", &name]);
        if loaded.code == Some(0) { ground.builds(&format!("FROM {name}\nRUN true\n"), &[]) } else { loaded }
    };
    let manifest = |key: &str, value: Value| layout(&|forged: &mut Forged| forged.manifest[key] = value.clone());
    let layer = |key: &str, value: Value| layout(&|forged: &mut Forged| forged.manifest["layers"][1][key] = value.clone());
    let config = |key: &str, value: Value| layout(&|forged: &mut Forged| forged.config[key] = value.clone());
    let deep = (0..100_000).fold(String::new(), |all, _| all + "[") + &"]".repeat(100_000);
    for (what, ran) in [
        ("11: manifests in a manifest", manifest("manifests", json!([]))),
        ("11: another media type", manifest("mediaType", json!("application/vnd.oci.image.index.v1+json"))),
        ("11: another version", manifest("schemaVersion", json!(1))),
        ("11: no layers", manifest("layers", Value::Null)),
        ("11: layers that are no list", manifest("layers", json!({"0": {}}))),
        ("11: a size too small", layer("size", json!(10))),
        ("11: a size too large", layer("size", json!(1_u64 << 60))),
        ("11: a negative size", layer("size", json!(-1))),
        ("11: a fractional size", layer("size", json!(1536.5))),
        ("11: a digest that is a path", layer("digest", json!("sha256:../../../../outside/file"))),
        ("11: a digest with an upper case", layer("digest", json!(format!("SHA256:{}", "A".repeat(64))))),
        ("11: another algorithm", layer("digest", json!(format!("md5:{}", "a".repeat(32))))),
        ("11: an algorithm that is a path", layer("digest", json!(format!("../../outside:{}", "a".repeat(64))))),
        ("11: one diff id too few", layout(&|forged: &mut Forged| drop(forged.config["rootfs"]["diff_ids"].as_array_mut().unwrap().pop()))),
        ("11: a diff id that is a path", config("rootfs", json!({"type": "layers", "diff_ids": ["sha256:../../x", "sha256:/etc"]}))),
        ("11: a config that is a list", layout(&|forged: &mut Forged| forged.config = json!([forged.config]))),
    ] {
        ground.check(ran.code != Some(0), what, &ran);
    }
    let bytes = |text: &str| {
        let name = format!("doc-{}", ground.case());
        let layout = Forged::on_busybox(&ground.project, &name).layout_of("application/vnd.oci.image.manifest.v1+json", text.as_bytes());
        ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", &name])
    };
    let index = |text: &str| {
        let name = format!("doc-{}", ground.case());
        let layout = Forged::on_busybox(&ground.project, &name).layout();
        fs::write(layout.join("index.json"), text).unwrap();
        ground.run(&["load", "-q", "-i", layout.to_str().unwrap(), "-t", &name])
    };
    let large = format!("{{\"schemaVersion\":2,\"x\":\"{}\"}}", "x".repeat(16 << 20));
    let itself = format!(
        "{{\"schemaVersion\":2,\"manifests\":[{{\"mediaType\":\"application/vnd.oci.image.index.v1+json\",\"digest\":\"sha256:{}\",\"size\":2}}]}}",
        sha256(b"{}")
    );
    for (what, text) in [
        ("deep", deep.as_str()),
        ("large", large.as_str()),
        ("empty", ""),
        ("no JSON", "\u{1b}[2J"),
        ("a key twice", "{\"schemaVersion\":2,\"schemaVersion\":2,\"layers\":[],\"layers\":[{}]}"),
        ("an index of nothing", "{\"schemaVersion\":2,\"manifests\":[]}"),
        ("an index of what is not there", itself.as_str()),
    ] {
        for (place, ran) in [("manifest", bytes(text)), ("index", index(text))] {
            ground.check(ran.code != Some(0) && !ran.stderr.is_empty(), &format!("11: a {place}: {what}"), &ran);
        }
    }
    ground.holds("11");
}

/// Group 11. What is in the place of a blob is no file. A link is followed: the layout is the user's, and others make such.
#[test]
fn a_blob_of_a_layout_is_a_file() {
    let ground = Ground::new();
    let _case = ground.case();
    let name = "doc-link";
    let forged = Forged::on_busybox(&ground.project, name).layer(&Tar::new().file(name, "").end()).layout();
    for (number, blob) in fs::read_dir(forged.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).enumerate() {
        fs::remove_file(&blob).unwrap();
        match number % 3 {
            0 => rustix::fs::mknodat(rustix::fs::CWD, &blob, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap(),
            1 => std::os::unix::fs::symlink("/proc/self/environ", &blob).unwrap(),
            _ => std::os::unix::fs::symlink("/dev/zero", &blob).unwrap(),
        }
    }
    let ran = ground.run(&["load", "-i", forged.to_str().unwrap(), "-t", name]);
    ground.check(ran.code != Some(0), "11: blobs that are pipes, devices, files of /proc", &ran);
    ground.holds("11");
}
