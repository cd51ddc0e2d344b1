//! The page over HTTP, for this machine only: `/` and `/data.json`. No address ever names a file.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pipe_engine::identity::hex;
use pipe_engine::stop::Stop;
use sha2::{Digest, Sha256};
use tiny_http::{Header, Method, Request, Response, Server, StatusCode};

/// How soon a wish to stop is heard.
const PATIENCE: Duration = Duration::from_millis(200);

/// What is asked for at each request.
pub trait Content {
    /// Text that changes when the page does.
    fn stamp(&self) -> String;
    fn html(&self) -> String;
    fn json(&self) -> String;
}

/// A server that listens.
pub struct Listening(Server);

impl Listening {
    /// Listens on 127.0.0.1; port 0 takes a free one.
    pub fn on(port: u16) -> Result<Self, String> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        Server::http(address).map(Self).map_err(|e| e.to_string())
    }

    pub fn address(&self) -> String {
        self.0.server_addr().to_ip().map(|address| format!("http://{address}/")).unwrap_or_default()
    }

    /// Answers until it is to stop.
    pub fn serve(&self, content: &dyn Content, stop: &Stop) -> Result<(), String> {
        while stop.requested().is_none() {
            match self.0.recv_timeout(PATIENCE) {
                Ok(Some(request)) => {
                    let response = answer(&request, content);
                    // Nobody waits for it any more.
                    let _ = request.respond(response);
                }
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}

type Answer = Response<std::io::Cursor<Vec<u8>>>;

fn answer(request: &Request, content: &dyn Content) -> Answer {
    let value = |name: &'static str| {
        request.headers().iter().find(|h| h.field.equiv(name)).map(|h| h.value.as_str().to_owned())
    };
    // A page of somewhere else whose name was made to mean this machine must not read this one.
    if !value("Host").is_some_and(|host| is_local(&host)) {
        return plain(403, "only for this machine\n");
    }
    if !matches!(request.method(), Method::Get | Method::Head) {
        return with(plain(405, "only GET and HEAD\n"), &[("Allow", "GET, HEAD")]);
    }
    let path = request.url().split('?').next().unwrap_or_default();
    let kind = match path {
        "/" => "text/html; charset=utf-8",
        "/data.json" => "application/json",
        _ => return plain(404, "there is / and /data.json\n"),
    };
    let digest = Sha256::digest(content.stamp().as_bytes());
    let tag = format!("\"{}\"", hex(&digest[..16]));
    let known = path == "/data.json" && value("If-None-Match").as_deref() == Some(&tag);
    let answer = match known {
        true => Response::from_data(Vec::new()).with_status_code(StatusCode(304)),
        false if path == "/" => Response::from_data(content.html()),
        false => Response::from_data(content.json()),
    };
    let headers = [
        ("Content-Type", kind),
        ("ETag", tag.as_str()),
        ("Cache-Control", "no-cache"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
    ];
    with(answer, &headers)
}

fn plain(status: u16, text: &str) -> Answer {
    Response::from_string(text).with_status_code(StatusCode(status))
}

fn with(answer: Answer, headers: &[(&str, &str)]) -> Answer {
    let headers = headers.iter().filter_map(|(name, value)| Header::from_bytes(*name, *value).ok());
    headers.fold(answer, Response::with_header)
}

/// The part of a `Host` header before the port is a name of this machine.
fn is_local(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.chars().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    ["127.0.0.1", "localhost", "[::1]"].contains(&name)
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_of_this_machine_are_local() {
        for host in ["127.0.0.1", "127.0.0.1:7070", "localhost:7070", "[::1]:7070"] {
            assert!(is_local(host), "{host}");
        }
        for host in ["", "example.org", "127.0.0.1.example.org:7070", "localhost.evil:80", "10.0.0.1:7070"] {
            assert!(!is_local(host), "{host}");
        }
    }
}
