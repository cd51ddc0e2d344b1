//! A store in memory that breaks as it is told: at the n-th request, for a while, or by changing
//! what it has.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};

/// What is to break, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Nothing,
    /// From this request on nothing is answered, and nothing done: the process, or the network, is
    /// gone.
    DeadFrom(u64),
    /// This request is carried out and its answer lost.
    LoseAnswerOf(u64),
    /// This request fails, and nothing else.
    FailOnly(u64),
}

#[derive(Debug)]
pub struct Faulty {
    pub inner: InMemory,
    fault: Mutex<Fault>,
    count: Arc<AtomicU64>,
}

impl Faulty {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            inner: InMemory::new(),
            fault: Mutex::new(Fault::Nothing),
            count: Arc::default(),
        })
    }

    pub fn set(&self, fault: Fault) {
        *self.fault.lock().unwrap() = fault;
        self.count.store(0, Ordering::SeqCst);
    }

    /// Requests since a fault was last set.
    pub fn requests(&self) -> u64 {
        self.count.load(Ordering::SeqCst)
    }

    /// `Ok(true)`: it is to be carried out and its answer lost.
    fn request(&self) -> Result<bool> {
        next(&self.count, *self.fault.lock().unwrap())
    }

    pub fn keys(&self) -> Vec<String> {
        let listed =
            futures_util::FutureExt::now_or_never(self.inner.list(None).collect::<Vec<_>>())
                .unwrap();
        let mut keys: Vec<String> =
            listed.into_iter().map(|found| found.unwrap().location.to_string()).collect();
        keys.sort();
        keys
    }

    pub fn read(&self, key: &str) -> Bytes {
        let get = async { self.inner.get(&Path::from(key)).await?.bytes().await };
        futures_util::FutureExt::now_or_never(get).unwrap().unwrap()
    }

    pub fn write(&self, key: &str, bytes: &[u8]) {
        let put =
            async { self.inner.put(&Path::from(key), PutPayload::from(bytes.to_vec())).await };
        futures_util::FutureExt::now_or_never(put).unwrap().unwrap();
    }

    pub fn delete(&self, key: &str) {
        let delete = async { self.inner.delete(&Path::from(key)).await };
        futures_util::FutureExt::now_or_never(delete).unwrap().unwrap();
    }
}

fn next(count: &AtomicU64, fault: Fault) -> Result<bool> {
    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
    match fault {
        Fault::DeadFrom(first) if number >= first => Err(lost()),
        Fault::FailOnly(only) if number == only => Err(lost()),
        Fault::LoseAnswerOf(which) => Ok(number == which),
        _ => Ok(false),
    }
}

fn lost() -> Error {
    Error::Generic { store: "faulty", source: "the connection is gone".into() }
}

fn answer<T>(lose: bool, result: Result<T>) -> Result<T> {
    if lose { Err(lost()) } else { result }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("faulty")
    }
}

#[async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        at: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let lose = self.request()?;
        let put = self.inner.put_opts(at, payload, options).await;
        answer(lose, put)
    }

    async fn put_multipart_opts(
        &self,
        at: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.request()?;
        let inner = self.inner.put_multipart_opts(at, options).await?;
        Ok(Box::new(Upload {
            inner,
            count: self.count.clone(),
            fault: *self.fault.lock().unwrap(),
        }))
    }

    async fn get_opts(&self, at: &Path, options: GetOptions) -> Result<GetResult> {
        self.request()?;
        self.inner.get_opts(at, options).await
    }

    fn delete_stream(
        &self,
        all: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        match self.request() {
            Ok(_) => self.inner.delete_stream(all),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.request() {
            Ok(_) => self.inner.list(prefix),
            Err(error) => futures_util::stream::iter([Err(error)]).boxed(),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.request()?;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.request()?;
        self.inner.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Upload {
    inner: Box<dyn MultipartUpload>,
    count: Arc<AtomicU64>,
    fault: Fault,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match next(&self.count, self.fault) {
            Ok(_) => self.inner.put_part(data),
            Err(error) => Box::pin(async { Err(error) }),
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let lose = next(&self.count, self.fault)?;
        let complete = self.inner.complete().await;
        answer(lose, complete)
    }

    async fn abort(&mut self) -> Result<()> {
        next(&self.count, self.fault)?;
        self.inner.abort().await
    }
}
