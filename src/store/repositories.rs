//! Places for bare git repositories: `git/<hex>`, each used under a lock of its name by who fetches into it.

use std::path::PathBuf;

use super::{Error, Store, pin::Pin, remove::remove_all};

impl Store {
    /// Where the repository of a key (hex digits) is, or is to be made. Its user holds a [`Store::lock`] on it.
    pub fn repository(&self, key: &str) -> PathBuf {
        let hex: String = key.chars().filter(char::is_ascii_hexdigit).collect();
        let below = format!("git/{hex}");
        let path = self.root().join(&below);
        self.pin(Pin::Directory(below));
        path
    }

    /// Removes it with all that was fetched.
    pub fn remove_repository(&self, key: &str) -> Result<(), Error> {
        remove_all(&self.repository(key)).map_err(Error::from)
    }
}
