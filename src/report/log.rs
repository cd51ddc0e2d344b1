//! Diagnostics of the libraries and of our own code, on stderr. `PIPE_LOG` sets the filter, as
//! `RUST_LOG` does elsewhere.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};

use pipe_engine::pipeline_file::environment;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use super::{LogFormat, Output, stderr};

/// With `counts_gpu_calls`, [`gpu_calls`] counts from here on.
pub fn init(output: &Output, counts_gpu_calls: bool) {
    let level = match (output.quiet, output.verbose) {
        (true, _) => "error",
        (_, 0) => "warn",
        (_, 1) => "pipe=info,pipe_engine=info,pipe_train=info,warn",
        _ => "pipe=debug,pipe_engine=debug,pipe_train=debug,info",
    };
    let filter =
        EnvFilter::try_from_env(environment::LOG).unwrap_or_else(|_| EnvFilter::new(level));
    if counts_gpu_calls {
        let text = fmt::layer().with_writer(|| stderr::Stderr).with_filter(filter);
        let calls = GpuCalls.with_filter(filter_fn(|data| data.target().starts_with("wgpu_core")));
        return tracing_subscriber::registry().with(text).with(calls).init();
    }
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(|| stderr::Stderr)
        .log_internal_errors(false);
    match output.log {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_target(false).without_time().init(),
    }
}

static SUBMITS: AtomicU64 = AtomicU64::new(0);
static READ_BACKS: AtomicU64 = AtomicU64::new(0);

/// Command buffers that went to a GPU's queue, and buffers that were read back from it, as wgpu
/// logs them.
#[cfg_attr(not(feature = "wgpu"), allow(dead_code, reason = "there is no GPU to be called"))]
pub fn gpu_calls() -> [u64; 2] {
    [SUBMITS.load(Ordering::Relaxed), READ_BACKS.load(Ordering::Relaxed)]
}

/// Counts calls of wgpu by what it logs of them.
struct GpuCalls;

impl<S: Subscriber> Layer<S> for GpuCalls {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        event.record(&mut Self);
    }
}

impl Visit for GpuCalls {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() != "message" {
            return;
        }
        let text = format!("{value:?}");
        for (call, count) in
            [("Queue::submit returned", &SUBMITS), ("Buffer::map_async", &READ_BACKS)]
        {
            if text.starts_with(call) {
                count.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}
