//! `RUN --mount`: comma-separated fields whose values are expanded one by one, and what the defaults make of them.
//!
//! Source: BuildKit `instructions/commands_runmount.go`, `dockerfile2llb/convert_runmount.go, convert_secrets.go, convert_ssh.go`.

use super::{
    Mount, Origin,
    paths::{base, clean, join, rooted},
};
use crate::dockerfile::{self, ExpandError, MountKind};

/// `from=` of an unexpanded value; of two the last.
pub(super) fn from_of(text: &str) -> Option<String> {
    let fields = fields(text).unwrap_or_default();
    let mut values = fields.iter().filter_map(|field| field.split_once('=')).filter(|(key, _)| key.eq_ignore_ascii_case("from"));
    values.next_back().map(|(_, value)| value.to_owned()).filter(|value| !value.is_empty())
}

/// Expands the value of each field. A value may hold a comma then, so the text is written anew.
pub(super) fn expanded(text: &str, expand: &dyn Fn(&str) -> Result<String, ExpandError>) -> Result<String, ExpandError> {
    let mut written = Vec::new();
    for field in fields(text)? {
        written.push(quoted(&match field.split_once('=') {
            Some((key, value)) => format!("{key}={}", expand(value)?),
            None => field,
        }));
    }
    Ok(written.join(","))
}

/// The fields of one CSV record.
fn fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, tail) = rest.split_once(',').map_or((rest, None), |(field, tail)| (field, Some(tail)));
            if field.contains('"') {
                return Err(format!("a quote stands inside the field `{field}`"));
            }
            fields.push(field.to_owned());
            match tail {
                Some(tail) => rest = tail,
                None => return Ok(fields),
            }
            continue;
        };
        let (field, tail) = unquoted(quoted)?;
        fields.push(field);
        match tail.strip_prefix(',') {
            Some(tail) => rest = tail,
            None if tail.is_empty() => return Ok(fields),
            None => return Err(format!("`{tail}` follows a quoted field")),
        }
    }
}

/// What stands before the closing quote, and what follows it.
fn unquoted(text: &str) -> Result<(String, &str), String> {
    let mut field = String::new();
    let mut rest = text;
    while let Some((part, tail)) = rest.split_once('"') {
        field.push_str(part);
        match tail.strip_prefix('"') {
            Some(tail) => {
                field.push('"');
                rest = tail;
            }
            None => return Ok((field, tail)),
        }
    }
    Err("a quote is not closed".to_owned())
}

fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\n', '\r']) || field.starts_with(' ') {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

/// What a mount is relative to.
pub(super) struct Place<'a> {
    /// The working directory.
    pub(super) dir: &'a str,
    /// What `from` names; without `from` the context.
    pub(super) from: Origin,
    /// What the ids of caches begin with, if anything.
    pub(super) namespace: &'a str,
    /// How many ssh mounts the instruction has before this one.
    pub(super) sockets: usize,
}

/// Fills in the defaults; `Err` says what is wrong.
pub(super) fn complete(mount: &dockerfile::Mount, place: Place<'_>) -> Result<Mount, ExpandError> {
    let mut complete = Mount {
        kind: mount.kind,
        target: String::new(),
        from: place.from,
        source: rooted(mount.source.as_deref().unwrap_or_default()),
        id: mount.id.clone().unwrap_or_default(),
        sharing: mount.sharing,
        mode: mount.mode,
        uid: id(mount.uid)?,
        gid: id(mount.gid)?,
        required: mount.required,
        readonly: mount.readonly,
        size: None,
        env: None,
    };
    let target = mount.target.clone().unwrap_or_default();
    match mount.kind {
        MountKind::Bind => {}
        MountKind::Cache => {
            if complete.id.is_empty() {
                complete.id = clean(&target);
            }
            if !place.namespace.is_empty() {
                complete.id = format!("{}/{}", place.namespace, complete.id);
            }
            if mount.from.as_deref().unwrap_or_default().is_empty() {
                complete.from = Origin::Scratch;
            }
            // A part of a tree has an owner and a mode already.
            if complete.source != "/" {
                (complete.mode, complete.uid, complete.gid) = (None, None, None);
            }
        }
        MountKind::Tmpfs => {
            complete.from = Origin::Scratch;
            "/".clone_into(&mut complete.source);
            let size = mount.size.filter(|size| *size != 0).map(u64::try_from).transpose();
            complete.size =
                size.map_err(|_negative| ExpandError::new("the size of a tmpfs is not negative").help("write it without the sign"))?;
        }
        MountKind::Secret => return secret(complete, mount, &target, place.dir),
        MountKind::Ssh => return ssh(complete, mount, &target, place.dir, place.sockets),
    }
    complete.target = below(place.dir, &target);
    match (complete.target.as_str(), target.as_str()) {
        ("/", "") => Err(ExpandError::new("this mount has no target").help("add `target=/path`")),
        ("/", _) => Err(ExpandError::new("the mount's target is `/`").help("mount it below the root: `target=/path`")),
        _ => Ok(complete),
    }
}

