//! A build from the user's side: text → plan → job → engine → outputs.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    mem,
    sync::Arc,
};

use super::{
    Agent, CacheFrom, CacheTo, Cancel, Context, NamedContext, Registries, Remotes, Secret, cache,
    dockerfile_text::Text,
    engine_process::{self, Answers},
    judge,
    named::Named,
    remotes::Sources,
    sinks::{self, Sink},
};
use crate::{
    dockerfile,
    engine::{
        Allowed, Event, Job,
        timing::{By, Instant, Laps, Span},
        wire::BuiltImage,
    },
    error::{Error, Kind},
    image::{self, Image},
    layer::{self, Compression},
    oci::{Digest, Platform, Reference},
    output::{self, Moment},
    plan::{self, Action, CopySource, Origin, Plan, Start},
    sandbox::{
        Limits,
        driver::{Preset, SnapshotWish},
    },
    store::Store,
    tree::Moments,
};

/// A build as the user wants it.
#[derive(Debug)]
pub struct Request {
    /// Named contexts.
    pub contexts: BTreeMap<String, NamedContext>,
    /// What the plan is made with.
    pub plan: plan::Request,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Secret>,
    /// ssh agents by id.
    pub agents: BTreeMap<String, Arc<Agent>>,
    /// Stages whose records are not looked at; an empty name stands for all.
    pub no_cache: Vec<String>,
    /// Caches that were made elsewhere.
    pub cache_from: Vec<CacheFrom>,
    /// Where the cache goes.
    pub cache_to: Vec<CacheTo>,
    /// Ask the registry for bases first.
    pub pull: bool,
    /// What each step may use.
    pub limits: Limits,
    /// What steps may ask for beyond what each has.
    pub allowed: Allowed,
    /// Lines of /etc/hosts.
    pub hosts: Vec<String>,
    /// So many steps run at once.
    pub max_steps: usize,
    /// So many threads hash, compress and extract.
    pub jobs: usize,
    /// Is the engine to tell of its parts ([`Event::Phase`])?
    pub phases: bool,
    /// How steps are to be run.
    pub driver: Preset,
    /// How what they change is to be kept.
    pub snapshots: SnapshotWish,
    /// Names that the image gets in the store.
    pub tags: Vec<Reference>,
    /// Where else it goes.
    pub outputs: Vec<Sink>,
}

/// What a command works with.
#[derive(Debug)]
pub struct Session<'a> {
    /// The store.
    pub store: &'a Store,
    /// The registries.
    pub registries: &'a Registries,
    /// What is far off and no registry.
    pub remotes: &'a Remotes,
    /// The way to stop it.
    pub cancel: &'a Cancel,
}

/// What was built.
#[derive(Debug)]
pub struct Built {
    /// One for each platform: one, for now.
    pub images: Vec<(Platform, Image)>,
    /// Where it is, for the last line.
    pub places: Vec<String>,
}

/// How new layers are compressed, unless all outputs say otherwise.
const COMPRESSION: Compression = Compression::Gzip(6);

/// How the engine compresses new layers: as the outputs want them, if they all want the same, so that nothing is compressed for nothing.
/// Outputs without layers have no say.
fn compression(outputs: &[Sink]) -> Compression {
    let mut wishes = outputs.iter().filter(|sink| sink.has_layers()).map(|sink| sink.compression.unwrap_or(COMPRESSION));
    match wishes.next() {
        Some(first) if wishes.all(|other| other == first) => first,
        _ => COMPRESSION,
    }
}

