//! `RUN --mount`: what the defaults make of its fields.
//!
//! Source: BuildKit `instructions/commands_runmount.go`, `dockerfile2llb/convert_runmount.go, convert_secrets.go, convert_ssh.go`.

use super::{
    Mount, Origin,
    paths::{base, clean, join, rooted},
};
use crate::dockerfile::{self, MountError, MountKind};

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

/// Fills in the defaults.
pub(super) fn complete(mount: &dockerfile::Mount, place: Place<'_>) -> Result<Mount, MountError> {
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
            complete.size = size
                .map_err(|_negative| MountError::new("the size of a tmpfs is negative", "write a number and a unit, as in `size=64m`"))?;
        }
        MountKind::Secret => return secret(complete, mount, &target, place.dir),
        MountKind::Ssh => return ssh(complete, mount, &target, place.dir, place.sockets),
    }
    complete.target = below(place.dir, &target);
    match (complete.target.as_str(), target.is_empty()) {
        ("/", true) => Err(MountError::new("this mount has no target", "say where it is to be: `target=/path`")),
        ("/", false) => Err(MountError::new(
            format!("the mount's target is `/`, given as `{target}`"),
            "name a directory below it: nothing can cover the root",
        )),
        _ => Ok(complete),
    }
}

fn secret(complete: Mount, mount: &dockerfile::Mount, target: &str, dir: &str) -> Result<Mount, MountError> {
    let named = mount.source.clone().filter(|source| !source.is_empty()).unwrap_or(complete.id);
    let id = match (named.is_empty(), target.is_empty()) {
        (false, _) => named,
        (true, false) => base(target).to_owned(),
        (true, true) => return Err(MountError::new("a secret mount needs a name", "write `type=secret,id=NAME`")),
    };
    let target = match (target.is_empty(), &mount.env) {
        (false, _) => below(dir, target),
        (true, Some(_)) => String::new(),
        (true, None) => below("/run/secrets", base(&id)),
    };
    let env = mount.env.clone().map(|name| if name.is_empty() { id.clone() } else { name });
    if let Some(name) = env.as_ref().filter(|name| name.contains(['=', '\0'])) {
        return Err(MountError::new(format!("`{name}` is not the name of a variable"), "write `env=NAME`"));
    }
    Ok(Mount { id, target, env, from: Origin::Scratch, source: "/".to_owned(), ..complete })
}

fn ssh(complete: Mount, mount: &dockerfile::Mount, target: &str, dir: &str, sockets: usize) -> Result<Mount, MountError> {
    if mount.source.as_deref().is_some_and(|source| !source.is_empty()) {
        return Err(MountError::new("an ssh mount has no `source`", "name the agent with `id`, and its socket with `target`"));
    }
    let id = if complete.id.is_empty() { "default".to_owned() } else { complete.id };
    let target = if target.is_empty() { format!("/run/buildkit/ssh_agent.{sockets}") } else { below(dir, target) };
    Ok(Mount { id, target, from: Origin::Scratch, source: "/".to_owned(), ..complete })
}

/// An absolute and clean path.
fn below(dir: &str, path: &str) -> String {
    if path.starts_with('/') { rooted(path) } else { rooted(&join(dir, path)) }
}

fn id(id: Option<u64>) -> Result<Option<u32>, MountError> {
    let small = id.map(u32::try_from).transpose().ok().filter(|id| *id != Some(u32::MAX));
    small.ok_or_else(|| MountError::new("ids of users and groups are from 0 to 4294967294", "write a smaller number"))
}
