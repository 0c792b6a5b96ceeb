//! How steps are run: three axes, each chosen by really trying, and the presets that name combinations.
//!
//! - *ids*: which owners there can be inside, and so how the engine is entered. The front tries them ([`Preset::ids`])
//!   by starting an engine.
//! - *snapshots*: how what a step changes is kept apart from what it began with. The engine tries them in the store's
//!   directory ([`snapshots`]).
//! - *isolation*: what a step is confined by; it follows from the ids.
//!
//! What is tried, offered on the command line and shown by `doctor` is what [`IDS`] and [`SNAPSHOTS`] list, in order of
//! preference: a way of running that is being built is in neither.

use std::{ffi::OsString, fmt, os::fd::BorrowedFd, path::Path};

use serde::{Deserialize, Serialize};

use super::{InitError, Memory, enter, overlay};

/// The ids that can be entered with.
const IDS: &[Ids] = &[Ids::Full, Ids::Single, Ids::Host];

/// The ways to keep changes.
const SNAPSHOTS: &[Snapshots] = &[Snapshots::Overlay, Snapshots::Memory, Snapshots::Copy];

/// Which ids there are inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ids {
    /// Two or more, mapped by the kernel.
    Full,
    /// One; a supervisor keeps owners.
    Single,
    /// The machine's own: root without a user namespace.
    Host,
}

/// How what a step changes is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Snapshots {
    /// An overlay whose upper directory is in the store.
    Overlay,
    /// An overlay whose upper directory is in memory: the store's file system can only be read through one.
    Memory,
    /// A copy of the whole tree, compared afterwards.
    Copy,
}

/// What a step is confined by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Isolation {
    /// Its own user, mount, pid, ipc and uts namespaces.
    Namespaces,
    /// A changed root directory, which is no confinement against a hostile step.
    Chroot,
}

/// A combination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Driver {
    /// Which ids there are inside.
    pub ids: Ids,
    /// How what a step changes is kept.
    pub snapshots: Snapshots,
    /// What a step is confined by.
    pub isolation: Isolation,
}

/// What `--driver` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Preset {
    /// The first that works.
    Auto,
    /// Many ids, in namespaces.
    Userns,
    /// One id, in namespaces.
    UsernsSingle,
    /// Root without namespaces.
    Chroot,
    /// Nothing is run.
    None,
}

/// What `--snapshots` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum SnapshotWish {
    /// The first that works.
    Auto,
    /// An overlay, wherever its upper directory can be.
    Overlay,
    /// A copy.
    Copy,
}

/// Something that was tried and does not work here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// What: a word of one of the axes.
    pub tried: String,
    /// What the kernel said, and what that means.
    pub said: String,
    /// What to do about it, if that is known: a command, or a sentence.
    pub help: Option<String>,
}

impl Driver {
    /// The combination with these ids: the isolation follows.
    pub fn of(ids: Ids, snapshots: Snapshots) -> Self {
        let isolation = match ids {
            Ids::Full | Ids::Single => Isolation::Namespaces,
            Ids::Host => Isolation::Chroot,
        };
        Self { ids, snapshots, isolation }
    }

    /// What a step cannot do, or what is not promised of it, with this combination: one line each.
    pub fn limits(self) -> Vec<&'static str> {
        let ids: &[&str] = match self.ids {
            Ids::Full => {
                &["the kernel refuses device nodes, `chattr +i`, attributes of other name spaces than `user` and `security.capability`"]
            }
            Ids::Single => &[
                "the kernel refuses device nodes, `chattr +i`, attributes of other name spaces than `user` and `security.capability`",
                "owners are kept by a supervisor: calls that make or look at files take longer, a program that is not root may read what only others may, 32-bit programs are killed; see docs/single-id.md",
            ],
            Ids::Host => &["a step is root of this machine or container, less what it has given up"],
        };
        let snapshots: &[&str] = match self.snapshots {
            Snapshots::Overlay => &[],
            Snapshots::Memory => &["what a step changes is held in memory until its layer is written"],
            Snapshots::Copy => {
                &["each step takes the time and the space of a copy of its whole tree, where the file system shares no blocks"]
            }
        };
        let isolation: &[&str] = match self.isolation {
            Isolation::Namespaces => &[],
            Isolation::Chroot => &[
                "a step is not confined: it can see and end other processes, and leave its root; build only what you trust",
                "there is no /proc in a step, no tmpfs mount, no network of its own",
            ],
        };
        [ids, snapshots, isolation].concat()
    }
}

