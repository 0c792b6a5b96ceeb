//! A build: the graph run to its end.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use super::{
    Event, Front, How, Job, StepInfo,
    behind::Behind,
    contexts::Contexts,
    copying,
    driver::{Place, Ways},
    graph::{Graph, Node},
    looking::Looking,
    permits::Permits,
    running,
    schedule::Schedule,
    snapshot::{Line, Snapshot},
    stop::Stop,
    timing::{By, Instant, Laps, Span, Spell, Used},
    trees::{Trees, went_missing},
    turns::Turns,
    whole,
    workplace::{InMemory, Kept},
};
use crate::{
    cache::{Outcome, StepKey},
    error::{Error, Kind},
    image::{self, BaseParts, Image, Item},
    layer::{self, Compression},
    oci::Platform,
    plan::{Action, BaseImage, Plan, Stage, StageId, Start, Step},
    sandbox::{cgroup::Groups, driver::Isolation},
    store::Store,
    sys,
    tree::Moments,
};

/// In microseconds: to find out that there is nothing to wait for takes time as well.
const SHORTEST_WAIT: u64 = 1000;

/// What the steps of one build share.
pub(super) struct Site<'a> {
    pub(super) job: &'a Job,
    pub(super) store: &'a Store,
    pub(super) front: &'a dyn Front,
    /// The ownership domain that trees are made in.
    pub(super) domain: &'a str,
    /// How steps are run.
    pub(super) ways: Ways,
    /// Has it been told that steps have no /proc of their own?
    pub(super) proc_told: AtomicBool,
    /// What ends it before its time.
    pub(super) stop: &'a Stop,
    /// One at a time, for a name.
    pub(super) turns: &'a Turns<'a>,
    /// What hashes, compresses and extracts holds one.
    pub(super) processors: &'a Permits,
    /// Layers on their way into the store.
    pub(super) behind: &'a Behind,
    pub(super) trees: Trees<'a>,
    /// Where what steps change is kept, if it is in memory.
    pub(super) memory: Option<InMemory>,
    /// The trees that steps have worked in and no step works in now, if steps work in one: as many as there were at once.
    pub(super) kept: Mutex<Vec<Kept>>,
    pub(super) contexts: Contexts,
    /// Where steps get control groups of their own, if they have limits that need one.
    pub(super) groups: Option<Arc<Groups>>,
    /// For each stage, the state after its last finished step.
    stages: Mutex<Vec<Snapshot>>,
    /// What was made in this build: an equal step of another stage is not done again, whatever may be taken from the cache.
    pub(super) made: Mutex<BTreeMap<StepKey, Outcome>>,
}

/// A step with what messages and keys need of its surroundings.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) number: usize,
    pub(super) node: Node,
    pub(super) stage: &'a Stage,
    pub(super) step: &'a Step,
    /// What tells the instructions of one project from another's that stand in the same place: the context.
    pub(super) project: &'a str,
}

impl At<'_> {
    /// May other work wait for its layer's tar? Not for that of the last step, whose tar need not run ahead of the compressor.
    pub(super) fn is_awaited(&self, plan: &Plan) -> bool {
        let is_work = |step: &Step| !matches!(step.action, Action::Metadata);
        self.node.stage.0 + 1 != plan.stages.len() || self.stage.steps.iter().skip(self.node.step + 1).any(is_work)
    }
}

/// What a build made.
#[derive(Debug)]
pub struct Made {
    /// The image.
    pub image: Image,
    /// For each of its layers, base first, which of its times are not those of what it was made of.
    pub moments: Vec<Moments>,
}

