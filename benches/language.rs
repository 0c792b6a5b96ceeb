//! How long a Dockerfile takes to be read and to be given its meaning, for several shapes of text and sizes from 1 to 8 MiB.
//!
//! ```sh
//! cargo bench --bench language                      # a table of all shapes
//! cargo bench --bench language -- 'many ENV'        # these alone
//! valgrind --tool=callgrind BINARY --once 'many ENV' 2   # one reading of 2 MiB: its instructions
//! ```
//!
//! A column is the least of several times, of the processor's, not the clock's; linear is a last column near 8.

use std::{hint::black_box, io::Write as _, time::Duration};

use lapstrake::{
    dockerfile,
    oci::{Config, Descriptor, Digest, ImageConfig, Platform, media_type},
    plan::{Base, BaseError, BaseImage, Bases, Request, resolve},
};

/// 1 MiB.
const MIB: usize = 1 << 20;
/// Sizes in MiB.
const SIZES: [usize; 4] = [1, 2, 4, 8];

/// A kind of text: what comes first, what is repeated, what comes last.
struct Shape {
    name: &'static str,
    head: &'static str,
    /// `@` is the number of the repetition.
    piece: &'static str,
    tail: &'static str,
    /// Is it also given its meaning? Then its size counts in units of so many KiB.
    plan: Option<usize>,
}

const fn parsed(name: &'static str, head: &'static str, piece: &'static str, tail: &'static str) -> Shape {
    Shape { name, head, piece, tail, plan: None }
}

const SHAPES: &[Shape] = &[
    parsed("many short RUNs", "FROM a\n", "RUN echo @\n", ""),
    parsed("many COPYs", "FROM a\n", "COPY --chown=1:1 a@ b /c/\n", ""),
    parsed("one continued RUN", "FROM a\nRUN true", " && \\\n  echo @", "\n"),
    parsed("one continued COPY", "FROM a\nCOPY ", "file-@ \\\n", "/to/\n"),
    parsed("continued with comments", "FROM a\nRUN true", " && \\\n# why @\n\n  echo @", "\n"),
    parsed("a huge heredoc", "FROM a\nRUN <<EOF\n", "echo @\n", "EOF\n"),
    parsed("many heredocs", "FROM a\n", "COPY <<F@ /f@\nhello @\nF@\n", ""),
    parsed("heredocs of one line", "FROM a\nRUN cat", " <<E@", "\n"),
    parsed("an unterminated heredoc", "FROM a\nRUN <<EOF\n", "echo @\n", ""),
    parsed("many unterminated quotes", "FROM a\n", "ENV a@=\"b @\n", ""),
    parsed("many ENVs", "FROM a\n", "ENV name_@=\"value $name_@ of it\"\n", ""),
    parsed("one ENV of many", "FROM a\nENV", " \\\n  name_@=value", "\n"),
    parsed("many LABELs", "FROM a\n", "LABEL a.b@=\"c d\" e=f\n", ""),
    parsed("many stages", "", "FROM a AS s@\nRUN x\n", ""),
    parsed("nested substitutions", "FROM a\nENV a=", "${a:-", "\n"),
    parsed("many flags", "FROM a\nRUN ", "--mount=type=cache,target=/x@ ", "true\n"),
    parsed("many flags of COPY", "FROM a\nCOPY ", "--exclude=x@ ", "a b\n"),
    parsed("a long comment block", "", "# words @\n", "FROM a\n"),
    parsed("documented ARGs", "", "# x@ is a number\nARG x@=1\n", "FROM a\n"),
    parsed("a JSON array", "FROM a\nCMD [\"a\"", ", \"arg @\"", "]\n"),
    parsed("many JSON arrays", "FROM a\n", "CMD [\"a\", \"b @\"]\n", ""),
    parsed("nested JSON", "FROM a\nCMD ", "[", "\n"),
    parsed("blank lines", "FROM a\n", "\n", ""),
    parsed("carriage returns", "FROM a\r\n", "RUN echo @\r\n", ""),
    parsed("unknown instructions", "FROM a\n", "RUUN @\n", ""),
    parsed("errors of decoding", "FROM a\n", "EXPOSE\n", ""),
    parsed("errors of the line level", "FROM a\n", "ENV @\n", ""),
    parsed("ONBUILD", "FROM a\n", "ONBUILD RUN echo @\n", ""),
    parsed("one line", "FROM a\nRUN ", "word@ ", "\n"),
    Shape { plan: Some(16), ..parsed("plan: many ENVs", "FROM a\n", "ENV name_@=$name_1-value\n", "RUN x\n") },
    Shape { plan: Some(16), ..parsed("plan: many ENVs, each with a RUN", "FROM a\n", "ENV n@=v\n", "RUN x\n") },
    Shape { plan: Some(64), ..parsed("plan: many stages", "FROM a AS s\n", "FROM s AS s@\nENV a=$a\n", "") },
    Shape { plan: Some(64), ..parsed("plan: many COPYs", "FROM a\n", "COPY a@ /b@\n", "") },
    Shape { plan: Some(64), ..parsed("plan: many RUNs", "FROM a\n", "RUN echo @\n", "") },
    Shape { plan: Some(64), ..parsed("plan: stages copied from", "FROM a AS s\n", "FROM a AS s@\nCOPY --from=s a b\n", "") },
    Shape { plan: Some(64), ..parsed("plan: many ARGs", "FROM a\n", "ARG n@=$n1\n", "RUN x\n") },
    Shape { plan: Some(64), ..parsed("plan: many LABELs", "FROM a\n", "LABEL n@=$n1\n", "RUN x\n") },
];