impl Preset {
    const ALL: [Self; 5] = [Self::Auto, Self::Userns, Self::UsernsSingle, Self::Chroot, Self::None];

    /// Those that can be asked for, by the names that they have on the command line.
    pub fn offered() -> impl Iterator<Item = (&'static str, Self)> {
        Self::ALL.into_iter().filter(|preset| *preset == Self::None || !preset.ids().is_empty()).map(|preset| (preset.name(), preset))
    }

    /// The ids to try, in this order. Whoever is not root cannot be root of the host.
    pub fn ids(self) -> Vec<Ids> {
        let root = rustix::process::geteuid().is_root();
        let wanted = |ids: &Ids| match self {
            Self::Auto => *ids != Ids::Host || root,
            Self::Userns => *ids == Ids::Full,
            Self::UsernsSingle => *ids == Ids::Single,
            Self::Chroot => *ids == Ids::Host,
            Self::None => false,
        };
        IDS.iter().copied().filter(wanted).collect()
    }

    /// An engine with these ids, if they may be used without being asked for.
    ///
    /// Steps with the host's ids are not confined. In an ordinary container, whose root may mount nothing, that costs the
    /// container; where root may mount it is the machine's, or as good as it, and can make user namespaces possible instead.
    pub fn spawn(self, ids: Ids, args: &[OsString], fds: &[BorrowedFd<'_>]) -> Result<enter::EngineProcess, enter::EnterError> {
        if self == Self::Auto && ids == Ids::Host && enter::may_mount() {
            return Err(enter::EnterError::not_asked_for());
        }
        enter::spawn_engine(ids, args, &[], fds)
    }

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Userns => "userns",
            Self::UsernsSingle => "userns-single",
            Self::Chroot => "chroot",
            Self::None => "none",
        }
    }
}

impl SnapshotWish {
    const ALL: [Self; 3] = [Self::Auto, Self::Overlay, Self::Copy];

    /// Those that can be asked for, by the names that they have on the command line.
    pub fn offered() -> impl Iterator<Item = (&'static str, Self)> {
        Self::ALL.into_iter().filter(|wish| SNAPSHOTS.iter().any(|kind| wish.takes(*kind))).map(|wish| (wish.name(), wish))
    }

    fn takes(self, kind: Snapshots) -> bool {
        match self {
            Self::Auto => true,
            Self::Overlay => kind != Snapshots::Copy,
            Self::Copy => kind == Snapshots::Copy,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Overlay => "overlay",
            Self::Copy => "copy",
        }
    }
}

/// The first of the wished ways to keep changes that works in `dir`, an empty directory of the store's file system, and
/// what was refused before it. Called in the engine.
pub fn snapshots(ids: Ids, wish: SnapshotWish, dir: &Path) -> (Option<Snapshots>, Vec<Refusal>) {
    let mut refused = Vec::new();
    for (kind, tried) in all_snapshots(ids, wish, dir) {
        match tried {
            Ok(()) => return (Some(kind), refused),
            Err(refusal) => refused.push(refusal),
        }
    }
    (None, refused)
}

/// Each of the wished ways to keep changes, tried when it is asked for.
pub(super) fn all_snapshots(ids: Ids, wish: SnapshotWish, dir: &Path) -> impl Iterator<Item = (Snapshots, Result<(), Refusal>)> {
    // Without namespaces nothing is mounted.
    let possible = move |kind: &Snapshots| wish.takes(*kind) && (ids != Ids::Host || *kind == Snapshots::Copy);
    let tried = move |kind: Snapshots| (kind, try_snapshots(kind, dir).map_err(|error| Refusal::of(kind, &error)));
    SNAPSHOTS.iter().copied().filter(possible).map(tried)
}

