//! The contexts: the same bytes every time.
//!
//! | | |
//! |---|---|
//! | w1 | twelve instructions |
//! | w2 | twenty small RUNs |
//! | w2b | the same on busybox |
//! | w3 | 20,000 files, half of them ignored |
//! | w4 | 1,000 MiB in 2,000 files, every other one noise |
//! | w5 | apt-get install gcc, with this machine's settings of apt |
//! | w6 | six stages that sleep for two seconds |

use std::{fmt::Write as _, fs, path::Path};

use crate::Result;

/// A generator that is good enough to be incompressible. Source: Vigna, `SplitMix64`.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }
}

/// Makes them all below a directory.
pub(crate) fn make(top: &Path) -> Result<()> {
    few(&top.join("w1"))?;
    for (name, base) in [("w2", "base"), ("w2b", "small")] {
        let runs = (1..=20).fold(format!("FROM {base}\n"), |text, number| text + &format!("RUN echo {number} > /f{number}\n"));
        file(&top.join(name).join("Dockerfile"), runs.as_bytes())?;
    }
    many(&top.join("w3"))?;
    large(&top.join("w4"))?;
    packages(&top.join("w5"))?;
    let mut stages = String::new();
    for number in 1..=6 {
        writeln!(stages, "FROM base AS s{number}\nRUN sleep 2 && echo {number} > /out{number}")?;
    }
    stages.push_str("FROM base\n");
    for number in 1..=6 {
        writeln!(stages, "COPY --from=s{number} /out{number} /out{number}")?;
    }
    file(&top.join("w6/Dockerfile"), stages.as_bytes())
}

fn file(path: &Path, bytes: &[u8]) -> Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    Ok(fs::write(path, bytes)?)
}

fn few(dir: &Path) -> Result<()> {
    let dockerfile = "FROM base\nENV HOME_OF=/app LANG=C.UTF-8\nWORKDIR /app\nRUN echo one > /etc/one\nCOPY version ./\n\
        RUN mkdir -p data && echo built > data/stamp\nCOPY app.conf /etc/app.conf\nENV MODE=prod\nCOPY lib ./lib\n\
        RUN ls lib | wc -l > data/count\nWORKDIR /app/run\nCOPY main.py /app/main.py\nRUN chmod 0755 /app/main.py\n";
    file(&dir.join("Dockerfile"), dockerfile.as_bytes())?;
    for name in ["version", "app.conf", "main.py", "lib/a", "lib/b", "lib/c"] {
        file(&dir.join(name), format!("{name}\n").as_bytes())?;
    }
    Ok(())
}

fn many(dir: &Path) -> Result<()> {
    let mut noise = Noise(3);
    for number in 0..20_000_u64 {
        let half = if number % 2 == 0 { "keep" } else { "skip" };
        let length = usize::try_from(200 + noise.next() % 5800)?;
        let line = format!("line {number} of a file\n");
        let bytes: Vec<u8> = line.bytes().cycle().take(length).collect();
        file(&dir.join(half).join(format!("d{:03}/f{number:05}.txt", number % 400)), &bytes)?;
    }
    file(&dir.join(".dockerignore"), b"skip\n**/*.bak\n")?;
    file(&dir.join("Dockerfile"), b"FROM base\nCOPY . /src\n")
}

fn packages(dir: &Path) -> Result<()> {
    let mut settings = Vec::new();
    for entry in fs::read_dir("/etc/apt/apt.conf.d")? {
        settings.extend(fs::read(entry?.path())?);
        settings.push(b'\n');
    }
    file(&dir.join("99bench"), &settings)?;
    let dockerfile = "FROM base\nCOPY 99bench /etc/apt/apt.conf.d/99bench\nRUN apt-get update && \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev\n";
    file(&dir.join("Dockerfile"), dockerfile.as_bytes())
}

fn large(dir: &Path) -> Result<()> {
    const SIZE: usize = 512 << 10;
    let words: Vec<String> = (0..4096_u32).map(|number| format!("{:08x} ", number.wrapping_mul(2_654_435_761))).collect();
    for number in 0..2000_u64 {
        let mut noise = Noise(number);
        let mut bytes = Vec::with_capacity(SIZE + 16);
        while bytes.len() < SIZE {
            let next = noise.next();
            if number % 2 == 1 {
                bytes.extend_from_slice(&next.to_le_bytes());
            } else {
                let word = usize::try_from(next % 4096)?;
                bytes.extend(words.get(word).into_iter().flat_map(|word| word.bytes()));
            }
        }
        bytes.truncate(SIZE);
        file(&dir.join(format!("data/d{:02}/f{number:04}.bin", number % 40)), &bytes)?;
    }
    file(&dir.join("Dockerfile"), b"FROM base\nCOPY data /data\n")
}
