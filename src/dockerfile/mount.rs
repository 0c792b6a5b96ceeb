//! The value of `RUN --mount=…`.
//!
//! BuildKit reads a mount twice: while decoding only the form of the CSV and `from` are looked at, because other values
//! may hold variables; when the instruction runs, each value is expanded and everything is checked.
//!
//! Source: BuildKit `instructions/commands_runmount.go`.

use super::ast::{Mount, MountKind, Sharing};
use super::values::{boolean, csv_fields, size, unsigned};
use super::{ExpandError, Mode, expand};
use crate::diag::closest;

/// The types of mount, as they are written.
const KINDS: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];
/// The keys that a mount may have.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

fn error<T>(message: impl Into<String>) -> Result<T, ExpandError> {
    Err(ExpandError::new(message))
}

/// A word that is none of those that may stand there.
fn unknown<T>(message: String, word: &str, candidates: &[&'static str]) -> Result<T, ExpandError> {
    let help = match closest(word, candidates.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it is one of `{}`", candidates.join("`, `")),
    };
    Err(ExpandError::new(message).help(help))
}

/// A value that its key cannot have.
fn bad_value(key: &str, value: &str) -> ExpandError {
    let help = match key {
        "size" => "write a number and perhaps a unit: `size=100m`",
        "mode" => "write octal digits: `mode=0755`",
        "uid" | "gid" => "write a number: `uid=1000`",
        _ => "write `true` or `false`",
    };
    ExpandError::new(format!("`{value}` is no value for `{key}`")).help(help)
}

/// Reads the value of a `--mount` flag whose variables are already expanded, or that has none; `Err` holds
/// BuildKit's words. A `,` in an expanded value would be read as the end of a field: use [`expand_mount`].
pub fn parse_mount(text: &str) -> Result<Mount, ExpandError> {
    read(text, &|value| Ok(value.to_owned()))
}

/// Reads the value of a `--mount` flag as it is written and expands each value, as BuildKit does when it runs the
/// instruction.
pub fn expand_mount(text: &str, escape: char, look_up: &dyn Fn(&str) -> Option<String>) -> Result<Mount, ExpandError> {
    read(text, &|value| expand(value, escape, Mode::default(), look_up).map(|expanded| expanded.text))
}

/// What the decoder already rejects, before any variable is known.
pub(super) fn check_form(text: &str) -> Result<(), ExpandError> {
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let variable = value.find('$').is_some_and(|at| at + 1 < value.len());
        if key.eq_ignore_ascii_case("from") && variable {
            return error("`from` cannot hold a variable");
        }
    }
    Ok(())
}

fn fields(text: &str) -> Result<Vec<String>, ExpandError> {
    csv_fields(text).or_else(|words| error(format!("failed to parse csv mounts: {words}")))
}

/// What is being read.
struct Draft {
    mount: Mount,
    /// Was `ro` or `rw` written?
    readonly: Option<bool>,
}

fn read(text: &str, value_of: &dyn Fn(&str) -> Result<String, ExpandError>) -> Result<Mount, ExpandError> {
    let mount = Mount {
        kind: MountKind::Bind,
        target: None,
        source: None,
        from: None,
        id: None,
        sharing: None,
        mode: None,
        uid: None,
        gid: None,
        required: false,
        readonly: true,
        size: None,
        env: None,
    };
    let mut draft = Draft { mount, readonly: None };
    for field in fields(text)? {
        match field.split_once('=') {
            Some((key, value)) => draft.set(&key.to_lowercase(), &value_of(value)?, &field)?,
            None => draft.switch(&field)?,
        }
    }
    draft.finish()
}

