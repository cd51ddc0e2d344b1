//! The page over HTTP, for this machine only: `/` and `/data.json`. No address ever names a file.
//!
//! Sockets are served by one thread, the page is made by another. A client waits for nobody but
//! itself, and the end of the program waits for no client.

mod guard;
mod pages;
mod timed_stream;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pipe_core::stop::Stop;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use self::guard::{Guard, random_token};
pub use self::pages::PageSource;
use self::pages::make_pages;
use self::timed_stream::TimedStream;

/// How soon a wish to stop is heard.
const STOP_INTERVAL: Duration = Duration::from_millis(200);
/// How long a request's header may take, and how long an idle connection stays open.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of a request's header.
const MAX_HEADER: usize = 16 << 10;
const MAX_HEADERS: usize = 64;
/// Connections at once. The oldest gives way to a new one.
const MAX_CONNECTIONS: usize = 256;

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
        let guard = Arc::new(Guard::new(self.token, self.port, ask));
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
        .serve_connection(TokioIo::new(TimedStream::new(stream)), service);
    // An error is a client that went away, took too long, or does not speak HTTP.
    let _ = connection.await;
}
