//! What a step's result depends on. ARCHITECTURE.md has the table of what is in a key and what is not.

use std::{cell::OnceCell, sync::Arc};

use super::{
    build::At,
    snapshot::{self, Snapshot},
};
use crate::{
    cache::{self, Below, Fields, Instruction, PathValue, Paths, Subject, Telling},
    error::Error,
    oci::Platform,
    plan::{Action, Chmod, Copy, Mount, MountKind, NetworkMode, Origin, Plan, Run, Security, StageId, Start, Step},
    rootfs::{Selection, SelectionDigest, Told},
    sandbox::Limits,
    store::Store,
};

/// The fields of a step's key, and what helps to say later why it missed.
pub(super) struct Recipe<'a> {
    pub(super) fields: Fields,
    at: At<'a>,
    before: &'a Snapshot,
    selections: Vec<Selected<'a>>,
    paths: OnceCell<Arc<Paths>>,
}

/// What a record says of a step, whatever becomes of the step.
pub(super) struct Description {
    fields: Fields,
    instruction: Instruction,
    below: Below,
}

impl Description {
    /// As the cache takes it.
    pub(super) fn subject(&self) -> Subject<'_> {
        Subject { fields: &self.fields, instruction: &self.instruction, below: &self.below }
    }
}

/// Is the layer of a COPY the same whatever is below it? With `--link`, unless something of it is looked up there: the owner by
/// name, what a mode is changed of, files that the links of an archive name.
pub(super) fn stands_alone(copy: &Copy) -> bool {
    let by_number = |owner: &str| owner.split(':').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let unpacks = copy.add && copy.unpack != Some(false);
    copy.link && copy.chmod.is_none() && !unpacks && copy.chown.as_deref().is_none_or(by_number)
}

/// What was selected from somewhere, and where it is mounted, if it is.
#[derive(Clone, Copy)]
struct Selected<'a> {
    selection: &'a Selection,
    from: &'a Origin,
    mounted: Option<&'a str>,
}

impl<'a> Recipe<'a> {
    fn new(at: At<'a>, kind: &str, before: &'a Snapshot, platform: &Platform) -> Self {
        let fields = Fields::new().field("kind", kind).field("platform", platform.to_string()).field(cache::BELOW, before.chain_id());
        Self { fields, at, before, selections: Vec::new(), paths: OnceCell::new() }
    }

    /// Of a step whose result is the same whatever is below it.
    fn alone(at: At<'a>, kind: &str, before: &'a Snapshot, platform: &Platform) -> Self {
        let fields = Fields::new().field("kind", kind).field("platform", platform.to_string());
        Self { fields, at, before, selections: Vec::new(), paths: OnceCell::new() }
    }

    /// Which instruction it is.
    pub(super) fn instruction(&self) -> Instruction {
        let At { node, stage, step, project, .. } = self.at;
        let keyword = step.shown.split_whitespace().next().unwrap_or_default();
        Instruction { project: project.to_owned(), place: format!("{}\0{}\0{keyword}", stage.name, node.step), text: step.shown.clone() }
    }

    /// What a record says of the step: made of it only on a miss.
    pub(super) fn description(&self, plan: &Plan) -> Description {
        Description { fields: self.fields.clone(), instruction: self.instruction(), below: self.below(plan) }
    }

    /// What a record says of each path: told once, when it is first asked for.
    pub(super) fn paths(&self, store: &Store) -> Result<Arc<Paths>, Error> {
        if let Some(paths) = self.paths.get() {
            return Ok(Arc::clone(paths));
        }
        let mut telling = Telling::new(store)?;
        for each in &self.selections {
            each.selection.tell(&mut |told| {
                let (path, value) = each.path_value(told);
                telling.tell(path, &value).map_err(Error::from)
            })?;
        }
        let paths = Arc::new(telling.finish()?);
        Ok(Arc::clone(self.paths.get_or_init(|| paths)))
    }

    fn below(&self, plan: &Plan) -> Below {
        let base = self.before.base.as_ref();
        let count = base.map_or(0, |base| base.config.rootfs.diff_ids.len());
        let (image, steps) = self.before.layers.split_at_checked(count).unwrap_or((&[], &self.before.layers));
        let texts = layered(plan, self.at.node.stage, self.at.node.step);
        Below {
            image: base.map(|base| (base.name.clone(), base.manifest.digest.to_string())),
            image_layers: snapshot::chain_id(image),
            layers: steps.iter().map(|held| held.diff_id.to_string()).zip(texts.into_iter().map(str::to_owned)).collect(),
        }
    }

    #[must_use]
    fn with(mut self, label: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.fields = self.fields.field(label, value);
        self
    }

    /// Files selected from somewhere: what they are, and by path for the reason of a miss.
    pub(super) fn with_selection(mut self, from: &'a Origin, selection: &'a Selection) -> Result<Self, Error> {
        self.selections.push(Selected { selection, from, mounted: None });
        Ok(self.with_files(selection.digest()?))
    }

    /// The same of its digest alone: enough for a key, too little for a record.
    #[must_use]
    pub(super) fn with_files(self, digest: SelectionDigest) -> Self {
        self.with(cache::FILES, digest)
    }

    /// Files that a mount shows.
    pub(super) fn with_mounted(mut self, mount: &'a Mount, selection: &'a Selection) -> Result<Self, Error> {
        let target = mount.target.as_str();
        self.selections.push(Selected { selection, from: &mount.from, mounted: Some(target) });
        Ok(self.with(format!("{} of --mount {target}", cache::FILES), selection.digest()?))
    }

