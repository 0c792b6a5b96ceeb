//! Instructions turned into steps, stage by stage in the order of the file.
//!
//! Invariant: a stage is evaluated after all that it starts from or copies from; a reference to a later one is an error.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: dispatchStages, dispatch, finalizeResultImage`.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Action, Base, BaseImage, Copy, CopySource, Evaluated, Origin, Plan, Report, Request, Stage, StageId, Start, Step,
    facts::cut,
    graph::{Directed, Graph, Node, Source, not_yet},
    lookup::{Asker, Lookup, Question},
    paths,
    reach::{Beginning, Prepared, Reached},
    report::Reported,
    scope::{Globals, Ordered, Scope, Setter, cannot_expand},
};
use crate::{
    diag::{Diagnostic, Span},
    dockerfile::{Command, Escape, ExpandError, Instruction, Mode, Word},
    oci::{Config, ImageConfig, Platform, RootFs},
};

/// Where programs are found when nobody says it.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What evaluation reads.
pub(super) struct Evaluation<'e> {
    /// The file's escape character.
    pub(super) escape: Escape,
    /// What the user asks for.
    pub(super) request: &'e Request,
    /// What stages import.
    pub(super) globals: &'e Globals,
    /// The stages.
    pub(super) graph: &'e Graph<'e>,
    /// What the result runs on.
    pub(super) platform: Platform,
}

/// A stage that was evaluated.
enum Done {
    /// It is in the plan.
    Stage(StageId, Box<Inherited>),
    /// A named context takes its place.
    Base(Box<Base>),
    /// It cannot be used, and that was reported.
    Broken,
}

/// What a stage hands on to one that starts from it.
#[derive(Clone, Default)]
pub(super) struct Inherited {
    /// The variables.
    pub(super) scope: Scope,
    /// The config so far.
    pub(super) config: ImageConfig,
    /// ARGs declared so far, for history lines: the value, if there is one, is what holds when `scope` has none.
    pub(super) declared: Ordered<Option<String>>,
    /// Where each variable stands in the config's `Env`.
    pub(super) places: BTreeMap<String, usize>,
    /// Was there a WORKDIR?
    pub(super) has_workdir: bool,
}

