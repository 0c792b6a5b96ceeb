//! COPY, ADD and WORKDIR: selected, keyed, and only on a miss written as a layer.

use std::{cell::Cell, os::fd::OwnedFd, path::Path, sync::Arc};

use super::{
    Directory, How,
    build::{At, Site, end},
    fault,
    key::Recipe,
    snapshot::{Held, Snapshot},
};
use crate::{
    cache::Outcome,
    context::{self, Context},
    diag::Diagnostic,
    error::{Error, Kind},
    layer,
    oci::DiffId,
    plan::{Chmod, Copy, CopySource, Origin},
    rootfs::{self, CopySpec, Draft, ModeChange, Placement, Selection, Source, Spool, Tree, account::Accounts},
    tree::{Chain, TreePath},
};

/// How often a step is begun again because a file changed between its key and its copy.
const ATTEMPTS: usize = 3;

/// WORKDIR: the directory, with its parents.
pub(super) fn workdir(site: &Site<'_>, at: At<'_>, before: &Snapshot, path: &str, user: &str) -> Result<(Outcome, How), Error> {
    let recipe = Recipe::workdir(at, before, &site.job.plan.platform, path, user);
    site.cached_or_made(at, &recipe, || {
        let chain = site.trees.chain(&before.layers)?;
        let account = Accounts::of(&chain)
            .account(user)
            .map_err(|error| fault::at(rootfs::Error::from(error), at.step, "user", "the directory would be this user's"))?;
        let mut draft = Draft::new(chain.clone());
        let path = TreePath::clean(path.as_bytes()).map_err(|error| Error::new(Kind::Request, error.to_string()))?;
        let made = draft.make_dir(&path, (account.uid, account.gid), seconds());
        drop(made.map_err(|error| fault::at(error, at.step, "", "this directory cannot be made"))?);
        write(site, draft, &chain).map_err(Error::from)
    })
}

/// COPY and ADD. A file that is edited between the key and the copy makes a new key, twice at most.
pub(super) fn copy(site: &Site<'_>, at: At<'_>, before: &Snapshot, copy: &Copy) -> Result<(Outcome, How), Error> {
    refuse(at, copy)?;
    let mut attempt = 1;
    loop {
        let selection = select(site, at, copy, Use::Key)?;
        let recipe = Recipe::copy(at, before, &site.job.plan.platform, copy).with_selection("files", &selection);
        let changed = Cell::new(false);
        let result = site.cached_or_made(at, &recipe, || make(site, at, before, copy, &selection, &changed));
        if result.is_ok() || !changed.get() || attempt == ATTEMPTS {
            return result;
        }
        attempt += 1;
    }
}

/// What the engine cannot do, at its place.
fn refuse(at: At<'_>, copy: &Copy) -> Result<(), Error> {
    for (number, source) in copy.sources.iter().enumerate() {
        let (what, help) = match source {
            CopySource::Http { .. } => {
                ("lapstrake cannot download what ADD names by a URL", "fetch it in a RUN step, or before the build into the context")
            }
            CopySource::Git { .. } => {
                ("lapstrake cannot clone what ADD names by a git URL", "clone it in a RUN step, or before the build into the context")
            }
            CopySource::Path(_) | CopySource::Inline(_) => continue,
        };
        let span = at.step.parts.get(&format!("source {number}")).copied().unwrap_or(at.step.span);
        return Err(Error::at(Kind::Request, vec![Diagnostic::error(what, span).label("this source").help(help)]));
    }
    Ok(())
}

/// What a selection is for: its digest alone, or its bytes too.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Key,
    Bytes,
}

/// All sources in their order.
fn select(site: &Site<'_>, at: At<'_>, copy: &Copy, purpose: Use) -> Result<Selection, Error> {
    let mut all = Selection::default();
    let mut source: Option<Box<dyn Source>> = None;
    for (number, each) in copy.sources.iter().enumerate() {
        let next = match each {
            CopySource::Inline(file) => Selection::inline(&file.name, file.data.as_bytes()),
            CopySource::Path(path) => {
                let from = match &mut source {
                    Some(from) => from,
                    None => source
                        .insert(open(site, &copy.from, purpose).map_err(|error| fault::at(error, at.step, "from", "taken from here"))?),
                };
                let spec = CopySpec { paths: vec![path.clone()], parents: copy.parents, exclude: copy.exclude.clone(), jobs: site.jobs() };
                rootfs::select(from.as_ref(), &spec)
                    .map_err(|error| fault::at(error, at.step, &format!("source {number}"), "asked for here"))?
            }
            CopySource::Http { .. } | CopySource::Git { .. } => continue,
        };
        all = all.then(next);
    }
    Ok(all)
}

/// The files below one path of an origin, for a bind mount.
pub(super) fn select_subtree(site: &Site<'_>, origin: &Origin, path: &str) -> Result<Selection, Error> {
    if *origin == Origin::Scratch {
        return Ok(Selection::default());
    }
    let source = open(site, origin, Use::Key)?;
    let path = if path.is_empty() { "/" } else { path };
    let spec = CopySpec { paths: vec![path.to_owned()], jobs: site.jobs(), ..CopySpec::default() };
    rootfs::select(source.as_ref(), &spec).map_err(Error::from)
}