impl Draft {
    /// A key without a value.
    fn switch(&mut self, field: &str) -> Result<(), ExpandError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            key @ "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = true;
            }
            _ => {
                let help = "write `key=value`; words alone are `ro`, `rw` and `required`";
                return Err(ExpandError::new(format!("invalid field `{field}`: it must be a key=value pair")).help(help));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountKind]) -> Result<(), ExpandError> {
        if kinds.contains(&self.mount.kind) {
            return Ok(());
        }
        let names: Vec<&str> = kinds.iter().map(|kind| word_of(*kind)).collect();
        let help = format!("leave it out: it belongs to mounts of type {}", names.join(" and "));
        Err(ExpandError::new(format!("unexpected key `{key}` for mount type `{}`", word_of(self.mount.kind))).help(help))
    }

    fn set(&mut self, key: &str, value: &str, field: &str) -> Result<(), ExpandError> {
        let text = Some(value.to_owned()).filter(|value| !value.is_empty());
        let bad = || bad_value(key, value);
        match key {
            "type" => self.mount.kind = kind(value)?,
            "from" => self.mount.from = text,
            "source" | "src" => self.mount.source = text,
            "target" | "dst" | "destination" => self.mount.target = text,
            "readonly" | "ro" => self.readonly = Some(boolean(value).ok_or_else(bad)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(value).ok_or_else(bad)?),
            "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = boolean(value).ok_or_else(bad)?;
            }
            "size" => {
                self.only_for(key, &[MountKind::Tmpfs])?;
                self.mount.size = Some(size(value).ok_or_else(bad)?);
            }
            "id" => self.mount.id = text,
            "sharing" => self.mount.sharing = Some(sharing(value)?),
            "mode" => self.mount.mode = Some(unsigned(value, 8).ok_or_else(bad)?),
            "uid" => self.mount.uid = Some(u64::from(unsigned(value, 10).ok_or_else(bad)?)),
            "gid" => self.mount.gid = Some(u64::from(unsigned(value, 10).ok_or_else(bad)?)),
            "env" => self.mount.env = text,
            _ => return unknown(format!("unexpected key `{key}` in `{field}`"), key, &KEYS),
        }
        Ok(())
    }

    fn finish(self) -> Result<Mount, ExpandError> {
        let mut mount = self.mount;
        let kind = word_of(mount.kind);
        if matches!(mount.kind, MountKind::Bind | MountKind::Tmpfs) {
            let given = [("mode", mount.mode.is_some()), ("uid", mount.uid.is_some()), ("gid", mount.gid.is_some())];
            if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
                return Err(ExpandError::new(format!("`{key}` not allowed for mounts of type `{kind}`")).help("leave it out"));
            }
        }
        if mount.sharing.is_some() && mount.kind != MountKind::Cache {
            let help = "leave it out: only caches are shared";
            return Err(ExpandError::new(format!("invalid cache sharing set for a mount of type `{kind}`")).help(help));
        }
        if mount.kind == MountKind::Secret {
            if mount.from.is_some() {
                return Err(
                    ExpandError::new("a secret mount should not have a `from`").help("leave it out: a secret comes with `--secret`")
                );
            }
            if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
                return Err(ExpandError::new("invalid secret mount: it names no secret")
                    .help("add `id=NAME`, and build with `--secret id=NAME,src=FILE`"));
            }
            if mount.source.is_some() && mount.id.is_some() {
                return Err(ExpandError::new("both `source` and `id` can't be set").help("remove one: they mean the same"));
            }
        }
        mount.readonly = self.readonly.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
        Ok(mount)
    }
}

/// The word for a kind.
pub(super) fn word_of(kind: MountKind) -> &'static str {
    match kind {
        MountKind::Bind => "bind",
        MountKind::Cache => "cache",
        MountKind::Tmpfs => "tmpfs",
        MountKind::Secret => "secret",
        MountKind::Ssh => "ssh",
    }
}

fn kind(value: &str) -> Result<MountKind, ExpandError> {
    Ok(match value.to_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => return unknown(format!("unsupported mount type `{value}`"), value, &KINDS),
    })
}

fn sharing(value: &str) -> Result<Sharing, ExpandError> {
    Ok(match value.to_lowercase().as_str() {
        "shared" => Sharing::Shared,
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        _ => return unknown(format!("unsupported sharing value `{value}`"), value, &["shared", "private", "locked"]),
    })
}
