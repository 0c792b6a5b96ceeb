//! `RUN --mount`: what is selected before the key, and what is mounted after a miss.

use std::{
    ffi::OsString,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::ffi::OsStringExt as _,
    },
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    build::{At, Site, end},
    copying, fault,
};
use crate::{
    cache::{self, Fields, Outcome},
    error::{Error, Kind},
    layer,
    plan::{Mount, MountKind, Origin, Run, Sharing},
    rootfs::{Draft, Placement, Selection},
    sandbox::{self, MountSource, Overlay, Socket},
    store::Lock,
    tree::{Chain, TreePath},
};

/// A mount with the files that it shows; their digest is in the step's key.
pub(super) struct Selected {
    pub(super) number: usize,
    pub(super) mount: Mount,
    pub(super) selection: Option<Selection>,
}

/// What a sandbox is given.
#[derive(Default)]
pub(super) struct Prepared {
    pub(super) mounts: Vec<sandbox::Mount>,
    /// Variables made of secrets.
    pub(super) env: Vec<OsString>,
    /// To be held until the step has ended.
    pub(super) held: Held,
}

/// What a step needs besides while it runs.
#[derive(Default)]
pub(super) struct Held {
    /// Of cache mounts.
    locks: Vec<Lock>,
    /// Sockets of ssh agents, each with an end of a pipe: when it closes, the front serves the agent no longer.
    sockets: Vec<(Socket, OwnedFd)>,
}

/// Selects the files of bind mounts; refuses what the engine cannot do at its place.
pub(super) fn select(site: &Site<'_>, at: At<'_>, run: &Run) -> Result<Vec<Selected>, Error> {
    let mut all = Vec::new();
    for (number, mount) in run.mounts.iter().enumerate() {
        let selection = match mount.kind {
            MountKind::Bind => Some(copying::select_subtree(site, &mount.from, &mount.source).map_err(|error| place(error, at, number))?),
            MountKind::Cache if mount.from != Origin::Scratch && mount.from != Origin::Context => {
                return Err(refused(
                    at,
                    number,
                    "a cache mount cannot be filled with `from=`",
                    "copy the files into the cache in the step itself",
                ));
            }
            MountKind::Cache | MountKind::Tmpfs | MountKind::Secret | MountKind::Ssh => None,
        };
        all.push(Selected { number, mount: mount.clone(), selection });
    }
    Ok(all)
}

fn place(error: Error, at: At<'_>, number: usize) -> Error {
    fault::at(error, at.step, &format!("mount {number}"), "asked for here")
}

fn refused(at: At<'_>, number: usize, headline: &str, help: &str) -> Error {
    fault::refused(at.step, &format!("mount {number}"), headline, help)
}

/// Makes everything ready to be mounted; `scratch` is the step's own directory.
pub(super) fn prepare(site: &Site<'_>, at: At<'_>, selected: &[Selected], scratch: &Path) -> Result<Prepared, Error> {
    let mut prepared = Prepared::default();
    for each in selected {
        let mount = &each.mount;
        let target = || {
            TreePath::clean(mount.target.as_bytes()).map_err(|error| place(Error::new(Kind::Request, error.to_string()), at, each.number))
        };
        let what = match mount.kind {
            MountKind::Bind => Some(bind(site, each, scratch).map_err(|error| place(error, at, each.number))?),
            MountKind::Tmpfs => Some(MountSource::Tmpfs(mount.size)),
            MountKind::Cache => Some(cache_dir(site, mount, &mut prepared).map_err(|error| place(error, at, each.number))?),
            MountKind::Secret => secret(site, each, at, &mut prepared)?,
            MountKind::Ssh => agent(site, each, at, scratch, &mut prepared)?,
        };
        if let Some(what) = what {
            prepared.mounts.push(sandbox::Mount { target: target()?, what, readonly: mount.readonly });
        }
    }
    Ok(prepared)
}

/// A view of trees; what the step writes there is thrown away.
fn bind(site: &Site<'_>, each: &Selected, scratch: &Path) -> Result<MountSource, Error> {
    let (lowers, inside) = match &each.mount.from {
        Origin::Context | Origin::Named(_) => {
            let Some(selection) = &each.selection else { return Err(Error::new(Kind::Bug, "a bind mount without a selection")) };
            materialise(site, selection)?
        }
        Origin::Stage(_) | Origin::Image(_) | Origin::Scratch => {
            let layers = match &each.mount.from {
                Origin::Stage(id) => end(site, &site.job.plan, *id).unwrap_or_default().layers,
                Origin::Image(image) => super::snapshot::Snapshot::of_image(image).layers,
                Origin::Scratch | Origin::Context | Origin::Named(_) => Vec::new(),
            };
            let chain = site.trees.chain(&layers)?;
            let path = TreePath::clean(each.mount.source.as_bytes()).map_err(|error| Error::new(Kind::Request, error.to_string()))?;
            let inside = chain.resolve(&path, true).map_err(|error| Error::new(Kind::Request, error.to_string()))?;
            (site.trees.overlay_dirs(&layers)?, inside)
        }
    };
    let own = scratch.join(format!("mount-{}", each.number));
    drop(crate::sys::dir::make_root(&own)?);
    let (upper, work) = (own.join("upper"), own.join("work"));
    drop(crate::sys::dir::make_root(&upper)?);
    drop(crate::sys::dir::make_root(&work)?);
    Ok(MountSource::Overlay(Overlay { lowers, upper, work }, inside))
}

