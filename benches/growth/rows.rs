//! What grows, and what is measured of it.

use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use lapstrake::oci::Digest;
use serde_json::{Value, json};

use crate::{
    Result,
    measure::{self, Cost},
};

/// What is measured at one size, in the order of the curves.
type Measured = Result<Vec<(&'static str, Cost)>>;

/// One thing that grows.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) short: &'static [u64],
    pub(crate) full: &'static [u64],
    pub(crate) measure: fn(&Bench, u64) -> Measured,
}

/// All of them.
pub(crate) const ALL: [Row; 5] = [
    Row {
        name: "files",
        title: "files of a COPY",
        unit: "files",
        short: &[1000, 3162, 10_000, 31_623, 100_000],
        full: &[1000, 3162, 10_000, 31_623, 100_000, 316_228, 1_000_000],
        measure: files,
    },
    Row {
        name: "layer",
        title: "the size of one layer",
        unit: "MiB",
        short: &[10, 32, 100, 316, 1024],
        full: &[10, 32, 100, 316, 1024, 3162, 10_240],
        measure: layer,
    },
    Row {
        name: "steps",
        title: "steps of a stage",
        unit: "steps",
        short: &[10, 32, 100, 316],
        full: &[10, 32, 100, 316, 1000],
        measure: steps,
    },
    Row { name: "stages", title: "stages", unit: "stages", short: &[2, 6, 20, 63], full: &[2, 6, 20, 63, 200], measure: stages },
    Row {
        name: "images",
        title: "images in the store",
        unit: "images",
        short: &[1, 10, 100, 1000],
        full: &[1, 10, 100, 1000, 10_000],
        measure: images,
    },
];

/// A directory of its own with a store. Gone when dropped.
pub(crate) struct Bench {
    dir: tempfile::TempDir,
}

impl Drop for Bench {
    fn drop(&mut self) {
        // Its trees may belong to other ids.
        drop(self.ours(&["prune", "--reset"]));
    }
}

impl Bench {
    /// Nothing is in the store.
    pub(crate) fn new(below: &Path) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("lapstrake-growth-").tempdir_in(below)?;
        fs::create_dir(dir.path().join("ctx"))?;
        Ok(Self { dir })
    }

    fn context(&self) -> PathBuf {
        self.dir.path().join("ctx")
    }

    fn dockerfile(&self, text: &str) -> Result<()> {
        Ok(fs::write(self.context().join("Dockerfile"), text)?)
    }

    fn ours(&self, args: &[&str]) -> Result<Cost> {
        measure::ours(&self.dir.path().join("store"), args)
    }

    /// Builds the context; the words stand before it.
    fn build(&self, words: &[&str]) -> Result<Cost> {
        let context = self.context();
        let context = context.to_str().ok_or("the directory's name is no text")?;
        self.ours(&[&["build", "-q"], words, &[context]].concat())
    }

    /// An image with a shell, called `base`.
    fn base(&self) -> Result<()> {
        let shell = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|path| Path::new(path).exists());
        let _bytes = fs::copy(shell.ok_or("there is no busybox")?, self.context().join("busybox"))?;
        self.dockerfile("FROM scratch\nCOPY busybox /bin/sh\n")?;
        let _cost = self.build(&["-t", "base"])?;
        Ok(fs::remove_file(self.context().join("busybox"))?)
    }
}

/// Files that were written just now are read again by the next build, because they may change without its being seen: a while later they are not.
const SETTLED: Duration = Duration::from_secs(3);

fn files(bench: &Bench, count: u64) -> Measured {
    for number in 0..count {
        let dir = bench.context().join(format!("src/d{}", number / 1000)).join(format!("e{}", number / 50 % 20));
        if number % 50 == 0 {
            fs::create_dir_all(&dir)?;
        }
        fs::write(dir.join(format!("file-{number}.txt")), format!("file {number} of {count}\n").repeat(10))?;
    }
    bench.dockerfile("FROM scratch\nCOPY src /src\n")?;
    sleep(SETTLED);
    let cold = bench.build(&[])?;
    Ok(vec![("cold", cold), ("nothing changed", bench.build(&[])?)])
}

/// Half of it is noise, half of it is text.
fn layer(bench: &Bench, mebibytes: u64) -> Measured {
    let mut file = BufWriter::new(File::create(bench.context().join("data"))?);
    let mut noise = 0x9E37_79B9_7F4A_7C15_u64;
    for block in 0..mebibytes {
        for line in 0..1_u64 << 17 {
            noise ^= noise << 13;
            noise ^= noise >> 7;
            noise ^= noise << 17;
            let word = if block % 2 == 0 { noise.to_le_bytes() } else { TEXT[usize::try_from((line ^ (noise >> 60)) % 16)?] };
            file.write_all(&word)?;
        }
    }
    file.into_inner()?.sync_all()?;
    bench.dockerfile("FROM scratch\nCOPY data /data\n")?;
    sleep(SETTLED);
    let plain = bench.build(&["-t", "plain", "-o", "type=image,name=plain,compression=uncompressed"])?;
    // Else what was made is remembered, and the store has it twice.
    let _cost = bench.ours(&["prune", "--reset"])?;
    let gzip = bench.build(&["-t", "gzip"])?;
    Ok(vec![("plain", plain), ("gzip", gzip), ("gzip, nothing changed", bench.build(&["-t", "gzip"])?)])
}

