//! `RUN --mount`: what is selected before the key, and what is mounted after a miss.

use std::{
    collections::BTreeMap,
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
    copying::{self, Use},
    fault, snapshot,
};
use crate::{
    cache::{self, Below, Fields, Instruction, Outcome, Subject},
    diag::closest,
    error::{Error, Kind},
    layer,
    plan::{Mount, MountKind, Origin, Run, Sharing},
    rootfs::{Draft, Placement, Selection},
    sandbox::{
        self, MountSource, Overlay, Socket,
        driver::{Isolation, Snapshots},
    },
    store::Lock,
    tree::{Chain, MARK, Moments, Owner, TreePath},
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
    /// Where owners are marks: whose what is mounted is.
    pub(super) mounted: Vec<(TreePath, Owner)>,
    /// Times of what is mounted that say nothing of what it is.
    pub(super) moments: Moments,
}

/// What a step needs besides while it runs.
#[derive(Default)]
pub(super) struct Held {
    /// For each cache the name of its directory, and the lock on it.
    caches: BTreeMap<String, (String, Lock)>,
    /// Sockets of ssh agents, each with an end of a pipe: when it closes, the front serves the agent no longer.
    sockets: Vec<(Socket, OwnedFd)>,
}

/// Selects the files of bind mounts, and of caches that begin with some.
pub(super) fn select(site: &Site<'_>, at: At<'_>, run: &Run) -> Result<Vec<Selected>, Error> {
    let mut all = Vec::new();
    for (number, mount) in run.mounts.iter().enumerate() {
        let failed = |error| place(error, at, number);
        let selection = match mount.kind {
            MountKind::Bind => Some(copying::select_subtree(site, &mount.from, &mount.source, Use::Key).map_err(failed)?),
            // What a new cache begins with.
            MountKind::Cache if mount.from != Origin::Scratch => {
                Some(copying::select_subtree(site, &mount.from, &mount.source, Use::Key).map_err(failed)?)
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
    let unmounted = unmounted(site)?;
    if unmounted {
        selected.iter().try_for_each(|each| refuse_unmounted(at, each))?;
    }
    let mut prepared = Prepared { held: Held { caches: lock_caches(site, selected)?, ..Held::default() }, ..Prepared::default() };
    for each in selected {
        let mount = &each.mount;
        let target = || {
            TreePath::clean(mount.target.as_bytes()).map_err(|error| place(Error::new(Kind::Request, error.to_string()), at, each.number))
        };
        let what = match mount.kind {
            MountKind::Bind => Some(bind(site, each, scratch, &target()?, &mut prepared).map_err(|error| place(error, at, each.number))?),
            MountKind::Tmpfs => Some(MountSource::Tmpfs(mount.size)),
            MountKind::Cache => Some(cache_dir(site, each, &prepared).map_err(|error| place(error, at, each.number))?),
            MountKind::Secret => secret(site, each, at, &mut prepared)?,
            MountKind::Ssh => agent(site, each, at, scratch, &target()?, &mut prepared)?,
        };
        if let Some(what) = what {
            prepared.mounts.push(sandbox::Mount { target: target()?, what, readonly: mount.readonly });
        }
    }
    Ok(prepared)
}

/// A view of trees; what the step writes there is thrown away.
fn bind(site: &Site<'_>, each: &Selected, scratch: &Path, target: &TreePath, prepared: &mut Prepared) -> Result<MountSource, Error> {
    let (layers, inside) = match layers(site, &each.mount.from) {
        None => {
            let Some(selection) = &each.selection else { return Err(Error::new(Kind::Bug, "a bind mount without a selection")) };
            (vec![materialise(site, selection)?], inside()?)
        }
        Some(layers) => {
            let chain = site.trees.chain(&layers)?;
            let path = path_of(&chain, &each.mount)?;
            let unmarked = layer::unmarked(&chain, site.ways.owners());
            prepared.mounted.extend(unmarked.into_iter().filter_map(|(at, owner)| Some((moved(&at, &path, target)?, owner))));
            (layers, path)
        }
    };
    let own = scratch.join(format!("mount-{}", each.number));
    prepared.moments = layers.iter().fold(std::mem::take(&mut prepared.moments), |all, held| all.and(&held.moments));
    let root = crate::sys::dir::make_root(&own)?;
    match site.ways.needed()?.snapshots {
        Snapshots::Overlay => {
            let (upper, work) = (own.join("upper"), own.join("work"));
            drop(crate::sys::dir::make_root(&upper)?);
            drop(crate::sys::dir::make_root(&work)?);
            Ok(MountSource::Overlay(Overlay { lowers: site.trees.overlay_dirs(&layers)?, upper, work }, inside))
        }
        Snapshots::Memory => {
            let trees = Overlay { lowers: site.trees.overlay_dirs(&layers)?, upper: PathBuf::new(), work: PathBuf::new() };
            Ok(MountSource::Overlay(trees, inside))
        }
        Snapshots::Copy => {
            layer::copy_part(
                root.try_clone().map_err(crate::sys::PathError::new("open", &own))?,
                &site.trees.lowers(&layers)?,
                &inside,
                site.ways.owners(),
            )?;
            if unmounted(site)? {
                return Ok(MountSource::Moved(if inside.is_root() { own } else { own.join(inside.as_os_path()) }));
            }
            let found = crate::sys::dir::open_beneath(&root, inside.as_os_path(), rustix::fs::OFlags::PATH)?;
            Ok(MountSource::Host(found))
        }
    }
}

/// Is nothing mounted for steps?
fn unmounted(site: &Site<'_>) -> Result<bool, Error> {
    Ok(site.ways.needed()?.isolation == Isolation::Chroot)
}

/// What no step can have where nothing is mounted.
fn refuse_unmounted(at: At<'_>, each: &Selected) -> Result<(), Error> {
    let mount = &each.mount;
    let (headline, help) = match mount.kind {
        MountKind::Tmpfs => ("nothing can be mounted here, so there is no memory to mount: `--mount=type=tmpfs`", "leave it out"),
        MountKind::Cache if mount.readonly => {
            ("nothing can be mounted here, so root could write to a read-only cache", "leave `readonly` out")
        }
        MountKind::Bind | MountKind::Cache | MountKind::Secret | MountKind::Ssh => return Ok(()),
    };
    Err(fault::impossible(at.step, &format!("mount {}", each.number), headline, help))
}

/// Where what is at `path` is seen when `from` is mounted at `target`; `None`: it is not in it.
fn moved(path: &TreePath, from: &TreePath, target: &TreePath) -> Option<TreePath> {
    let depth = from.components().count();
    let mut rest = path.is_within(from).then(|| path.components().skip(depth))?;
    rest.try_fold(target.clone(), |at, name| at.join(name).ok())
}

/// The layers that an origin is made of; `None`: it is a context.
fn layers(site: &Site<'_>, origin: &Origin) -> Option<Vec<snapshot::Held>> {
    match origin {
        Origin::Context | Origin::Named(_) => None,
        Origin::Stage(id) => Some(end(site, &site.job.plan, *id).unwrap_or_default().layers),
        Origin::Image(image) => Some(snapshot::Snapshot::of_image(image).layers),
        Origin::Scratch => Some(Vec::new()),
    }
}

/// Where a mount's source is, links followed.
fn path_of(chain: &Chain, mount: &Mount) -> Result<TreePath, Error> {
    let path = TreePath::clean(mount.source.as_bytes()).map_err(|error| Error::new(Kind::Request, error.to_string()))?;
    chain.resolve(&path, true).map_err(|error| Error::new(Kind::Request, error.to_string()))
}

/// Where selected files stand in the tree that is made of them.
fn inside() -> Result<TreePath, Error> {
    TreePath::root().join(INSIDE.as_bytes()).map_err(|error| Error::new(Kind::Bug, error.to_string()))
}

const INSIDE: &str = "source";

/// A layer of selected files, made once for the same files.
fn materialise(site: &Site<'_>, selection: &Selection) -> Result<snapshot::Held, Error> {
    let fields = Fields::new().field("kind", "mounted files").field("files", selection.digest()?);
    let known = cache::look_up(site.store, &fields.key())?.filter(|known| site.store.any_layer_blob(&known.diff_id).is_some());
    let Outcome { diff_id, moments, .. } = if let Some(known) = known {
        known
    } else {
        let mut draft = Draft::new(Chain::default());
        draft.apply(selection, &Placement::exactly(&inside()?))?;
        let made = layer::write(site.store, &draft.finish(), &Chain::default(), site.compression())?;
        site.trees.learn(made.diff_id, Arc::clone(&made.index));
        let outcome = Outcome { diff_id: made.diff_id, created: String::new(), moments: selection.times()? };
        let (instruction, below) = (Instruction { place: "mounted files".to_owned(), ..Instruction::default() }, Below::default());
        cache::record(
            site.store,
            &Subject { fields: &fields, instruction: &instruction, below: &below },
            &cache::Paths::default(),
            &outcome,
        )?;
        outcome
    };
    let Some(blob) = site.store.any_layer_blob(&diff_id) else {
        return Err(Error::new(Kind::Environment, "a layer that was just written is not in the store"));
    };
    Ok(snapshot::Held { diff_id, blob: Some(blob), image: None, moments })
}

/// The name of a mount's cache. What it began with, mode and owner included, tells it from others of the same id, as in
/// BuildKit: a mode that is asked for is never that of an older cache.
fn cache_name(each: &Selected) -> Result<String, Error> {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(each.mount.id.len() as u64).to_le_bytes()).update(each.mount.id.as_bytes());
    if let Some(selection) = &each.selection {
        hasher.update(selection.digest()?.as_ref());
    }
    let numbers = [each.mount.mode, each.mount.uid, each.mount.gid];
    if numbers.iter().any(Option::is_some) {
        for number in numbers {
            hasher.update(&number.map_or(u64::MAX, u64::from).to_le_bytes());
        }
    }
    Ok(hasher.finalize().to_hex().to_string())
}

/// Locks the directory of each cache as its sharing asks: `shared` keeps out who wants it alone, `locked` waits until it is
/// alone, `private` takes the first directory that nobody uses. All steps lock in the same order, so that none waits for
/// one that waits for it.
fn lock_caches(site: &Site<'_>, selected: &[Selected]) -> Result<BTreeMap<String, (String, Lock)>, Error> {
    let mut wanted = BTreeMap::new();
    for each in selected.iter().filter(|each| each.mount.kind == MountKind::Cache) {
        // A cache that is mounted twice is locked once.
        let _first: &mut &Selected = wanted.entry(cache_name(each)?).or_insert(each);
    }
    let mut caches = BTreeMap::new();
    for (name, each) in wanted {
        let lock = format!("mount-{name}");
        let waiting = || format!("waiting for the cache `{}`", each.mount.id);
        let held = match each.mount.sharing {
            Some(Sharing::Locked) => (name.clone(), site.turns.lock(&lock, waiting)?),
            Some(Sharing::Private) => first_free(site, &name)?,
            // Without mounts a cache is in one place at a time.
            Some(Sharing::Shared) | None if unmounted(site)? => (name.clone(), site.turns.lock(&lock, waiting)?),
            Some(Sharing::Shared) | None => (name.clone(), site.turns.share(&lock, waiting)?),
        };
        drop(caches.insert(name, held));
    }
    Ok(caches)
}

/// The first of a private cache's directories that no other step uses.
fn first_free(site: &Site<'_>, name: &str) -> Result<(String, Lock), Error> {
    for number in 0.. {
        let own = if number == 0 { name.to_owned() } else { format!("{name}-{number}") };
        if let Some(lock) = site.store.try_lock(&format!("mount-{own}"))? {
            return Ok((own, lock));
        }
    }
    Err(Error::new(Kind::Bug, "no private cache is free"))
}

/// The directory of a cache mount, made if it is new.
fn cache_dir(site: &Site<'_>, each: &Selected, prepared: &Prepared) -> Result<MountSource, Error> {
    let Some((name, _)) = prepared.held.caches.get(&cache_name(each)?) else { return Err(Error::new(Kind::Bug, "a cache without a lock")) };
    let dir = site.store.cache_mount(site.domain, name, |fresh| begin_cache(site, each, fresh))?;
    if unmounted(site)? {
        return Ok(MountSource::Lent(dir));
    }
    Ok(MountSource::Host(crate::sys::dir::open_root(&dir)?))
}

/// Makes a new cache: empty, or with what it is to begin with.
fn begin_cache(site: &Site<'_>, each: &Selected, fresh: &Path) -> Result<(), Error> {
    let mount = &each.mount;
    let mut top = (0o755, 0, 0);
    match &each.selection {
        None => drop(crate::sys::dir::make_root(fresh)?),
        Some(selection) => {
            let mut with_bytes = None;
            if let Some(layers) = layers(site, &mount.from) {
                let chain = site.trees.chain(&layers)?;
                if let Some(found) = chain.look_up(&path_of(&chain, mount)?) {
                    top = (found.entry.meta.mode, found.entry.meta.uid, found.entry.meta.gid);
                }
                with_bytes = Some(copying::select_subtree(site, &mount.from, &mount.source, Use::Bytes)?);
            }
            let held = materialise(site, with_bytes.as_ref().unwrap_or(selection))?;
            let scratch = site.store.scratch()?;
            let whole = crate::sys::dir::make_root(&scratch.path().join("whole"))?;
            drop(layer::extract(site.store, &site.trees.blob(&held)?, &held.diff_id, &whole, &[], site.ways.owners())?);
            let made = scratch.path().join("whole").join(INSIDE);
            if !made.symlink_metadata().is_ok_and(|found| found.is_dir()) {
                return Err(Error::new(Kind::Request, format!("a cache cannot begin with `{}`, which is no directory", mount.source))
                    .help("name the directory it is in"));
            }
            std::fs::rename(&made, fresh).map_err(crate::sys::PathError::new("rename", &made))?;
        }
    }
    let dir = crate::sys::dir::open_root(fresh)?;
    let owner = Owner { uid: mount.uid.unwrap_or(top.1), gid: mount.gid.unwrap_or(top.2) };
    match site.ways.owners() {
        layer::Owners::Real => crate::sys::dir::set_owner_open(&dir, owner.uid, owner.gid)?,
        layer::Owners::Marked => crate::sys::dir::set_attribute(&dir, MARK.as_bytes(), &owner.mark())?,
    }
    Ok(crate::sys::dir::set_mode_open(&dir, mount.mode.unwrap_or(top.0))?)
}

/// A secret as a file, a variable, or both.
fn secret(site: &Site<'_>, each: &Selected, at: At<'_>, prepared: &mut Prepared) -> Result<Option<MountSource>, Error> {
    let mount = &each.mount;
    let Some(bytes) = site.front.secret(&mount.id).map_err(|error| place(error, at, each.number))? else {
        if mount.required {
            let help = match closest(&mount.id, site.job.secrets.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("give it: `--secret id={0},src=FILE` or `--secret id={0},env=VARIABLE`", mount.id),
            };
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
    if unmounted(site)? {
        let headline = "nothing can be mounted here, so the secret would be a file on a disk";
        let help = "take it as a variable: `--mount=type=secret,id=…,env=NAME`";
        return Err(fault::impossible(at.step, &format!("mount {}", each.number), headline, help));
    }
    Ok(Some(MountSource::File { bytes, mode: mount.mode.unwrap_or(0o400), uid: mount.uid.unwrap_or(0), gid: mount.gid.unwrap_or(0) }))
}

/// The socket of an ssh agent, which the front answers on.
fn agent(
    site: &Site<'_>,
    each: &Selected,
    at: At<'_>,
    scratch: &Path,
    target: &TreePath,
    prepared: &mut Prepared,
) -> Result<Option<MountSource>, Error> {
    let mount = &each.mount;
    let failed = |error: Error| place(error, at, each.number);
    let own = scratch.join(format!("mount-{}", each.number));
    drop(crate::sys::dir::make_root(&own)?);
    let mut owner = Owner { uid: mount.uid.unwrap_or(0), gid: mount.gid.unwrap_or(0) };
    if site.ways.owners() == layer::Owners::Marked {
        prepared.mounted.push((target.clone(), owner));
        owner = Owner::ROOT;
    }
    let (mode, uid, gid) = (mount.mode.unwrap_or(0o600), owner.uid, owner.gid);
    let socket = if unmounted(site)? { Socket::listen_unmounted(&own, mode, uid, gid) } else { Socket::listen(&own, mode, uid, gid) };
    let socket = socket.map_err(|error| failed(error.into()))?;
    let (until, end) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|errno| failed(Error::new(Kind::Environment, "cannot make a pipe").because(&std::io::Error::from(errno))))?;
    if site.front.agent(&mount.id, socket.listener().as_fd(), until.as_fd()).map_err(failed)? {
        let source = socket.source().map_err(|error| failed(error.into()))?;
        prepared.held.sockets.push((socket, end));
        return Ok(Some(source));
    }
    if mount.required {
        let help = match closest(&mount.id, site.job.agents.iter().map(String::as_str)) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("give it: `--ssh {0}` for your own agent, or `--ssh {0}=KEYFILE`", mount.id),
        };
        return Err(refused(at, each.number, &format!("the ssh agent `{}` is required and was not given", mount.id), &help));
    }
    Ok(None)
}
