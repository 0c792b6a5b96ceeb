//! The stages of a file by name and number, and which of them each refers to. No base is looked up here.
//!
//! Source: BuildKit `dockerfile2llb/convert.go: buildDispatchStates, toCommand, validateCircularDependency`.

use std::{borrow::Cow, collections::BTreeMap};

use super::{
    FromFacts, PlatformFacts, Report, Request,
    circles::circles,
    lookup::{SCRATCH, context_name},
    reach::Reached,
    scope::{Globals, Scope, cannot_expand},
};
use crate::{
    diag::{Diagnostic, Span, closest},
    dockerfile::{self, Dockerfile, Escape, Expanded, Instruction, Mode, Word, mount_from},
    oci::{Platform, Reference},
};

/// No image's name is as long as this, a digest included.
const NAME_BYTES: usize = 1024;

/// A stage before anything in it is evaluated.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Its number in the file.
    pub(super) index: usize,
    /// As written.
    pub(super) ast: &'a dockerfile::Stage,
    /// What it starts from.
    pub(super) from: From,
    /// `--platform`.
    pub(super) platform: Option<Platform>,
    /// The named context that takes its place: nothing of the stage is then evaluated.
    pub(super) context: Option<&'a str>,
    /// What follows FROM.
    pub(super) commands: Vec<Directed<'a>>,
}

impl Node<'_> {
    /// The stages that it copies or mounts from.
    fn needed(&self) -> impl Iterator<Item = usize> {
        self.commands.iter().flat_map(|command| &command.sources).filter_map(|source| match source {
            Source::Stage(index) => Some(*index),
            Source::Unnamed | Source::Scratch | Source::Name(_) | Source::Broken => None,
        })
    }
}

/// What FROM names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum From {
    /// Nothing.
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image or a named context.
    Name(String),
    /// It is wrong, and that was reported.
    Broken,
}

/// An instruction with the stages and images it refers to.
#[derive(Debug, Clone)]
pub(super) struct Directed<'a> {
    /// What it says.
    pub(super) instruction: Cow<'a, Instruction>,
    /// Of `COPY --from`: one; of RUN: one for each mount.
    pub(super) sources: Vec<Source>,
    /// The ONBUILD it comes from.
    pub(super) trigger: Option<Trigger>,
}

/// Where a command comes from that is not in the stage itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Trigger {
    /// FROM, the place of all it says.
    pub(super) span: Span,
    /// Its text.
    pub(super) expression: String,
    /// The image or stage that has it.
    pub(super) owner: String,
}

impl Directed<'_> {
    /// An error at a place of this command. A trigger's own places are not in this file.
    pub(super) fn error(&self, headline: impl Into<String>, span: Span) -> Diagnostic {
        self.explain(Diagnostic::error(headline, self.span(span)))
    }

    /// Says where a trigger comes from.
    pub(super) fn explain(&self, diagnostic: Diagnostic) -> Diagnostic {
        match &self.trigger {
            Some(trigger) => diagnostic.note(format!("from `ONBUILD {}` of `{}`", trigger.expression, trigger.owner)),
            None => diagnostic,
        }
    }

    /// The place in this file of a place of this command.
    pub(super) fn span(&self, span: Span) -> Span {
        self.trigger.as_ref().map_or(span, |trigger| trigger.span)
    }
}

/// What `--from` and `from=` name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// Nothing is named.
    Unnamed,
    /// An empty tree.
    Scratch,
    /// A stage.
    Stage(usize),
    /// An image or a named context.
    Name(String),
    /// It is wrong, and that was reported.
    Broken,
}

/// The errors of FROM lines, and those that can wait.
type Errors<'r> = (&'r mut Report, &'r mut Vec<Diagnostic>);

/// All stages.
#[derive(Debug)]
pub(super) struct Graph<'a> {
    /// In the order of the file.
    pub(super) nodes: Vec<Node<'a>>,
    /// By lower-cased name; of two with one name the later.
    names: BTreeMap<&'a str, usize>,
    request: &'a Request,
}

