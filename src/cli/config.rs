//! `config.toml`: what holds for registries, and what the store may hold.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["https://mirror.example"]
//! [registry."10.0.0.5:5000"]
//! insecure = true
//! ca = "/etc/ssl/private-ca.pem"
//! [store]
//! max-used-space = "40GB"
//! ```

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::store_limits::LimitSection;
use crate::{
    error::{Error, Kind},
    front::RegistrySettings,
    store::Limits,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
    #[serde(default)]
    store: LimitSection,
}

/// What it says.
#[derive(Debug, Default)]
pub(super) struct Config {
    /// By host.
    pub(super) registries: BTreeMap<String, RegistrySettings>,
    /// Of the store.
    pub(super) limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registry {
    #[serde(default)]
    mirrors: Vec<String>,
    #[serde(default)]
    insecure: bool,
    ca: Option<PathBuf>,
}

/// Reads the file; one that was not asked for need not be there.
pub(super) fn read(path: &Path, asked_for: bool) -> Result<Config, Error> {
    let refused = |error: std::io::Error, path: &Path| Error::new(Kind::Usage, format!("cannot read `{}`", path.display())).because(&error);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !asked_for => return Ok(Config::default()),
        Err(error) => return Err(refused(error, path)),
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        Error::new(Kind::Usage, format!("{}:{line}: {}", path.display(), error.message()))
    })?;
    let limits = file.store.limits()?;
    let mut registries = BTreeMap::new();
    for (host, registry) in file.registry {
        let ca = registry.ca.map(|ca| std::fs::read(&ca).map_err(|error| refused(error, &ca))).transpose()?;
        drop(registries.insert(host, RegistrySettings { mirrors: registry.mirrors, insecure: registry.insecure, ca }));
    }
    Ok(Config { registries, limits })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Amount;

    fn file(text: &str) -> Result<Config, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        read(&path, true)
    }

    #[test]
    fn a_registry_has_mirrors_and_may_be_insecure() {
        let all = file("[registry.\"docker.io\"]\nmirrors = [\"https://mirror.example\"]\n[registry.\"10.0.0.5:5000\"]\ninsecure = true\n")
            .unwrap()
            .registries;
        assert_eq!(all["docker.io"].mirrors, ["https://mirror.example"]);
        assert!(all["10.0.0.5:5000"].insecure);
    }

    #[test]
    fn a_key_that_means_nothing_is_an_error_with_its_line() {
        let error = file("[registry.\"docker.io\"]\n\nmirors = []\n").unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.headline.contains("config.toml:3") && error.headline.contains("mirors"), "{}", error.headline);
    }

    #[test]
    fn the_store_has_limits() {
        let limits = file("[store]\nmax-used-space = \"40GB\"\nmax-used-inodes = 5\nmin-free-space = \"10%\"\n").unwrap().limits;
        assert_eq!(limits.max_used_space, Some(Amount::Number(40 << 30)));
        assert_eq!((limits.max_used_inodes, limits.min_free_space), (Some(Amount::Number(5)), Some(Amount::Percent(10))));
        assert_eq!(limits.reserved_space, None);
        assert!(file("[store]\nmax-used-space = \"much\"\n").unwrap_err().headline.contains("`max-used-space` of [store]"));
        assert!(file("[store]\nmax = 1\n").is_err());
    }

    #[test]
    fn a_file_that_nobody_asked_for_may_be_absent() {
        assert!(read(Path::new("/nonexistent/config.toml"), false).unwrap().registries.is_empty());
        assert!(read(Path::new("/nonexistent/config.toml"), true).is_err());
    }
}
