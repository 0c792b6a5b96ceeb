//! What this machine allows, found by trying: never by a version, and never by what a file says is possible.
//!
//! The front tries to enter with each kind of ids ([`probe`]); the engine with the first that work ([`engine_main`]) tries to
//! write to the store's directory, each way to keep changes there, and whole steps, whose program is a few bytes that do
//! nothing but exit.

mod report;

pub use report::{Axis, Outcome, Report, Row};

use std::{
    ffi::{OsStr, OsString},
    fs::{File, Permissions},
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

use rustix::pipe::PipeFlags;
use serde::{Deserialize, Serialize};

use super::{
    Driver, InitError, Limits, Memory, Network, Overlay, Root, Security, Spec, Status, Tree, User,
    driver::{self, Ids, Preset, Refusal, SnapshotWish, Snapshots},
    enter, run,
};
use crate::tree::TreePath;

/// The hidden argument, followed by a directory and the wish for snapshots, that makes this program the engine of a probe.
pub const PROBE_ENGINE: &str = "probe-engine";

const WRITE: &str = "writing to it";
const STEP: &str = "a step on the host's network";
const STEP_ALONE: &str = "a step without network";

/// What it means that a step has no /proc of its own.
pub const OUTER_PROC: &str = "parts of /proc are covered here, so a step gets this one, read-only, and sees the processes in it";

/// So much must a store take, to be worth a trial of the rest.
const ROOM: usize = 1 << 20;

/// What an engine has found.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Found {
    rows: Vec<Row>,
    snapshots: Option<Snapshots>,
}

/// What is asked of an engine; its arguments after the first are this, as JSON.
#[derive(Debug, Serialize, Deserialize)]
struct Question {
    store: PathBuf,
    wish: SnapshotWish,
    /// Is entering all?
    enter_only: bool,
}

/// Tries everything that a build with RUN needs. `store` is a directory that exists, or why there is none; what is tried
/// there is gone afterwards. Called in the front.
pub fn probe(store: Result<&Path, Refusal>, preset: Preset, wish: SnapshotWish) -> Report {
    let mut rows = Vec::new();
    let mut used: Option<(Ids, Found)> = None;
    for ids in preset.ids() {
        let dir = store.as_ref().copied().ok();
        let question = Question { store: dir.unwrap_or("/".as_ref()).to_owned(), wish, enter_only: used.is_some() || dir.is_none() };
        match ask_engine(preset, ids, &question) {
            Ok((extents, found)) => {
                rows.push(Row::new(Axis::Ids, ids, Outcome::Works(extents)));
                used = used.or(Some((ids, found)));
            }
            Err(error) => rows.push(Row::refused(Axis::Ids, Refusal::of_ids(ids, &error))),
        }
    }
    if let Err(refusal) = store {
        rows.push(Row::refused(Axis::Store, refusal));
    }
    let driver = used.as_ref().and_then(|(ids, found)| Some(Driver::of(*ids, found.snapshots?)));
    rows.extend(used.map(|(_, found)| found.rows).unwrap_or_default());
    // What comes after a failure stays untried, and is shown as such.
    for (axis, tried) in
        [(Axis::Store, WRITE), (Axis::Ids, "entering"), (Axis::Snapshots, "keeping what a step changes"), (Axis::Steps, "a step")]
    {
        if !rows.iter().any(|row| row.axis == axis) {
            rows.push(Row::new(axis, tried, Outcome::NotTried));
        }
    }
    Report { rows, used: driver }
}

fn ask_engine(preset: Preset, ids: Ids, question: &Question) -> Result<(String, Found), enter::EnterError> {
    let failed = |error: std::io::Error| enter::EnterError::new(enter::Tried::Start, &error);
    let (answers, theirs) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
    let question = serde_json::to_string(question).map_err(|error| failed(error.into()))?;
    let engine = preset.spawn(ids, &[PROBE_ENGINE.into(), question.into()], &[theirs.as_fd()])?;
    drop(theirs);
    let mut text = Vec::new();
    File::from(answers).take(1 << 20).read_to_end(&mut text).map_err(failed)?;
    engine.wait().map_err(failed)?;
    serde_json::from_slice(&text).map_err(|error| failed(error.into()))
}

