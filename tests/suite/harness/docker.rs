//! Debian's Docker engine on a socket of its own. Only root can start it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{Ran, need, need_root, output_of, wait_until};

/// An engine that lives as long as the value.
pub(crate) struct Docker {
    process: Child,
    client: PathBuf,
    socket: String,
}

impl Docker {
    /// With its data in a directory.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        if !need_root() {
            return None;
        }
        let (engine, client) = (need("dockerd")?, need("docker")?);
        fs::create_dir_all(dir).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(engine);
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "overlay2"]);
        command.arg("--data-root").arg(dir.join("data")).arg("--exec-root").arg(dir.join("exec")).arg("-p").arg(dir.join("pid"));
        let socket = format!("unix://{}", dir.join("socket").display());
        command.args(["-H", &socket]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let docker = Self { process: command.spawn().unwrap(), client, socket };
        wait_until("dockerd", || docker.run(&["version"]).code.filter(|code| *code == 0));
        Some(docker)
    }

    /// Runs the client.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        output_of(Command::new(&self.client).env_clear().env("HOME", "/nonexistent").args(["-H", &self.socket]).args(args))
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // It takes its containerd down only if it is asked to end.
        let pid = rustix::process::Pid::from_child(&self.process);
        let _asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _status = self.process.wait();
    }
}