fn secret(complete: Mount, mount: &dockerfile::Mount, target: &str, dir: &str) -> Result<Mount, ExpandError> {
    let named = mount.source.clone().filter(|source| !source.is_empty()).unwrap_or(complete.id);
    let id = match (named.is_empty(), target.is_empty()) {
        (false, _) => named,
        (true, false) => base(target).to_owned(),
        (true, true) => return Err(ExpandError::new("a secret mount needs an id or a target").help("add `id=NAME`")),
    };
    let target = match (target.is_empty(), &mount.env) {
        (false, _) => below(dir, target),
        (true, Some(_)) => String::new(),
        (true, None) => below("/run/secrets", base(&id)),
    };
    let env = mount.env.clone().map(|name| if name.is_empty() { id.clone() } else { name });
    if let Some(name) = env.as_ref().filter(|name| name.contains(['=', '\0'])) {
        return Err(ExpandError::new(format!("`{name}` is not the name of a variable")).help("write `env=NAME`"));
    }
    Ok(Mount { id, target, env, from: Origin::Scratch, source: "/".to_owned(), ..complete })
}

fn ssh(complete: Mount, mount: &dockerfile::Mount, target: &str, dir: &str, sockets: usize) -> Result<Mount, ExpandError> {
    if mount.source.as_deref().is_some_and(|source| !source.is_empty()) {
        return Err(ExpandError::new("an ssh mount has no source").help("remove it; `id=NAME` says which key or agent"));
    }
    let id = if complete.id.is_empty() { "default".to_owned() } else { complete.id };
    let target = if target.is_empty() { format!("/run/buildkit/ssh_agent.{sockets}") } else { below(dir, target) };
    Ok(Mount { id, target, from: Origin::Scratch, source: "/".to_owned(), ..complete })
}

/// An absolute and clean path.
fn below(dir: &str, path: &str) -> String {
    if path.starts_with('/') { rooted(path) } else { rooted(&join(dir, path)) }
}

fn id(id: Option<u64>) -> Result<Option<u32>, ExpandError> {
    id.map(u32::try_from).transpose().map_err(|_large| ExpandError::new("a user or group id has 32 bits").help("write a smaller number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_found_among_the_fields() {
        assert_eq!(from_of("type=bind,from=a,target=/x").as_deref(), Some("a"));
        assert_eq!(from_of("\"FROM=a,b\",target=/x").as_deref(), Some("a,b"));
        assert_eq!(from_of("type=cache,target=/from=x"), None);
        assert_eq!(from_of("from=,target=/x"), None);
    }

    #[test]
    fn values_are_expanded_one_by_one() {
        let expand = |value: &str| Ok(value.replace("$A", "x,\"y"));
        assert_eq!(expanded("type=cache,id=$A,ro", &expand).unwrap(), "type=cache,\"id=x,\"\"y\",ro");
        assert_eq!(fields("type=cache,\"id=x,\"\"y\",ro").unwrap(), ["type=cache", "id=x,\"y", "ro"]);
        for text in ["\"a", "\"a\"b", "a\"b"] {
            assert!(fields(text).is_err(), "{text}");
        }
    }
}