impl Evaluation<'_> {
    /// Evaluates all that was reached; `None` when the target cannot be built, which was reported then.
    pub(super) fn run(&self, reached: &Reached<'_>, target: usize, lookup: &mut Lookup<'_>, report: &mut Report) -> Option<Plan> {
        let mut done = BTreeMap::new();
        let mut stages = Vec::new();
        for (index, prepared) in reached {
            if report.is_exhausted() {
                return None;
            }
            let Some(node) = self.graph.nodes.get(*index) else { continue };
            if let Beginning::Replaced(base) = &prepared.start
                && *index != target
            {
                done.insert(*index, Done::Base(base.clone()));
                continue;
            }
            let id = StageId(stages.len());
            let (stage, inherited) = self.stage(node, prepared, *index == target, &done, lookup, report);
            stages.push(stage);
            let broken = matches!(prepared.start, Beginning::Broken);
            done.insert(*index, if broken { Done::Broken } else { Done::Stage(id, Box::new(inherited)) });
        }
        let Some(Done::Stage(id, _)) = done.get(&target) else { return None };
        Some(Plan { stages, target: *id, platform: self.platform.clone(), epoch: None, warnings: Vec::new() })
    }

    fn stage(
        &self,
        node: &Node<'_>,
        prepared: &Prepared<'_>,
        is_target: bool,
        done: &BTreeMap<usize, Done>,
        lookup: &mut Lookup<'_>,
        report: &mut Report,
    ) -> (Stage, Inherited) {
        let (start, mut steps, inherited) = self.begin(node, &prepared.start, done);
        let current = Current { own: inherited, own_command: false, dir: Arc::default(), ports: 0, steps: Vec::new() };
        let mut evaluator = Evaluator { evaluation: self, node, done, lookup, report, current };
        evaluator.inherit();
        let bytes = 2 * evaluator.current.own.scope.bytes() + labels_bytes(&evaluator.current.own.config);
        evaluator.report.charge(bytes, node.ast.span);
        for command in &prepared.commands {
            if !evaluator.report.is_exhausted() {
                evaluator.command(command);
            }
        }
        let mut own = evaluator.current.own;
        steps.append(&mut evaluator.current.steps);
        if is_target {
            self.finish(&mut own.config);
        }
        let stage = Stage { name: self.graph.name(node.index), start, steps, config: own.config.clone(), span: node.ast.span };
        (stage, own)
    }

    fn begin(&self, node: &Node<'_>, start: &Beginning, done: &BTreeMap<usize, Done>) -> (Start, Vec<Step>, Inherited) {
        let fresh = |config: ImageConfig| Inherited { config, ..Inherited::default() };
        match start {
            Beginning::Scratch | Beginning::Broken => (Start::Scratch, Vec::new(), fresh(self.empty_config())),
            Beginning::Stage(base) => match done.get(base) {
                Some(Done::Stage(id, inherited)) => {
                    let mut inherited = Inherited::clone(inherited);
                    inherited.config.config.on_build = None;
                    (Start::Stage(*id), Vec::new(), inherited)
                }
                Some(Done::Base(_) | Done::Broken) | None => (Start::Scratch, Vec::new(), fresh(self.empty_config())),
            },
            Beginning::Base(base) | Beginning::Replaced(base) => match &**base {
                Base::Image(image) => {
                    let mut config = image.config.clone();
                    (config.created, config.rootfs, config.history) = (None, RootFs::default(), Vec::new());
                    config.config.on_build = None;
                    (Start::Image(image.clone()), Vec::new(), fresh(config))
                }
                Base::Scratch => (Start::Scratch, Vec::new(), fresh(self.empty_config())),
                Base::Directory(name) => (Start::Scratch, vec![whole(name, node)], fresh(self.empty_config())),
            },
        }
    }

    /// The config of `FROM scratch`.
    fn empty_config(&self) -> ImageConfig {
        let platform = self.platform.clone();
        let config = Config { env: Some(vec![format!("PATH={DEFAULT_PATH}")]), working_dir: "/".into(), ..Config::default() };
        let mut empty = ImageConfig {
            architecture: platform.architecture,
            os: platform.os,
            variant: platform.variant,
            config,
            ..ImageConfig::default()
        };
        if let Some(version) = platform.os_version {
            empty.other.insert("os.version".into(), version.into());
        }
        empty
    }

    /// What the request adds to the result.
    fn finish(&self, config: &mut ImageConfig) {
        if !self.request.labels.is_empty() {
            let labels = self.request.labels.iter().map(|(name, value)| (name.clone(), value.clone()));
            config.config.labels.get_or_insert_default().extend(labels);
        }
        if self.request.platform.is_some() {
            let same = config.os == self.platform.os && config.architecture == self.platform.architecture;
            config.os.clone_from(&self.platform.os);
            config.architecture.clone_from(&self.platform.architecture);
            if self.platform.variant.is_some() || !same {
                config.variant.clone_from(&self.platform.variant);
            }
        }
    }
}

/// `FROM` a named context that is a directory: all of it, at the root.
fn whole(name: &str, node: &Node<'_>) -> Step {
    let copy = Copy {
        add: false,
        sources: vec![CopySource::Path("/".into())],
        dest: "/".into(),
        from: Origin::Named(name.to_owned()),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack: None,
    };
    let history = "COPY / / # buildkit".to_owned();
    Step { action: Action::Copy(copy), shown: node.ast.original.trim().to_owned(), history, span: node.ast.span, parts: BTreeMap::new() }
}

/// The stage that is being evaluated.
pub(super) struct Current {
    /// What it will hand on.
    pub(super) own: Inherited,
    /// Did this stage say CMD? ENTRYPOINT clears only what was inherited.
    pub(super) own_command: bool,
    /// Its working directory, as facts hold it.
    dir: Arc<str>,
    /// How many ports its EXPOSEs named.
    pub(super) ports: usize,
    /// What it does.
    pub(super) steps: Vec<Step>,
}

/// Evaluates the instructions of one stage.
pub(super) struct Evaluator<'e, 'l> {
    /// What holds for all stages.
    pub(super) evaluation: &'e Evaluation<'e>,
    /// The stage.
    pub(super) node: &'e Node<'e>,
    done: &'e BTreeMap<usize, Done>,
    lookup: &'e mut Lookup<'l>,
    /// Takes the errors.
    pub(super) report: &'e mut Report,
    /// What it has come to.
    pub(super) current: Current,
}

