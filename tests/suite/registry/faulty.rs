//! A registry in the test's own process that does what it is told, wrong things too. HTTP/1.1, one request for each connection.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

/// A request that came.
#[derive(Debug, Clone)]
pub(crate) struct Heard {
    pub(crate) method: String,
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Heard {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `GET /v2/…`
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }
}

/// What is sent after the head.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    /// With its length.
    Whole(Vec<u8>),
    /// With the length of all, and only that many bytes.
    Cut(Vec<u8>, usize),
    /// Without a length, for ever.
    Endless,
    /// A byte now and then, for ever.
    Drip,
}

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Body,
}

impl Reply {
    pub(crate) fn new(status: u16) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(Vec::new()) }
    }

    #[expect(clippy::needless_pass_by_value, reason = "a test gives literals, numbers and texts alike")]
    pub(crate) fn header(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    pub(crate) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = Body::Whole(body.into());
        self
    }

    pub(crate) fn with(mut self, body: Body) -> Self {
        self.body = body;
        self
    }
}

/// Ends when it is dropped.
pub(crate) struct Faulty {
    pub(crate) address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    stop: Arc<AtomicBool>,
}

impl Faulty {
    /// The answer is asked of `answer`: the request, and how often the same line came before.
    pub(crate) fn serve(answer: impl Fn(&Heard, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (heard, stop) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let (log, end, answer) = (Arc::clone(&heard), Arc::clone(&stop), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                let (log, end, answer) = (Arc::clone(&log), Arc::clone(&end), Arc::clone(&answer));
                thread::spawn(move || converse(stream, &log, &end, &*answer));
            }
        });
        Self { address, heard, stop }
    }

    /// `127.0.0.1:port`
    pub(crate) fn registry(&self) -> String {
        self.address.to_string()
    }

    /// All requests but the first `GET /v2/`.
    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.heard.lock().unwrap().iter().filter(|heard| heard.target != "/v2/").cloned().collect()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.heard().iter().map(Heard::line).collect()
    }
}

impl Drop for Faulty {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the listener.
        drop(TcpStream::connect(self.address));
    }
}

fn converse(mut stream: TcpStream, log: &Mutex<Vec<Heard>>, stop: &AtomicBool, answer: &(dyn Fn(&Heard, usize) -> Reply + Send + Sync)) {
    // A client hello, or somebody who went away: the connection is closed.
    let Some(heard) = hear(&stream) else { return };
    let before = {
        let mut log = log.lock().unwrap();
        let before = log.iter().filter(|other| other.line() == heard.line()).count();
        log.push(heard.clone());
        before
    };
    let reply = if heard.target == "/v2/" && heard.header("authorization").is_none() { Reply::new(200) } else { answer(&heard, before) };
    // The client may have gone.
    drop(say(&mut stream, &heard, reply, stop));
}

fn hear(stream: &TcpStream) -> Option<Heard> {
    let mut reader = BufReader::new(stream);
    if *reader.fill_buf().ok()?.first()? == 0x16 {
        return None;
    }
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next()?, words.next()?);
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).ok()?;
    Some(Heard { method, target, headers, body })
}

fn say(stream: &mut TcpStream, heard: &Heard, reply: Reply, stop: &AtomicBool) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {} Told\r\nConnection: close\r\n", reply.status)?;
    let mut text: String = reply.headers.iter().flat_map(|(name, value)| [name, ": ", value, "\r\n"]).collect();
    if let Body::Whole(bytes) | Body::Cut(bytes, _) = &reply.body
        && heard.method != "HEAD"
    {
        text.extend(["Content-Length: ", &bytes.len().to_string(), "\r\n"]);
    }
    stream.write_all(format!("{text}\r\n").as_bytes())?;
    if heard.method == "HEAD" {
        return Ok(());
    }
    match reply.body {
        Body::Whole(bytes) => stream.write_all(&bytes),
        Body::Cut(bytes, count) => stream.write_all(&bytes[..count]),
        Body::Endless => loop {
            stream.write_all(&[b'x'; 8192])?;
        },
        Body::Drip => loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            stream.write_all(b"x")?;
            thread::sleep(Duration::from_millis(50));
        },
    }
}

/// Passes bytes on to `target` and back; the first connection that carries more than `limit` bytes in one direction is
/// cut there. The flag says that one was.
pub(crate) fn cutting_wire(target: SocketAddr, limit: usize) -> (SocketAddr, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let was_cut = Arc::new(AtomicBool::new(false));
    let cut = Arc::clone(&was_cut);
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let Ok(server) = TcpStream::connect(target) else { break };
            let (back_from, back_to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
            for (from, to) in [(client, server), (back_from, back_to)] {
                let cut = Arc::clone(&cut);
                thread::spawn(move || carry(from, to, limit, &cut));
            }
        }
    });
    (address, was_cut)
}

fn carry(mut from: TcpStream, mut to: TcpStream, limit: usize, cut: &AtomicBool) {
    let (mut carried, mut buffer) = (0, vec![0; 16384]);
    while let Ok(count) = from.read(&mut buffer) {
        carried += count;
        let over = carried > limit && !cut.swap(carried > limit, Ordering::Relaxed);
        if count == 0 || over || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    drop(to.shutdown(std::net::Shutdown::Both));
    drop(from.shutdown(std::net::Shutdown::Both));
}