/// Words of eight bytes.
const TEXT: [[u8; 8]; 16] = [
    *b"timbers ",
    *b"planks, ",
    *b"rivets\n ",
    *b"a keel, ",
    *b"the hull",
    *b" of oak ",
    *b"overlaps",
    *b" a frame",
    *b"stringer",
    *b" and the",
    *b"garboard",
    *b", strake",
    *b" by each",
    *b"fastened",
    *b"clenched",
    *b" shut.\n ",
];

fn steps(bench: &Bench, count: u64) -> Measured {
    bench.base()?;
    let mut text = "FROM base\n".to_owned();
    for number in 0..count {
        writeln!(text, "RUN echo {number} > /f{number}")?;
    }
    bench.dockerfile(&text)?;
    let cold = bench.build(&[])?;
    let warm = bench.build(&[])?;
    // Only the last one changed.
    bench.dockerfile(&format!("{text}RUN echo > /last\n"))?;
    Ok(vec![("cold", cold), ("nothing changed", warm), ("one more step", bench.build(&[])?)])
}

fn stages(bench: &Bench, count: u64) -> Measured {
    bench.base()?;
    let mut text = String::new();
    for number in 0..count {
        writeln!(text, "FROM base AS s{number}\nRUN echo {number} > /f{number}")?;
    }
    text.push_str("FROM base\n");
    for number in 0..count {
        writeln!(text, "COPY --from=s{number} /f{number} /")?;
    }
    bench.dockerfile(&text)?;
    let cold = bench.build(&[])?;
    Ok(vec![("cold", cold), ("nothing changed", bench.build(&[])?)])
}

/// Images that share a layer and nothing else, as an OCI layout.
fn images(bench: &Bench, count: u64) -> Measured {
    bench.base()?;
    let layout = bench.dir.path().join("layout");
    let path = layout.to_str().ok_or("the directory's name is no text")?;
    bench.dockerfile("FROM base\n")?;
    let _cost = bench.build(&["-o", &format!("type=oci,tar=false,dest={path}")])?;
    multiply(&layout, count)?;
    let loaded = bench.ours(&["load", "-q", "-i", path])?;
    bench.dockerfile("FROM base\nRUN echo 1 > /f\nCOPY Dockerfile /\n")?;
    let _cost = bench.build(&["-t", "image-0"])?;
    let warm = bench.build(&["-t", "image-0"])?;
    bench.dockerfile("FROM base\nRUN echo 1 > /f\nRUN echo 2 > /f\nCOPY Dockerfile /\n")?;
    let more = bench.build(&["-t", "image-0"])?;
    let listed = bench.ours(&["images", "-q"])?;
    Ok(vec![("a build, nothing changed", warm), ("a build with one more RUN", more), ("`images`", listed), ("`load` of all", loaded)])
}

fn multiply(layout: &Path, count: u64) -> Result<()> {
    let index = layout.join("index.json");
    let blobs = layout.join("blobs/sha256");
    let read = |path: &Path| -> Result<Value> { Ok(serde_json::from_slice(&fs::read(path)?)?) };
    let blob = |descriptor: &Value| blobs.join(descriptor["digest"].as_str().unwrap_or_default().trim_start_matches("sha256:"));
    let put = |value: &Value| -> Result<(String, usize)> {
        let bytes = serde_json::to_vec(value)?;
        let digest = Digest::of(&bytes);
        fs::write(blobs.join(digest.to_string().trim_start_matches("sha256:")), &bytes)?;
        Ok((digest.to_string(), bytes.len()))
    };
    let mut all = read(&index)?;
    let one = all["manifests"][0].clone();
    let mut manifest = read(&blob(&one))?;
    let mut config = read(&blob(&manifest["config"]))?;
    let mut entries = Vec::new();
    for number in 0..count {
        config["config"]["Labels"] = json!({ "number": number.to_string() });
        let (digest, size) = put(&config)?;
        manifest["config"]["digest"] = json!(digest);
        manifest["config"]["size"] = json!(size);
        let (digest, size) = put(&manifest)?;
        let name = format!("docker.io/library/image-{number}:latest");
        let media_type = one["mediaType"].clone();
        entries
            .push(json!({ "mediaType": media_type, "digest": digest, "size": size, "annotations": { "io.containerd.image.name": name } }));
    }
    all["manifests"] = json!(entries);
    Ok(fs::write(index, serde_json::to_vec(&all)?)?)
}