impl Evaluator<'_, '_> {
    /// Takes over what the base's config says. Its ENV wins over ARGs that were inherited with a stage.
    fn inherit(&mut self) {
        let own = &mut self.current.own;
        let config = &mut own.config.config;
        let has_path = config.env.iter().flatten().any(|variable| variable.split('=').next() == Some("PATH"));
        if !has_path {
            config.env.get_or_insert_default().push(format!("PATH={DEFAULT_PATH}"));
        }
        for (place, variable) in config.env.iter().flatten().enumerate() {
            let (name, value) = variable.split_once('=').unwrap_or((variable, ""));
            own.scope.set(name, value, Setter::Env);
            own.places.entry(name.to_owned()).or_insert(place);
        }
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            config.working_dir = paths::rooted(&config.working_dir);
        }
    }

    fn command(&mut self, command: &Directed<'_>) {
        self.begin(command);
        match &command.instruction.command {
            Command::Run(run) => self.run(command, run),
            Command::Copy(copy) => self.copy(command, copy, None),
            Command::Add(add) => self.copy(command, &add.copy, Some(add)),
            Command::Env(pairs) => self.env(command, pairs),
            Command::Label(pairs) => self.label(command, pairs),
            Command::Arg(declarations) => self.arg(command, declarations),
            Command::Cmd(line) => self.cmd(command, line),
            Command::Entrypoint(line) => self.entrypoint(command, line),
            Command::Expose(words) => self.expose(command, words),
            Command::Healthcheck(check) => self.healthcheck(command, check),
            Command::Maintainer(name) => self.maintainer(command, name),
            Command::Onbuild(expression) => {
                self.current.own.config.config.on_build.get_or_insert_default().push(expression.text.clone());
            }
            Command::Shell(shell) => self.shell(command, shell),
            Command::Stopsignal(signal) => self.stopsignal(command, signal),
            Command::User(user) => self.user(command, user),
            Command::Volume(volumes) => self.volume(command, volumes),
            Command::Workdir(path) => self.workdir(command, path),
        }
    }

    /// Notes that an instruction is evaluated now.
    fn begin(&mut self, command: &Directed<'_>) {
        if *self.current.dir != *self.current.own.config.config.working_dir {
            self.current.dir = cut(&self.current.own.config.config.working_dir).into();
        }
        let own = &self.current.own;
        let evaluated = Evaluated {
            stage: self.node.index,
            span: command.span(command.instruction.span),
            trigger: command.trigger.as_ref().map(|_| Box::new(Instruction::clone(&command.instruction))),
            undefined: Vec::new(),
            values: None,
            arguments: Vec::new(),
            default_shell: own.config.config.shell.as_ref().is_none_or(Vec::is_empty),
            has_entrypoint: own.config.config.entrypoint.is_some(),
            dir: Arc::clone(&self.current.dir),
            has_workdir: own.has_workdir,
        };
        self.report.note(|facts| facts.commands.push(evaluated));
    }

    /// Notes which variables a word of the current command uses that are not set. An ARG without a value counts as set.
    pub(super) fn note_unset(&mut self, mut names: Vec<String>) {
        let own = &self.current.own;
        names.retain(|name| !own.declared.contains(name) && !is_for_the_scanner(name));
        let known = || own.scope.in_order().into_iter().map(|(name, ..)| name.to_owned()).collect();
        self.report.note(|facts| facts.undefined(names, known));
    }

    /// Notes what the words of the current command are worth.
    pub(super) fn note_values<'v>(&mut self, values: impl IntoIterator<Item = &'v str>) {
        self.report.note(|facts| facts.values(values));
    }

    /// The value of a word; `None` after an error was reported.
    pub(super) fn expand(&mut self, command: &Directed<'_>, word: &Word) -> Option<String> {
        match self.current.own.scope.expand(&word.text, self.evaluation.escape, Mode::default()) {
            Ok(expanded) => {
                self.note_unset(expanded.unset);
                Some(expanded.text)
            }
            Err(message) => {
                self.cannot_expand(command, word, message);
                None
            }
        }
    }

    /// Reports a word whose variables cannot be expanded.
    pub(super) fn cannot_expand(&mut self, command: &Directed<'_>, word: &Word, error: ExpandError) {
        let placed = Word { text: word.text.clone(), span: command.span(word.span) };
        self.report.error(command.explain(cannot_expand(&placed, error)));
    }

    /// The value of a word that need not be there; a blank one is as good as none.
    pub(super) fn expand_flag(&mut self, command: &Directed<'_>, word: Option<&Word>) -> Result<Option<String>, Reported> {
        match word {
            None => Ok(None),
            Some(word) => self.expand(command, word).map(|value| Some(value).filter(|value| !value.is_empty())).ok_or(Reported),
        }
    }

    /// Reports an error of the current command.
    pub(super) fn error(&mut self, diagnostic: Diagnostic) {
        self.report.error(diagnostic);
    }

    /// Adds a step.
    pub(super) fn step(&mut self, command: &Directed<'_>, action: Action, history: String, parts: BTreeMap<String, Span>) {
        let shown = shown(command);
        let bytes = shown.len() + history.len() + environment_bytes(&action);
        let span = command.span(command.instruction.span);
        if self.report.charge(bytes, span) {
            let parts = parts.into_iter().map(|(name, part)| (name, command.span(part))).collect();
            self.current.steps.push(Step { action, shown, history, span, parts });
        }
    }

    /// Adds a line of history.
    pub(super) fn metadata(&mut self, command: &Directed<'_>, history: String) {
        self.step(command, Action::Metadata, history, BTreeMap::new());
    }

    /// What a command copies or mounts from; `None` after an error was reported.
    pub(super) fn origin(&mut self, command: &Directed<'_>, source: &Source, asker: Asker, span: Span) -> Option<Origin> {
        match source {
            Source::Unnamed => Some(Origin::Context),
            Source::Scratch => Some(Origin::Scratch),
            Source::Broken => None,
            Source::Stage(index) if *index >= self.node.index => {
                self.report.error(not_yet(command, self.evaluation.graph, (self.node.index, *index), span));
                None
            }
            Source::Stage(index) => match self.done.get(index) {
                Some(Done::Stage(id, _)) => Some(Origin::Stage(*id)),
                Some(Done::Base(base)) => Some(origin_of(Base::clone(base))),
                Some(Done::Broken) | None => None,
            },
            Source::Name(name) => {
                let span = command.span(span);
                let graph = self.evaluation.graph;
                let question = Question { name, platform: None, span, asker, stages: &|| graph.stage_names() };
                match self.lookup.find(&question) {
                    Ok(base) => Some(origin_of(base)),
                    Err(blamed) => {
                        let (diagnostic, kind) = *blamed;
                        self.report.blame(command.explain(diagnostic), kind);
                        None
                    }
                }
            }
        }
    }
}

