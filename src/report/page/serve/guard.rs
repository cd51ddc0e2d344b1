//! Decides who is answered, and answers.

use std::io;
use std::sync::mpsc;

use http_body_util::Full;
use hyper::body::{Body, Bytes, Incoming};
use hyper::header::{self, HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use pipe_engine::identity::hex;
use subtle::ConstantTimeEq;
use tokio::sync::oneshot;

use super::pages::{PageFormat, PageRequest};
use crate::report::page::content_policy;

pub(super) type PageResponse = Response<Full<Bytes>>;

/// Decides who is answered.
pub(super) struct Guard {
    token: Option<String>,
    /// Cookies are of a machine, not of a port: another server's must not take the place of this
    /// one's.
    cookie: String,
    ask: mpsc::Sender<PageRequest>,
}

impl Guard {
    /// `token`: what a client must know, if anything. `ask`: where pages are made.
    pub fn new(token: Option<String>, port: u16, ask: mpsc::Sender<PageRequest>) -> Self {
        Self { token, cookie: format!("pipe-{port}"), ask }
    }

    pub async fn answer(&self, request: &Request<Incoming>) -> PageResponse {
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

/// 128 random bits.
pub(super) fn random_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(hex(&bytes))
}

fn plain(status: StatusCode, text: &'static str) -> PageResponse {
    respond(status, "text/plain; charset=utf-8", Bytes::from_static(text.as_bytes()))
}

fn respond(status: StatusCode, content_type: &str, body: Bytes) -> PageResponse {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = status;
    let policy = format!("{}; frame-ancestors 'none'", content_policy());
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
}