/// Builds the plan's target. The result has one entry for each platform: one, for now.
pub fn build(job: &Job, store: &Store, place: &Place, front: &dyn Front) -> Result<Vec<(Platform, Made)>, Error> {
    let looking = Looking(front);
    let front: &dyn Front = if job.only_look { &looking } else { front };
    let plan = &job.plan;
    let mut laps = Told { front, laps: job.phases.then(|| Laps::begin(By::Engine)) };
    let graph = Graph::of(plan);
    let ways = Ways::find(place, job.snapshots, store)?;
    laps.lap("made the graph, and found a way to keep what steps change");
    front.event(Event::Driver { driver: ways.driver(), refused: ways.refused.clone() });
    front.event(Event::Planned { steps: graph.nodes().enumerate().map(|(number, node)| info(plan, node, (&graph, number))).collect() });
    let memory = InMemory::mount(store, ways.driver())?;
    layer::employ(job.jobs);
    let (slots, processors) = (Permits::new(job.max_steps), Permits::new(job.jobs));
    let stop = Arc::new(Stop::of(front.cancelled())?);
    let turns = Turns::new(store, front, &stop, &slots);
    let behind = Behind::new(store, job.compression, Arc::clone(&stop), front.cancelled())?;
    let trees =
        Trees::new((store, front), (&turns, &processors, &behind), &place.domain, ways.owners(), memory.as_ref().map(InMemory::dir));
    let site = Site {
        job,
        store,
        front,
        domain: &place.domain,
        trees,
        ways,
        proc_told: AtomicBool::new(false),
        stop: &stop,
        turns: &turns,
        processors: &processors,
        behind: &behind,
        memory,
        kept: Mutex::default(),
        contexts: Contexts::default(),
        groups: groups(job)?,
        stages: Mutex::new(vec![Snapshot::default(); plan.stages.len()]),
        made: Mutex::default(),
    };
    let work = |number, node, ready| site.step(number, node, ready);
    let schedule = Schedule::new(&graph, &slots, &stop, &work);
    laps.lap("prepared the steps");
    let done = if site.is_in_turn() { schedule.in_turn() } else { schedule.at_once() };
    laps.lap("did the steps");
    // The layers of what was done are kept for the next build, whatever became of this one.
    let packed = behind.finish();
    laps.lap("waited for layers that were behind");
    for (step, span) in behind.spans() {
        front.event(Event::Spent { step, at: Spell::Compressing, span });
    }
    if job.only_look && done.is_err() {
        // What was read need not be read again by who does the work.
        let _only_slower = site.contexts.save(store);
    }
    both(done, packed)?;
    site.contexts.save(store)?;
    laps.lap("kept what is known of the contexts' files");
    // Before its bytes would be written back.
    drop(std::mem::take(&mut *whole(&site.kept)));
    // A build that made nothing waits for nobody's disk. What a killed build before it left unsynced counts as missing after a power cut.
    if !whole(&site.made).is_empty() {
        store.sync()?;
    }
    laps.lap("let go of the steps' trees and synced what is new");
    let made = finish(&site, plan)?;
    laps.lap("assembled the image");
    Ok(vec![(plan.platform.clone(), made)])
}

/// Of two errors the one to tell: what was stopped by the other is not to blame.
fn both(done: Result<(), Error>, packed: Result<(), Error>) -> Result<(), Error> {
    match (done, packed) {
        (Err(stopped), Err(why)) if stopped.kind == Kind::Interrupted => Err(why),
        (Err(error), _) | (Ok(()), Err(error)) => Err(error),
        (Ok(()), Ok(())) => Ok(()),
    }
}

/// Tells the front of each part, if it is to be told.
pub(super) struct Told<'a> {
    front: &'a dyn Front,
    laps: Option<Laps>,
}

impl Told<'_> {
    pub(super) fn lap(&mut self, what: &str) {
        if let Some(laps) = &mut self.laps {
            self.front.event(Event::Phase(laps.lap(what)));
        }
    }
}

/// Where the steps get control groups, if a limit asks for them. Found out before the first step, so that no work is lost.
fn groups(job: &Job) -> Result<Option<Arc<Groups>>, Error> {
    let limits = &job.limits;
    let runs = job.plan.stages.iter().flat_map(|stage| &stage.steps).any(|step| matches!(step.action, Action::Run(_)));
    if !runs || (limits.group.is_empty() && limits.group_parent.is_none()) {
        return Ok(None);
    }
    let groups = Groups::prepare(limits.group_parent.as_deref(), &limits.group);
    groups.map(|groups| Some(Arc::new(groups))).map_err(|error| {
        let mut flags: Vec<&str> = limits.group.iter().map(|setting| setting.flag.as_str()).collect();
        flags.extend(limits.group_parent.as_ref().map(|_| "--cgroup-parent"));
        flags.dedup();
        Error::new(Kind::Environment, format!("`{}` cannot be kept to here", flags.join("`, `"))).because(&error).help(error.help())
    })
}

