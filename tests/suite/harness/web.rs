//! A web server of a test: answers as it is told, byte for byte, and remembers what it was asked.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// As it stands in the request line.
    pub(crate) path: String,
    headers: Vec<(String, String)>,
}

impl Asked {
    /// A header's value; names in lower case.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A server on loopback; it ends with the value.
pub(crate) struct Web {
    pub(crate) port: u16,
    asked: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<AtomicBool>,
}

impl Web {
    /// Serves what `answer` makes of each request: all bytes of the answer. Then the connection is closed.
    pub(crate) fn serving(answer: impl Fn(&Asked) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (asked, stop): (Arc<Mutex<Vec<Asked>>>, Arc<AtomicBool>) = Default::default();
        let (heard, ended, answer) = (Arc::clone(&asked), Arc::clone(&stop), Arc::new(answer));
        drop(std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if ended.load(Ordering::Relaxed) {
                    return;
                }
                let (heard, answer) = (Arc::clone(&heard), Arc::clone(&answer));
                drop(std::thread::spawn(move || {
                    let Some(request) = read(&stream) else { return };
                    heard.lock().unwrap().push(request.clone());
                    let _gone = (&stream).write_all(&answer(&request));
                    let _gone = stream.shutdown(Shutdown::Write);
                    let _rest = std::io::copy(&mut &stream, &mut std::io::sink());
                }));
            }
        }));
        Self { port, asked, stop }
    }

    /// A URL on it.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// What it was asked since this was called last.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

fn read(stream: &TcpStream) -> Option<Asked> {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let header = |line: String| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
    Some(Asked { path, headers: lines.take_while(|line| !line.is_empty()).filter_map(header).collect() })
}

/// An answer with its length.
pub(crate) fn answer(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n", body.len()).into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}
