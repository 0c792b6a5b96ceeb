//! COPY, ADD and WORKDIR: selected, keyed, and only on a miss written as a layer.

use std::{cell::Cell, os::fd::OwnedFd, sync::Arc};

use super::{
    How,
    behind::{Pending, Source as MadeOf},
    build::{At, Site, end, seconds},
    contexts::Opening,
    fault,
    key::{self, Recipe},
    looking::unknown,
    snapshot::{Held, Snapshot},
    sources,
};
use crate::{
    cache::Outcome,
    context::{self, Context},
    error::{Error, Kind},
    layer,
    plan::{Chmod, Copy, CopySource, Origin},
    rootfs::{self, CopySpec, Draft, ModeChange, Placement, Selection, Source, Spool, Tree, account::Accounts},
    tree::{Chain, Moments, TreePath},
};

/// How often a step is begun again because a file changed between its key and its copy.
const ATTEMPTS: usize = 3;

/// WORKDIR: the directory, with its parents.
pub(super) fn workdir(site: &Site<'_>, at: At<'_>, before: &Snapshot, path: &str, user: &str) -> Result<(Outcome, How), Error> {
    let recipe = Recipe::workdir(at, before, &site.job.plan.platform, path, user);
    site.cached_or_made(at, &recipe, || {
        let chain = site.trees.chain(&before.layers)?;
        // A user that the image does not know is an error of the RUN that needs it; until then root stands in, as in BuildKit.
        let owner = Accounts::of(&chain).account(user).map_or((0, 0), |account| (account.uid, account.gid));
        let mut draft = Draft::new(chain.clone());
        let path = TreePath::clean(path.as_bytes()).map_err(|error| Error::new(Kind::Request, error.to_string()))?;
        let made = draft.make_dir(&path, owner, seconds());
        drop(made.map_err(|error| fault::at(error, at.step, "", "this directory cannot be made"))?);
        Ok((write(site, at, draft, &chain)?, Moments::default()))
    })
}

/// COPY and ADD. A file that is edited between the key and the copy makes a new key, twice at most.
pub(super) fn copy(site: &Site<'_>, at: At<'_>, before: &Snapshot, copy: &Copy) -> Result<(Outcome, How), Error> {
    if let Some(found) = unchanged(site, at, before, copy)? {
        return Ok(found);
    }
    if site.job.only_look && copy.sources.iter().all(|source| matches!(source, CopySource::Path(_))) {
        return Err(unknown());
    }
    let mut attempt = 1;
    loop {
        let changed = Cell::new(false);
        let mut laps = site.laps(at.number);
        let result = select(site, at, copy, Use::Key, &changed).and_then(|selection| {
            laps.lap("listed and read the files");
            let recipe = Recipe::copy(at, before, &site.job.plan.platform, copy).with_selection(&copy.from, &selection)?;
            let recipe = recipe.with_git_dirs(&sources::git_dirs(site, copy)?);
            site.cached_or_made(at, &recipe, || make(site, at, before, copy, &selection, &changed))
        });
        if result.is_ok() || !changed.get() || attempt == ATTEMPTS {
            return result;
        }
        site.contexts.forget();
        attempt += 1;
    }
}

/// What a record says, if it takes no more than looking at the files to find it. What goes wrong here goes wrong again where it can be told.
fn unchanged(site: &Site<'_>, at: At<'_>, before: &Snapshot, copy: &Copy) -> Result<Option<(Outcome, How)>, Error> {
    if site.job.without_cache(&at.stage.name).is_some() {
        return Ok(None);
    }
    let path = |source: &CopySource| if let CopySource::Path(path) = source { Some(path.clone()) } else { None };
    let Some(paths) = copy.sources.iter().map(path).collect::<Option<Vec<_>>>() else { return Ok(None) };
    let Ok(source) = open(site, &copy.from, Use::Key) else { return Ok(None) };
    let spec = CopySpec { paths, parents: copy.parents, exclude: copy.exclude.clone(), ..CopySpec::default() };
    let mut laps = site.laps(at.number);
    let digest = rootfs::digest(source.source(), &spec);
    laps.lap("looked at the files");
    let Ok(Some(digest)) = digest else { return Ok(None) };
    let recipe = Recipe::copy(at, before, &site.job.plan.platform, copy).with_files(digest);
    site.cached(at, &recipe)
}

/// Is it that a file is not what it was when it was listed or digested?
fn is_change(error: &rootfs::Error) -> bool {
    matches!(error, rootfs::Error::Context(context::Error::Changed { .. }) | rootfs::Error::Layer(layer::Error::Changed { .. }))
}

/// What a selection is for: its digest alone, or its bytes too.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Key,
    Bytes,
}