/// An origin as a source.
fn open(site: &Site<'_>, origin: &Origin, purpose: Use) -> Result<Box<dyn Source>, Error> {
    match origin {
        Origin::Context => match &site.job.context {
            Some(directory) => Ok(Box::new(open_dir(directory, "the build context")?)),
            None => Ok(Box::new(Tree::indexed(Chain::default(), "the empty build context"))),
        },
        Origin::Named(name) => match site.job.named.get(name) {
            Some(directory) => Ok(Box::new(open_dir(directory, &format!("the context `{name}`"))?)),
            None => Err(Error::new(Kind::Request, format!("there is no context `{name}`"))),
        },
        Origin::Stage(id) => {
            let state = end(site, &site.job.plan, *id).unwrap_or_default();
            let name = site.job.plan.stages.get(id.0).map(|stage| stage.name.clone()).unwrap_or_default();
            tree(site, &state.layers, &format!("stage `{name}`"), purpose)
        }
        Origin::Image(image) => tree(site, &Snapshot::of_image(image).layers, &format!("the image `{}`", image.name), purpose),
        Origin::Scratch => Ok(Box::new(Tree::indexed(Chain::default(), "scratch"))),
    }
}

fn open_dir(directory: &Directory, name: &str) -> Result<Context, Error> {
    let ignore = context::ignore_patterns(&directory.dir, directory.dockerfile.as_deref())?;
    Ok(Context::open(&directory.dir, ignore)?.called(name))
}

/// The tree of some layers: for a key the indexes suffice.
fn tree(site: &Site<'_>, layers: &[Held], name: &str, purpose: Use) -> Result<Box<dyn Source>, Error> {
    let chain = site.trees.chain(layers)?;
    if purpose == Use::Key {
        return Ok(Box::new(Tree::indexed(chain, name)));
    }
    let mut dirs: Vec<Arc<OwnedFd>> = Vec::new();
    for lower in site.trees.lowers(layers)? {
        dirs.push(Arc::new(crate::sys::dir::open_root(&lower.dir)?));
    }
    Ok(Box::new(Tree::extracted(chain, dirs, name)))
}

fn make(site: &Site<'_>, at: At<'_>, before: &Snapshot, copy: &Copy, selection: &Selection, changed: &Cell<bool>) -> Result<DiffId, Error> {
    site.go_on()?;
    let chain = site.trees.chain(&before.layers)?;
    let owner = copy.chown.as_deref().map(|text| Accounts::of(&chain).owner(text)).transpose();
    let owner = owner.map_err(|error| fault::at(rootfs::Error::from(error), at.step, "chown", "not known there"))?;
    let with_bytes = matches!(copy.from, Origin::Stage(_) | Origin::Image(_)).then(|| select(site, at, copy, Use::Bytes)).transpose()?;
    let selection = with_bytes.as_ref().unwrap_or(selection);
    let mut draft = Draft::new(chain.clone());
    let scratch = site.store.scratch()?;
    let placement = placement(at, copy, owner, scratch.path())?;
    draft.apply(selection, &placement).map_err(|error| fault::at(error, at.step, "dest", "copied to here"))?;
    write(site, draft, &chain).map_err(|error| {
        changed.set(matches!(error, layer::Error::Changed { .. }));
        fault::at(error, at.step, "", "asked for here")
    })
}

fn placement(at: At<'_>, copy: &Copy, chown: Option<(u32, u32)>, scratch: &Path) -> Result<Placement, Error> {
    let chmod = match &copy.chmod {
        None => None,
        Some(Chmod::Octal(mode)) => Some(ModeChange::Octal(*mode)),
        Some(Chmod::Symbolic(text)) => Some(
            ModeChange::parse(text)
                .map_err(|error| fault::at(Error::new(Kind::Request, error.to_string()), at.step, "chmod", "this mode"))?,
        ),
    };
    // Without `--unpack`, ADD unpacks the archives among local files, and those are all that it can name here.
    let unpacks = copy.add && copy.unpack != Some(false);
    let unpack = unpacks.then(|| crate::sys::dir::open_root(scratch)).transpose()?.map(|dir| Arc::new(Spool::new(Arc::new(dir))));
    Ok(Placement { dest: copy.dest.clone(), chown, chmod, link: copy.link, now: seconds(), unpack })
}

/// Writes what changed as a layer, and remembers its index.
fn write(site: &Site<'_>, draft: Draft, chain: &Chain) -> Result<DiffId, layer::Error> {
    let made = layer::write(site.store, &draft.finish(), chain, site.compression())?;
    site.trees.learn(made.diff_id, Arc::clone(&made.index));
    Ok(made.diff_id)
}

/// Now, in whole seconds: the time of what no source gives one.
fn seconds() -> i64 {
    crate::sys::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}
