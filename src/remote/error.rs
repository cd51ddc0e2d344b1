//! What can go wrong between a folder and its store, in words for the person who has to do
//! something. What a server answers is cut down to its code and its message: whole answers can hold
//! signatures and names of keys.

use object_store::Error;
use pipe_fs::atomic::WriteError;
use pipe_fs::{FileError, LockError};

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RemoteErrorKind {
    /// The URL or the environment has to be changed.
    Setting,
    /// It may be gone after a while.
    Transient,
    /// What is in the store is not what was put there.
    Damaged,
    /// Another machine goes on with the same state.
    TakenOver,
    /// The folder and the store both went on, and somebody has to choose.
    Diverged,
    /// This machine's own disk.
    Local,
}

/// What went wrong between folder and store: a message for people, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct RemoteError {
    pub kind: RemoteErrorKind,
    pub message: String,
}

impl RemoteError {
    /// An error with a message of one's own.
    pub fn new(kind: RemoteErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    /// What a store said about what was asked of it. `url`: as the user wrote it. `hint`: what the
    /// environment lacks.
    pub fn of(url: &str, doing: &str, error: &Error, hint: Option<&str>) -> Self {
        let (kind, mut message) = explain(error);
        if let (Some(hint), RemoteErrorKind::Setting | RemoteErrorKind::Transient) = (hint, kind) {
            message.push_str(&format!(" ({hint})"));
        }
        Self::new(kind, format!("store {url}: failed to {doing}: {message}"))
    }

    /// An error of this machine's own disk.
    pub fn local(error: impl std::fmt::Display) -> Self {
        Self::new(RemoteErrorKind::Local, error.to_string())
    }
}

impl From<WriteError> for RemoteError {
    fn from(error: WriteError) -> Self {
        Self::local(error)
    }
}

impl From<LockError> for RemoteError {
    fn from(error: LockError) -> Self {
        Self::local(error)
    }
}

impl From<FileError> for RemoteError {
    fn from(error: FileError) -> Self {
        Self::local(error)
    }
}

fn explain(error: &Error) -> (RemoteErrorKind, String) {
    let text = chain(error);
    let code = tag(&text, "Code").unwrap_or_default();
    match code {
        "NoSuchBucket" | "ContainerNotFound" => {
            return (RemoteErrorKind::Setting, "there is no such bucket".into());
        }
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "InvalidToken"
        | "AuthenticationFailed" => {
            return (
                RemoteErrorKind::Setting,
                format!("the credentials in the environment are not accepted ({code})"),
            );
        }
        "ExpiredToken" => {
            return (
                RemoteErrorKind::Transient,
                "the credentials have expired (ExpiredToken)".into(),
            );
        }
        _ => {}
    }
    let beside = if code.is_empty() { String::new() } else { format!(" ({code})") };
    match error {
        Error::PermissionDenied { .. } => (RemoteErrorKind::Setting, format!("permission denied{beside}")),
        Error::Unauthenticated { .. } => (RemoteErrorKind::Setting, format!("the credentials are not accepted{beside}")),
        Error::NotFound { .. } if code.is_empty() || code == "NoSuchKey" || code == "BlobNotFound" => {
            (RemoteErrorKind::Damaged, "it is not there".into())
        }
        _ if text.contains("https only") => {
            (RemoteErrorKind::Setting, "the server is to be spoken to without encryption; AWS_ALLOW_HTTP=true (AZURE_…, GOOGLE_…) allows that".into())
        }
        _ => {
            let said = match (tag(&text, "Message"), code) {
                (Some(message), code) if !code.is_empty() => format!("{message} ({code})"),
                _ => innermost(error),
            };
            (RemoteErrorKind::Transient, said)
        }
    }
}

/// The error and all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// The last cause, in one short line without markup.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut last = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    let text = last.to_string();
    let line = text.split(['\n', '<']).find(|line| !line.trim().is_empty()).unwrap_or_default();
    // What stands behind the `?` of an address can be a signature.
    let words = line
        .split_whitespace()
        .map(|word| if word.contains("://") { before(word, '?') } else { word });
    let line = words.collect::<Vec<_>>().join(" ");
    line.chars().take(200).collect::<String>().trim_end_matches(':').to_owned()
}

fn before(word: &str, nonce: char) -> &str {
    word.split(nonce).next().unwrap_or(word)
}

/// What stands in an XML element of a server's answer.
fn tag<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    let (inside, _) = rest.split_once(&format!("</{name}>"))?;
    Some(inside.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(body: &str) -> Error {
        Error::Generic { store: "S3", source: body.to_owned().into() }
    }

    #[test]
    fn answers_are_cut_down_to_what_helps() {
        let body = "Server returned non-2xx status code: 403: <Error><Code>SignatureDoesNotMatch</Code>\
                    <AWSAccessKeyId>AKIASECRET</AWSAccessKeyId><StringToSign>x</StringToSign></Error>";
        let error = Error::PermissionDenied { path: "p".into(), source: body.to_owned().into() };
        let said = RemoteError::of("s3://b/p", "read the index", &error, None);
        assert_eq!(
            said.message,
            "store s3://b/p: failed to read the index: the credentials in the environment are not accepted \
             (SignatureDoesNotMatch)"
        );
        assert_eq!(said.kind, RemoteErrorKind::Setting);
        let said = RemoteError::of("s3://b", "write", &generic("<Code>NoSuchBucket</Code>"), None);
        assert!(said.message.ends_with("there is no such bucket"), "{said}");
        let slow = "x: <Error><Code>SlowDown</Code><Message>Please wait.</Message><Key>secret</Key></Error>";
        let said = RemoteError::of("s3://b", "write", &generic(slow), None);
        assert!(said.message.ends_with("Please wait. (SlowDown)"), "{said}");
        assert_eq!(said.kind, RemoteErrorKind::Transient);
    }

    #[test]
    fn a_signed_address_is_shown_without_its_signature() {
        let error = generic("failed at https://host/box/blob?sig=hunter2&x=y: reset");
        let said = RemoteError::of("az://box", "put", &error, None);
        assert!(said.message.ends_with("failed at https://host/box/blob reset"), "{said}");
    }

    #[test]
    fn a_hint_stands_where_it_may_help() {
        let said = RemoteError::of(
            "s3://b",
            "write",
            &generic("connection refused"),
            Some("AWS_X is not set"),
        );
        assert!(said.message.ends_with("connection refused (AWS_X is not set)"), "{said}");
    }
}
