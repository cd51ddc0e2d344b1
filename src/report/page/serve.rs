//! The page over HTTP, for this machine only: `/` and `/data.json`. No address ever names a file.
//!
//! Sockets are served by one thread, the page is made by another. A client waits for nobody but
//! itself, and the end of the program waits for no client.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use pipe_core::stop::Stop;
use pipe_engine::identity::hex;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Sleep;

/// How soon a wish to stop is heard.
const STOP_INTERVAL: Duration = Duration::from_millis(200);
/// How long a request's header may take, and how long an idle connection stays open.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may take nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's header.
const MAX_HEADER: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Connections at once. The oldest gives way to a new one.
const MAX_CONNECTIONS: usize = 256;
/// How long a page that was made serves those who ask for the same. As long as a client may hold
/// one without reading it: so there are never many copies of one page.
const REUSED_FOR: Duration = WRITE_TIMEOUT;

/// What is asked for at each request.
pub trait PageSource: Send + 'static {
    /// Text that changes when the page does.
    fn stamp(&self) -> String;
    fn html(&self) -> String;
    fn json(&self) -> String;
}

/// A server that listens.
pub struct PageServer {
    listener: TcpListener,
    port: u16,
    token: Option<String>,
}

impl PageServer {
    /// Listens on 127.0.0.1; port 0 takes a free one. `token`: answers only those who know a random
    /// one.
    pub fn on(port: u16, token: bool) -> io::Result<Self> {
        let listener = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let token = token.then(random_token).transpose()?;
        Ok(Self { listener, port, token })
    }

    /// The address to open, with the token.
    pub fn address(&self) -> String {
        let token = self.token.iter().map(|token| format!("?token={token}")).collect::<String>();
        format!("http://{}:{}/{token}", Ipv4Addr::LOCALHOST, self.port)
    }

    /// Answers until it is to stop.
    pub fn serve(self, content: impl PageSource, stop: &Stop) -> io::Result<()> {
        let (ask, requests) = mpsc::channel();
        std::thread::spawn(move || make_pages(&content, &requests));
        let guard =
            Arc::new(Guard { cookie: format!("pipe-{}", self.port), token: self.token, ask });
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(self.listener)?;
            let mut open: VecDeque<JoinHandle<()>> = VecDeque::new();
            while stop.requested().is_none() {
                let Ok(accepted) = tokio::time::timeout(STOP_INTERVAL, listener.accept()).await
                else {
                    continue;
                };
                open.retain(|connection| !connection.is_finished());
                // An error is a client that has gone, or there are no more files to be had.
                if (open.len() >= MAX_CONNECTIONS || accepted.is_err())
                    && let Some(oldest) = open.pop_front()
                {
                    oldest.abort();
                }
                match accepted {
                    Ok((stream, _)) => {
                        open.push_back(tokio::spawn(converse(stream, guard.clone())))
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
            Ok(())
        })
    }
}

/// 128 random bits.
fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex(&bytes))
}