fn info(plan: &Plan, node: Node, (graph, number): (&Graph, usize)) -> StepInfo {
    let stage = plan.stages.get(node.stage.0);
    let on = graph.on(plan, number);
    // Of a stage on another one whose steps are none, those of that one.
    let base = if on.is_none() { start_image(plan, node.stage) } else { None };
    StepInfo {
        stage: stage.map(|stage| stage.name.clone()).unwrap_or_default(),
        number: node.step + 1,
        of: stage.map_or(0, |stage| stage.steps.len()),
        shown: stage.and_then(|stage| stage.steps.get(node.step)).map(|step| step.shown.clone()).unwrap_or_default(),
        needs: graph.needs(number).iter().copied().collect(),
        on,
        base: base.map(|image| image.config.rootfs.diff_ids.clone()).unwrap_or_default(),
    }
}

/// The image that a stage begins with, if need be through stages without steps.
fn start_image(plan: &Plan, stage: StageId) -> Option<&BaseImage> {
    match &plan.stages.get(stage.0)?.start {
        Start::Image(image) => Some(image),
        // Stages stand after those that they need.
        Start::Stage(below) if below.0 < stage.0 => start_image(plan, *below),
        Start::Scratch | Start::Stage(_) => None,
    }
}

/// The state that a step begins with. That of the step before it is taken: nobody else looks at a stage that is not at its end, and a copy of all layers
/// for each step would be the square of their number.
fn before(site: &Site<'_>, plan: &Plan, node: Node) -> Option<Snapshot> {
    if node.step > 0 { whole(&site.stages).get_mut(node.stage.0).map(std::mem::take) } else { start(site, plan, node.stage) }
}

/// The state that a stage begins with.
fn start(site: &Site<'_>, plan: &Plan, stage: StageId) -> Option<Snapshot> {
    match &plan.stages.get(stage.0)?.start {
        Start::Scratch => Some(Snapshot::default()),
        Start::Image(image) => Some(Snapshot::of_image(image)),
        Start::Stage(below) => end(site, plan, *below),
    }
}

/// The state of a stage whose steps are all done; a stage may have none.
pub(super) fn end(site: &Site<'_>, plan: &Plan, stage: StageId) -> Option<Snapshot> {
    if plan.stages.get(stage.0)?.steps.is_empty() { start(site, plan, stage) } else { whole(&site.stages).get(stage.0).cloned() }
}

fn finish(site: &Site<'_>, plan: &Plan) -> Result<Made, Error> {
    let state = end(site, plan, plan.target).unwrap_or_default();
    let mut items = state.lines.iter().map(|line| item(site, line)).collect::<Result<Vec<_>, _>>()?;
    if let Some(epoch) = epoch(plan)? {
        for item in &mut items {
            item.time = Some(epoch.clone());
        }
    }
    let config = plan.stages.get(plan.target.0).map(|stage| stage.config.clone()).unwrap_or_default();
    let base = state.base.as_ref().map(|base| BaseParts { config: &base.config, layers: &base.layers });
    let image = image::assemble(site.store, base, config, &items, &plan.platform)?;
    Ok(Made { image, moments: state.layers.into_iter().map(|held| held.moments).collect() })
}

/// A line with the blob of its layer.
fn item(site: &Site<'_>, line: &Line) -> Result<Item, Error> {
    let item = Item::new(&line.created_by);
    let Some((diff_id, created)) = &line.layer else { return Ok(item) };
    let blob = site.store.layer_blob(diff_id, &site.job.compression.id()).or_else(|| site.store.any_layer_blob(diff_id));
    let blob = blob.ok_or_else(|| went_missing(diff_id))?;
    Ok(Item { layer: Some((*diff_id, blob, created.clone())), ..item })
}

