//! From a URL and the environment to a store. Credentials are taken from the usual variables by
//! `object_store`, and go nowhere else.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, Checksum};
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use pipe_engine::pipeline_file::{Scheme, StoreUrl};
use pipe_fs::{Disk, atomic, sync};

use crate::error::{RemoteError, RemoteErrorKind};
use crate::http::{Connector, RequestCount};

/// A store, the keys' beginning in it, and what to say of the environment when it refuses.
pub(crate) struct Backend {
    pub store: Arc<dyn ObjectStore>,
    pub prefix: String,
    pub hint: Option<String>,
    /// The folder of a store that leaves it to us to sync files.
    pub unsynced: Option<(Disk, PathBuf)>,
    pub requests: RequestCount,
}

/// A request is tried again for about half a minute; what lasts longer is the mirror's business.
fn retry() -> RetryConfig {
    let backoff = BackoffConfig {
        init_backoff: Duration::from_millis(200),
        max_backoff: Duration::from_secs(10),
        base: 2.0,
    };
    RetryConfig { backoff, max_retries: 7, retry_timeout: Duration::from_secs(40) }
}

/// Opens it without a word to a server.
pub(crate) fn open(disk: &Disk, url: &StoreUrl) -> Result<Backend, RemoteError> {
    open_with(disk, url, &|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

fn open_with(
    disk: &Disk,
    url: &StoreUrl,
    is_set: &dyn Fn(&str) -> bool,
) -> Result<Backend, RemoteError> {
    let hint = lacking(url.scheme, is_set);
    let connector = Connector::default();
    let requests = connector.0.clone();
    let store = match url.scheme {
        Scheme::S3 => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(&url.bucket);
            let builder = if is_set("AWS_CHECKSUM_ALGORITHM") {
                builder
            } else {
                builder.with_checksum_algorithm(Checksum::SHA256)
            };
            builder.with_retry(retry()).with_http_connector(connector).build().map(shared)
        }
        Scheme::Gs => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(&url.bucket);
            builder.with_retry(retry()).with_http_connector(connector).build().map(shared)
        }
        Scheme::Az => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(&url.bucket);
            builder.with_retry(retry()).with_http_connector(connector).build().map(shared)
        }
        Scheme::File => return folder(disk, url),
    };
    match store {
        Ok(store) => {
            Ok(Backend { store, prefix: url.prefix.clone(), hint, unsynced: None, requests })
        }
        // Nothing was asked of anybody yet, so it is the environment.
        Err(error) => {
            let RemoteError { message, .. } =
                RemoteError::of(&url.to_string(), "open it", &error, None);
            let hint = hint.map(|hint| format!(" ({hint})")).unwrap_or_default();
            Err(RemoteError::new(RemoteErrorKind::Setting, format!("{message}{hint}")))
        }
    }
}

fn shared(store: impl ObjectStore) -> Arc<dyn ObjectStore> {
    Arc::new(store)
}

fn folder(disk: &Disk, url: &StoreUrl) -> Result<Backend, RemoteError> {
    let path = Path::new(&url.prefix);
    let wrong =
        |text: String| RemoteError::new(RemoteErrorKind::Setting, format!("store {url}: {text}"));
    if !path.parent().is_some_and(Path::is_dir) {
        return Err(wrong(format!(
            "the folder around {} is not there; is it mounted?",
            path.display()
        )));
    }
    if let Err(error) = atomic::create_folder(disk, path) {
        return Err(wrong(error.to_string()));
    }
    let store = LocalFileSystem::new_with_prefix(path).map_err(|e| wrong(e.to_string()))?;
    let syncs = sync::keeps_names(disk, path).map_err(|error| wrong(error.to_string()))?;
    let unsynced = (!syncs).then(|| (disk.clone(), path.to_owned()));
    Ok(Backend {
        store: shared(store.with_fsync(syncs)),
        prefix: String::new(),
        hint: None,
        unsynced,
        requests: RequestCount::default(),
    })
}

