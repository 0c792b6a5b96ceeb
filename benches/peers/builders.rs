//! Who builds: ours, buildah, and Docker's engine with its own BuildKit.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use crate::{
    Result,
    measure::{Cost, peak_of, prepare, shell, used_by},
};

/// One who builds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Builder {
    Ours,
    Buildah,
    Docker,
}

/// What is to come of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sink {
    /// An image where the builder keeps its own.
    Own,
    /// An archive with gzip layers; `docker save` writes plain ones.
    Gzip,
    /// The same with zstd, which only ours has.
    Zstd,
    /// An archive with plain layers.
    Plain,
}

/// All that is running for the benchmark.
pub(crate) struct Machine {
    pub(crate) dir: PathBuf,
    engine: Child,
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.engine);
        let _asked = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ended = self.engine.wait();
    }
}

impl Machine {
    /// With `base` in the store of each. `dir` has the contexts.
    pub(crate) fn start(dir: &Path, base: &Path) -> Result<Self> {
        let data = dir.join("docker");
        fs::create_dir_all(&data)?;
        let log = fs::File::create(data.join("log"))?;
        let mut command = Command::new("dockerd");
        command.args(["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver", "overlay2"]);
        command.arg("--data-root").arg(data.join("data")).arg("--exec-root").arg(data.join("exec")).arg("-p").arg(data.join("pid"));
        command.arg("-H").arg(format!("unix://{}/socket", data.display()));
        let engine = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?;
        let machine = Self { dir: dir.to_owned(), engine };
        let docker = machine.docker();
        for _ in 0..120 {
            if prepare(dir, &format!("{docker} version")).is_ok() {
                break;
            }
            sleep(Duration::from_millis(500));
        }
        let base = base.display();
        prepare(dir, &format!("skopeo copy -q oci:{base} docker-archive:base.tar:base:latest && {docker} load -q -i base.tar"))?;
        prepare(dir, &format!("{} pull -q oci:{base} > id && {} tag $(cat id) base", machine.buildah(), machine.buildah()))?;
        prepare(dir, &format!("{} load -q -i {base} -t base", machine.ours("store")))?;
        machine.small()?;
        Ok(machine)
    }

    /// An image of busybox alone, in the store of each.
    fn small(&self) -> Result<()> {
        let context = self.dir.join("small");
        fs::create_dir_all(&context)?;
        fs::write(
            context.join("Dockerfile"),
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n",
        )?;
        prepare(&self.dir, "cp $(command -v busybox) small/busybox")?;
        let ours = self.ours("store");
        prepare(
            &self.dir,
            &format!(
                "{ours} build -q -t small -o type=docker,dest=small.tar,name=small:latest small && {ours} load -q -i small.tar -t small"
            ),
        )?;
        prepare(&self.dir, &format!("{} load -q -i small.tar", self.docker()))?;
        let tool = self.buildah();
        prepare(&self.dir, &format!("{tool} pull -q docker-archive:small.tar > id && {tool} tag $(cat id) small"))
    }

    /// Our program with a store.
    pub(crate) fn ours(&self, store: &str) -> String {
        format!("LAPSTRAKE_ROOT={}/{store} {}", self.dir.display(), env!("CARGO_BIN_EXE_lapstrake"))
    }

    fn buildah(&self) -> String {
        let dir = self.dir.display();
        format!("buildah --root {dir}/buildah --runroot {dir}/buildah-run --storage-driver overlay")
    }

    fn docker(&self) -> String {
        format!("DOCKER_BUILDKIT=1 /usr/bin/docker -H unix://{}/docker/socket", self.dir.display())
    }

    /// What the engine's daemons have used, and the most memory of one.
    fn daemons(&self) -> (f64, f64) {
        let own = self.engine.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children")).unwrap_or_default();
        let all = children.split_whitespace().filter_map(|pid| pid.parse().ok()).chain([own]);
        all.fold((0.0, 0.0), |(cpu, memory), pid| (cpu + used_by(pid), f64::max(memory, peak_of(pid))))
    }

    /// One build of a context.
    pub(crate) fn build(&self, builder: Builder, context: &str, sink: Sink, cold: bool) -> Result<Cost> {
        let fresh = if cold { "--no-cache" } else { "" };
        match builder {
            Builder::Ours => {
                let output = match sink {
                    Sink::Own => "",
                    Sink::Gzip => "-o type=oci,dest=out.tar",
                    Sink::Zstd => "-o type=oci,dest=out.tar,compression=zstd",
                    Sink::Plain => "-o type=docker,dest=out.tar,name=a:b,compression=uncompressed",
                };
                shell(&self.dir, &format!("{} build -q {fresh} -t {context} {output} {context}", self.ours("store")))
            }
            Builder::Buildah => {
                let tool = self.buildah();
                let layers = if cold { "" } else { "--layers" };
                let build = format!(
                    "{tool} bud -q {fresh} {layers} --isolation chroot --network host -t {context} -f {context}/Dockerfile {context}"
                );
                let save = match sink {
                    Sink::Own => String::new(),
                    Sink::Gzip | Sink::Zstd => format!("&& {tool} push -q {context} oci-archive:out.tar"),
                    Sink::Plain => format!("&& {tool} push -q {context} docker-archive:out.tar:a:b"),
                };
                shell(&self.dir, &format!("rm -f out.tar; {build} {save}"))
            }
            Builder::Docker => {
                let tool = self.docker();
                let (before, _) = self.daemons();
                let save = if sink == Sink::Own { String::new() } else { format!("&& {tool} save -o out.tar {context}") };
                let cost = shell(&self.dir, &format!("{tool} build -q {fresh} --network host -t {context} {context} {save}"))?;
                let (after, memory) = self.daemons();
                Ok(cost.then(Cost { wall: 0.0, cpu: after - before, memory }))
            }
        }
    }
}