/// The name under which a context's files stand in the tree that is made of them.
const INSIDE: &[u8] = b"source";

/// A tree of selected context files, made once for the same files.
fn materialise(site: &Site<'_>, selection: &Selection) -> Result<(Vec<PathBuf>, TreePath), Error> {
    let fields = Fields::new().field("kind", "bind mount of context files").field("files", selection.digest());
    let inside = TreePath::root().join(INSIDE).map_err(|error| Error::new(Kind::Bug, error.to_string()))?;
    let known = cache::look_up(site.store, &fields.key())?.filter(|known| site.store.any_layer_blob(&known.diff_id).is_some());
    let diff_id = if let Some(known) = known {
        known.diff_id
    } else {
        let mut draft = Draft::new(Chain::default());
        draft.apply(selection, &Placement::exactly(&inside))?;
        let made = layer::write(site.store, &draft.finish(), &Chain::default(), site.compression())?;
        site.trees.learn(made.diff_id, Arc::clone(&made.index));
        let outcome = Outcome { diff_id: made.diff_id, created: String::new() };
        cache::record(site.store, &fields, "bind mount of context files", &[], &outcome)?;
        made.diff_id
    };
    let Some(blob) = site.store.any_layer_blob(&diff_id) else {
        return Err(Error::new(Kind::Environment, "a layer that was just written is not in the store"));
    };
    let held = super::snapshot::Held { diff_id, blob, image: None };
    Ok((site.trees.overlay_dirs(&[held])?, inside))
}

/// The directory of a cache mount, locked as its sharing asks.
fn cache_dir(site: &Site<'_>, mount: &Mount, prepared: &mut Prepared) -> Result<MountSource, Error> {
    let name = blake3::hash(mount.id.as_bytes()).to_hex().to_string();
    let mut waiting = || site.front.event(super::Event::Note { text: format!("waiting for the cache `{}`", mount.id) });
    let name = match mount.sharing {
        Some(Sharing::Locked) => {
            prepared.held.locks.push(site.store.lock(&format!("mount-{name}"), &mut waiting)?);
            name
        }
        Some(Sharing::Private) => {
            let (own, lock) = first_free(site, &name)?;
            prepared.held.locks.push(lock);
            own
        }
        Some(Sharing::Shared) | None => name,
    };
    let dir = site.store.cache_mount(site.domain, &name, mount.mode.unwrap_or(0o755), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0))?;
    Ok(MountSource::Host(crate::sys::dir::open_root(&dir)?))
}

/// The first of a private cache's directories that no other step uses.
fn first_free(site: &Site<'_>, name: &str) -> Result<(String, Lock), Error> {
    for number in 0.. {
        let own = format!("{name}-{number}");
        if let Some(lock) = site.store.try_lock(&format!("mount-{own}"))? {
            return Ok((own, lock));
        }
    }
    Err(Error::new(Kind::Bug, "no private cache is free"))
}

/// A secret as a file, a variable, or both.
fn secret(site: &Site<'_>, each: &Selected, at: At<'_>, prepared: &mut Prepared) -> Result<Option<MountSource>, Error> {
    let mount = &each.mount;
    let Some(bytes) = site.front.secret(&mount.id).map_err(|error| place(error, at, each.number))? else {
        if mount.required {
            let help = format!("give it: `--secret id={0},src=FILE` or `--secret id={0},env=VARIABLE`", mount.id);
            return Err(refused(at, each.number, &format!("the secret `{}` is required and was not given", mount.id), &help));
        }
        return Ok(None);
    };
    if let Some(name) = &mount.env {
        if bytes.contains(&0) {
            let headline = format!("the secret `{}` holds a NUL byte, which no variable can", mount.id);
            return Err(refused(at, each.number, &headline, "mount it as a file: leave `env` out"));
        }
        let mut text = OsString::from(format!("{name}="));
        text.push(OsString::from_vec(bytes.clone()));
        prepared.env.push(text);
    }
    if mount.target.is_empty() {
        return Ok(None);
    }
    Ok(Some(MountSource::File { bytes, mode: mount.mode.unwrap_or(0o400), uid: mount.uid.unwrap_or(0), gid: mount.gid.unwrap_or(0) }))
}

/// The socket of an ssh agent, which the front answers on.
fn agent(site: &Site<'_>, each: &Selected, at: At<'_>, scratch: &Path, prepared: &mut Prepared) -> Result<Option<MountSource>, Error> {
    let mount = &each.mount;
    let failed = |error: Error| place(error, at, each.number);
    let own = scratch.join(format!("mount-{}", each.number));
    drop(crate::sys::dir::make_root(&own)?);
    let socket = Socket::listen(&own, mount.mode.unwrap_or(0o600), mount.uid.unwrap_or(0), mount.gid.unwrap_or(0));
    let socket = socket.map_err(|error| failed(error.into()))?;
    let (until, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| failed(Error::new(Kind::Environment, "cannot make a pipe").because(&std::io::Error::from(errno))))?;
    if site.front.agent(&mount.id, socket.listener().as_fd(), until.as_fd()).map_err(failed)? {
        let source = socket.source().map_err(|error| failed(error.into()))?;
        prepared.held.sockets.push((socket, end));
        return Ok(Some(source));
    }
    if mount.required {
        let help = format!("give it: `--ssh {0}` for your own agent, or `--ssh {0}=KEYFILE`", mount.id);
        return Err(refused(at, each.number, &format!("the ssh agent `{}` is required and was not given", mount.id), &help));
    }
    Ok(None)
}
