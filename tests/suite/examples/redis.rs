//! Redis from source, and a cluster of six containers of it that loses a master.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use super::debian;
use crate::harness::{Image, Podman, Project, debian_rootfs, free_port, need_root, skipped, wait_until};

const KEYS: usize = 60;

/// The example with the sources, and their version.
fn redis() -> Option<(Project, String)> {
    let rootfs = debian_rootfs()?;
    let beside = fs::read_dir(rootfs.parent().unwrap()).unwrap().flatten();
    let version = beside.map(|entry| entry.file_name().into_string().unwrap()).find_map(|name| {
        let version = name.strip_prefix("redis-")?.strip_suffix(".tar.gz")?;
        Some(version.to_owned())
    });
    let Some(version) = version else {
        skipped("there is no redis-VERSION.tar.gz beside the bases; `tests/run` gets one");
        return None;
    };
    let project = debian("redis")?;
    let file = format!("redis-{version}.tar.gz");
    let _size = fs::copy(rootfs.with_file_name(&file), project.context().join(file)).unwrap();
    Some((project, format!("VERSION={version}")))
}

#[test]
fn a_cluster_of_redis_from_source_survives_the_loss_of_a_master() {
    // Root's only: compiling it once is long enough.
    if !need_root() {
        return;
    }
    let Some((project, version)) = redis() else { return };
    let _built = project.build(&["-t", "example/redis", "--build-arg", &version, "-o", "type=oci,tar=false,dest=redis"]).good();
    let tree = Image::of_layout(&project.path("redis")).tree();
    for (path, there) in [("usr/local/redis/redis-server", true), ("usr/bin/make", false), ("usr/bin/gcc", false)] {
        assert_eq!(tree.contains_key(path), there, "{path}");
    }
    assert!(!tree.keys().any(|path| path.starts_with("redis-")), "the sources are removed");
    let node = ["-t", "example/redis-node", "-f", "ctx/node.Dockerfile", "-o", "type=docker,dest=node.tar"];
    let _built = project.build(&node).good();
    let config = Image::of_docker_archive(&project.path("node.tar")).config;
    assert!(config["config"]["Volumes"]["/var/log/redis"].is_object(), "inherited");
    let Some(podman) = Podman::new(&project.path("podman")) else { return };
    let cluster = Cluster::start(&podman, &project.path("node.tar"));
    cluster.form();
    cluster.fill();
    cluster.lose_a_master();
}

/// Six nodes on loopback.
struct Cluster<'p> {
    podman: &'p Podman,
    image: String,
    ports: [u16; 6],
}

impl<'p> Cluster<'p> {
    fn start(podman: &'p Podman, archive: &std::path::Path) -> Self {
        let image = podman.load(archive);
        let numbers = [(); 12].map(|()| free_port());
        let (ports, buses) = numbers.split_at(6);
        for (port, bus) in ports.iter().zip(buses) {
            let (name, port, bus) = (format!("node-{port}"), port.to_string(), bus.to_string());
            let line = ["--detach", "--name", &name, &image, "--port", &port, "--cluster-port", &bus];
            let _started = podman.run(&Podman::run_line("host", &line)).good();
        }
        for port in ports {
            wait_until("a node", || ask(*port, "PING").filter(|said| said == "PONG"));
        }
        Self { podman, image, ports: ports.try_into().unwrap() }
    }

    /// Three masters and three replicas.
    fn form(&self) {
        let nodes = self.ports.map(|port| format!("127.0.0.1:{port}"));
        let nodes: Vec<&str> = nodes.iter().map(String::as_str).collect();
        let line =
            ["--entrypoint", "/usr/local/redis/redis-cli", &self.image, "--cluster", "create", "--cluster-replicas", "1", "--cluster-yes"];
        let said = self.podman.run(&[Podman::run_line("host", &line), nodes].concat()).good();
        assert!(said.out().contains("All 16384 slots covered"), "{}", said.all());
        let first = self.ports[0];
        wait_until("three masters and three replicas", || (roles(first)? == (3, 3) && is_ok(first)).then_some(()));
    }

    /// Writes keys, which reach all masters and their replicas.
    fn fill(&self) {
        let mut stored = BTreeMap::new();
        for key in 0..KEYS {
            let (said, port) = self.routed(self.ports[0], &format!("SET key-{key} value-{key}")).unwrap();
            assert_eq!(said, "OK");
            *stored.entry(port).or_insert(0) += 1;
        }
        assert_eq!(stored.len(), 3, "every master has some: {stored:?}");
        for port in stored.keys() {
            assert_eq!(ask(*port, "WAIT 1 20000").as_deref(), Some("1"), "a replica has them");
        }
    }

    /// Kills one; its replica takes its place, and no key is lost.
    fn lose_a_master(&self) {
        let is_master = |port: &u16| ask(*port, "ROLE").is_some_and(|said| said.contains("master"));
        let lost = *self.ports.iter().find(|port| is_master(port)).unwrap();
        let _killed = self.podman.run(&["kill", &format!("node-{lost}")]).good();
        let left = *self.ports.iter().find(|port| **port != lost).unwrap();
        wait_until("the replica to take its place", || (roles(left)? == (3, 2) && is_ok(left)).then_some(()));
        assert_eq!(ask(lost, "PING"), None);
        for key in 0..KEYS {
            let found = wait_until("a key", || self.routed(left, &format!("GET key-{key}")));
            assert_eq!(found.0, format!("value-{key}"));
        }
        let written = wait_until("a write", || self.routed(left, "SET key-0 again"));
        assert_eq!(written.0, "OK");
    }

    /// Asks a node, and the one that it names if the key is another's.
    fn routed(&self, port: u16, line: &str) -> Option<(String, u16)> {
        let said = ask(port, line)?;
        let Some(moved) = said.strip_prefix("MOVED ") else { return Some((said, port)) };
        let port = moved.rsplit(':').next().unwrap().parse().unwrap();
        assert!(self.ports.contains(&port), "{said}");
        Some((ask(port, line)?, port))
    }
}

/// How many masters and replicas a node knows that have not failed.
fn roles(port: u16) -> Option<(usize, usize)> {
    let nodes = ask(port, "CLUSTER NODES")?;
    let count = |role: &str| {
        let flags = nodes.lines().filter_map(|line| line.split(' ').nth(2));
        flags.filter(|flags| flags.split(',').any(|flag| flag == role) && !flags.contains("fail")).count()
    };
    Some((count("master"), count("slave")))
}

fn is_ok(port: u16) -> bool {
    ask(port, "CLUSTER INFO").is_some_and(|said| said.contains("cluster_state:ok"))
}

/// What a node answers to a line. `None`: it does not, or not now. Of a list: its first element.
fn ask(port: u16, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).ok()?;
    write!(stream, "{line}\r\n").ok()?;
    let mut answer = BufReader::new(stream);
    let mut head = String::new();
    loop {
        head.clear();
        let _size = answer.read_line(&mut head).ok()?;
        let text = head.trim_end().get(1..)?;
        match head.as_bytes().first()? {
            b'*' => {}
            b'$' => {
                let mut bytes = vec![0; text.parse().ok()?];
                answer.read_exact(&mut bytes).ok()?;
                return String::from_utf8(bytes).ok();
            }
            b'-' if !text.starts_with("MOVED ") => return None,
            _ => return Some(text.to_owned()),
        }
    }
}