/// All sources in their order.
fn select(site: &Site<'_>, at: At<'_>, copy: &Copy, purpose: Use, changed: &Cell<bool>) -> Result<Selection, Error> {
    let mut all = Selection::default();
    let mut source: Option<Opened> = None;
    for (number, each) in copy.sources.iter().enumerate() {
        let next = match each {
            CopySource::Inline(file) => Selection::inline(&file.name, file.data.as_bytes()),
            CopySource::Path(path) => {
                let from = match &mut source {
                    Some(from) => from,
                    None => source
                        .insert(open(site, &copy.from, purpose).map_err(|error| fault::at(error, at.step, "from", "taken from here"))?),
                };
                let processors = site.processors.up_to(site.job.jobs);
                let spec = CopySpec {
                    paths: vec![path.clone()],
                    parents: copy.parents,
                    exclude: copy.exclude.clone(),
                    jobs: processors.count(),
                    store: Some(site.store.clone()),
                };
                rootfs::select(from.source(), &spec).map_err(|error| {
                    changed.set(is_change(&error));
                    fault::at(error, at.step, &format!("source {number}"), "asked for here")
                })?
            }
            CopySource::Http { .. } | CopySource::Git(_) => {
                let selected = sources::select(site, each, copy, purpose == Use::Key);
                selected.map_err(|error| fault::at(error, at.step, &format!("source {number}"), "asked for here"))?
            }
        };
        all = all.then(next);
    }
    Ok(all)
}

/// The files below one path of an origin, for a mount.
pub(super) fn select_subtree(site: &Site<'_>, origin: &Origin, path: &str, purpose: Use) -> Result<Selection, Error> {
    if *origin == Origin::Scratch {
        return Ok(Selection::default());
    }
    let source = open(site, origin, purpose)?;
    let path = if path.is_empty() { "/" } else { path };
    let processors = site.processors.up_to(site.job.jobs);
    let spec = CopySpec { paths: vec![path.to_owned()], jobs: processors.count(), store: Some(site.store.clone()), ..CopySpec::default() };
    rootfs::select(source.source(), &spec).map_err(Error::from)
}

/// A source that is open.
enum Opened {
    Directory(Arc<Context>),
    Tree(Tree),
}

impl Opened {
    fn source(&self) -> &dyn Source {
        match self {
            Self::Directory(context) => context.as_ref(),
            Self::Tree(tree) => tree,
        }
    }
}

impl From<Opening> for Opened {
    fn from(opening: Opening) -> Self {
        match opening {
            Opening::Directory(context) => Self::Directory(context),
            Opening::Archive(tree) => Self::Tree(tree),
        }
    }
}

/// An origin as a source.
fn open(site: &Site<'_>, origin: &Origin, purpose: Use) -> Result<Opened, Error> {
    match origin {
        Origin::Context => match &site.job.context {
            Some(files) => site.contexts.open(site.store, files, "the build context").map(Opened::from),
            None => Ok(Opened::Tree(Tree::indexed(Chain::default(), "the empty build context"))),
        },
        Origin::Named(name) => match site.job.named.get(name) {
            Some(files) => site.contexts.open(site.store, files, &format!("the context `{name}`")).map(Opened::from),
            None => Err(Error::new(Kind::Request, format!("there is no context `{name}`"))),
        },
        Origin::Stage(id) => {
            let state = end(site, &site.job.plan, *id).unwrap_or_default();
            let name = site.job.plan.stages.get(id.0).map(|stage| stage.name.clone()).unwrap_or_default();
            tree(site, &state.layers, &format!("stage `{name}`"), purpose)
        }
        Origin::Image(image) => tree(site, &Snapshot::of_image(image).layers, &format!("the image `{}`", image.name), purpose),
        Origin::Scratch => Ok(Opened::Tree(Tree::indexed(Chain::default(), "scratch"))),
    }
}

/// The tree of some layers: for a key the indexes suffice.
fn tree(site: &Site<'_>, layers: &[Held], name: &str, purpose: Use) -> Result<Opened, Error> {
    let chain = site.trees.chain(layers)?;
    if purpose == Use::Key {
        return Ok(Opened::Tree(Tree::indexed(chain, name)));
    }
    let mut dirs: Vec<Arc<OwnedFd>> = Vec::new();
    let mut last = None;
    for lower in site.trees.lowers(layers)? {
        let open = match (dirs.last(), last) {
            (Some(open), Some(last)) if last == lower.dir => Arc::clone(open),
            _ => Arc::new(crate::sys::dir::open_root(&lower.dir)?),
        };
        dirs.push(open);
        last = Some(lower.dir);
    }
    Ok(Opened::Tree(Tree::extracted(chain, dirs, name)))
}

