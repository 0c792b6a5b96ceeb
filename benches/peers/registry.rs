//! w7: the image of w4 pushed, pushed again and pulled through Debian's registry, beside `curl` with the same bytes.

use std::{
    fs,
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::{
    Result,
    builders::{Builder, Machine, Sink},
    measure::{Cost, prepare, shell, table},
};

/// A registry that lives as long as the value.
struct Registry {
    process: Child,
    port: u16,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _gone = self.process.kill();
        let _ended = self.process.wait();
    }
}

impl Registry {
    fn start(machine: &Machine) -> Result<Self> {
        let dir = machine.dir.join("registry");
        let _none_yet = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let settings = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}/data\nhttp:\n  addr: 127.0.0.1:{port}\n",
            dir.display()
        );
        fs::write(dir.join("registry.yml"), settings)?;
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(dir.join("registry.yml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { process: command.spawn()?, port };
        for _ in 0..100 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            sleep(Duration::from_millis(100));
        }
        Ok(registry)
    }
}

/// Compares push, push again and pull.
pub(crate) fn race(machine: &Machine, rounds: usize) -> Result<()> {
    let _built = machine.build(Builder::Ours, "w4", Sink::Own, false)?;
    // The blobs as files: what curl moves, one after the other.
    prepare(&machine.dir, &format!("{} build -q -o type=oci,tar=false,dest=layout w4", machine.ours("store")))?;
    prepare(&machine.dir, "ls layout/blobs/sha256 > blobs")?;
    let mut costs = [const { Vec::<Cost>::new() }; 5];
    for _ in 0..rounds {
        let registry = Registry::start(machine)?;
        let at = format!("127.0.0.1:{}", registry.port);
        let ours = machine.ours("store");
        let other = machine.ours("pulled");
        prepare(&machine.dir, &format!("rm -rf pulled; {ours} tag w4 {at}/w4"))?;
        let upload = format!(
            "for blob in $(cat blobs); do place=$(curl -sf -o /dev/null -D - -X POST http://{at}/v2/curl/blobs/uploads/ | tr -d '\\r' | \
             sed -n 's/^[Ll]ocation: //p'); curl -sf -X PUT -H 'Content-Type: application/octet-stream' -T layout/blobs/sha256/$blob \
             \"$place&digest=sha256:$blob\" || exit 1; done"
        );
        let download = format!("for blob in $(cat blobs); do curl -sf -o got.$blob http://{at}/v2/curl/blobs/sha256:$blob || exit 1; done");
        let scripts =
            [format!("{ours} push -q {at}/w4"), upload, format!("{ours} push -q {at}/w4"), format!("{other} pull -q {at}/w4"), download];
        for (script, costs) in scripts.iter().zip(&mut costs) {
            costs.push(shell(&machine.dir, script)?);
        }
    }
    let [push, upload, again, pull, download] = costs;
    let names = |other: &str| vec!["lapstrake".to_owned(), other.to_owned()];
    table("w7 push", &names("curl"), &[push, upload]);
    table("w7 push again", &names("")[..1], &[again]);
    table("w7 pull", &names("curl"), &[pull, download]);
    Ok(())
}