/// The time that `SOURCE_DATE_EPOCH` gives the image and the lines of its history; the layers stay as they were made.
fn epoch(plan: &Plan) -> Result<Option<String>, Error> {
    let Some(seconds) = plan.epoch else { return Ok(None) };
    let time = jiff::Timestamp::from_second(seconds)
        .map_err(|error| Error::new(Kind::Request, "SOURCE_DATE_EPOCH is out of range").because(&error))?;
    Ok(Some(time.to_string()))
}

impl Site<'_> {
    /// Is one step done after the other? Where there are no namespaces what a step has started is found among all that this
    /// process has: nothing tells the orphans of one step from those of another.
    fn is_in_turn(&self) -> bool {
        self.job.only_look || self.job.max_steps <= 1 || self.ways.driver().is_some_and(|driver| driver.isolation == Isolation::Chroot)
    }

    /// Does a step of the graph, and notes how its stage stands after it.
    fn step(&self, number: usize, node: Node, ready: Instant) -> Result<(), Error> {
        self.waited(number, Span::since(ready));
        let (plan, unknown) = (&self.job.plan, || Error::new(Kind::Bug, "a step that is not in the plan"));
        let stage = plan.stages.get(node.stage.0).ok_or_else(unknown)?;
        let step = stage.steps.get(node.step).ok_or_else(unknown)?;
        let before = before(self, plan, node).ok_or_else(unknown)?;
        let after = self.run(At { number, node, stage, step, project: &self.job.project }, before)?;
        if let Some(state) = whole(&self.stages).get_mut(node.stage.0) {
            *state = after;
        }
        Ok(())
    }

    /// Runs one step, with its events.
    fn run(&self, at: At<'_>, before: Snapshot) -> Result<Snapshot, Error> {
        let (begun, used_before) = (Instant::now(), sys::thread_time());
        self.front.event(Event::Started { step: at.number });
        let result = match &at.step.action {
            Action::Metadata => Ok((before.with_line(&at.step.history), How::Noted)),
            Action::Workdir { path, user } => copying::workdir(self, at, &before, path, user).map(|made| layered(at, before, made)),
            Action::Copy(copy) => copying::copy(self, at, &before, copy).map(|made| layered(at, before, made)),
            Action::Run(run) => running::run(self, at, &before, run).map(|made| layered(at, before, made)),
        };
        let how = match &result {
            Ok((_, how)) => *how,
            Err(error) if error.kind == Kind::Interrupted => How::Cancelled,
            Err(_) => How::Failed,
        };
        self.turns.waits().into_iter().for_each(|span| self.waited(at.number, span));
        let span = Span::since(begun);
        let used = Used::by_thread(sys::thread_time().saturating_sub(used_before));
        self.front.event(Event::Used { step: at.number, used });
        self.front.event(Event::Spent { step: at.number, at: Spell::Whole, span });
        self.front.event(Event::Finished { step: at.number, how, millis: span.to.micros_since(span.from) / 1000 });
        result.map(|(after, _)| after)
    }

    /// Tells of the parts of a step.
    pub(super) fn laps(&self, step: usize) -> Told<'_> {
        Told { front: self.front, laps: self.job.phases.then(|| Laps::of_step(step)) }
    }

    /// Says that a step waited, if it is worth a word.
    fn waited(&self, step: usize, span: Span) {
        if span.to.micros_since(span.from) >= SHORTEST_WAIT {
            self.front.event(Event::Spent { step, at: Spell::Waiting, span });
        }
    }

    /// How new layers are compressed.
    pub(super) fn compression(&self) -> Compression {
        self.job.compression
    }
}

fn layered(at: At<'_>, before: Snapshot, (outcome, how): (Outcome, How)) -> (Snapshot, How) {
    (before.with_layer(&at.step.history, outcome), how)
}

/// Now, in whole seconds: the time of what no source gives one.
pub(super) fn seconds() -> i64 {
    crate::sys::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}
