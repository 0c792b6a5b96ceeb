//! Debian's `docker-registry` on a free loopback port.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
};

use super::{free_port, get, need, output_of, wait_until};

/// A registry that lives as long as the value.
pub(crate) struct Registry {
    process: Child,
    pub(crate) port: u16,
}

impl Registry {
    /// Over HTTP.
    pub(crate) fn start(dir: &Path) -> Option<Self> {
        Self::with(dir, "")
    }

    /// Over HTTPS with a certificate for 127.0.0.1 and localhost; `ca.pem` is put into the directory.
    pub(crate) fn start_tls(dir: &Path) -> Option<Self> {
        let openssl = need("openssl")?;
        fs::create_dir_all(dir).unwrap();
        let make = |line: &str| output_of(Command::new(&openssl).args(line.split(' ')).current_dir(dir)).good();
        let _authority = make("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.pem");
        let _request = make("req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout key.pem -out request.pem");
        fs::write(dir.join("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1\n").unwrap();
        let _signed = make("x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out cert.pem");
        let tls = format!("  tls:\n    certificate: {0}/cert.pem\n    key: {0}/key.pem\n", dir.display());
        Self::with(dir, &tls)
    }

    fn with(dir: &Path, tls: &str) -> Option<Self> {
        let program = need("docker-registry")?;
        fs::create_dir_all(dir).unwrap();
        let port = free_port();
        let settings = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: 127.0.0.1:{port}\n{tls}",
            dir.join("data").display(),
        );
        fs::write(dir.join("registry.yml"), settings).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(dir.join("registry.yml")).env_clear().current_dir(dir);
        let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let registry = Self { process, port };
        wait_until("docker-registry", || {
            if tls.is_empty() { get(port, "/v2/").map(drop) } else { std::net::TcpStream::connect(("127.0.0.1", port)).ok().map(drop) }
        });
        Some(registry)
    }

    /// `127.0.0.1:PORT/NAME`
    pub(crate) fn name(&self, name: &str) -> String {
        format!("127.0.0.1:{}/{name}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _killed = self.process.kill();
        let _status = self.process.wait();
    }
}
