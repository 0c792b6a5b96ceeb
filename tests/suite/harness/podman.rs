//! Debian's podman with runc and a storage of its own.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::{Ran, am_root, need, need_all, output_of};

/// A podman whose images are all in one directory.
pub(crate) struct Podman {
    program: PathBuf,
    dir: PathBuf,
    /// `overlay` where it works; `vfs` copies an image once for each of its layers and each container.
    driver: &'static str,
    /// Away from the project: podman refuses a path of more than 50 bytes.
    runroot: tempfile::TempDir,
}

impl Podman {
    /// In a directory. `None`, and a message: podman or runc is not there.
    pub(crate) fn new(dir: &Path) -> Option<Self> {
        let program = need("podman")?;
        let helpers: &[&str] = if am_root() { &["runc"] } else { &["runc", "newuidmap"] };
        if !need_all(helpers) {
            return None;
        }
        for name in ["run", "home", "tmp"] {
            fs::create_dir_all(dir.join(name)).unwrap();
        }
        fs::set_permissions(dir.join("run"), fs::Permissions::from_mode(0o700)).unwrap();
        let runroot = tempfile::Builder::new().prefix("podman-").tempdir_in("/tmp").unwrap();
        let mut podman = Self { program, dir: dir.to_owned(), driver: "overlay", runroot };
        let root = podman.dir.join("root");
        if !am_root() || podman.run(&["info"]).code != Some(0) {
            let _tried = fs::remove_dir_all(root);
            podman.driver = "vfs";
        }
        Some(podman)
    }

    /// With its global options.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("HOME", self.dir.join("home"));
        command.env("XDG_RUNTIME_DIR", self.dir.join("run")).env("TMPDIR", self.dir.join("tmp")).current_dir(&self.dir);
        command.arg("--root").arg(self.dir.join("root")).arg("--runroot").arg(self.runroot.path());
        // The options that make it run without systemd, overlay and raised limits.
        command.args(["--storage-driver", self.driver, "--runtime", "runc", "--cgroup-manager", "cgroupfs", "--events-backend", "none"]);
        command.args(args);
        command
    }

    /// Runs it.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        output_of(&mut self.command(args))
    }

    /// Loads an archive; the name or id that it says it loaded.
    pub(crate) fn load(&self, archive: &Path) -> String {
        let ran = self.run(&["load", "-i", archive.to_str().unwrap()]).good();
        let line = ran.out();
        line.trim().rsplit(": ").next().unwrap_or_default().to_owned()
    }

    /// The arguments of `run` before the image.
    pub(crate) fn run_line<'a>(network: &'a str, more: &[&'a str]) -> Vec<&'a str> {
        let first = ["run", "--rm", "--pull", "never", "--network", network, "--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];
        [&first, more].concat()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _removed = self.run(&["rm", "--all", "--force"]);
        let root = self.dir.join("root");
        if am_root() {
            let _gone = fs::remove_dir_all(root);
        } else {
            let _gone = self.run(&["unshare", "rm", "-rf", root.to_str().unwrap()]);
        }
    }
}