fn try_snapshots(kind: Snapshots, dir: &Path) -> Result<(), InitError> {
    match kind {
        Snapshots::Overlay => try_overlay(dir),
        Snapshots::Memory => try_memory(dir),
        // It needs nothing of the kernel.
        Snapshots::Copy => Ok(()),
    }
}

/// Mounts one, and an overlay that has its upper directory in it and its lower one in the store.
fn try_memory(dir: &Path) -> Result<(), InitError> {
    let place = dir.join("try-memory");
    std::fs::create_dir(&place).map_err(InitError::new("create", place.display()))?;
    let memory = Memory::mount(&place)?;
    let [lower, upper, work] = [dir.join("try-lower"), place.join("upper"), place.join("work")];
    for path in [&lower, &upper, &work] {
        std::fs::create_dir(path).map_err(InitError::new("create", path.display()))?;
    }
    let mounted = overlay::merge(std::slice::from_ref(&lower), Some(&overlay::Writable { upper: &upper, work: &work })).map(drop);
    drop(memory);
    for path in [&lower, &place] {
        // What stays is swept with the directory.
        std::fs::remove_dir_all(path).ok();
    }
    mounted
}

/// Mounts an overlay on three new directories, which are gone afterwards.
fn try_overlay(dir: &Path) -> Result<(), InitError> {
    let [lower, upper, work] = ["try-lower", "try-upper", "try-work"].map(|name| dir.join(name));
    let all = [&lower, &upper, &work];
    for path in all {
        std::fs::create_dir(path).map_err(InitError::new("create", path.display()))?;
    }
    let mounted = overlay::merge(std::slice::from_ref(&lower), Some(&overlay::Writable { upper: &upper, work: &work })).map(drop);
    for path in all {
        // What stays is swept with the directory.
        std::fs::remove_dir_all(path).ok();
    }
    mounted
}

impl Refusal {
    /// Of an engine that could not be entered.
    pub fn of_ids(ids: Ids, error: &enter::EnterError) -> Self {
        let help = error.knob.as_ref().and_then(enter::Knob::help);
        Self { tried: ids.to_string(), said: error.to_string(), help }
    }

    fn of(kind: Snapshots, error: &InitError) -> Self {
        Self { tried: kind.to_string(), said: error.to_string(), help: error.help().map(str::to_owned) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.tried, self.said)
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "a full map of ids",
            Self::Single => "a single id",
            Self::Host => "the host's ids",
        })
    }
}

impl fmt::Display for Snapshots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Overlay => "overlay",
            Self::Memory => "overlay in memory",
            Self::Copy => "copies",
        })
    }
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Namespaces => "namespaces",
            Self::Chroot => "chroot",
        })
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.ids, self.snapshots, self.isolation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preset_is_offered_if_there_are_ids_for_it() {
        let offered: Vec<&str> = Preset::offered().map(|(name, _)| name).collect();
        assert!(offered.starts_with(&["auto", "userns"]) && offered.ends_with(&["none"]), "{offered:?}");
        assert_eq!(offered.contains(&"userns-single"), IDS.contains(&Ids::Single));
        assert_eq!(offered.contains(&"chroot"), IDS.contains(&Ids::Host));
        assert_eq!(Preset::None.ids(), []);
    }

    #[test]
    fn a_wish_for_an_overlay_never_copies() {
        assert!(SnapshotWish::Overlay.takes(Snapshots::Memory) && !SnapshotWish::Overlay.takes(Snapshots::Copy));
        assert!(!SnapshotWish::Copy.takes(Snapshots::Overlay) && SnapshotWish::Auto.takes(Snapshots::Copy));
    }

    #[test]
    fn ids_of_the_host_mean_no_namespaces() {
        assert_eq!(Driver::of(Ids::Host, Snapshots::Copy).isolation, Isolation::Chroot);
        assert_eq!(Driver::of(Ids::Single, Snapshots::Memory).to_string(), "a single id, overlay in memory, namespaces");
    }
}
