//! A server that answers as the Hugging Face hub does, and misbehaves as it is told to.

use super::{super::hash::Hash, *};
use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{TcpListener, TcpStream},
    thread,
};

pub(super) const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What the server does that it should not, and what it asks for.
#[derive(Clone, Default)]
pub(super) struct Behaviour {
    /// It closes the connection after so many bytes of a large file, once each.
    pub(super) breaks: Vec<usize>,
    /// It changes a byte of this file.
    pub(super) damages: Option<&'static str>,
    /// It answers so many requests with 503.
    pub(super) unavailable: usize,
    /// It shows nothing without this token; large files are on another host, which refuses tokens.
    pub(super) token: Option<&'static str>,
    pub(super) without_ranges: bool,
    pub(super) without_list: bool,
    pub(super) without_checksums: bool,
}

pub(super) struct Server {
    address: String,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

struct Shared {
    name: String,
    /// The same server under another host's name.
    elsewhere: String,
    files: Files,
    behaviour: Mutex<Behaviour>,
    requests: Mutex<Vec<String>>,
}

/// What a client asks for.
struct Request {
    head: bool,
    path: String,
    token: Option<String>,
    start: Option<usize>,
}

impl Server {
    pub(super) fn start(name: &str, files: Files, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let elsewhere = address.replace("127.0.0.1", "localhost");
        let shared = Shared {
            name: name.into(),
            elsewhere,
            files,
            behaviour: Mutex::new(behaviour),
            requests: Mutex::default(),
        };
        let shared = Arc::new(shared);
        let server = Arc::clone(&shared);
        // A connection is for one request. Nothing sent is the end.
        let thread = thread::spawn(move || {
            while let Some((mut stream, request)) = listener.accept().ok().and_then(|(stream, _)| receive(stream)) {
                // A client may hang up early.
                let _ = server.answer(&mut stream, &request);
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }

    /// What has been asked for: method, path and range.
    pub(super) fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap().clone()
    }

    pub(super) fn forget(&self) {
        self.shared.requests.lock().unwrap().clear();
    }

    pub(super) fn behave(&self, behaviour: Behaviour) {
        *self.shared.behaviour.lock().unwrap() = behaviour;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(TcpStream::connect(self.address.trim_start_matches("http://")));
        self.thread.take().map(thread::JoinHandle::join);
    }
}

fn receive(stream: TcpStream) -> Option<(TcpStream, Request)> {
    let mut lines = BufReader::new(stream.try_clone().ok()?).lines().map_while(Result::ok);
    let first = lines.next()?;
    let mut words = first.split(' ');
    let (head, path) = (words.next()? == "HEAD", words.next()?.to_string());
    let mut request = Request { head, path, token: None, start: None };
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "authorization" => request.token = value.strip_prefix("Bearer ").map(Into::into),
            "range" => request.start = value.strip_prefix("bytes=")?.trim_end_matches('-').parse().ok(),
            "accept-encoding" => assert_eq!(value, "identity"),
            _ => {}
        }
    }
    Some((stream, request))
}

impl Shared {
    fn answer(&self, stream: &mut TcpStream, request: &Request) -> io::Result<()> {
        let method = if request.head { "HEAD" } else { "GET" };
        let range = request.start.map_or(String::new(), |start| format!(" bytes={start}-"));
        self.requests.lock().unwrap().push(format!("{method} {}{range}", request.path));
        let mut behaviour = self.behaviour.lock().unwrap();
        if behaviour.unavailable > 0 {
            behaviour.unavailable -= 1;
            return status(stream, "503 Service Unavailable", "");
        }
        if let Some(token) = behaviour.token {
            match request.token.as_deref() {
                Some(_) if request.path.starts_with("/large/") => return status(stream, "400 Bad Request", ""),
                None if request.path.starts_with("/large/") => {}
                None => return status(stream, "401 Unauthorized", ""),
                Some(given) if given != token => return status(stream, "403 Forbidden", ""),
                Some(_) => {}
            }
        }
        let name = &self.name;
        let path = request.path.as_str();
        if [format!("/api/models/{name}/revision/main"), format!("/api/models/{name}/revision/{COMMIT}")]
            .iter()
            .any(|p| p == path)
        {
            let siblings: Vec<_> = self.files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
            let mut description = serde_json::json!({ "id": name, "sha": COMMIT, "siblings": siblings });
            if behaviour.without_list {
                description.as_object_mut().unwrap().remove("siblings");
            }
            return body(stream, request, "", description.to_string().as_bytes(), usize::MAX);
        }
        // Small files lie elsewhere on the hub, large ones on another server.
        let resolve = format!("/{name}/resolve/{COMMIT}/");
        for (prefix, place) in [(resolve.as_str(), ""), ("/small/", "small"), ("/large/", "large")] {
            let Some(file) = path.strip_prefix(prefix) else { continue };
            let Some(bytes) = self.files.get(file) else { break };
            return self.file(stream, request, &mut behaviour, place, file, bytes);
        }
        status(stream, "404 Not Found", "X-Error-Code: EntryNotFound\r\n")
    }