    /// What the `.git` of fetched repositories is.
    #[must_use]
    pub(super) fn with_git_dirs(self, all: &[String]) -> Self {
        all.iter().fold(self, |recipe, words| recipe.with(".git", words))
    }

    /// WORKDIR.
    pub(super) fn workdir(at: At<'a>, before: &'a Snapshot, platform: &Platform, path: &str, user: &str) -> Self {
        Self::new(at, "WORKDIR", before, platform).with("path", path).with("user", user)
    }

    /// COPY or ADD, without what is selected.
    pub(super) fn copy(at: At<'a>, before: &'a Snapshot, platform: &Platform, copy: &Copy) -> Self {
        let kind = if copy.add { "ADD" } else { "COPY" };
        let mut recipe = if stands_alone(copy) { Self::alone(at, kind, before, platform) } else { Self::new(at, kind, before, platform) }
            .with("destination", &copy.dest)
            .with("--chown", copy.chown.as_deref().unwrap_or_default())
            .with("--chmod", copy.chmod.as_ref().map(chmod_text).unwrap_or_default())
            .with("--link", [u8::from(copy.link)])
            .with("--parents", [u8::from(copy.parents)])
            .with("--unpack", [copy.unpack.map_or(2, u8::from)])
            .with("sources", copy.sources.len().to_string());
        for pattern in &copy.exclude {
            recipe = recipe.with("--exclude", pattern);
        }
        recipe
    }

    /// RUN, without the contents of its mounts.
    pub(super) fn run(at: At<'a>, before: &'a Snapshot, platform: &Platform, run: &Run, limits: &Limits) -> Self {
        let mut recipe = Self::new(at, "RUN", before, platform).with("command", run.argv.len().to_string());
        for (number, word) in run.argv.iter().enumerate() {
            recipe.fields = recipe.fields.shown_as("command", if number < run.shell { "SHELL" } else { "command" }, word);
        }
        for (name, value) in &run.env {
            // To the step a variable is a variable, whoever set it.
            let shown = format!("{} {name}", if run.args.contains(name) { "ARG" } else { "ENV" });
            recipe.fields = recipe.fields.shown_as(format!("variable {name}"), shown, value);
        }
        for file in &run.files {
            recipe = recipe.with(format!("heredoc {}", file.name), &file.data);
        }
        let network = match run.network {
            NetworkMode::Default | NetworkMode::Host => "host",
            NetworkMode::None => "none",
        };
        recipe =
            recipe.with("working directory", &run.cwd).with("user", &run.user).with("--network", network).with("hostname", &run.hostname);
        if run.security == Security::Insecure {
            recipe = recipe.with("--security", "insecure");
        }
        // As in BuildKit: what a program finds out about its limits may be in what it writes.
        for limit in &limits.processes {
            let value = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
            recipe = recipe.with(format!("--ulimit {}", limit.of.name()), format!("{}:{}", value(limit.soft), value(limit.hard)));
        }
        if let Some(bytes) = limits.shared_memory {
            recipe = recipe.with("--shm-size", bytes.to_string());
        }
        for mount in &run.mounts {
            // A cache's id, sharing and contents and a secret's contents are in no key: changing them must not do the step again.
            let id = (mount.kind != MountKind::Cache).then_some(&mount.id);
            let owner = (mount.mode, mount.uid, mount.gid);
            let definition = (mount.kind, &mount.target, mount.readonly, mount.size, &mount.env, mount.required, id, owner);
            let text = serde_json::to_string(&definition).unwrap_or_default();
            recipe = recipe.with(format!("--mount {}", mount.target), text);
        }
        recipe
    }
}

fn chmod_text(chmod: &Chmod) -> String {
    match chmod {
        Chmod::Octal(mode) => format!("{mode:o}"),
        Chmod::Symbolic(text) => text.clone(),
    }
}

/// The steps that have made a layer before one begins, as written, the lowest first.
fn layered(plan: &Plan, stage: StageId, before: usize) -> Vec<&str> {
    let mut parts: Vec<&[Step]> = Vec::new();
    let mut next = plan.stages.get(stage.0).map(|stage| (stage, before));
    while let Some((stage, end)) = next {
        parts.push(stage.steps.get(..end).unwrap_or(&stage.steps));
        next = match &stage.start {
            Start::Stage(below) => plan.stages.get(below.0).map(|stage| (stage, stage.steps.len())),
            Start::Scratch | Start::Image(_) => None,
        };
    }
    let all = parts.into_iter().rev().flatten();
    all.filter(|step| !matches!(step.action, Action::Metadata)).map(|step| step.shown.as_str()).collect()
}

impl Selected<'_> {
    /// A path as a user writes it: those of a context are below it.
    fn path_value(&self, told: Told) -> (String, PathValue) {
        let Told { path, mode, uid, gid, kind, content, attributes } = told;
        let rooted = matches!(self.from, Origin::Stage(_) | Origin::Image(_));
        let path = if rooted { path.as_str() } else { path.trim_start_matches('/') };
        let path = self.mounted.map_or_else(|| path.to_owned(), |target| format!("{path} (at {target})"));
        (path, PathValue { mode, uid, gid, kind: kind.to_owned(), attributes: hex(&attributes), digest: hex(&content) })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        for digit in [byte >> 4, byte & 15] {
            text.push(char::from_digit(u32::from(digit), 16).unwrap_or_default());
        }
        text
    })
}
