//! Builds one Dockerfile in two ways and says in which paths of their layers owner, group, mode, kind, link, attributes and
//! capabilities differ.
//!
//! ```text
//! cargo run --example ownership -- compare LAYOUT LAYOUT
//! cargo run --example ownership -- build DOCKERFILE WORK 'COMMAND A' 'COMMAND B'
//! ```
//!
//! A command is a shell's, with `{dockerfile}`, `{context}` (an empty directory) and `{out}` where it is to put its layout:
//!
//! ```text
//! 'LAPSTRAKE_ROOT=/var/tmp/a lapstrake build --driver userns -f {dockerfile} -o type=oci,tar=false,dest={out} {context}'
//! ```
//!
//! Times and bytes are not compared: two runs of a program differ in them. Paths whose names a program made up show as one that
//! is only there and one that is only here. It reads layouts by itself and with the `tar` crate, not with lapstrake's code.

#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a tool that prints a table and runs what it is told")]

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    fmt::Write as _,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What is compared of a path.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    kind: u8,
    owner: (u64, u64),
    mode: u32,
    link: String,
    attributes: BTreeMap<String, Vec<u8>>,
}

type Layer = BTreeMap<String, Seen>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match words.as_slice() {
        ["compare", one, other] => compare(Path::new(one), Path::new(other)),
        ["build", dockerfile, work, one, other] => build(dockerfile, Path::new(work), [one, other]),
        _ => Err("compare LAYOUT LAYOUT, or build DOCKERFILE WORK 'COMMAND A' 'COMMAND B'".into()),
    };
    match done {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            println!("{error}");
            ExitCode::from(2)
        }
    }
}

fn build(dockerfile: &str, work: &Path, commands: [&str; 2]) -> Result<usize> {
    let context = work.join("context");
    std::fs::create_dir_all(&context)?;
    let mut layouts = Vec::new();
    for (name, command) in ["a", "b"].into_iter().zip(commands) {
        let out = work.join(name);
        let replaced = command
            .replace("{dockerfile}", dockerfile)
            .replace("{context}", &context.to_string_lossy())
            .replace("{out}", &out.to_string_lossy());
        let begun = Instant::now();
        let status = Command::new("sh").args(["-c", &replaced]).status()?;
        println!("{name}: {:.1} s: {replaced}", begun.elapsed().as_secs_f32());
        if !status.success() {
            return Err(format!("`{name}` failed: {status}").into());
        }
        layouts.push(out);
    }
    let [one, other] = layouts.as_slice() else { return Err("two commands are compared".into()) };
    compare(one, other)
}

/// How many paths differ.
fn compare(one: &Path, other: &Path) -> Result<usize> {
    let (ours, theirs) = (layers(one)?, layers(other)?);
    println!("layers: {} and {}", ours.len(), theirs.len());
    let (mut different, mut all, mut foreign) = (0, 0, 0);
    for (number, (a, b)) in ours.iter().zip(&theirs).enumerate() {
        if a.0 == b.0 {
            println!("layer {number}: {} paths, the same bytes", a.1.len());
        }
        let paths: BTreeSet<&String> = a.1.keys().chain(b.1.keys()).collect();
        all += paths.len();
        foreign += a.1.values().filter(|seen| seen.owner != (0, 0)).count();
        let mut lines = String::new();
        let mut count = 0;
        for path in paths {
            let line = match (a.1.get(path), b.1.get(path)) {
                (Some(here), Some(there)) if here == there => continue,
                (Some(here), Some(there)) => format!("{path}: {} | {}", shown(here), shown(there)),
                (Some(here), None) => format!("{path}: only in a: {}", shown(here)),
                (None, Some(there)) => format!("{path}: only in b: {}", shown(there)),
                (None, None) => continue,
            };
            count += 1;
            writeln!(lines, "  {line}")?;
        }
        if a.0 != b.0 {
            println!("layer {number}: {} paths, {count} differ", a.1.len());
        }
        print!("{lines}");
        different += count;
    }
    println!("{all} paths, {foreign} of others than root, {different} differ");
    Ok(different + usize::from(ours.len() != theirs.len()))
}

fn shown(seen: &Seen) -> String {
    let kind = char::from(seen.kind);
    let attributes: Vec<String> = seen.attributes.iter().map(|(name, value)| format!(" {name}={value:02x?}")).collect();
    format!("{kind} {}:{} {:04o} {}{}", seen.owner.0, seen.owner.1, seen.mode, seen.link, attributes.concat())
}

/// The layers of the first image of a layout, with their digests.
fn layers(layout: &Path) -> Result<Vec<(String, Layer)>> {
    let json = |path: PathBuf| -> Result<serde_json::Value> { Ok(serde_json::from_reader(File::open(path)?)?) };
    let blob = |digest: &str| layout.join("blobs").join(digest.replace(':', "/"));
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let index = json(layout.join("index.json"))?;
    let manifest = json(blob(&text(&index["manifests"][0]["digest"])))?;
    let mut all = Vec::new();
    for layer in manifest["layers"].as_array().ok_or("a manifest without layers")? {
        let digest = text(&layer["digest"]);
        all.push((digest.clone(), read(File::open(blob(&digest))?)?));
    }
    Ok(all)
}

fn read(blob: File) -> Result<Layer> {
    let mut layer = Layer::new();
    let mut archive = tar::Archive::new(flate2::read::MultiGzDecoder::new(blob));
    for entry in archive.entries()? {
        let mut entry = entry?;
        let mut attributes = BTreeMap::new();
        if let Some(extensions) = entry.pax_extensions()? {
            for extension in extensions {
                let extension = extension?;
                if let Some(name) = extension.key()?.strip_prefix("SCHILY.xattr.") {
                    attributes.insert(name.to_owned(), extension.value_bytes().to_vec());
                }
            }
        }
        let path = String::from_utf8_lossy(&entry.path_bytes()).trim_end_matches('/').to_owned();
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned()).unwrap_or_default();
        let header = entry.header();
        let seen =
            Seen { kind: header.entry_type().as_byte(), owner: (header.uid()?, header.gid()?), mode: header.mode()?, link, attributes };
        std::io::copy(&mut entry.by_ref().take(u64::MAX), &mut std::io::sink())?;
        layer.insert(path, seen);
    }
    Ok(layer)
}
