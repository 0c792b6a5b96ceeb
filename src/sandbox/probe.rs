//! What this machine allows, found by trying: never by a version, and never by what a file says is possible.
//!
//! The front tries to enter ([`probe`]); the engine that it gets ([`engine_main`]) tries an overlay in the directory of
//! the store and whole steps, whose program is a few bytes that do nothing but exit.

use std::{
    ffi::OsString,
    fmt,
    fs::File,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};

use super::{
    Driver, InitError, Mount, MountSource, Network, Overlay, Spec, Status, User,
    driver::{Ids, Snapshots},
    enter, overlay, run,
};
use crate::tree::TreePath;

/// The hidden argument, followed by a directory, that makes this program the engine of a probe.
pub const PROBE_ENGINE: &str = "probe-engine";

/// One thing that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What.
    pub tried: String,
    /// How it went.
    pub outcome: Outcome,
}

/// How a trial went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// It works; with what, in words.
    Works(String),
    /// It does not.
    Fails {
        /// What the kernel said, and which knob that points to.
        said: String,
        /// What to do, if that is known: a command for root, or a sentence.
        help: Option<String>,
    },
    /// Something before it failed.
    NotTried,
}

/// All that was tried, in order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// One line each.
    pub rows: Vec<Row>,
}

impl Report {
    /// Can a RUN be run?
    pub fn works(&self) -> bool {
        self.rows.iter().all(|row| matches!(row.outcome, Outcome::Works(_)))
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Works(with) if with.is_empty() => write!(f, "ok        {}", self.tried),
            Outcome::Works(with) => write!(f, "ok        {}: {with}", self.tried),
            Outcome::Fails { said, help: None } => write!(f, "fails     {}: {said}", self.tried),
            Outcome::Fails { said, help: Some(help) } => write!(f, "fails     {}: {said}\n          try: {help}", self.tried),
            Outcome::NotTried => write!(f, "not tried {}", self.tried),
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

const ENTER: &str = "a user namespace with more than one id";
const OVERLAY: &str = "an overlay in the store's directory";
const STEP: &str = "a step with the host's network";
const STEP_ALONE: &str = "a step without network";

/// Tries everything that a build with RUN needs. `store` is a directory that exists; what is tried there is gone
/// afterwards. Called in the front.
pub fn probe(store: &Path) -> Report {
    let mut rows = Vec::new();
    match ask_engine(store) {
        Ok(found) => rows.extend(found),
        Err(error) => {
            let help = error.knob.as_ref().and_then(enter::Knob::command);
            rows.push(Row { tried: ENTER.to_owned(), outcome: Outcome::Fails { said: error.to_string(), help } });
        }
    }
    for tried in [ENTER, OVERLAY, STEP, STEP_ALONE] {
        if !rows.iter().any(|row| row.tried == tried) {
            rows.push(Row { tried: tried.to_owned(), outcome: Outcome::NotTried });
        }
    }
    Report { rows }
}

fn ask_engine(store: &Path) -> Result<Vec<Row>, enter::EnterError> {
    let failed = |error: std::io::Error| enter::EnterError::new(enter::Tried::Start, &error);
    let (answers, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let engine = enter::spawn_engine(Ids::Full, &[PROBE_ENGINE.into(), store.into()], &[], &[theirs.as_fd()])?;
    drop(theirs);
    let mut text = Vec::new();
    File::from(answers).take(1 << 20).read_to_end(&mut text).map_err(failed)?;
    engine.wait().map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

/// The engine of a probe: what `main` does for [`PROBE_ENGINE`]. Started in any other way it fails.
pub fn engine_main(store: &Path) -> ExitCode {
    // The front has heard of an error.
    let Ok(entered) = enter::become_engine() else { return ExitCode::FAILURE };
    let Some(answer) = entered.fds.into_iter().next() else { return ExitCode::FAILURE };
    let maps = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let extents = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ");
    let mut rows = vec![Row { tried: ENTER.to_owned(), outcome: Outcome::Works(extents) }];
    rows.extend(try_steps(store));
    let written = serde_json::to_vec(&rows).map(|text| File::from(answer).write_all(&text));
    if matches!(written, Ok(Ok(()))) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn try_steps(store: &Path) -> Vec<Row> {
    let row = |tried: &str, outcome: Outcome| Row { tried: tried.to_owned(), outcome };
    let dir = store.join(format!("probe-{}", std::process::id()));
    let fresh = match Fresh::new(dir) {
        Ok(fresh) => fresh,
        Err(error) => return vec![row(OVERLAY, failure(&error))],
    };
    let overlay = fresh.overlay(0).and_then(|trees| {
        let writable = overlay::Writable { upper: &trees.upper, work: &trees.work };
        overlay::merge(&trees.lowers, Some(&writable)).map(drop)
    });
    if let Err(error) = overlay {
        return vec![row(OVERLAY, failure(&error))];
    }
    let mut rows = vec![row(OVERLAY, Outcome::Works(store.display().to_string()))];
    for (number, tried, network) in [(1, STEP, Network::Host), (2, STEP_ALONE, Network::None)] {
        rows.push(row(tried, try_step(&fresh, number, network).unwrap_or_else(|error| failure(&error))));
    }
    rows
}

fn try_step(fresh: &Fresh, number: u32, network: Network) -> Result<Outcome, InitError> {
    let Some(bytes) = exit_program() else {
        let said = "no program for this kind of processor is known to the probe".to_owned();
        return Ok(Outcome::Fails { said, help: None });
    };
    let target = TreePath::parse(b"probe").map_err(|_bad| InitError::new("find", "/probe")(rustix::io::Errno::INVAL))?;
    let program = Mount { target, what: MountSource::File { bytes, mode: 0o755, uid: 0, gid: 0 }, readonly: true };
    let spec = Spec {
        driver: Driver::of(Ids::Full, Snapshots::Overlay),
        argv: vec![OsString::from("/probe")],
        env: Vec::new(),
        cwd: TreePath::root(),
        user: User { uid: 1, gid: 1, groups: Vec::new() },
        root: super::Root::Overlay(fresh.overlay(number)?),
        network,
        hostname: "probe".to_owned(),
        mounts: vec![program],
        hosts: Vec::new(),
        resolv_conf: Vec::new(),
    };
    let (cancel, _open) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(InitError::new("prepare", "step"))?;
    let begun = std::time::Instant::now();
    match run(spec, &cancel, &mut |_, _| {})?.status {
        Status::Exited(0) => Ok(Outcome::Works(format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1000.0))),
        other @ (Status::Exited(_) | Status::Signalled(_) | Status::Cancelled) => {
            Ok(Outcome::Fails { said: format!("a program that exits with 0 ended with {other:?}"), help: None })
        }
    }
}

fn failure(error: &InitError) -> Outcome {
    Outcome::Fails { said: error.to_string(), help: error.help().map(str::to_owned) }
}

/// A directory that is gone when dropped.
struct Fresh(PathBuf);

impl Fresh {
    fn new(path: PathBuf) -> Result<Self, InitError> {
        std::fs::create_dir(&path).map_err(InitError::new("create", path.display()))?;
        Ok(Self(path))
    }

    fn overlay(&self, number: u32) -> Result<Overlay, InitError> {
        let make = |name: &str| {
            let path = self.0.join(format!("{name}{number}"));
            std::fs::create_dir(&path).map_err(InitError::new("create", path.display()))?;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).map_err(InitError::new("create", path.display()))?;
            Ok(path)
        };
        Ok(Overlay { lowers: vec![make("lower")?], upper: make("upper")?, work: make("work")? })
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // What stays is an empty tree that `prune` finds.
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// The smallest program for this processor: an ELF file of one segment, which asks to exit with 0.
fn exit_program() -> Option<Vec<u8>> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let (machine, code): (u16, &[u8]) = if cfg!(target_arch = "x86_64") {
        // mov eax, 231; xor edi, edi; syscall
        (62, &[0xb8, 0xe7, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05])
    } else if cfg!(target_arch = "aarch64") {
        // mov x0, #0; mov x8, #94; svc #0
        (183, &[0, 0, 0x80, 0xd2, 0xc8, 0x0b, 0x80, 0xd2, 0x01, 0, 0, 0xd4])
    } else {
        return None;
    };
    let size = HEADERS + code.len() as u64;
    let mut file = Vec::new();
    // ELF, 64 bits, little-endian, version 1.
    file.extend_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    for half in [2_u16, machine] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    file.extend_from_slice(&1_u32.to_le_bytes());
    for word in [BASE + HEADERS, 64, 0] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(&0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend_from_slice(&half.to_le_bytes());
    }
    // One segment, loaded, readable and executable.
    for word in [1_u32, 5] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend_from_slice(&word.to_le_bytes());
    }
    file.extend_from_slice(code);
    Some(file)
}
