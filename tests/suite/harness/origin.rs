//! What contexts and sources are fetched from: a server of a few files on loopback, and git's own daemon.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

use super::{free_port, wait_until};

/// A file, and the headers that come with it.
type Page = (Vec<(String, String)>, Vec<u8>);

/// A server of a few files. It ends with the test's process.
pub(crate) struct Shelf {
    port: u16,
    pages: Arc<Mutex<BTreeMap<String, Page>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Shelf {
    /// With nothing to give.
    pub(crate) fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (pages, asked) = (Arc::<Mutex<BTreeMap<String, Page>>>::default(), Arc::<Mutex<Vec<String>>>::default());
        let (shelf, log) = (Arc::clone(&pages), Arc::clone(&asked));
        drop(std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut head = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                let Some(path) = head.next().and_then(|line| line.split(' ').nth(1).map(str::to_owned)) else { continue };
                let _rest = head.take_while(|line| !line.is_empty()).count();
                log.lock().unwrap().push(path.clone());
                let page = shelf.lock().unwrap().get(&path).cloned();
                let (status, (headers, body)) = page.map_or(("404 Not Found", (Vec::new(), Vec::new())), |page| ("200 OK", page));
                let headers: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
                let headers = headers.concat();
                let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n{headers}\r\n", body.len());
                // Who does not want the rest may go.
                let _gone = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(&body));
            }
        }));
        Self { port, pages, asked }
    }

    /// Gives a file from now on; its URL.
    pub(crate) fn put(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> String {
        let headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        drop(self.pages.lock().unwrap().insert(path.to_owned(), (headers, body.to_vec())));
        self.url(path)
    }

    /// The URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.host())
    }

    /// Host and port.
    pub(crate) fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The paths that were asked for.
    pub(crate) fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

/// Repositories below a directory, and git's own daemon that gives them out.
pub(crate) struct GitDaemon {
    dir: PathBuf,
    port: u16,
    daemon: Child,
}

impl GitDaemon {
    /// Gives out what is below a directory.
    pub(crate) fn start(dir: &Path) -> Self {
        let port = free_port();
        let mut command = Command::new("git");
        let base = format!("--base-path={}", dir.display());
        command.args(["daemon", "--reuseaddr", "--listen=127.0.0.1", "--export-all", &base, &format!("--port={port}")]).arg(dir);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let daemon = command.process_group(0).spawn().unwrap();
        let started = Self { dir: dir.to_owned(), port, daemon };
        wait_until("git's daemon", || std::net::TcpStream::connect(("127.0.0.1", port)).ok());
        started
    }

    /// The URL of a repository.
    pub(crate) fn url(&self, name: &str) -> String {
        format!("git://127.0.0.1:{}/{name}", self.port)
    }

    /// Git in a repository, with a time for what it commits.
    pub(crate) fn git(&self, name: &str, time: u64, args: &[&str]) -> String {
        let dir = self.dir.join(name);
        fs::create_dir_all(&dir).unwrap();
        let mut command = Command::new("git");
        command.current_dir(&dir).env("HOME", &self.dir).env("GIT_CONFIG_NOSYSTEM", "1").stdin(Stdio::null());
        for who in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{who}_NAME"), "nobody").env(format!("GIT_{who}_EMAIL"), "nobody@example.org");
            command.env(format!("GIT_{who}_DATE"), format!("{time} +0000"));
        }
        let output = command.args(args).output().unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Where a repository's files are.
    pub(crate) fn files(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Commits all files.
    pub(crate) fn commit(&self, name: &str, time: u64) -> String {
        if !self.dir.join(name).join(".git").exists() {
            let _made = self.git(name, time, &["init", "-q", "-b", "main"]);
        }
        let _added = self.git(name, time, &["add", "-A", "-f"]);
        let _committed = self.git(name, time, &["commit", "-q", "-m", "all"]);
        self.git(name, time, &["rev-parse", "HEAD"])
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        // `git` starts another program for it.
        let _gone = rustix::process::kill_process_group(rustix::process::Pid::from_child(&self.daemon), rustix::process::Signal::KILL);
        let _ended = self.daemon.wait();
    }
}
