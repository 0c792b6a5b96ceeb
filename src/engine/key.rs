//! What a step's result depends on. ARCHITECTURE.md has the table of what is in a key and what is not.

use super::{build::At, snapshot::Snapshot};
use crate::{
    cache::Fields,
    oci::Platform,
    plan::{Chmod, Copy, CopySource, MountKind, NetworkMode, Run, Security},
    rootfs::Selection,
    sandbox::Limits,
};

/// The fields of a step's key, and what helps to say later why it missed.
pub(super) struct Recipe {
    pub(super) fields: Fields,
    /// The instruction's place, free of values: `build 3 RUN`.
    pub(super) instruction: String,
    /// Digests by path of what was selected.
    pub(super) paths: Vec<(String, String)>,
}

impl Recipe {
    fn new(at: At<'_>, kind: &str, before: &Snapshot, platform: &Platform) -> Self {
        let fields = Fields::new().field("kind", kind).field("platform", platform.to_string()).field("base", before.chain_id());
        Self { fields, instruction: format!("{}\0{}\0{}\0{kind}", at.project, at.stage.name, at.node.step), paths: Vec::new() }
    }

    #[must_use]
    fn with(mut self, label: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.fields = self.fields.field(label, value);
        self
    }

    /// Files selected from somewhere: what they are, and by path for the reason of a miss.
    #[must_use]
    pub(super) fn with_selection(mut self, label: &str, selection: &Selection) -> Self {
        self.paths.extend(selection.paths());
        self.with(label, selection.digest())
    }

    /// What the `.git` of fetched repositories is.
    #[must_use]
    pub(super) fn with_git_dirs(self, all: &[String]) -> Self {
        all.iter().fold(self, |recipe, words| recipe.with(".git", words))
    }

    /// WORKDIR.
    pub(super) fn workdir(at: At<'_>, before: &Snapshot, platform: &Platform, path: &str, user: &str) -> Self {
        Self::new(at, "WORKDIR", before, platform).with("path", path).with("user", user)
    }

    /// COPY or ADD, without what is selected.
    pub(super) fn copy(at: At<'_>, before: &Snapshot, platform: &Platform, copy: &Copy) -> Self {
        let kind = if copy.add { "ADD" } else { "COPY" };
        let mut recipe = Self::new(at, kind, before, platform)
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
        for source in &copy.sources {
            if let CopySource::Inline(file) = source {
                recipe = recipe.with(format!("heredoc {}", file.name), &file.data);
            }
        }
        recipe
    }

    /// RUN, without the contents of its mounts.
    pub(super) fn run(at: At<'_>, before: &Snapshot, platform: &Platform, run: &Run, limits: &Limits) -> Self {
        let mut recipe = Self::new(at, "RUN", before, platform).with("command", run.argv.len().to_string());
        for word in &run.argv {
            recipe = recipe.with("command", word);
        }
        for (name, value) in &run.env {
            let kind = if run.args.contains(name) { "ARG" } else { "ENV" };
            recipe = recipe.with(format!("{kind} {name}"), value);
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