/// Every image is there, and has a PATH.
struct Everything;

impl Bases for Everything {
    fn base(&self, name: &str, platform: &Platform) -> Result<Option<Base>, BaseError> {
        let config = Config { env: Some(vec!["PATH=/bin".to_owned()]), ..Config::default() };
        let config = ImageConfig { architecture: platform.architecture.clone(), os: platform.os.clone(), config, ..ImageConfig::default() };
        let manifest = Descriptor::new(media_type::MANIFEST, Digest::of(name.as_bytes()), 1);
        Ok(Some(Base::Image(BaseImage { name: name.to_owned(), manifest, config, layers: Vec::new() })))
    }
}

/// The processor's time of this thread: what else runs on the machine does not count.
fn clock() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

impl Shape {
    fn text(&self, size: usize) -> String {
        let bytes = size * self.plan.map_or(MIB, |kib| kib << 10);
        let mut text = String::from(self.head);
        let mut number = 0_usize;
        while text.len() + self.tail.len() < bytes {
            number += 1;
            text.push_str(&self.piece.replace('@', &number.to_string()));
        }
        text + self.tail
    }

    fn once(&self, text: &str) -> usize {
        let parsed = dockerfile::parse(text);
        if self.plan.is_none() {
            return black_box(parsed).errors.len();
        }
        let request = Request { platform: "linux/amd64".parse().ok(), ..Request::default() };
        black_box(resolve(&parsed.dockerfile, &request, &Everything)).map_or_else(|error| error.places.len(), |_| 0)
    }

    /// The least of several times.
    fn time(&self, text: &str) -> Duration {
        let runs = 2..if text.len() < 2 * MIB { 8 } else { 5 };
        let one = || {
            let begun = clock();
            black_box(self.once(black_box(text)));
            clock().saturating_sub(begun)
        };
        runs.map(|_| one()).min().unwrap_or_default()
    }
}

fn main() -> std::io::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [once, name, size] = words.as_slice()
        && once == "--once"
    {
        let shapes = SHAPES.iter().filter(|shape| shape.name == name);
        let size = size.parse().unwrap_or(1);
        return shapes.map(|shape| shape.once(&shape.text(size))).try_for_each(|errors| writeln!(std::io::stdout(), "{errors} errors"));
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{:<34}{:>9}{:>10}{:>10}{:>10}{:>10}   8 to 1", "", "KiB", "1x ms", "2x ms", "4x ms", "8x ms")?;
    for shape in SHAPES.iter().filter(|shape| words.is_empty() || words.iter().any(|word| shape.name.contains(word.as_str()))) {
        let times = SIZES.map(|size| shape.time(&shape.text(size)).as_secs_f64() * 1e3);
        let ratio = times.last().unwrap_or(&0.0) / times.first().unwrap_or(&1.0);
        write!(out, "{:<34}{:>9}", shape.name, shape.plan.unwrap_or(1024))?;
        for time in times {
            write!(out, "{time:>10.2}")?;
        }
        writeln!(out, "{ratio:>9.1}")?;
    }
    Ok(())
}