impl<'a> Graph<'a> {
    /// Reads the FROM lines and resolves what the instructions refer to.
    pub(super) fn of(file: &'a Dockerfile, request: &'a Request, globals: &Globals, report: &mut Report) -> Self {
        let mut graph = Self { nodes: Vec::new(), names: BTreeMap::new(), request };
        let mut impossible = Vec::new();
        for (index, ast) in file.stages.iter().enumerate() {
            if report.is_exhausted() {
                break;
            }
            note_from(index, ast, file.escape, globals, report);
            let from = graph.base(ast, file.escape, globals, (report, &mut impossible));
            let platform = ast.platform.as_ref().and_then(|word| platform(word, file.escape, globals, report));
            let name = ast.name.as_ref().map(|name| name.text.as_str());
            let context = name.and_then(|name| context_name(request, name));
            graph.nodes.push(Node { index, ast, from, platform, context, commands: Vec::new() });
            if let Some(name) = name {
                graph.names.insert(name, index);
            }
        }
        // BuildKit finds these only when it looks the bases up.
        for error in impossible {
            report.error(error);
        }
        for (index, ast) in file.stages.iter().enumerate() {
            let commands = ast.commands.iter().map(|instruction| graph.direct(Cow::Borrowed(instruction), None, report)).collect();
            if let Some(node) = graph.nodes.get_mut(index) {
                node.commands = commands;
            }
        }
        graph
    }

    fn base(&self, ast: &dockerfile::Stage, escape: Escape, globals: &Globals, (report, impossible): Errors<'_>) -> From {
        let name = match globals.scope.expand(&ast.base.text, escape, Mode::default()) {
            Ok(expanded) if expanded.text.is_empty() => {
                report.error(blank(&ast.base, &expanded, globals));
                return From::Broken;
            }
            Ok(expanded) if expanded.text.len() > NAME_BYTES => {
                let error = Diagnostic::error("the base name is too long", ast.base.span).label("longer than any image's name");
                report.error(error.help("look at the values of its variables"));
                return From::Broken;
            }
            Ok(expanded) => expanded.text,
            Err(message) => {
                report.error(cannot_expand(&ast.base, message));
                return From::Broken;
            }
        };
        // BuildKit compares FROM's name as it is written; capitals cannot be an image's, so nothing is shadowed.
        if let Some(index) = self.find(&name) {
            From::Stage(index)
        } else if name == SCRATCH {
            From::Scratch
        } else if let Some(error) = self.impossible(&name, ast.base.span) {
            impossible.push(error);
            From::Broken
        } else {
            From::Name(name)
        }
    }

    /// An error if a name cannot be an image's, nor is a context's.
    fn impossible(&self, name: &str, span: Span) -> Option<Diagnostic> {
        if context_name(self.request, name).is_some() {
            return None;
        }
        let error = name.parse::<Reference>().err()?;
        let diagnostic = Diagnostic::error(format!("no stage or named context is called `{name}`"), span).label("not found");
        let diagnostic = diagnostic.note(format!("it cannot be an image's name either: {}", error.reason));
        let contexts = self.request.contexts.iter().map(String::as_str);
        Some(match closest(name, self.stage_names().into_iter().chain(contexts)) {
            Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
            None => diagnostic.help("an image is called `[registry/]name[:tag]`, in lower case"),
        })
    }

    /// The stage of a name, whatever its capitals.
    fn find(&self, name: &str) -> Option<usize> {
        self.names.get(name.to_lowercase().as_str()).copied()
    }

