//! `config.toml`: what holds for registries.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["https://mirror.example"]
//! [registry."10.0.0.5:5000"]
//! insecure = true
//! ca = "/etc/ssl/private-ca.pem"
//! ```

use std::{
    collections::BTreeMap,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use crate::{
    error::{Error, Kind},
    front::RegistrySettings,
};

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    registry: BTreeMap<String, Registry>,
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
pub(super) fn read(path: &Path, asked_for: bool) -> Result<BTreeMap<String, RegistrySettings>, Error> {
    let refused = |error: std::io::Error, path: &Path| Error::new(Kind::Usage, format!("cannot read `{}`", path.display())).because(&error);
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !asked_for => return Ok(BTreeMap::new()),
        Err(error) => return Err(refused(error, path)),
    };
    let file: File = toml::from_str(&text).map_err(|error| {
        let line = error.span().map_or(0, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
        Error::new(Kind::Usage, format!("{}:{line}: {}", path.display(), error.message()))
    })?;
    let mut all = BTreeMap::new();
    for (host, registry) in file.registry {
        let ca = registry.ca.map(|ca| std::fs::read(&ca).map_err(|error| refused(error, &ca))).transpose()?;
        drop(all.insert(host, RegistrySettings { mirrors: registry.mirrors, insecure: registry.insecure, ca }));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> Result<BTreeMap<String, RegistrySettings>, Error> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, text).unwrap();
        read(&path, true)
    }

    #[test]
    fn a_registry_has_mirrors_and_may_be_insecure() {
        let all = file("[registry.\"docker.io\"]\nmirrors = [\"https://mirror.example\"]\n[registry.\"10.0.0.5:5000\"]\ninsecure = true\n")
            .unwrap();
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
    fn a_file_that_nobody_asked_for_may_be_absent() {
        assert!(read(Path::new("/nonexistent/config.toml"), false).unwrap().is_empty());
        assert!(read(Path::new("/nonexistent/config.toml"), true).is_err());
    }
}
