//! What a machine may lack: on a laptop such a test says so and is skipped, in CI it fails.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

/// Says why a test does not run here. Fails where nothing may be skipped (`CI=true`).
pub(crate) fn skipped(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "in CI nothing is skipped: {why}");
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    // Not by a macro: those are captured.
    let _written = writeln!(std::io::stderr(), "skipped: {name}: {why}");
}

/// A program on the usual paths. `None`, and a message: it is not there.
pub(crate) fn need(program: &str) -> Option<PathBuf> {
    let found = find(program);
    if found.is_none() {
        skipped(&format!("there is no `{program}`"));
    }
    found
}

/// Are all of them there?
pub(crate) fn need_all(programs: &[&str]) -> bool {
    programs.iter().all(|program| need(program).is_some())
}

/// The top of the project: where it was built, or where `tests/run` copied it for a user who cannot read that.
pub(crate) fn sources() -> PathBuf {
    std::env::var_os("LAPSTRAKE_TEST_SOURCES").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from)
}

/// Every file of Rust below a directory.
pub(crate) fn rust_files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// Root's tests do not run for others. The suite is run as root and as a user, so this is no gap, in CI neither.
pub(crate) fn need_root() -> bool {
    if !am_root() {
        let name = std::thread::current().name().unwrap_or("a test").to_owned();
        let _written = writeln!(std::io::stderr(), "only as root: {name}");
    }
    am_root()
}

/// Are we root?
pub(crate) fn am_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The id of a user that `tests/run` makes.
pub(crate) fn need_user(name: &str) -> Option<u32> {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let id = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| fields.nth(1)?.parse().ok()).flatten()
    });
    if id.is_none() {
        skipped(&format!("there is no user `{name}`; `tests/run` makes it"));
    }
    id
}

fn find(program: &str) -> Option<PathBuf> {
    // Debian's own first: what another package put elsewhere may be newer or something else.
    let dirs = ["/usr/bin", "/usr/sbin", "/bin", "/sbin", "/usr/local/bin"];
    dirs.iter().map(|dir| Path::new(dir).join(program)).find(|path| path.exists())
}
