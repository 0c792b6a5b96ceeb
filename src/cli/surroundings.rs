//! What a command finds around it: store, registries, home.

use std::{
    ffi::OsString,
    io::Read as _,
    path::{Path, PathBuf},
};

use super::{args::Global, config, log::Log};
use crate::{
    engine::{
        timing::{By, Laps},
        upkeep::{Chore, Outcome, Work},
    },
    error::{Error, Kind},
    fetch::{Settings, Ssh},
    front::{self, LARGEST_DOCKERFILE, Registries, Remotes},
    registry::Proxies,
    sandbox::driver::{Preset, SnapshotWish},
    store::{Limits, Store},
};

/// What a command finds around it.
#[derive(Debug)]
pub(super) struct Surroundings {
    root: PathBuf,
    /// Where registries are and how they are spoken to.
    pub(super) registries: Registries,
    /// What is far off and no registry.
    pub(super) remotes: Remotes,
    /// What the store may hold.
    pub(super) limits: Limits,
    /// How steps are run, and what they change is kept.
    pub(super) driver: (Preset, SnapshotWish),
    /// What is told of the command's parts.
    pub(super) log: Log,
}

impl Surroundings {
    /// Reads the environment; opens nothing.
    pub(super) fn read(global: &Global, log: Log) -> Result<Self, Error> {
        let mut laps = Laps::begin(By::Front);
        let root = match &global.root {
            Some(root) => root.clone(),
            None => default_root(variable("XDG_DATA_HOME"), variable("HOME"))?,
        };
        let root =
            std::path::absolute(&root).map_err(|error| Error::new(Kind::Environment, "the working directory is gone").because(&error))?;
        let (config, asked_for) = match &global.config {
            Some(path) => (Some(path.clone()), true),
            None => (default_config(variable("XDG_CONFIG_HOME"), variable("HOME")), false),
        };
        let settings = config.map(|path| config::read(&path, asked_for)).transpose()?.unwrap_or_default();
        let remotes = Remotes::new(fetching(proxies()));
        let (registries, limits) = (Registries::new(settings.registries, proxies())?, settings.limits);
        log.phase(&laps.lap("read the environment and the configuration"));
        Ok(Self { root, registries, remotes, limits, driver: (global.driver, global.snapshots), log })
    }

    /// Opens the store.
    pub(super) fn store(&self) -> Result<Store, Error> {
        let mut laps = Laps::begin(By::Front);
        let store = Store::open(&self.root)?.within(self.limits);
        self.log.phase(&laps.lap("opened the store"));
        Ok(store)
    }

    /// Has work on the store done.
    pub(super) fn upkeep(&self, work: Work) -> Result<Outcome, Error> {
        let mut laps = Laps::begin(By::Front);
        let outcome = front::upkeep(&Chore { store: self.root.clone(), limits: self.limits, work }, self.driver.0)?;
        self.log.phase(&laps.lap("had the store looked after by a process with the rights to it"));
        Ok(outcome)
    }
}

/// A variable of the environment that is not empty.
#[expect(clippy::disallowed_methods, reason = "the command line is the room that reads the environment")]
pub(super) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// All of standard input, if it is no larger than a Dockerfile may be.
pub(super) fn stdin() -> Result<Vec<u8>, Error> {
    whole(std::io::stdin().lock())
}

/// All that standard input still has, if it is no larger than a Dockerfile may be.
pub(super) fn whole(from: impl std::io::Read) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    let read = from.take(LARGEST_DOCKERFILE + 1).read_to_end(&mut bytes);
    match read.map_err(|error| Error::new(Kind::Environment, "cannot read standard input").because(&error))? {
        length if length as u64 > LARGEST_DOCKERFILE => {
            Err(Error::new(Kind::Request, format!("the Dockerfile on standard input is larger than {LARGEST_DOCKERFILE} bytes")))
        }
        _ => Ok(bytes),
    }
}

fn default_config(config: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let dir = config.map(PathBuf::from).or_else(|| home.map(|home| Path::new(&home).join(".config")))?;
    Some(dir.join("lapstrake/config.toml"))
}

/// What fetching needs of the environment.
fn fetching(proxies: Proxies) -> Settings {
    let known_hosts = variable("HOME").map(|home| Path::new(&home).join(".ssh/known_hosts"));
    let ssh = Ssh { agent: variable("SSH_AUTH_SOCK").map(PathBuf::from), known_hosts };
    Settings { path: variable("PATH").unwrap_or_default(), proxies, ssh, ..Settings::default() }
}

/// The proxies of the environment; lower case wins, as curl has it.
fn proxies() -> Proxies {
    let either = |name: &str| variable(&name.to_ascii_lowercase()).or_else(|| variable(name)).and_then(|value| value.into_string().ok());
    let none_for = either("NO_PROXY").unwrap_or_default();
    Proxies {
        http: either("HTTP_PROXY"),
        https: either("HTTPS_PROXY"),
        none_for: none_for.split(',').map(|rule| rule.trim().to_owned()).collect(),
    }
}

fn default_root(data: Option<OsString>, home: Option<OsString>) -> Result<PathBuf, Error> {
    match (data, home) {
        (Some(data), _) => Ok(Path::new(&data).join("lapstrake")),
        (None, Some(home)) => Ok(Path::new(&home).join(".local/share/lapstrake")),
        (None, None) => Err(Error::new(Kind::Environment, "there is no home directory to put the store in")
            .help("name a directory with `--root DIR` or LAPSTRAKE_ROOT")),
    }
}
