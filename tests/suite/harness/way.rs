//! Ways to run steps: the same project where the machine allows less.

use std::{
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::{Image, Project, Ran, output_of};

/// What root of an ordinary container is left with; see there.
const NARROW: &str = include_str!("narrow.py");

/// Root of a namespace with ids in several extents; see there.
const NEST: &str = include_str!("nest.py");

/// How, or where, steps are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// A full map of ids and an overlay.
    Overlay,
    /// A full map of ids and copies.
    Copy,
    /// With the store on overlayfs.
    Memory,
    /// As root of a container that allows no namespace and no mount.
    Chroot,
    /// As root of a user namespace whose ids are in three extents.
    Nested,
}

impl Way {
    pub(crate) const ALL: [Self; 5] = [Self::Overlay, Self::Copy, Self::Memory, Self::Chroot, Self::Nested];

    /// What a build says of it.
    pub(crate) fn named(self) -> &'static str {
        match self {
            Self::Overlay | Self::Nested => "steps: a full map of ids, overlay, namespaces",
            Self::Copy => "steps: a full map of ids, copies, namespaces",
            Self::Memory => "steps: a full map of ids, overlay in memory, namespaces",
            Self::Chroot => "steps: the host's ids, copies, chroot",
        }
    }

    /// The program, not yet started. The options say what is not there by itself.
    pub(crate) fn command(self, project: &Project, args: &[&str]) -> Command {
        let plain = project.command(args);
        let mut command = match self {
            Self::Overlay | Self::Copy => return plain,
            Self::Memory => {
                let mut command = Command::new("unshare");
                let script = "mkdir -p lower upper work store && mount -t overlay overlay -o lowerdir=lower,upperdir=upper,workdir=work store && exec \"$@\"";
                command.args(["--mount", "--propagation", "private", "sh", "-ec", script, "sh"]);
                command
            }
            Self::Chroot | Self::Nested => {
                let mut command = Command::new("python3");
                command.args(["-c", if self == Self::Chroot { NARROW } else { NEST }]);
                command
            }
        };
        command.arg(plain.get_program()).args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
        command.current_dir(project.path("")).stdin(std::process::Stdio::null());
        command
    }

    /// Runs the program.
    pub(crate) fn run(self, project: &Project, args: &[&str]) -> Ran {
        output_of(&mut self.command(project, args))
    }

    /// `lapstrake build --progress plain ARGS ctx`, which must say that it goes this way, unless no step is run.
    pub(crate) fn build(self, project: &Project, args: &[&str]) -> Ran {
        let own: &[&str] = match self {
            Self::Overlay => &["--driver", "userns", "--snapshots", "overlay"],
            Self::Copy => &["--driver", "userns", "--snapshots", "copy"],
            Self::Memory | Self::Chroot | Self::Nested => &[],
        };
        let ran = self.run(project, &[&["build", "--progress", "plain"], own, args, &["ctx"]].concat());
        let ran_none = ran.stderr.contains("steps: none is run") && !ran.stderr.contains(" DONE ");
        assert!(ran_none || ran.stderr.contains(self.named()), "{self:?}: {}", ran.all());
        ran
    }

    /// Builds to an OCI layout directory and reads it.
    pub(crate) fn image(self, project: &Project) -> Image {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let name = format!("image-{self:?}-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
        let _built = self.build(project, &["-o", &format!("type=oci,tar=false,dest={name}")]).good();
        Image::of_layout(&project.path(&name))
    }

    /// A project with `busybox` in its store.
    pub(crate) fn project(self) -> Project {
        let project = Project::new();
        if matches!(self, Self::Memory | Self::Nested) {
            // The layout is made outside, and loaded where the store is, by whom it is for.
            let layout = project.path("busybox-layout");
            if let Some(base) = super::busybox_layout(&layout) {
                let _loaded = self.run(&project, &["load", "-i", base.to_str().unwrap(), "-t", "busybox"]).good();
            }
        } else {
            project.load_busybox();
        }
        project
    }
}