/// The engine of a probe: what `main` does for [`PROBE_ENGINE`] and one more argument. Started in any other way it fails.
pub fn engine_main(question: &OsStr) -> ExitCode {
    let question = question.to_str().and_then(|text| serde_json::from_str::<Question>(text).ok());
    // The front has heard of an error.
    let (Some(question), Ok(entered)) = (question, enter::become_engine()) else { return ExitCode::FAILURE };
    let Some(answer) = entered.fds.into_iter().next() else { return ExitCode::FAILURE };
    let maps = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let extents = maps.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>().join(", ");
    let found = if question.enter_only { Found::default() } else { try_all(entered.ids, &question) };
    let written = serde_json::to_vec(&(extents, found)).map(|text| File::from(answer).write_all(&text));
    if matches!(written, Ok(Ok(()))) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn try_all(ids: Ids, question: &Question) -> Found {
    let dir = question.store.join(format!("probe-{}", std::process::id()));
    let written = Fresh::new(dir).and_then(|fresh| fresh.fill().map(|()| fresh));
    let fresh = match written {
        Ok(fresh) => fresh,
        Err(error) => return Found { rows: vec![Row::new(Axis::Store, WRITE, failure(&error))], snapshots: None },
    };
    let mut found = Found::default();
    found.rows.push(Row::new(Axis::Store, WRITE, Outcome::Works(format!("{}, {}", question.store.display(), fresh.room()))));
    for (kind, tried) in driver::all_snapshots(ids, question.wish, &fresh.0) {
        match tried {
            Ok(()) => {
                found.rows.push(Row::new(Axis::Snapshots, kind, Outcome::Works(String::new())));
                found.snapshots = found.snapshots.or(Some(kind));
            }
            Err(refusal) => found.rows.push(Row::refused(Axis::Snapshots, refusal)),
        }
    }
    let Some(snapshots) = found.snapshots else { return found };
    for (number, tried, network) in [(1, STEP, Network::Host), (2, STEP_ALONE, Network::None)] {
        let outcome = try_step(&fresh, Driver::of(ids, snapshots), number, network).unwrap_or_else(|error| failure(&error));
        found.rows.push(Row::new(Axis::Steps, tried, outcome));
    }
    found
}

fn try_step(fresh: &Fresh, driver: Driver, number: u32, network: Network) -> Result<Outcome, InitError> {
    let Some(bytes) = exit_program() else {
        let said = "no program for this kind of processor is known to the probe".to_owned();
        return Ok(Outcome::Fails { said, help: None });
    };
    let (root, _memory) = fresh.root(driver.snapshots, number, &bytes)?;
    let spec = Spec {
        foreign: super::Foreign::default(),
        driver,
        argv: vec![OsString::from("/probe")],
        env: Vec::new(),
        cwd: TreePath::root(),
        user: User { uid: 1, gid: 1, groups: Vec::new() },
        root,
        network,
        hostname: "probe".to_owned(),
        mounts: Vec::new(),
        hosts: Vec::new(),
        resolv_conf: Vec::new(),
        limits: Limits::default(),
        groups: None,
        security: Security::Sandbox,
    };
    let (cancel, _open) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(InitError::new("prepare", "step"))?;
    let begun = std::time::Instant::now();
    let finished = run(spec, &cancel, &mut |_, _| {})?;
    match finished.status {
        Status::Exited(0) => {
            let time = format!("{:.1} ms", begun.elapsed().as_secs_f64() * 1000.0);
            let proc = if finished.outer_proc { format!("; {OUTER_PROC}") } else { String::new() };
            Ok(Outcome::Works(time + &proc))
        }
        other @ (Status::Exited(_) | Status::Signalled(_) | Status::Cancelled | Status::OutOfTime | Status::OutOfDisk) => {
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

    /// Writes, and takes it away again: what a full disk or a quota leaves is found by using it.
    fn fill(&self) -> Result<(), InitError> {
        let path = self.0.join("room");
        let failed = || InitError::new("write a MiB in", self.0.display());
        let mut file = File::create(&path).map_err(failed())?;
        file.write_all(&vec![1; ROOM]).and_then(|()| file.sync_all()).map_err(failed())?;
        std::fs::remove_file(&path).map_err(failed())
    }

    /// How much is free, in words.
    fn room(&self) -> String {
        rustix::fs::statvfs(&self.0).map_or_else(
            |_unknown| "free space unknown".to_owned(),
            |found| format!("{} MiB free", found.f_bavail.saturating_mul(found.f_frsize) >> 20),
        )
    }

    /// A root with nothing but a program, which is called `probe`.
    fn root(&self, kind: Snapshots, number: u32, program: &[u8]) -> Result<(Root, Option<Memory>), InitError> {
        let make = |path: PathBuf| {
            std::fs::create_dir(&path).map_err(InitError::new("create", path.display()))?;
            std::fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(InitError::new("create", path.display()))?;
            Ok::<_, InitError>(path)
        };
        let named = |name: &str| self.0.join(format!("{name}{number}"));
        let below = make(named("lower"))?;
        let path = below.join("probe");
        std::fs::write(&path, program).map_err(InitError::new("write", path.display()))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o755)).map_err(InitError::new("write", path.display()))?;
        let (place, memory) = match kind {
            Snapshots::Overlay => (make(named("place"))?, None),
            Snapshots::Memory => {
                let place = make(named("place"))?;
                let memory = Memory::mount(&place)?;
                (place, Some(memory))
            }
            Snapshots::Copy => return Ok((Root::Tree(Tree { dir: below, work: make(named("work"))? }), None)),
        };
        let (upper, work) = (make(place.join("upper"))?, make(place.join("work"))?);
        Ok((Root::Overlay(Overlay { lowers: vec![below], upper, work }), memory))
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
