//! What went wrong on a GPU, and where it comes to light.
//!
//! Work for a GPU is queued; its failures do not reach the call that caused them. When memory runs
//! out, burn's device thread panics and goes on: what should have been computed is marked as
//! failed, and so is all that is computed from it, until somebody reads a number. So a number read
//! without an error was computed in full, and reading is the place to look: with [`read`] rather
//! than `into_data`, which would panic.

use std::panic;
use std::sync::{Mutex, Once};

use burn::module::Module;
use burn::tensor::{ExecutionError, Tensor, TensorData, Transaction};
use pipe_engine::kind::{Failure, StageError};
use pipe_runs::tensor::HostTensor;

use crate::nn::{self, Scope};

/// The last message of a panic on burn's device thread, which comes to the process's hook.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps what burn's device thread says when it panics, instead of printing it: [`read`] reports
/// it. Other panics are printed as before. To be called before a device is opened; further calls do
/// nothing.
#[cfg_attr(not(feature = "wgpu"), allow(dead_code, reason = "only a GPU has a device thread"))]
pub fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let print = panic::take_hook();
        panic::set_hook(Box::new(move |info| match info.payload_as_str() {
            Some(text) if text.starts_with("wgpu error: ") => {
                if let Ok(mut last) = LAST.lock() {
                    *last = Some(text.to_owned());
                }
            }
            _ => print(info),
        }));
    });
}

/// Copies a tensor to host memory; waits for the device.
///
/// # Errors
/// When the tensor, or anything that it was computed from, could not be computed:
/// [`Failure::OutOfMemory`], [`Failure::DeviceLost`], or [`Failure::Bug`]. After the first, what is
/// on the device is lost but the device is as good as new; after the second, only a new process can
/// use it again.
pub fn read<const D: usize>(tensor: Tensor<D>) -> Result<TensorData, StageError> {
    tensor.try_into_data().map_err(|error| explain(&error))
}

/// Copies many tensors to host memory, in the order in which they were registered; waits for the
/// device once.
///
/// # Errors
/// See [`read`].
pub fn read_all(tensors: Transaction) -> Result<Vec<TensorData>, StageError> {
    tensors.try_execute().map_err(|error| explain(&error))
}

/// Copies the parameters in `scope` to host memory: see [`nn::state_dict`].
///
/// # Errors
/// See [`read`].
pub fn read_parameters<M: Module>(
    module: &M,
    scope: &Scope,
    prefix: &str,
) -> Result<Vec<HostTensor>, StageError> {
    nn::state_dict(module, scope, prefix).map_err(|error| explain(&error))
}

fn explain(error: &ExecutionError) -> StageError {
    let panic = LAST.lock().ok().and_then(|mut last| last.take()).unwrap_or_default();
    // The first work after a loss may fail as a use of what the device took with it.
    let reason = match error {
        ExecutionError::DevicePoisoned { reason } => Some(reason.as_str()),
        _ => (panic.contains("Buffer with") && panic.contains("is invalid"))
            .then_some("its memory is gone"),
    };
    if let Some(reason) = reason {
        let text = format!(
            "failed to go on: the GPU was lost ({reason}); start the program again to use it"
        );
        return StageError::new(Failure::DeviceLost, text);
    }
    let text = error.to_string();
    let too_large = text.lines().find(|line| line.contains("can't allocate buffer of size"));
    if panic.contains("Out of Memory") || too_large.is_some() {
        let detail = too_large.map(|line| format!(" ({})", line.trim())).unwrap_or_default();
        let text =
            format!("failed to get enough GPU memory{detail}; a smaller batch_size needs less");
        return StageError::new(Failure::OutOfMemory, text);
    }
    let cause =
        text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join("; ");
    let detail = if panic.is_empty() { cause } else { format!("{panic}; {cause}") };
    StageError::new(Failure::Bug, format!("failed to compute on the GPU: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_the_failures_that_a_retry_policy_knows() {
        let lost = explain(&ExecutionError::DevicePoisoned { reason: "Unknown: reset".into() });
        assert_eq!(lost.failure, Failure::DeviceLost);
        assert!(lost.message.contains("(Unknown: reset)"), "{}", lost.message);
        let large = explain(&ExecutionError::WithContext {
            reason:
                "An IO error happened\nCaused by:\n  can't allocate buffer of size: 5368709120\n"
                    .into(),
        });
        assert_eq!(large.failure, Failure::OutOfMemory);
        assert!(
            large.message.contains("(can't allocate buffer of size: 5368709120)"),
            "{}",
            large.message
        );
        *LAST.lock().unwrap() =
            Some("wgpu error: In Queue::write_buffer, Buffer with '' label is invalid".into());
        let gone = explain(&ExecutionError::WithContext { reason: "never written".into() });
        assert_eq!(gone.failure, Failure::DeviceLost, "{}", gone.message);
        let other = explain(&ExecutionError::WithContext { reason: "this\n\n  that".into() });
        assert_eq!(other.failure, Failure::Bug);
        assert!(other.message.ends_with("this; that"), "{}", other.message);
    }
}