/// These two steer the SBOM scanner; a step never sees them.
pub(super) fn is_for_the_scanner(name: &str) -> bool {
    matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}

fn origin_of(base: Base) -> Origin {
    match base {
        Base::Image(image) => Origin::Image(image),
        Base::Scratch => Origin::Scratch,
        Base::Directory(name) => Origin::Named(name),
    }
}

fn environment_bytes(action: &Action) -> usize {
    match action {
        Action::Run(run) => {
            let environment: usize = run.env.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
            environment + run.argv.iter().map(String::len).sum::<usize>()
        }
        Action::Copy(copy) => copy.sources.len() * 64 + image_bytes(&copy.from),
        Action::Metadata | Action::Workdir { .. } => 64,
    }
}

fn image_bytes(origin: &Origin) -> usize {
    match origin {
        Origin::Image(BaseImage { layers, config, .. }) => {
            let lines: usize = config.history.iter().filter_map(|line| line.created_by.as_ref()).map(String::len).sum();
            let variables: usize = config.config.env.iter().flatten().map(String::len).sum();
            256 * (layers.len() + config.history.len()) + lines + variables + labels_bytes(config)
        }
        Origin::Context | Origin::Named(_) | Origin::Stage(_) | Origin::Scratch => 0,
    }
}

fn labels_bytes(config: &ImageConfig) -> usize {
    config.config.labels.iter().flatten().map(|(name, value)| name.len() + value.len() + 64).sum()
}

/// The instruction as progress shows it.
fn shown(command: &Directed<'_>) -> String {
    let original = command.instruction.original.trim();
    let (keyword, rest) = original.split_once(char::is_whitespace).unwrap_or((original, ""));
    let onbuild = if command.trigger.is_some() { "ONBUILD " } else { "" };
    let mut shown = format!("{onbuild}{} {}", keyword.to_uppercase(), rest.trim_start());
    if let Command::Run(run) = &command.instruction.command
        && let [heredoc] = run.heredocs.as_slice()
    {
        let mut lines = heredoc.content.trim().lines();
        shown.extend([" (", lines.next().unwrap_or_default(), if lines.next().is_some() { "...)" } else { ")" }]);
    }
    shown
}
