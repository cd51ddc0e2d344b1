//! `store:` of a pipeline file: where its state is mirrored. Only the words are checked here;
//! nothing is opened, and credentials have no place in it.

use std::fmt;

use pipe_core::error::{Gathered, SpecError};
use serde_json::Value;

use crate::pipeline_file::overrides::{Override, Precedence};
use crate::pipeline_file::params::{Names, filled_value};
use crate::pipeline_file::pipeline::PipelineFile;
use crate::pipeline_file::values::error_at;
use crate::pipeline_file::words::describe;
use crate::source::Part;

/// Kinds of store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    S3,
    /// Google Cloud Storage
    Gs,
    /// Azure Blob Storage
    Az,
    /// A folder, such as one of a file server.
    File,
}

/// A bucket, or a folder, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreUrl {
    pub scheme: Scheme,
    /// The bucket or container; of `file` nothing.
    pub bucket: String,
    /// Without slashes at its ends; of `file` the folder, with the one at its beginning.
    pub prefix: String,
}

const SCHEMES: [(&str, Scheme); 4] =
    [("s3", Scheme::S3), ("gs", Scheme::Gs), ("az", Scheme::Az), ("file", Scheme::File)];
/// What people write for the same.
const SAME: [(&str, &str); 5] =
    [("s3a", "s3"), ("gcs", "gs"), ("azure", "az"), ("abfs", "az"), ("abfss", "az")];

impl Scheme {
    pub fn name(self) -> &'static str {
        SCHEMES.iter().find(|(_, scheme)| *scheme == self).map_or("", |(name, _)| name)
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let slash = if self.scheme == Scheme::File || self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{}://{}{slash}{}", self.scheme.name(), self.bucket, self.prefix)
    }
}

/// What is wrong with a store's URL. A message that may be shown beside the URL, unless that holds
/// a secret.
#[derive(Debug, PartialEq, Eq)]
struct Wrong {
    message: String,
    notes: Vec<String>,
    secret: bool,
}

impl Wrong {
    fn new(message: impl Into<String>, note: impl Into<String>) -> Self {
        Self { message: message.into(), notes: vec![note.into()], secret: false }
    }
}

/// Reads a URL; `none` means that there is no store.
fn parse(text: &str) -> Result<Option<StoreUrl>, Wrong> {
    let text = text.trim();
    if text == "none" {
        return Ok(None);
    }
    let usual = "write `s3://BUCKET/PREFIX`, `gs://BUCKET/PREFIX`, `az://CONTAINER/PREFIX`, `file:///FOLDER`, or `none`";
    let authority =
        text.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(rest));
    if authority.contains('@') || text.contains(['?', '#']) {
        return Err(Wrong {
            message: "the URL holds more than a bucket and a prefix".into(),
            notes: vec![
                "credentials come from the environment (AWS_…, GOOGLE_…, AZURE_…), never from a URL".into(),
            ],
            secret: true,
        });
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Wrong::new(format!("expected the URL of a store, found {text:?}"), usual));
    };
    let Some((_, known)) = SCHEMES.iter().find(|(name, _)| *name == scheme) else {
        let meant = SAME
            .iter()
            .find(|(other, _)| *other == scheme)
            .map(|(_, name)| format!("`{name}` is meant; "));
        let note = format!("{}{usual}", meant.unwrap_or_default());
        return Err(Wrong::new(format!("unknown kind of store `{scheme}`"), note));
    };
    if *known == Scheme::File {
        let prefix = rest.trim_end_matches('/');
        return if prefix.starts_with('/') {
            Ok(Some(StoreUrl { scheme: *known, bucket: String::new(), prefix: prefix.to_owned() }))
        } else {
            Err(Wrong::new(
                "expected a folder from the root: three slashes",
                "such as `file:///mnt/nas/trainings`",
            ))
        };
    }
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if bucket.is_empty() {
        return Err(Wrong::new("the URL names no bucket", usual));
    }
    if !bucket.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)) {
        return Err(Wrong::new(format!("{bucket:?} cannot be the name of a bucket"), usual));
    }
    let prefix = prefix.trim_matches('/');
    if prefix.split('/').any(|part| part == "." || part == "..") || prefix.contains("//") {
        return Err(Wrong::new("expected a prefix without `.`, `..` and empty parts", usual));
    }
    Ok(Some(StoreUrl { scheme: *known, bucket: bucket.to_owned(), prefix: prefix.to_owned() }))
}