/// Builds. `event` sees everything that happens; `stdout` is for outputs that go there.
pub fn build(
    request: &Request,
    context: &Context,
    text: &Text,
    session: &Session<'_>,
    event: &mut dyn FnMut(Event),
    stdout: &mut dyn Write,
) -> Result<Built, Error> {
    let mut laps = Laps::begin(By::Front);
    let parsed = dockerfile::parse(&text.source.text);
    event(Event::Phase(laps.lap(format!("parsed {} bytes", text.source.text.len()))));
    if !parsed.errors.is_empty() {
        return Err(Error::at(Kind::Request, parsed.errors));
    }
    layer::employ(request.jobs);
    let named = Named::default();
    let plan = judge::plan(request, (context, &named), (text, &parsed), session, event)?;
    let mut laps = Laps::begin(By::Front);
    let sources = sources(&plan);
    let (caches, imported) = cache::bring(&request.cache_from, &plan.platform, session, event);
    let job = Job { imported, ..job(request, (context, &named), text, session, plan)? };
    event(Event::Phase(laps.lap("wrote down what is to be done")));
    Work { request, session, job, sources, caches }.done(event, stdout)
}

/// A build that is ready to be done.
struct Work<'a> {
    request: &'a Request,
    session: &'a Session<'a>,
    job: Job,
    /// Which image each base layer's blob can be fetched from.
    sources: BTreeMap<Digest, String>,
    /// Where the imported caches come from.
    caches: Vec<CacheFrom>,
}

impl Work<'_> {
    /// Attempts until another one would not go any better.
    fn done(mut self, event: &mut dyn FnMut(Event), stdout: &mut dyn Write) -> Result<Built, Error> {
        // A damaged layer costs doing its step again, unless half of an output is on its way already.
        let repeatable = !self.request.outputs.iter().any(Sink::writes_to_stdout);
        let mut told = BTreeSet::new();
        let mut denied: Option<Error> = None;
        let mut cleared = false;
        loop {
            match (self.attempt(event, stdout), denied.take()) {
                (Err(error), _) if error.spoiled && repeatable && told.insert(error.to_string()) => {
                    event(Event::Note { text: format!("{error}: what is damaged is made anew") });
                    self.bring_layouts();
                }
                // Once: what is too large stays too large.
                (Err(error), _) if error.full && repeatable && !mem::replace(&mut cleared, true) => {
                    event(Event::Note { text: format!("{error}: what was not needed was removed, and the build is tried again") });
                }
                // Root of a namespace of the user's reads all that belongs to the user.
                (Err(error), None) if error.denied && !self.job.namespaces && self.request.driver != Preset::None => {
                    event(Event::Note { text: format!("{error}: the build goes on as root of a user namespace") });
                    self.job.namespaces = true;
                    denied = Some(error);
                }
                // Where there is no such namespace the file is still what is wrong.
                (Err(error), Some(mut first)) if error.kind == Kind::Environment && !error.denied => {
                    let said = format!("root of a user namespace could read it, but: {error}");
                    match first.places.first_mut() {
                        Some(place) => place.notes.push(said),
                        None => first.causes.push(said),
                    }
                    return Err(first);
                }
                (result, _) => return result,
            }
        }
    }

    /// What a store has lost of a base that lies in a layout is brought from there again. What cannot be is missed where it is needed.
    fn bring_layouts(&self) {
        for context in self.request.contexts.values() {
            if let NamedContext::Layout(path, _) = context {
                drop(image::load(self.session.store, path));
            }
        }
    }

    /// Engine and outputs, once.
    fn attempt(&self, event: &mut dyn FnMut(Event), stdout: &mut dyn Write) -> Result<Built, Error> {
        let Session { store, registries, remotes, cancel } = *self.session;
        let Request { secrets, agents, .. } = self.request;
        let caches = self.caches.as_slice();
        let answers = Answers { store, registries, remotes, secrets, agents, cancel, caches, sources: Sources::default() };
        let mut records = Vec::new();
        let mut seen = |happened: Event| {
            if let Event::Recorded { record } = happened {
                records.push(record);
            } else {
                event(happened);
            }
        };
        let built = match self.looked(&answers, &mut seen) {
            Some(built) => built,
            None => engine_process::run(&self.job, &answers, cancel, &mut seen)?,
        };
        let mut laps = Laps::begin(By::Front);
        let mut images = Vec::new();
        let mut places = Vec::new();
        for BuiltImage { platform, manifest, moments, written: _ } in built {
            let read = image::read(store, &manifest, &platform)?;
            let base_layers = read.layers.iter().take_while(|layer| self.sources.contains_key(&layer.digest)).count();
            let made = cache::inline(&self.request.cache_to, Image { base_layers, ..read }, &records, &self.job, store)?;
            let delivered = self.dated(&made, &moments).and_then(|dated| {
                let forms = Forms { made: &made, dated: dated.as_ref(), epoch: self.job.plan.epoch };
                deliver(self.request, self.session, &self.sources, forms, event, stdout).map(|places| (places, forms.chief().clone()))
            });
            let (more, image) = delivered.map_err(|error| error.with_room(store)).inspect_err(|error| {
                if error.spoiled {
                    remove_damaged(store, &made);
                }
            })?;
            places.extend(more);
            places.extend(cache::write(&self.request.cache_to, &made, &records, &self.job, store)?);
            images.push((platform, image));
        }
        event(Event::Phase(laps.lap("read the image, named it and wrote what it goes to")));
        if places.is_empty() {
            places.push("the local store, without a name".to_owned());
        }
        Ok(Built { images, places })
    }

    /// What is there if no step has to be done: found by a thread of this process, without what a step needs to run. `None`: there is
    /// something to do, or something is in the way, which is told by who does it.
    fn looked(&self, answers: &Answers<'_>, event: &mut dyn FnMut(Event)) -> Option<Vec<BuiltImage>> {
        let job = &self.job;
        let has_groups = !job.limits.group.is_empty() || job.limits.group_parent.is_some();
        if !job.namespaces || !job.no_cache.is_empty() || has_groups {
            return None;
        }
        let (mut laps, mut heard) = (Laps::begin(By::Front), Vec::new());
        let looking = Job { namespaces: false, only_look: true, ..job.clone() };
        let built = engine_process::run(&looking, answers, self.session.cancel, &mut |happened| heard.push(happened));
        let Ok(built) = built else {
            event(Event::Phase(laps.lap("looked whether all steps are known: they are not")));
            return None;
        };
        heard.into_iter().for_each(&mut *event);
        event(Event::Phase(laps.lap("looked whether all steps are known: they are")));
        Some(built)
    }

    /// The image with the times that a `SOURCE_DATE_EPOCH` gives its layers, unless nobody wants it.
    fn dated(&self, made: &Image, moments: &[Moments]) -> Result<Option<Image>, Error> {
        let outputs = &self.request.outputs;
        let (Some(epoch), false) = (self.job.plan.epoch, !outputs.is_empty() && outputs.iter().all(Sink::keeps_times)) else {
            return Ok(None);
        };
        let to = Moment { epoch, moments, compression: self.job.compression };
        Ok(Some(output::redate(self.session.store, made, &to)?))
    }
}