/// What the environment has none of, of all that could be the credentials.
fn lacking(scheme: Scheme, is_set: &dyn Fn(&str) -> bool) -> Option<String> {
    let (any, usual): (&[&str], &str) = match scheme {
        Scheme::S3 => (
            &[
                "AWS_ACCESS_KEY_ID",
                "AWS_WEB_IDENTITY_TOKEN_FILE",
                "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                "AWS_SKIP_SIGNATURE",
            ],
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        Scheme::Gs => (
            &[
                "GOOGLE_APPLICATION_CREDENTIALS",
                "GOOGLE_SERVICE_ACCOUNT",
                "GOOGLE_SERVICE_ACCOUNT_PATH",
                "GOOGLE_SERVICE_ACCOUNT_KEY",
                "GOOGLE_SKIP_SIGNATURE",
            ],
            "GOOGLE_APPLICATION_CREDENTIALS",
        ),
        Scheme::Az => (
            &[
                "AZURE_STORAGE_ACCOUNT_KEY",
                "AZURE_STORAGE_ACCESS_KEY",
                "AZURE_STORAGE_SAS_KEY",
                "AZURE_STORAGE_SAS_TOKEN",
                "AZURE_STORAGE_CLIENT_SECRET",
                "AZURE_CLIENT_SECRET",
                "AZURE_FEDERATED_TOKEN_FILE",
                "AZURE_STORAGE_USE_EMULATOR",
            ],
            "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
        ),
        Scheme::File => return None,
    };
    if scheme == Scheme::S3 && is_set("AWS_ACCESS_KEY_ID") && !is_set("AWS_SECRET_ACCESS_KEY") {
        return Some("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not".into());
    }
    let account = ["AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_USE_EMULATOR"];
    if scheme == Scheme::Az && !account.iter().any(|name| is_set(name)) {
        return Some("AZURE_STORAGE_ACCOUNT_NAME is not set".into());
    }
    (!any.iter().any(|name| is_set(name))).then(|| {
        format!(
            "the environment has no credentials: set {usual}, or run where the machine has its own"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(scheme: Scheme, prefix: &str) -> StoreUrl {
        let bucket = if scheme == Scheme::File { "" } else { "bucket" };
        StoreUrl { scheme, bucket: bucket.into(), prefix: prefix.into() }
    }

    #[test]
    fn what_the_environment_lacks_is_named() {
        let none = |_: &str| false;
        let said = |scheme| lacking(scheme, &none).unwrap_or_default();
        assert!(said(Scheme::S3).contains("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"));
        assert!(said(Scheme::Gs).contains("set GOOGLE_APPLICATION_CREDENTIALS"));
        assert_eq!(said(Scheme::Az), "AZURE_STORAGE_ACCOUNT_NAME is not set");
        assert_eq!(said(Scheme::File), "");
        let half = |name: &str| name == "AWS_ACCESS_KEY_ID";
        assert!(lacking(Scheme::S3, &half).unwrap().ends_with("AWS_SECRET_ACCESS_KEY is not"));
        let whole = |name: &str| name.starts_with("AWS_ACCESS") || name.starts_with("AWS_SECRET");
        assert_eq!(lacking(Scheme::S3, &whole), None);
    }

    #[test]
    fn each_kind_of_url_opens_its_own_kind_of_store() {
        for (scheme, named) in
            [(Scheme::S3, "AmazonS3(bucket)"), (Scheme::Gs, "GoogleCloudStorage(bucket)")]
        {
            let backend = open(&Disk::default(), &url(scheme, "a/b")).unwrap();
            assert_eq!(
                (backend.store.to_string().as_str(), backend.prefix.as_str()),
                (named, "a/b")
            );
        }
        // Azure's address is made of the account's name, so one without is refused at once.
        if std::env::var_os("AZURE_STORAGE_ACCOUNT_NAME").is_none() {
            let error = open(&Disk::default(), &url(Scheme::Az, "a")).err().unwrap();
            assert_eq!(error.kind, RemoteErrorKind::Setting);
            assert!(error.message.contains("AZURE_STORAGE_ACCOUNT_NAME is not set"), "{error}");
        }
    }

    #[test]
    fn a_folder_is_made_where_the_one_around_it_is() {
        let place = tempfile::tempdir().unwrap();
        let inside = |path: &str| url(Scheme::File, &format!("{}/{path}", place.path().display()));
        open(&Disk::default(), &inside("store")).unwrap();
        open(&Disk::default(), &inside("store")).unwrap();
        assert!(place.path().join("store").is_dir());
        let error = open(&Disk::default(), &inside("no/store")).err().unwrap();
        assert!(error.message.ends_with("is not there; is it mounted?"), "{error}");
    }
}