/// What `store:` says, or what the environment or the command line says in its place.
pub(super) fn read(
    file: &PipelineFile,
    names: Names,
    over: Option<Override>,
    errors: &mut Gathered,
) -> Option<StoreUrl> {
    // A parameter that only the file's URL uses is used all the same.
    let written = file
        .store
        .as_ref()
        .map(|written| filled_value(&file.source, &["store".into()], written, names));
    let written = written.and_then(|filled| errors.take(filled));
    let given = over.as_ref().and_then(|over| over.value.clone().ok());
    let (wrong, found) = match given.or(written)? {
        Value::String(text) => match parse(&text) {
            Ok(found) => return found,
            Err(wrong) => (wrong, None),
        },
        Value::Null => return None,
        other => (
            Wrong::new("expected the URL of a store", "such as `s3://bucket/prefix`"),
            Some(describe(&other)),
        ),
    };
    let message =
        format!("{}{}", wrong.message, found.map(|f| format!(", found {f}")).unwrap_or_default());
    let error = match (&over, wrong.secret) {
        (Some(over), true) if over.strength == Precedence::Environment => {
            SpecError::plain(format!("{}: {message}", over.by.shown))
        }
        (Some(_), true) => SpecError::plain(format!("store: {message}")),
        (Some(over), false) => {
            SpecError::plain(format!("{}: {message}", over.by.shown)).hiding(&over.by.hidden)
        }
        // Without the line: it is the secret.
        (None, true) => SpecError::at(&file.source, None, vec!["store".into()], message),
        (None, false) => error_at(&file.source, &["store"], Part::Value, message),
    };
    errors.push(wrong.notes.into_iter().fold(error, SpecError::note));
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> String {
        parse(text).unwrap().unwrap().to_string()
    }

    fn wrong(text: &str) -> String {
        parse(text).unwrap_err().message
    }

    #[test]
    fn urls_come_back_as_they_were_meant() {
        for good in
            ["s3://bucket", "s3://my.bucket-1/a/b", "gs://b/p", "az://box/p", "file:///mnt/nas"]
        {
            assert_eq!(url(good), good);
        }
        assert_eq!(url(" s3://bucket/a/ "), "s3://bucket/a");
        assert_eq!(url("file:///mnt/nas//"), "file:///mnt/nas");
        assert_eq!(parse("none"), Ok(None));
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert_eq!(wrong("/mnt/nas"), "expected the URL of a store, found \"/mnt/nas\"");
        assert_eq!(wrong("ftp://host/x"), "unknown kind of store `ftp`");
        assert!(parse("gcs://b").unwrap_err().notes[0].starts_with("`gs` is meant"));
        assert_eq!(wrong("s3://"), "the URL names no bucket");
        assert_eq!(wrong("s3:///prefix"), "the URL names no bucket");
        assert_eq!(wrong("s3://a b/x"), "\"a b\" cannot be the name of a bucket");
        assert_eq!(wrong("file://mnt/x"), "expected a folder from the root: three slashes");
        assert!(wrong("s3://b/../c").contains("without `.`"));
    }

    #[test]
    fn what_may_be_a_secret_is_not_repeated() {
        for secret in ["s3://key:hunter2@bucket/p", "az://box/p?sig=hunter2", "gs://b/p#hunter2"] {
            let wrong = parse(secret).unwrap_err();
            assert!(wrong.secret && !format!("{wrong:?}").contains("hunter2"), "{wrong:?}");
        }
    }
}