    /// Names of stages, for suggestions.
    pub(super) fn stage_names(&self) -> Vec<&'a str> {
        self.names.keys().copied().collect()
    }

    /// Resolves what an instruction refers to.
    pub(super) fn direct(&self, instruction: Cow<'a, Instruction>, trigger: Option<Trigger>, report: &mut Report) -> Directed<'a> {
        let mut directed = Directed { instruction, sources: Vec::new(), trigger };
        if let dockerfile::Command::Copy(copy) = &directed.instruction.command {
            directed.sources = copy.from.iter().map(|from| self.copy_source(from, &directed, report)).collect();
        } else if let dockerfile::Command::Run(run) = &directed.instruction.command {
            directed.sources = run.mounts.iter().map(|mount| self.mount_source(mount, &directed, report)).collect();
        }
        directed
    }

    fn copy_source(&self, from: &Word, directed: &Directed<'_>, report: &mut Report) -> Source {
        let plain = Scope::default().expand(&from.text, Escape::default(), Mode::default());
        if plain.map(|expanded| expanded.text) != Ok(from.text.clone()) {
            let error = directed.error("variables are not expanded in `--from`", from.span).label("taken as it is written");
            report.error(error.help("define a stage with `FROM … AS name` that uses a global ARG, and copy from that"));
            return Source::Broken;
        }
        let Ok(number) = from.text.parse::<i64>() else {
            return self.source(&from.text, directed, from.span, report);
        };
        match usize::try_from(number) {
            Ok(index) if index < self.nodes.len() => Source::Stage(index),
            _ => {
                let error = directed.error(format!("there is no stage {number}"), from.span).label("not found");
                let error = error.note(format!("stages are counted from 0, the last is {}", self.nodes.len() - 1));
                report.error(error.help("give the stage a name, `FROM … AS name`, and write `--from=name`"));
                Source::Broken
            }
        }
    }

    fn mount_source(&self, mount: &Word, directed: &Directed<'_>, report: &mut Report) -> Source {
        match mount_from(&mount.text) {
            None => Source::Unnamed,
            Some(from) if from.contains('$') => {
                let error = directed.error("variables are not expanded in `from`", mount.span).label("taken as it is written");
                report.error(error.help("define a stage with `FROM … AS name` that uses a global ARG, and mount from that"));
                Source::Broken
            }
            Some(from) => self.source(&from, directed, mount.span, report),
        }
    }

    fn source(&self, name: &str, directed: &Directed<'_>, span: Span, report: &mut Report) -> Source {
        if let Some(index) = self.find(name) {
            Source::Stage(index)
        } else if name == SCRATCH {
            Source::Scratch
        } else if let Some(error) = self.impossible(name, directed.span(span)) {
            report.error(directed.explain(error));
            Source::Broken
        } else {
            Source::Name(name.to_owned())
        }
    }

    /// The stage that is to be built; `None` after an error was reported.
    pub(super) fn target(&self, wanted: Option<&str>, report: &mut Report) -> Option<usize> {
        let Some(last) = self.nodes.len().checked_sub(1) else {
            let error = Diagnostic::error("the file has no stage to build", Span::default()).help("begin one with `FROM`");
            report.error(Diagnostic { labels: Vec::new(), ..error });
            return None;
        };
        let Some(wanted) = wanted else { return Some(last) };
        let numbered = || wanted.parse::<usize>().ok().filter(|index| *index <= last);
        self.find(wanted).or_else(numbered).or_else(|| {
            let headline = format!("target stage `{wanted}` could not be found");
            let place = self.nodes.last().map(|node| node.ast.span).unwrap_or_default();
            let mut diagnostic = Diagnostic::error(headline, place).label("the last stage begins here");
            let names = self.stage_names();
            if !names.is_empty() {
                diagnostic = diagnostic.note(format!("the file has the stages `{}`", names.join("`, `")));
            }
            report.error(match closest(wanted, names) {
                Some(meant) => diagnostic.help(format!("did you mean `{meant}`?")),
                None => diagnostic.help(format!("give a stage's name, or its number: they are counted from 0 to {last}")),
            });
            None
        })
    }

    /// Reports stages that need themselves, also those that the target does not need.
    pub(super) fn refuse_circles(&self, reached: &Reached<'_>, report: &mut Report) {
        let circles = circles(self.nodes.iter().map(|node| node.needed().collect()).collect());
        for node in self.nodes.iter().filter(|node| !reached.contains_key(&node.index)) {
            for command in &node.commands {
                for source in &command.sources {
                    if let Source::Stage(other) = source
                        && *other >= node.index
                        && circles.get(*other) == circles.get(node.index)
                    {
                        report.error(not_yet(command, self, (node.index, *other), source_span(command)));
                    }
                }
            }
        }
    }

    /// For messages: its name, else `stage-N`.
    pub(super) fn name(&self, index: usize) -> String {
        let name = self.nodes.get(index).and_then(|node| node.ast.name.as_ref());
        name.map_or_else(|| format!("stage-{index}"), |name| name.text.clone())
    }
}