/// An image as its steps made it, and as it is when all that they made has the time of an epoch.
#[derive(Clone, Copy)]
struct Forms<'a> {
    made: &'a Image,
    dated: Option<&'a Image>,
    epoch: Option<i64>,
}

impl<'a> Forms<'a> {
    /// What the build is said to have made.
    fn chief(self) -> &'a Image {
        self.dated.unwrap_or(self.made)
    }

    /// What an output gets.
    fn of(self, sink: &Sink) -> &'a Image {
        if sink.keeps_times() { self.made } else { self.chief() }
    }
}

/// Reads every layer: the store removes what is not what it should be.
fn remove_damaged(store: &Store, image: &Image) {
    for layer in &image.layers {
        let _whole: bool = store.has_whole_blob(layer);
    }
}

fn job(request: &Request, (context, named): (&Context, &Named), text: &Text, session: &Session<'_>, plan: Plan) -> Result<Job, Error> {
    let namespaces = needs_trees(&plan);
    if namespaces && request.driver == Preset::None {
        return Err(Error::new(Kind::Environment, "this build has to run steps or read an image's files, and `--driver none` forbids it")
            .help("leave `--driver` out"));
    }
    if plan.epoch.is_some() && request.cache_to.contains(&CacheTo::Inline) {
        return Err(Error::new(
            Kind::Request,
            "an inline cache says when its layers were made, which SOURCE_DATE_EPOCH takes out of an image",
        )
        .help("leave one of them out, or write the cache to a directory: `--cache-to type=local,dest=DIR`"));
    }
    let share = if request.cache_to.is_empty() { None } else { Some(salt(&plan)?) };
    let store = session.store.root().to_owned();
    Ok(Job {
        store,
        bounds: session.store.limits(),
        plan,
        context: context.files(text.path.as_deref())?,
        named: named.files(request)?,
        project: context.project.clone(),
        no_cache: request.no_cache.clone(),
        imported: Vec::new(),
        share,
        secrets: request.secrets.keys().cloned().collect(),
        agents: request.agents.keys().cloned().collect(),
        hosts: request.hosts.clone(),
        limits: request.limits.clone(),
        allowed: request.allowed,
        compression: compression(&request.outputs),
        namespaces,
        only_look: false,
        max_steps: request.max_steps,
        jobs: request.jobs,
        phases: request.phases,
        driver: request.driver,
        snapshots: request.snapshots,
    })
}

