//! Debian's `sshd` on a free loopback port, for the user that the tests run as, with keys made for it; and the programs
//! of the machine that a step needs to speak to it.

use std::{
    fs,
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use super::{am_root, free_port, need, output_of, wait_until};

/// A server that lives as long as the value.
pub(crate) struct Sshd {
    process: Child,
    pub(crate) port: u16,
    /// The private keys that it takes, one of each kind.
    pub(crate) keys: Vec<PathBuf>,
    /// Its own public key, as a line of a file of known hosts.
    pub(crate) known: String,
}

impl Sshd {
    /// `dir` does not exist. `None`, and a message: something is not there.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        let (sshd, keygen) = (need("sshd")?, need("ssh-keygen")?);
        fs::create_dir_all(dir).unwrap();
        let make = |name: &str, kind: &str| {
            let path = dir.join(name);
            let line = ["-q", "-t", kind, "-N", "", "-C", name, "-f"];
            let _made = output_of(Command::new(&keygen).args(line).arg(&path)).good();
            (path.clone(), fs::read_to_string(path.with_extension("pub")).unwrap())
        };
        let (host, host_public) = make("host", "ed25519");
        let pairs = ["ed25519", "ecdsa", "rsa"].map(|kind| make(&format!("of-{kind}"), kind));
        let authorized: String = pairs.iter().map(|(_, public)| public.as_str()).collect();
        fs::write(dir.join("authorized"), authorized).unwrap();
        if am_root() {
            // Debian's service makes it.
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = free_port();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\nMaxStartups 100\n",
            host.display(),
            dir.join("authorized").display(),
        );
        fs::write(dir.join("settings"), settings).unwrap();
        let log = fs::File::create(dir.join("log")).unwrap();
        let mut command = Command::new(sshd);
        command.args(["-D", "-e", "-f"]).arg(dir.join("settings")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().unwrap();
        let known = format!("[127.0.0.1]:{port} {host_public}");
        let server = Self { process, port, keys: pairs.map(|(path, _)| path).to_vec(), known };
        wait_until("sshd", || TcpStream::connect(("127.0.0.1", port)).ok().map(drop));
        Some(server)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _status = self.process.wait();
    }
}

/// An `ssh-agent` that lives as long as the value.
pub(crate) struct SshAgent {
    process: Child,
    pub(crate) socket: PathBuf,
}

impl SshAgent {
    /// With these keys.
    pub(crate) fn start(dir: &Path, keys: &[PathBuf]) -> Option<Self> {
        let (agent, add) = (need("ssh-agent")?, need("ssh-add")?);
        let socket = dir.join("agent");
        let mut command = Command::new(agent);
        command.arg("-D").arg("-a").arg(&socket).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let agent = Self { process: command.spawn().unwrap(), socket };
        wait_until("ssh-agent", || agent.socket.exists().then_some(()));
        let _added = output_of(Command::new(add).arg("-q").args(keys).env("SSH_AUTH_SOCK", &agent.socket)).good();
        Some(agent)
    }

    /// How many keys it has.
    pub(crate) fn count(&self) -> usize {
        let ran = output_of(Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &self.socket)).good();
        ran.out().lines().count()
    }
}

impl Drop for SshAgent {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _status = self.process.wait();
    }
}

/// Puts programs of the machine, with the libraries that they load, under `dir` as they are to be in an image.
pub(crate) fn copy_programs(names: &[&str], dir: &Path) -> Option<()> {
    for name in names {
        let program = need(name)?;
        copy(&program, &dir.join("usr/bin").join(name));
        let listed = output_of(Command::new("ldd").arg(&program)).good().out();
        let words = listed.split_whitespace().filter(|word| word.starts_with('/'));
        words.for_each(|library| copy(Path::new(library), &dir.join(library.trim_start_matches('/'))));
    }
    Some(())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let _size = fs::copy(from, to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
}