fn make(
    site: &Site<'_>,
    at: At<'_>,
    before: &Snapshot,
    copy: &Copy,
    selection: &Selection,
    changed: &Cell<bool>,
) -> Result<(Pending, Moments), Error> {
    site.stop.go_on()?;
    let mut laps = site.laps(at.number);
    let chain = if key::stands_alone(copy) { Chain::default() } else { site.trees.chain(&before.layers)? };
    let owner = copy.chown.as_deref().map(|text| Accounts::of(&chain).owner(text)).transpose();
    let owner = owner.map_err(|error| fault::at(rootfs::Error::from(error), at.step, "chown", "not known there"))?;
    let more = matches!(copy.from, Origin::Stage(_) | Origin::Image(_)) || copy.sources.iter().any(sources::keeps_git_dir);
    let with_bytes = more.then(|| select(site, at, copy, Use::Bytes, changed)).transpose()?;
    let selection = with_bytes.as_ref().unwrap_or(selection);
    let scratch = site.store.scratch()?;
    let spool = Spool::new(Arc::new(crate::sys::dir::open_root(scratch.path())?));
    let laid = match lay(&chain, selection, &placement(at, copy, owner, spool)?) {
        // An archive links to a file of a layer below: only now are the trees needed.
        Err(rootfs::Error::NeedsTrees { .. }) if site.job.namespaces => {
            let Opened::Tree(tree) = tree(site, &before.layers, "the stage", Use::Bytes)? else {
                return Err(Error::new(Kind::Bug, "a stage is a directory"));
            };
            let own = site.store.scratch()?;
            let spool = Spool::new(Arc::new(crate::sys::dir::open_root(own.path())?)).over(tree);
            let laid = lay(&chain, selection, &placement(at, copy, owner, spool)?);
            laid.map(|draft| (draft, own))
        }
        first => first.map(|draft| (draft, scratch)),
    };
    let (draft, _spooled) = laid.map_err(|error| {
        changed.set(is_change(&error));
        fault::at(error, at.step, "dest", "copied to here")
    })?;
    laps.lap("laid the files out");
    let made = write(site, at, draft, &chain);
    laps.lap("wrote the layer's tar");
    let made = made.map_err(|error| {
        changed.set(matches!(error, layer::Error::Changed { .. }));
        fault::at(error, at.step, "", "asked for here")
    })?;
    Ok((made, taken_at(site, &copy.from, selection)?))
}

/// The times of what was taken that say nothing of what it is: when somebody checked a context out, downloaded a file, or ran
/// the steps of another stage. An archive's members and an image's files have theirs wherever they are.
pub(super) fn taken_at(site: &Site<'_>, from: &Origin, selection: &Selection) -> Result<Moments, Error> {
    Ok(match from {
        Origin::Stage(id) => end(site, &site.job.plan, *id).unwrap_or_default().moments(),
        Origin::Image(_) | Origin::Scratch => Moments::default(),
        Origin::Context | Origin::Named(_) => selection.times()?,
    })
}

/// The chain with the selection laid over it.
fn lay(chain: &Chain, selection: &Selection, placement: &Placement) -> Result<Draft, rootfs::Error> {
    let mut draft = Draft::new(chain.clone());
    draft.apply(selection, placement)?;
    Ok(draft)
}

fn placement(at: At<'_>, copy: &Copy, chown: Option<(u32, u32)>, spool: Spool) -> Result<Placement, Error> {
    let chmod = match &copy.chmod {
        None => None,
        Some(Chmod::Octal(mode)) => Some(ModeChange::Octal(*mode)),
        Some(Chmod::Symbolic(text)) => Some(
            ModeChange::parse(text)
                .map_err(|error| fault::at(Error::new(Kind::Request, error.to_string()), at.step, "chmod", "this mode"))?,
        ),
    };
    // Without `--unpack`, ADD unpacks the archives among local files; a download is selected as it is.
    let unpacks = copy.add && copy.unpack != Some(false);
    let unpack = unpacks.then(|| Arc::new(spool));
    Ok(Placement { dest: copy.dest.clone(), chown, chmod, link: copy.link, now: seconds(), unpack })
}

/// Writes what changed as a layer, and remembers its index.
fn write(site: &Site<'_>, at: At<'_>, draft: Draft, chain: &Chain) -> Result<Pending, layer::Error> {
    let _processor = site.processors.one();
    let changes = Arc::new(draft.finish());
    let made = site.behind.write(&changes, chain, at.is_awaited(&site.job.plan))?;
    site.trees.learn(made.layer.diff_id, Arc::clone(&made.layer.index));
    Ok(made.of(MadeOf { changes, chain: chain.clone() }))
}