/// The salt of the records that leave: that of an equal plan is equal.
fn salt(plan: &Plan) -> Result<[u8; 32], Error> {
    let text = serde_json::to_vec(plan).map_err(|error| Error::new(Kind::Bug, "a plan is no JSON").because(&error))?;
    Ok(crate::cache::shared_salt(&text))
}

/// Must some step see a tree? If none must, nothing of the kernel's namespaces is needed.
fn needs_trees(plan: &Plan) -> bool {
    plan.stages.iter().flat_map(|stage| &stage.steps).any(|step| match &step.action {
        Action::Run(_) => true,
        Action::Copy(copy) => {
            matches!(copy.from, Origin::Stage(_) | Origin::Image(_))
                && copy.sources.iter().any(|source| matches!(source, CopySource::Path(_)))
        }
        Action::Metadata | Action::Workdir { .. } => false,
    })
}

/// Names the image in the store and writes its outputs.
fn deliver(
    request: &Request,
    session: &Session<'_>,
    sources: &BTreeMap<Digest, String>,
    forms: Forms<'_>,
    event: &mut dyn FnMut(Event),
    stdout: &mut dyn Write,
) -> Result<Vec<String>, Error> {
    let mut places = Vec::new();
    for tag in &request.tags {
        session.store.put_ref(tag, &forms.chief().manifest)?;
        places.push(format!("the local store as {}", tag.familiar()));
    }
    for sink in &request.outputs {
        if sink.rewrite_timestamp == Some(true) && forms.epoch.is_none() {
            let text =
                "`rewrite-timestamp=true` in --output changes nothing: there is no SOURCE_DATE_EPOCH; give one with --source-date-epoch";
            event(Event::Note { text: text.to_owned() });
        }
        let image = forms.of(sink);
        if sink.needs_layers() {
            complete(session, sources, image, event)?;
        }
        let begun = Instant::now();
        let written = sinks::write(sink, image, forms.epoch, &request.tags, session, event, stdout);
        event(Event::Aside { what: sink.kind.task().to_owned(), span: Span::since(begun) });
        places.extend(written?);
    }
    Ok(places)
}

/// Which image each base layer's blob can be fetched from.
fn sources(plan: &Plan) -> BTreeMap<Digest, String> {
    let bases = plan.stages.iter().filter_map(|stage| if let Start::Image(image) = &stage.start { Some(image) } else { None });
    bases.flat_map(|image| image.layers.iter().map(|layer| (layer.digest, image.name.clone()))).collect()
}

/// Fetches the layers of the base that no step had to see.
fn complete(session: &Session<'_>, sources: &BTreeMap<Digest, String>, image: &Image, event: &mut dyn FnMut(Event)) -> Result<(), Error> {
    for layer in &image.layers {
        if session.store.has_blob(&layer.digest, layer.size) {
            continue;
        }
        let Some(from) = sources.get(&layer.digest) else {
            return Err(Error::new(Kind::Environment, format!("the layer {} is not in the store", layer.digest))
                .help("build again; its step will be done anew")
                .spoiled());
        };
        session.registries.blob(from, layer, session.store, event)?;
    }
    Ok(())
}
