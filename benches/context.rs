//! A context of 100,000 files and 200 ignore patterns, half of them with `!`, beside `find` over the same tree.
//!
//! ```sh
//! cargo bench --bench context              # 9 rounds; `-- 3 20000` for 3 rounds over 20,000 files
//! ```
//!
//! Every round times, one after the other: `find` (names only), `find -printf %s` (a stat of each file, which a context needs as well),
//! a listing through the library, and the second build of `COPY . /` by the program, where all is cached. The table has the median of each and of its ratio to
//! the two `find` of the same round.

use std::{
    fmt::Write as _,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lapstrake::{context::Context, pattern::PatternList, sys::dir::FileKind, tree::TreePath};

/// Files of a directory.
const WIDTH: usize = 100;

/// Half of the patterns take back what others exclude, by name, by place and by form.
fn patterns() -> String {
    let mut text = String::from(".dockerignore\n");
    for number in 0..25 {
        let _infallible = write!(
            text,
            "**/*.tmp{number}\nteam{number}/**/cache\nteam{number}/app{number}/file-1*.log\n/vendor{number}/**\n\
             !**/keep-{number}.tmp{number}\n!team{number}/app1/cache\n!team{number}/app{number}/file-1{number}.log\n!vendor{number}/app{number}/**/file-?.rs\n"
        );
    }
    text
}

/// `team0/app0/file-0.rs` and so on; every fifth directory is a cache, every seventh top is a vendor's.
fn tree(root: &Path, files: usize) -> io::Result<()> {
    for number in 0..files / WIDTH {
        let (top, app) = (number / 40, number % 40);
        let top = if top % 7 == 6 { format!("vendor{}", top / 7) } else { format!("team{top}") };
        let below = if app % 5 == 4 { "cache/deep" } else { "src" };
        let dir = root.join(top).join(format!("app{app}")).join(below);
        fs::create_dir_all(&dir)?;
        for file in 0..WIDTH {
            let form = ["rs", "log", "txt", "tmp3", "tmp17"].get(file % 5).copied().unwrap_or_default();
            fs::write(dir.join(format!("file-{file}.{form}")), "")?;
        }
    }
    fs::write(root.join(".dockerignore"), patterns())?;
    fs::write(root.join("Dockerfile"), "FROM scratch\nCOPY . /\n")
}

/// How many entries a walk through the library sees.
fn listed(root: &Path) -> Result<usize, Box<dyn std::error::Error>> {
    let ignore = PatternList::parse_ignorefile(&fs::read(root.join(".dockerignore"))?)?;
    let context = Context::open(root, ignore)?;
    let mut count = 0;
    let mut ahead = vec![TreePath::root()];
    while let Some(dir) = ahead.pop() {
        for name in context.names(&dir)? {
            let path = dir.join(&name)?;
            count += 1;
            if context.look_up(&path)?.is_some_and(|listed| listed.stat.kind == FileKind::Dir) {
                ahead.push(path);
            }
        }
    }
    Ok(count)
}

fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let begun = Instant::now();
    let done = work();
    (begun.elapsed(), done)
}

#[expect(clippy::disallowed_methods, reason = "the programs that are compared")]
fn ran(program: &Path, words: &[&str], dir: &Path) -> io::Result<bool> {
    let mut command = Command::new(program);
    command.args(words).current_dir(dir).stdout(Stdio::null()).stderr(Stdio::null());
    Ok(command.status()?.success())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|word| word.parse().ok()).collect();
    let (rounds, files) = (numbers.first().copied().unwrap_or(9), numbers.get(1).copied().unwrap_or(100_000));
    let temp = tempfile::Builder::new().prefix("lapstrake-bench-").tempdir()?;
    let root = temp.path().join("context");
    fs::create_dir(&root)?;
    tree(&root, files)?;
    let store = temp.path().join("store");
    let program = PathBuf::from(env!("CARGO_BIN_EXE_lapstrake"));
    let store = store.to_str().ok_or("the temporary directory's name is no text")?;
    let build = || ran(&program, &["--root", store, "build", "-q", "."], &root);
    // What is too young is not remembered.
    std::thread::sleep(Duration::from_secs(4));
    if !build()? || !build()? {
        return Err("the build failed".into());
    }
    let mut times: [Vec<f64>; 4] = Default::default();
    let mut seen = 0;
    for _round in 0..rounds {
        let names = timed(|| ran(Path::new("find"), &["."], &root));
        let stats = timed(|| ran(Path::new("find"), &[".", "-printf", "%s %T@\\n"], &root));
        let list = timed(|| listed(&root));
        let second = timed(build);
        seen = list.1?;
        if !(names.1? && stats.1? && second.1?) {
            return Err("a program failed".into());
        }
        for (all, time) in times.iter_mut().zip([names.0, stats.0, list.0, second.0]) {
            all.push(time.as_secs_f64() * 1e3);
        }
    }
    let mut out = io::stdout().lock();
    let count = patterns().lines().count();
    writeln!(out, "{files} files, {count} patterns, {seen} entries not ignored, {rounds} rounds")?;
    let [names, stats, ..] = &times;
    for (name, own) in ["find", "find with a stat", "listing", "second build"].iter().zip(&times) {
        let ratio = |other: &[f64]| median(own.iter().zip(other).map(|(own, other)| own / other).collect());
        writeln!(out, "{name:<18}{:>10.1} ms{:>8.2} x find{:>8.2} x find with a stat", median(own.clone()), ratio(names), ratio(stats))?;
    }
    Ok(())
}
