//! What the store may hold: flags of `prune`, and the section `[store]` of `config.toml`, with buildx's names.

use clap::Args;
use serde::Deserialize;

use crate::{
    dockerfile,
    error::{Error, Kind},
    store::{Amount, Limits},
};

/// The limits as flags.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct LimitFlags {
    /// Keep so much, even if the disk is short of space
    #[arg(long, value_name = "SIZE|N%")]
    reserved_space: Option<String>,
    /// Remove what was not used for longest until no more than this is used
    #[arg(long, value_name = "SIZE|N%")]
    max_used_space: Option<String>,
    /// Remove what was not used for longest until the disk has so much free space
    #[arg(long, value_name = "SIZE|N%")]
    min_free_space: Option<String>,
    /// Remove what was not used for longest until no more files and directories are used
    #[arg(long, value_name = "N|N%")]
    max_used_inodes: Option<String>,
}

/// The same in `config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct LimitSection {
    reserved_space: Option<Written>,
    max_used_space: Option<Written>,
    min_free_space: Option<Written>,
    max_used_inodes: Option<Written>,
}

/// A number, or a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Written {
    Number(u64),
    Text(String),
}

impl LimitFlags {
    /// What was written. `None`: nothing.
    pub(super) fn limits(&self) -> Result<Option<Limits>, Error> {
        let read = |name: &str, text: &Option<String>| {
            let read = |text: &String| amount(text).ok_or_else(|| bad(&format!("--{name}"), text));
            text.as_ref().map(read).transpose()
        };
        let limits = Limits {
            reserved_space: read("reserved-space", &self.reserved_space)?,
            max_used_space: read("max-used-space", &self.max_used_space)?,
            min_free_space: read("min-free-space", &self.min_free_space)?,
            max_used_inodes: read("max-used-inodes", &self.max_used_inodes)?,
        };
        Ok((limits != Limits::default()).then_some(limits))
    }
}

impl LimitSection {
    /// What was written.
    pub(super) fn limits(&self) -> Result<Limits, Error> {
        let read = |name: &str, written: &Option<Written>| match written {
            None => Ok(None),
            Some(Written::Number(number)) => Ok(Some(Amount::Number(*number))),
            Some(Written::Text(text)) => amount(text).map(Some).ok_or_else(|| bad(&format!("`{name}` of [store]"), text)),
        };
        Ok(Limits {
            reserved_space: read("reserved-space", &self.reserved_space)?,
            max_used_space: read("max-used-space", &self.max_used_space)?,
            min_free_space: read("min-free-space", &self.min_free_space)?,
            max_used_inodes: read("max-used-inodes", &self.max_used_inodes)?,
        })
    }
}

fn amount(text: &str) -> Option<Amount> {
    if let Some(percent) = text.strip_suffix('%') {
        return percent.parse().ok().filter(|percent| *percent <= 100).map(Amount::Percent);
    }
    let number = dockerfile::size(text)?;
    u64::try_from(number).ok().map(Amount::Number)
}

fn bad(place: &str, text: &str) -> Error {
    Error::new(Kind::Usage, format!("`{text}` in {place} is no amount"))
        .help("write a number, a size like `500m` or `20GB`, or a part of the file system like `60%`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_is_a_number_a_size_or_a_part() {
        assert_eq!(amount("0"), Some(Amount::Number(0)));
        assert_eq!(amount("20GB"), Some(Amount::Number(20 << 30)));
        assert_eq!(amount("60%"), Some(Amount::Percent(60)));
        assert_eq!(["101%", "-1", "much", "%", ""].map(amount), [None; 5]);
    }

    #[test]
    fn a_flag_that_is_no_amount_is_named() {
        let flags = LimitFlags { max_used_space: Some("lots".into()), ..LimitFlags::default() };
        assert!(flags.limits().unwrap_err().headline.contains("`lots` in --max-used-space"));
        assert_eq!(LimitFlags::default().limits().unwrap(), None);
    }
}