/// Answers the requests of one connection.
async fn converse(stream: TcpStream, guard: Arc<Guard>) {
    let service = service_fn(|request| {
        let guard = guard.clone();
        async move { Ok::<_, Infallible>(guard.answer(&request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(Timed { stream, blocked: None }), service);
    // An error is a client that went away, took too long, or does not speak HTTP.
    let _ = connection.await;
}

/// A connection that fails when nothing of what is written to it is taken for too long.
struct Timed {
    stream: TcpStream,
    /// Runs while the other side takes nothing.
    blocked: Option<Pin<Box<Sleep>>>,
}

impl Timed {
    fn written<T>(
        &mut self,
        context: &mut Context,
        result: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if result.is_ready() {
            self.blocked = None;
            return result;
        }
        let blocked =
            self.blocked.get_or_insert_with(|| Box::pin(tokio::time::sleep(WRITE_TIMEOUT)));
        blocked.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Timed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        buffer: &mut ReadBuf,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Timed {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.written(context, result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context,
        pieces: &[io::IoSlice],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(context, pieces);
        self.written(context, result)
    }

    /// Without it the whole page would be copied for each client.
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

type PageResponse = Response<Full<Bytes>>;

/// Decides who is answered.
struct Guard {
    token: Option<String>,
    /// Cookies are of a machine, not of a port: another server's must not take the place of this
    /// one's.
    cookie: String,
    ask: mpsc::Sender<PageRequest>,
}

impl Guard {
    async fn answer(&self, request: &Request<Incoming>) -> PageResponse {
        // A page of somewhere else whose name was made to mean this machine must not read this one.
        if !is_for_this_machine(request) {
            return plain(StatusCode::FORBIDDEN, "only for this machine\n");
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n");
            return with(refused, header::ALLOW, "GET, HEAD");
        }
        if !request.body().is_end_stream() {
            let refused = plain(StatusCode::PAYLOAD_TOO_LARGE, "requests have no content\n");
            return with(refused, header::CONNECTION, "close");
        }
        let in_address = self.in_address(request);
        if !in_address && !self.in_cookie(request) {
            return plain(
                StatusCode::FORBIDDEN,
                "open the address that `pipe ui` printed, with its token\n",
            );
        }
        let kind = match request.uri().path() {
            // The token goes into a cookie, so that it does not stay where addresses are kept.
            "/" if in_address => {
                let token = self.token.as_deref().unwrap_or_default();
                let cookie = format!("{}={token}; Path=/; HttpOnly; SameSite=Strict", self.cookie);
                let answer = with(plain(StatusCode::SEE_OTHER, ""), header::LOCATION, "/");
                return with(answer, header::SET_COOKIE, &cookie);
            }
            "/" => PageFormat::Html,
            "/data.json" => PageFormat::Json,
            _ => return plain(StatusCode::NOT_FOUND, "there is / and /data.json\n"),
        };
        let known = request.headers().get(header::IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
        let known = known.filter(|_| kind == PageFormat::Json).map(str::to_owned);
        let (reply, answer) = oneshot::channel();
        let made = match self.ask.send(PageRequest { kind, known, reply }) {
            Ok(()) => answer.await.ok(),
            Err(_) => None,
        };
        let Some((tag, body)) = made else {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "failed to make the page\n");
        };
        let status = if body.is_some() { StatusCode::OK } else { StatusCode::NOT_MODIFIED };
        let answer = respond(status, kind.content_type(), body.unwrap_or_default());
        with(answer, header::ETAG, &tag)
    }

    fn in_address(&self, request: &Request<Incoming>) -> bool {
        let pairs = request.uri().query().unwrap_or_default().split('&');
        pairs.filter_map(|pair| pair.strip_prefix("token=")).any(|given| self.is_token(given))
    }

    fn in_cookie(&self, request: &Request<Incoming>) -> bool {
        if self.token.is_none() {
            return true;
        }
        let cookies =
            request.headers().get_all(header::COOKIE).iter().filter_map(|c| c.to_str().ok());
        let pairs =
            cookies.flat_map(|cookies| cookies.split(';')).filter_map(|c| c.trim().split_once('='));
        pairs.filter(|(name, _)| *name == self.cookie).any(|(_, given)| self.is_token(given))
    }

    /// Compared in a time that tells nothing of how much of it is right.
    fn is_token(&self, given: &str) -> bool {
        self.token
            .as_ref()
            .is_some_and(|token| bool::from(token.as_bytes().ct_eq(given.as_bytes())))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PageFormat {
    Html,
    Json,
}

impl PageFormat {
    fn content_type(self) -> &'static str {
        match self {
            PageFormat::Html => "text/html; charset=utf-8",
            PageFormat::Json => "application/json",
        }
    }
}

/// What a client wants, and where it waits for it.
struct PageRequest {
    kind: PageFormat,
    /// The tag of what it has.
    known: Option<String>,
    /// Takes the tag, and what it stands for if the client has it not.
    reply: oneshot::Sender<(String, Option<Bytes>)>,
}

/// Answers all who wait at once, with one copy of the page for all of them.
fn make_pages(content: &dyn PageSource, requests: &mpsc::Receiver<PageRequest>) {
    let mut made: [Option<(String, Instant, Bytes)>; 2] = [None, None];
    loop {
        let first = match requests.recv_timeout(REUSED_FOR) {
            Ok(first) => first,
            Err(RecvTimeoutError::Timeout) => {
                made = [None, None];
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let waiting: Vec<_> = std::iter::once(first).chain(requests.try_iter()).collect();
        let digest = Sha256::digest(content.stamp().as_bytes());
        let tag = format!("\"{}\"", hex(&digest[..16]));
        for request in waiting {
            let body = (request.known.as_ref() != Some(&tag)).then(|| {
                let slot = &mut made[request.kind as usize];
                drop(slot.take_if(|(of, at, _)| *of != tag || at.elapsed() >= REUSED_FOR));
                let (.., body) = slot.get_or_insert_with(|| {
                    let text = match request.kind {
                        PageFormat::Html => content.html(),
                        PageFormat::Json => content.json(),
                    };
                    (tag.clone(), Instant::now(), Bytes::from(text))
                });
                body.clone()
            });
            // Whoever asked may have gone.
            let _ = request.reply.send((tag.clone(), body));
        }
    }
}

fn plain(status: StatusCode, text: &'static str) -> PageResponse {
    respond(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn respond(status: StatusCode, content_type: &str, body: Bytes) -> PageResponse {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let policy = format!("{}; frame-ancestors 'none'", super::content_policy());
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, policy.as_str()),
        (header::CACHE_CONTROL, "no-cache"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (header::REFERRER_POLICY, "no-referrer"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    headers.into_iter().fold(answer, |answer, (name, value)| with(answer, name, value))
}

fn with(mut answer: PageResponse, name: HeaderName, value: &str) -> PageResponse {
    if let Ok(value) = HeaderValue::from_str(value) {
        answer.headers_mut().insert(name, value);
    }
    answer
}

/// Whether a request names this machine, and nothing else.
fn is_for_this_machine<T>(request: &Request<T>) -> bool {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok());
    let in_address = request.uri().authority().is_none_or(|authority| is_local(authority.as_str()));
    host.is_some_and(is_local) && hosts.next().is_none() && in_address
}

/// The part of a host before the port is a name of this machine. Its port may be that of a tunnel.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].iter().any(|local| name.eq_ignore_ascii_case(local))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in
            ["127.0.0.1", "127.0.0.1:7070", "localhost:7070", "LOCALHOST:7070", "[::1]:7070"]
        {
            assert!(is_local(host), "{host}");
        }
        for host in
            ["", "example.org", "127.0.0.1.example.org:7070", "localhost.evil:80", "10.0.0.1:7070"]
        {
            assert!(!is_local(host), "{host}");
        }
    }

    #[test]
    fn a_request_has_one_host_and_it_is_this_machine() {
        let request = |uri: &str, hosts: &[&str]| {
            let builder = Request::builder().uri(uri);
            let builder = hosts.iter().fold(builder, |builder, host| builder.header("host", *host));
            is_for_this_machine(&builder.body(()).unwrap())
        };
        assert!(
            request("/", &["127.0.0.1:7070"])
                && request("http://localhost:7070/", &["localhost:7070"])
        );
        for hosts in [&[][..], &["evil"], &["127.0.0.1", "evil"], &["evil", "127.0.0.1"]] {
            assert!(!request("/", hosts), "{hosts:?}");
        }
        assert!(!request("http://evil/", &["127.0.0.1"]) && !request("/", &["127.0.0.1, evil"]));
    }

    #[test]
    fn tokens_are_random_and_compared_as_a_whole() {
        let (ask, _asked) = mpsc::channel();
        let token = random_token().unwrap();
        assert!(token.len() == 32 && token != random_token().unwrap());
        let guard = Guard { token: Some(token.clone()), cookie: "c".into(), ask };
        assert!(guard.is_token(&token));
        let other = if token.ends_with('0') { "1" } else { "0" };
        for wrong in ["", &token[..31], &format!("{token}0"), &format!("{}{other}", &token[..31])] {
            assert!(!guard.is_token(wrong), "{wrong}");
        }
    }

    /// A page that changes when it is told to, and counts how often it is made.
    struct Counted(mpsc::Sender<PageFormat>);

    impl PageSource for Counted {
        fn stamp(&self) -> String {
            "same".into()
        }

        fn html(&self) -> String {
            self.0.send(PageFormat::Html).unwrap();
            "html".into()
        }

        fn json(&self) -> String {
            self.0.send(PageFormat::Json).unwrap();
            "json".into()
        }
    }

    #[test]
    fn many_who_ask_at_once_get_one_page() {
        let (ask, requests) = mpsc::channel();
        let (made, count) = mpsc::channel();
        let mut answers = Vec::new();
        for number in 0..100 {
            let (reply, answer) = oneshot::channel();
            let kind = if number % 2 == 0 { PageFormat::Html } else { PageFormat::Json };
            ask.send(PageRequest { kind, known: None, reply }).unwrap();
            answers.push((kind, answer));
        }
        drop(ask);
        make_pages(&Counted(made), &requests);
        assert_eq!(count.iter().count(), 2);
        for (kind, mut answer) in answers {
            let (_, body) = answer.try_recv().unwrap();
            assert_eq!(body.unwrap(), if kind == PageFormat::Html { "html" } else { "json" });
        }
    }
}
