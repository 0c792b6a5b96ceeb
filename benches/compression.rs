//! Layers and archives beside what only copies, archives or compresses the same bytes.
//!
//! ```sh
//! cargo bench --bench compression              # 5 rounds over 300 MiB and 10,000 small files; `-- 9 1000` for 9 over 1,000 MiB
//! ```
//!
//! Half of the large files is noise, half is text. In every round each row's programs run one after the other: ours is
//! `lapstrake build` of one COPY on an empty base into a fresh store and an archive. The table has the medians of wall time, of processor
//! time, and of the ratios to the other program of the same round, the peak memory and the size. It needs the Debian package
//! `time`; programs that are not there are left out.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::Path,
    process::{Command, Stdio},
};

/// What one run of a command took.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Cost {
    wall: f64,
    cpu: f64,
    kib: f64,
    bytes: f64,
}

/// A row of the table: ours, and what it is compared with. Each writes `out`.
struct Row {
    what: &'static str,
    ours: &'static str,
    other: &'static str,
}

const ROWS: [Row; 8] = [
    Row { what: "large, gzip | tar, gzip -6", ours: "$BUILD large -o type=oci,dest=out", other: "tar c -C large data | gzip -6 > out" },
    Row { what: "large, gzip | tar, pigz -6", ours: "$BUILD large -o type=oci,dest=out", other: "tar c -C large data | pigz -6 > out" },
    Row {
        what: "large, zstd | tar, zstd -3",
        ours: "$BUILD large -o type=oci,dest=out,compression=zstd",
        other: "tar c -C large data | zstd -q -3 -T0 -c > out",
    },
    Row {
        what: "large, plain archive | cp of the archive",
        ours: "$BUILD large -o type=docker,dest=out,compression=uncompressed",
        other: "cp large.tar out",
    },
    Row {
        what: "large, plain archive | cp -r of the files",
        ours: "$BUILD large -o type=docker,dest=out,compression=uncompressed",
        other: "rm -rf copy; cp -r large/data copy; : > out",
    },
    Row {
        what: "large, plain archive | tar c",
        ours: "$BUILD large -o type=docker,dest=out,compression=uncompressed",
        other: "tar c -C large data > out",
    },
    Row { what: "small, gzip | tar, gzip -6", ours: "$BUILD small -o type=oci,dest=out", other: "tar c -C small data | gzip -6 > out" },
    Row {
        what: "small, gzip, the store alone | tar, gzip -6",
        ours: "$BUILD small; : > out",
        other: "tar c -C small data | gzip -6 > out",
    },
];

/// Noise for odd numbers, words for even ones; the same bytes every time.
fn content(number: usize, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    let mut hasher = blake3::Hasher::new();
    let _same = hasher.update(&number.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    if number % 2 == 1 {
        return bytes;
    }
    let mut text = Vec::with_capacity(size + 16);
    for pair in bytes.chunks(2) {
        let word = pair.iter().fold(0_u32, |sum, byte| sum * 256 + u32::from(*byte)) % 4096;
        let _infallible = io::Write::write_fmt(&mut text, format_args!("{:08x} ", word.wrapping_mul(2_654_435_761)));
        if text.len() >= size {
            break;
        }
    }
    text.truncate(size);
    text
}

fn workloads(dir: &Path, mebibytes: usize) -> io::Result<()> {
    for (name, files, size) in [("large", mebibytes * 2, 512 * 1024), ("small", 10_000, 3_000)] {
        for number in 0..files {
            let below = dir.join(name).join("data").join(format!("d{}", number % 200));
            fs::create_dir_all(&below)?;
            // Small files are text, as sources are.
            let kind = if name == "small" { number * 2 } else { number };
            fs::write(below.join(format!("f{number}")), content(kind, size))?;
        }
        fs::write(dir.join(name).join("Dockerfile"), "FROM scratch\nCOPY data /data\n")?;
    }
    Ok(())
}

/// Runs a command of the shell in the directory. `None`: it failed, or is not there.
#[expect(clippy::disallowed_methods, reason = "the programs that are compared")]
fn cost(command: &str, dir: &Path) -> Option<Cost> {
    let build = format!("{} --root store build -q", env!("CARGO_BIN_EXE_lapstrake"));
    let clean = "rm -rf store copy out";
    let cleaned = Command::new("sh").args(["-c", clean]).current_dir(dir).status().ok()?.success();
    let script = format!("set -e -o pipefail; {}", command.replace("$BUILD", &build));
    let run = Command::new("time")
        .args(["-f", "%e %U %S %M", "-o", "cost", "bash", "-c", &script])
        .current_dir(dir)
        .stdout(Stdio::null())
        .output();
    let done = cleaned && run.ok()?.status.success();
    let text = fs::read_to_string(dir.join("cost")).ok()?;
    let mut fields = text.split_whitespace().map(|field| field.parse::<f64>().ok());
    let (wall, user, system, kib) = (fields.next()??, fields.next()??, fields.next()??, fields.next()??);
    #[expect(clippy::cast_precision_loss, reason = "a size for a table")]
    let bytes = fs::metadata(dir.join("out")).ok()?.len() as f64;
    done.then_some(Cost { wall, cpu: user + system, kib, bytes })
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

fn line(row: &Row, pairs: &[(Cost, Cost)]) -> String {
    let of = |value: &dyn Fn(&(Cost, Cost)) -> f64| median(pairs.iter().map(value).collect());
    let mut text = String::new();
    let _infallible = write!(
        text,
        "| {} | {:.2} / {:.2} | {:.2} / {:.2} | {:.2} / {:.2} | {:.0} / {:.0} | {:.1} / {:.1} |",
        row.what,
        of(&|(ours, _)| ours.wall),
        of(&|(ours, _)| ours.cpu),
        of(&|(_, other)| other.wall),
        of(&|(_, other)| other.cpu),
        of(&|(ours, other)| ours.wall / other.wall),
        of(&|(ours, other)| ours.cpu / other.cpu),
        of(&|(ours, _)| ours.kib / 1024.0),
        of(&|(_, other)| other.kib / 1024.0),
        of(&|(ours, _)| ours.bytes / 1e6),
        of(&|(_, other)| other.bytes / 1e6),
    );
    text
}

fn numbers() -> Vec<usize> {
    std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers = numbers();
    let rounds = numbers.first().copied().unwrap_or(5);
    let mebibytes = numbers.get(1).copied().unwrap_or(300);
    let dir = tempfile::tempdir()?;
    workloads(dir.path(), mebibytes)?;
    if cost("tar c -C large data > out; mv out large.tar; : > out", dir.path()).is_none() {
        return Err("the Debian packages `time`, `tar` and `bash` are needed".into());
    }
    let mut out = io::stdout();
    writeln!(out, "{mebibytes} MiB in files of 512 KiB; 10,000 files of 3 KB; medians of {rounds} rounds\n")?;
    writeln!(
        out,
        "| ours, other | ours, wall / CPU s | other | ratio | peak MiB, ours / other | MB, ours / other |\n|---|---|---|---|---|---|"
    )?;
    for row in &ROWS {
        let pairs: Option<Vec<_>> = (0..rounds).map(|_| Some((cost(row.ours, dir.path())?, cost(row.other, dir.path())?))).collect();
        match pairs {
            Some(pairs) => writeln!(out, "{}", line(row, &pairs))?,
            None => writeln!(out, "| {} | a program failed or is not there | | | | |", row.what)?,
        }
    }
    Ok(())
}
