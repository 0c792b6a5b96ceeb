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

/// The keys that may stand without a value.
const SWITCHES: [&str; 5] = ["readonly", "ro", "readwrite", "rw", "required"];

/// Why a mount cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct MountError {
    /// What is wrong.
    pub message: String,
    /// The field it is about, as written; `None`: the whole mount.
    pub field: Option<String>,
    /// What to do.
    pub help: Option<String>,
}

impl MountError {
    /// About the whole mount.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), field: None, help: Some(help.into()) }
    }

    /// About a field.
    fn at(self, field: &str) -> Self {
        Self { field: Some(field.to_owned()), ..self }
    }
}

impl From<ExpandError> for MountError {
    fn from(error: ExpandError) -> Self {
        Self { message: error.message, field: None, help: error.help }
    }
}

/// `did you mean`, or all there are.
fn meant(word: &str, known: &[&'static str]) -> String {
    match closest(word, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("it is one of {}", ticked(known)),
    }
}

fn ticked(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Reads the value of a `--mount` flag whose variables are already expanded, or that has none. A `,` in an expanded value
/// would be read as the end of a field: use [`expand_mount`].
pub fn parse_mount(text: &str) -> Result<Mount, MountError> {
    read_mount(text, &|value| Ok(value.to_owned()))
}

/// Reads the value of a `--mount` flag as it is written and expands each value, as BuildKit does when it runs the
/// instruction.
pub fn expand_mount(text: &str, escape: char, look_up: &dyn Fn(&str) -> Option<String>) -> Result<Mount, MountError> {
    read_mount(text, &|value| expand(value, escape, Mode::default(), look_up).map(|expanded| expanded.text))
}

/// What the decoder already rejects, before any variable is known.
pub(super) fn check_form(text: &str) -> Result<(), MountError> {
    for field in fields(text)? {
        let Some((key, value)) = field.split_once('=') else { continue };
        let variable = value.find('$').is_some_and(|at| at + 1 < value.len());
        if key.eq_ignore_ascii_case("from") && variable {
            let error =
                MountError::new("`from` cannot hold a variable", "give the image a name with `FROM … AS name` and mount `from=name`");
            return Err(error.at(&field));
        }
    }
    Ok(())
}

/// `from=` of a mount whose variables are not expanded; of two the last.
pub fn mount_from(text: &str) -> Option<String> {
    let fields = fields(text).unwrap_or_default();
    let mut values = fields.iter().filter_map(|field| field.split_once('=')).filter(|(key, _)| key.eq_ignore_ascii_case("from"));
    values.next_back().map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty())
}

fn fields(text: &str) -> Result<Vec<String>, MountError> {
    csv_fields(text).map_err(|words| {
        MountError::new(
            format!("its fields cannot be told apart: {words}"),
            "write `type=…,target=…`; a field with a comma in it is put in double quotes as a whole",
        )
    })
}

/// What is being read.
struct Draft {
    mount: Mount,
    /// Was `ro` or `rw` written?
    readonly: Option<bool>,
}

/// Reads the value of a `--mount` flag as it is written; `value_of` expands a value.
pub fn read_mount(text: &str, value_of: &dyn Fn(&str) -> Result<String, ExpandError>) -> Result<Mount, MountError> {
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
    let fields = fields(text)?;
    for field in &fields {
        let set = match field.split_once('=') {
            Some((key, value)) => value_of(value).map_err(MountError::from).and_then(|value| draft.set(&key.to_lowercase(), &value)),
            None => draft.switch(field),
        };
        set.map_err(|error| error.at(field))?;
    }
    draft.finish().map_err(|(key, error)| {
        let of_key = |field: &&String| field.split('=').next().is_some_and(|name| name.eq_ignore_ascii_case(key));
        match fields.iter().rfind(of_key) {
            Some(field) => error.at(field),
            None => error,
        }
    })
}

/// A key that the type does not have.
fn not_for(key: &str, kind: MountKind, kinds: &[MountKind]) -> MountError {
    let names: Vec<&str> = kinds.iter().map(|kind| word_of(*kind)).collect();
    let help = format!("`{key}` is for mounts of type {}", ticked(&names));
    MountError::new(format!("a mount of type `{}` has no `{key}`", word_of(kind)), help)
}

impl Draft {
    /// A key without a value.
    fn switch(&mut self, field: &str) -> Result<(), MountError> {
        match field.to_lowercase().as_str() {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            key @ "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = true;
            }
            key if KEYS.contains(&key) => {
                return Err(MountError::new(format!("`{field}` has no value"), format!("write `{field}=…`")));
            }
            key => {
                let help = match closest(key, SWITCHES.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("write `key=value`; without a value stand only {}", ticked(&SWITCHES)),
                };
                return Err(MountError::new(format!("`{field}` is not a key with a value"), help));
            }
        }
        Ok(())
    }

    fn only_for(&self, key: &str, kinds: &[MountKind]) -> Result<(), MountError> {
        if kinds.contains(&self.mount.kind) {
            return Ok(());
        }
        let error = not_for(key, self.mount.kind, kinds);
        // Fields are read from left to right.
        Err(MountError { help: error.help.map(|help| help + ", and `type=` stands before it"), ..error })
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), MountError> {
        let text = Some(value.to_owned()).filter(|value| !value.is_empty());
        let bad = |what: &str, help: &str| MountError::new(format!("`{value}` is not {what}"), help);
        let not_bool = || bad("true or false", &format!("write `{key}=true` or `{key}=false`"));
        let not_id = |what: &str| bad(what, &format!("write a number: names are not looked up for a mount, as in `{key}=1000`"));
        match key {
            "type" => self.mount.kind = kind(value)?,
            "from" => self.mount.from = text,
            "source" | "src" => self.mount.source = text,
            "target" | "dst" | "destination" => self.mount.target = text,
            "readonly" | "ro" => self.readonly = Some(boolean(value).ok_or_else(not_bool)?),
            "readwrite" | "rw" => self.readonly = Some(!boolean(value).ok_or_else(not_bool)?),
            "required" => {
                self.only_for(key, &[MountKind::Secret, MountKind::Ssh])?;
                self.mount.required = boolean(value).ok_or_else(not_bool)?;
            }
            "size" => {
                self.only_for(key, &[MountKind::Tmpfs])?;
                self.mount.size = Some(size(value).ok_or_else(|| bad("a size", "write a number and a unit, as in `size=64m`"))?);
            }
            "id" => self.mount.id = text,
            "sharing" => self.mount.sharing = Some(sharing(value)?),
            "mode" => {
                self.mount.mode = Some(unsigned(value, 8).ok_or_else(|| bad("a mode", "write octal digits, as in `mode=0755`"))?);
            }
            "uid" => self.mount.uid = Some(u64::from(unsigned(value, 10).ok_or_else(|| not_id("a user's id"))?)),
            "gid" => self.mount.gid = Some(u64::from(unsigned(value, 10).ok_or_else(|| not_id("a group's id"))?)),
            // Empty, it is the secret's own name.
            "env" => self.mount.env = Some(value.to_owned()),
            _ => return Err(MountError::new(format!("a mount has no key `{key}`"), meant(key, &KEYS))),
        }
        Ok(())
    }

    /// `Err` names the key that is wrong.
    fn finish(self) -> Result<Mount, (&'static str, MountError)> {
        let mut mount = self.mount;
        if matches!(mount.kind, MountKind::Bind | MountKind::Tmpfs) {
            let given = [("mode", mount.mode.is_some()), ("uid", mount.uid.is_some()), ("gid", mount.gid.is_some())];
            if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
                return Err((key, not_for(key, mount.kind, &[MountKind::Cache, MountKind::Secret, MountKind::Ssh])));
            }
        }
        if mount.sharing.is_some() && mount.kind != MountKind::Cache {
            return Err(("sharing", not_for("sharing", mount.kind, &[MountKind::Cache])));
        }
        if mount.kind == MountKind::Secret {
            if mount.from.is_some() {
                return Err(("from", not_for("from", mount.kind, &[MountKind::Bind, MountKind::Cache])));
            }
            if mount.source.is_none() && mount.target.is_none() && mount.id.is_none() {
                let error = MountError::new(
                    "a secret mount needs a name",
                    "write `type=secret,id=NAME`, and give it with `--secret id=NAME,src=FILE`",
                );
                return Err(("type", error));
            }
            if mount.source.is_some() && mount.id.is_some() {
                let error = MountError::new("a secret mount has both a `source` and an `id`", "both name the secret: leave one out");
                return Err(("source", error));
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

fn kind(value: &str) -> Result<MountKind, MountError> {
    Ok(match value.to_lowercase().as_str() {
        "bind" => MountKind::Bind,
        "cache" => MountKind::Cache,
        "tmpfs" => MountKind::Tmpfs,
        "secret" => MountKind::Secret,
        "ssh" => MountKind::Ssh,
        _ => return Err(MountError::new(format!("there is no type of mount `{value}`"), meant(value, &KINDS))),
    })
}

fn sharing(value: &str) -> Result<Sharing, MountError> {
    Ok(match value.to_lowercase().as_str() {
        "shared" => Sharing::Shared,
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        _ => {
            return Err(MountError::new(format!("there is no sharing `{value}`"), meant(value, &["shared", "private", "locked"])));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_found_among_the_fields() {
        assert_eq!(mount_from("type=bind,from=a,target=/x").as_deref(), Some("a"));
        assert_eq!(mount_from("\"FROM=a,b\",target=/x").as_deref(), Some("a,b"));
        assert_eq!(mount_from("type=cache,target=/from=x"), None);
        assert_eq!(mount_from("from=,target=/x"), None);
    }

    #[test]
    fn an_error_names_the_field_that_it_is_about() {
        let field = |text: &str| parse_mount(text).unwrap_err().field;
        assert_eq!(field("type=cache,traget=/x").as_deref(), Some("traget=/x"));
        assert_eq!(field("target=/x,Mode=0755,type=bind").as_deref(), Some("Mode=0755"));
        assert_eq!(field("type=secret,source=a,id=b").as_deref(), Some("source=a"));
        assert_eq!(field("type=secret,src=a,id=b"), None);
        assert_eq!(field("a\"b"), None);
    }
}
