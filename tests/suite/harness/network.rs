//! Ports on loopback, one HTTP request, processes by their command line, and waiting for something to happen.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// Ports that the kernel gives to nobody who does not name one.
const PORTS: std::ops::Range<u32> = 12_000..32_000;

/// A port that nobody listens on, and that no other test gets.
pub(crate) fn free_port() -> u16 {
    static TAKEN: AtomicU32 = AtomicU32::new(0);
    let mut ports = PORTS.map(|_| {
        let number = std::process::id().wrapping_add(TAKEN.fetch_add(1, Ordering::Relaxed));
        u16::try_from(PORTS.start + number % (PORTS.end - PORTS.start)).unwrap()
    });
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port is free")
}

/// The body of a GET. `None`: nobody answers, or not with 200.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n").ok()?;
    let mut answer = String::new();
    let _size = stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.lines().next()?.contains(" 200").then(|| body.to_owned())
}

/// How long something is waited for that comes: machines are slow and busy.
const PATIENCE: Duration = Duration::from_mins(2);

/// Asks again and again, until there is an answer.
pub(crate) fn wait_until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The processes whose command line begins with that.
pub(crate) fn processes_with(line: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let named = entries.filter(|entry| std::fs::read(entry.path().join("cmdline")).is_ok_and(|found| found.starts_with(line.as_bytes())));
    named.map(|entry| entry.path().display().to_string()).collect()
}
