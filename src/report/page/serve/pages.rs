//! Makes the page for those who ask, in a thread of its own: one copy for all who wait at once.

use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use hyper::body::Bytes;
use pipe_engine::identity::hex;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use super::timed_stream::WRITE_TIMEOUT;

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

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum PageFormat {
    Html,
    Json,
}

impl PageFormat {
    pub fn content_type(self) -> &'static str {
        match self {
            PageFormat::Html => "text/html; charset=utf-8",
            PageFormat::Json => "application/json",
        }
    }
}

/// What a client wants, and where it waits for it.
pub(super) struct PageRequest {
    pub kind: PageFormat,
    /// The tag of what it has.
    pub known: Option<String>,
    /// Takes the tag, and what it stands for if the client has it not.
    pub reply: oneshot::Sender<(String, Option<Bytes>)>,
}

/// Answers all who wait at once, with one copy of the page for all of them.
pub(super) fn make_pages(content: &dyn PageSource, requests: &mpsc::Receiver<PageRequest>) {
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

#[cfg(test)]
mod tests {
    use super::*;

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