/// A stage refers to itself or to one that comes later.
pub(super) fn not_yet(command: &Directed<'_>, graph: &Graph<'_>, (stage, needed): (usize, usize), place: Span) -> Diagnostic {
    let name = graph.name(needed);
    if stage == needed {
        let error = command.error(format!("stage `{name}` refers to itself"), place).label("this stage is not finished here");
        return error.help("its files are here already: use `RUN cp`, or name an earlier stage");
    }
    let error = command.error(format!("stage `{name}` is defined after it is used"), place).label("not built yet");
    let error = match graph.nodes.get(needed) {
        Some(node) => error.also(node.ast.span, "defined here"),
        None => error,
    };
    error.help(format!("move stage `{name}` before stage `{}`", graph.name(stage)))
}

/// The place of the reference in a command, the first that names a stage.
fn source_span(command: &Directed<'_>) -> Span {
    let whole = command.instruction.span;
    if let dockerfile::Command::Copy(copy) = &command.instruction.command {
        copy.from.as_ref().map_or(whole, |from| from.span)
    } else if let dockerfile::Command::Run(run) = &command.instruction.command {
        let mut named = run.mounts.iter().zip(&command.sources).filter(|(_, source)| matches!(source, Source::Stage(_)));
        named.next().map_or(whole, |(mount, _)| mount.span)
    } else {
        whole
    }
}

/// Notes what a FROM line uses.
fn note_from(stage: usize, ast: &dockerfile::Stage, escape: Escape, globals: &Globals, report: &mut Report) {
    let expand = |word: &Word| globals.scope.expand(&word.text, escape, Mode::default());
    let Ok(base) = expand(&ast.base) else { return };
    // A base that is blank is BuildKit's error before it comes to the platform.
    let platform = ast.platform.as_ref().filter(|_| !base.text.is_empty()).and_then(|word| expand(word).ok());
    let both = || std::iter::once(&base).chain(&platform);
    let unset = both().flat_map(|expanded| &expanded.unset).filter(|name| !globals.declared.contains(*name)).cloned().collect();
    let used = both().flat_map(|expanded| expanded.used.iter().cloned()).collect();
    let platform = platform.map(|expanded| PlatformFacts {
        platform: expanded.text.parse().ok(),
        is_target: globals.scope.value("TARGETPLATFORM") == Some(expanded.text.as_str()),
        expanded,
    });
    report.note(|facts| {
        let undeclared = facts.not_set(unset, || globals.names());
        facts.froms.push(FromFacts { stage, used, undeclared, platform });
    });
}

fn blank(word: &Word, expanded: &Expanded, globals: &Globals) -> Diagnostic {
    let error = Diagnostic::error(format!("the base name `{}` is blank", word.text), word.span).label("expands to nothing");
    match expanded.unset.first() {
        None => error,
        Some(name) if globals.declared.contains(name) => {
            error.help(format!("give `{name}` a default, `ARG {name}=…`, or a value, `--build-arg {name}=…`"))
        }
        Some(name) => match closest(name, globals.scope.names()) {
            Some(meant) => error.note(format!("`{name}` is not set")).help(format!("did you mean `${{{meant}}}`?")),
            None => error.help(format!("declare it before the first FROM: `ARG {name}=…`")),
        },
    }
}

fn platform(word: &Word, escape: Escape, globals: &Globals, report: &mut Report) -> Option<Platform> {
    let expanded = match globals.scope.expand(&word.text, escape, Mode::default()) {
        Ok(expanded) => expanded,
        Err(message) => {
            report.error(cannot_expand(word, message));
            return None;
        }
    };
    let error = match expanded.text.parse::<Platform>() {
        Ok(platform) => return Some(platform),
        Err(_) if expanded.text.is_empty() => {
            Diagnostic::error(format!("the platform `{}` is blank", word.text), word.span).label("expands to nothing")
        }
        Err(error) => {
            Diagnostic::error(error.to_string(), word.span).label("not one").help("write it like `linux/amd64` or `linux/arm/v7`")
        }
    };
    let meant = expanded.unset.first().and_then(|name| closest(name, globals.scope.names()));
    report.error(match meant {
        Some(meant) => error.help(format!("did you mean `${meant}`?")),
        None => error,
    });
    None
}
