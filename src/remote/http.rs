//! HTTP for `object_store`, over the blocking `ureq` that the program has for downloads. Each
//! request is carried out by a thread of tokio's pool. Answers are read whole: what is asked for is
//! never larger than a part.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::BodyExt;
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest,
    HttpResponse, HttpService,
};
use ureq::http::{Method, Request, header};
use ureq::{Agent, SendBody};

/// How long a connection may take, and how long one may bring or take nothing.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const IO_TIMEOUT: Duration = Duration::from_secs(60);
/// An answer longer than this is none to what was asked: a part, or an index.
const MAX_ANSWER: u64 = 40 << 20;
/// So much is read of an answer that says what is wrong.
const MAX_ERROR_BODY: u64 = 64 << 10;

/// How many requests were sent.
pub(crate) type RequestCount = Arc<AtomicU64>;

/// Makes clients, whose requests it counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Connector(pub RequestCount);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        let option = |key| options.get_config_value(&key);
        let duration = |key| option(key).and_then(|text| humantime::parse_duration(&text).ok());
        // object_store lets a client refuse what is not encrypted, and asks a machine's own
        // metadata without.
        let https_only = option(ClientConfigKey::AllowHttp).as_deref() != Some("true");
        let agent: Agent = Agent::config_builder()
            .https_only(https_only)
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_connect(Some(
                duration(ClientConfigKey::ConnectTimeout).unwrap_or(CONNECT_TIMEOUT),
            ))
            .timeout_per_read(Some(IO_TIMEOUT))
            .timeout_per_write(Some(IO_TIMEOUT))
            .timeout_global(duration(ClientConfigKey::Timeout))
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            .accept_encoding("identity")
            .build()
            .into();
        Ok(HttpClient::new(Service(agent, self.0.clone())))
    }
}

#[derive(Debug)]
struct Service(Agent, RequestCount);

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (parts, mut body) = request.into_parts();
        let mut pieces = Pieces::default();
        while let Some(frame) = body.frame().await {
            if let Ok(piece) = frame?.into_data() {
                pieces.push(piece);
            }
        }
        let agent = self.0.clone();
        let request = Request::from_parts(parts, ());
        self.1.fetch_add(1, Ordering::Relaxed);
        let sent = tokio::task::spawn_blocking(move || send(&agent, request, pieces)).await;
        sent.unwrap_or_else(|panic| Err(HttpError::new(HttpErrorKind::Unknown, panic)))
    }
}

fn send(
    agent: &Agent,
    request: Request<()>,
    mut pieces: Pieces,
) -> Result<HttpResponse, HttpError> {
    let (mut parts, ()) = request.into_parts();
    let answered = if pieces.length > 0 || matches!(parts.method, Method::PUT | Method::POST) {
        // Without it the body would be sent in chunks, which stores refuse.
        parts.headers.insert(header::CONTENT_LENGTH, pieces.length.into());
        agent.run(Request::from_parts(parts, SendBody::from_reader(&mut pieces)))
    } else {
        agent.run(Request::from_parts(parts, ()))
    };
    let (parts, body) = answered.map_err(failed)?.into_parts();
    let bytes = if parts.status.is_success() {
        body.into_with_config().limit(MAX_ANSWER).read_to_vec().map_err(failed)?
    } else {
        let mut said = Vec::new();
        let read = body.into_reader().take(MAX_ERROR_BODY).read_to_end(&mut said);
        read.map_err(|error| failed(error.into()))?;
        said
    };
    Ok(HttpResponse::from_parts(parts, bytes.into()))
}

/// What object_store is to make of an error. A request that was sent twice does no harm here:
/// objects have their content in their names, and who takes an index's number is found out by
/// reading it.
fn failed(error: ureq::Error) -> HttpError {
    let kind = match &error {
        ureq::Error::Timeout(_) => HttpErrorKind::Timeout,
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => HttpErrorKind::Connect,
        ureq::Error::Protocol(_) => HttpErrorKind::Request,
        ureq::Error::Io(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::AddrNotAvailable => {
                HttpErrorKind::Connect
            }
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => HttpErrorKind::Timeout,
            _ => HttpErrorKind::Request,
        },
        _ => HttpErrorKind::Unknown,
    };
    HttpError::new(kind, error)
}

/// A body as it was handed over, read without another copy.
#[derive(Default)]
struct Pieces {
    pieces: std::collections::VecDeque<Bytes>,
    length: u64,
}

impl Pieces {
    fn push(&mut self, piece: Bytes) {
        self.length += piece.len() as u64;
        self.pieces.push_back(piece);
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(first) = self.pieces.front_mut() {
            if first.is_empty() {
                self.pieces.pop_front();
                continue;
            }
            let piece = first.split_to(first.len().min(buffer.len()));
            buffer[..piece.len()].copy_from_slice(&piece);
            return Ok(piece.len());
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_read_piece_by_piece() {
        let mut pieces = Pieces::default();
        for piece in ["one", "", "two"] {
            pieces.push(Bytes::from(piece));
        }
        assert_eq!(pieces.length, 6);
        let mut small = [0; 2];
        assert_eq!(pieces.read(&mut small).unwrap(), 2);
        let mut rest = String::new();
        pieces.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "etwo");
    }
}