    fn file(
        &self,
        stream: &mut TcpStream,
        request: &Request,
        behaviour: &mut Behaviour,
        place: &str,
        file: &str,
        bytes: &[u8],
    ) -> io::Result<()> {
        let is_large = file.ends_with(".safetensors");
        let checksum = if behaviour.without_checksums { "none".into() } else { checksum(bytes, is_large) };
        let commit = format!("X-Repo-Commit: {COMMIT}\r\n");
        if place.is_empty() && is_large {
            let linked = format!("X-Linked-Size: {}\r\nX-Linked-Etag: \"{checksum}\"\r\n", bytes.len());
            let host = if behaviour.token.is_some() { self.elsewhere.as_str() } else { "" };
            return status(stream, "302 Found", &format!("Location: {host}/large/{file}\r\n{commit}{linked}"));
        }
        if place.is_empty() {
            return status(stream, "307 Temporary Redirect", &format!("Location: /small/{file}\r\n{commit}"));
        }
        let mut bytes = bytes.to_vec();
        if let Some(first) = bytes.first_mut().filter(|_| behaviour.damages == Some(file)) {
            *first ^= 1;
        }
        let most = if is_large && !behaviour.breaks.is_empty() { behaviour.breaks.remove(0) } else { usize::MAX };
        let tag = if is_large {
            "ETag: \"of the large server\"\r\n".into()
        } else {
            format!("ETag: W/\"{checksum}\"\r\n{commit}")
        };
        let request = Request {
            start: request.start.filter(|_| !behaviour.without_ranges),
            path: String::new(),
            token: None,
            ..*request
        };
        body(stream, &request, &tag, &bytes, most)
    }
}

fn checksum(bytes: &[u8], is_large: bool) -> String {
    let mut hash = Hash::new(if is_large { "0".repeat(64) } else { String::new() }.as_str(), bytes.len() as u64);
    hash.update(bytes);
    hash.finish()
}

fn status(stream: &mut TcpStream, status: &str, headers: &str) -> io::Result<()> {
    write!(stream, "HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n")
}

/// Sends what was asked for, but at most so many bytes of it.
fn body(stream: &mut TcpStream, request: &Request, headers: &str, bytes: &[u8], most: usize) -> io::Result<()> {
    let (status, range, rest) = match request.start {
        Some(start) if start < bytes.len() => {
            let range = format!("Content-Range: bytes {start}-{}/{}\r\n", bytes.len() - 1, bytes.len());
            ("206 Partial Content", range, &bytes[start..])
        }
        _ => ("200 OK", String::new(), bytes),
    };
    let length = rest.len();
    write!(stream, "HTTP/1.1 {status}\r\n{headers}{range}Content-Length: {length}\r\nConnection: close\r\n\r\n")?;
    if request.head { Ok(()) } else { stream.write_all(&rest[..length.min(most)]) }
}
