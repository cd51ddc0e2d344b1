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
use burn::tensor::{Device, ExecutionError, Tensor, TensorData, Transaction};
use pipe_engine::kind::{Failure, StageError};
use pipe_runs::tensor::HostTensor;

use crate::nn::{self, Scope};

/// The last message of a panic on burn's device thread, which comes to the process's hook.
static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Keeps what burn's device thread says when it panics, instead of printing it: [`read`] reports
/// it. Other panics are printed as before. To be called before a device is opened; further calls do
/// nothing.
#[cfg_attr(not(feature = "wgpu"), allow(dead_code, reason = "only a GPU has a device thread"))]
pub(super) fn watch() {
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
    let device = tensor.device();
    tensor.try_into_data().map_err(|error| explain(&error, || is_lost(&device)))
}

/// Copies many tensors of a device to host memory, in the order in which they were registered;
/// waits for the device once.
///
/// # Errors
/// See [`read`].
pub fn read_all(tensors: Transaction, device: &Device) -> Result<Vec<TensorData>, StageError> {
    tensors.try_execute().map_err(|error| explain(&error, || is_lost(device)))
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
    let lost = || module.devices().iter().any(is_lost);
    nn::state_dict(module, scope, prefix).map_err(|error| explain(&error, lost))
}

/// Whether a device cannot even make one number any more. The first work after a loss may fail in
/// another way than by saying so.
fn is_lost(device: &Device) -> bool {
    Tensor::<1>::ones([1], device).try_into_data().is_err()
}

/// `lost` is asked where the error says nothing that is known.
fn explain(error: &ExecutionError, lost: impl FnOnce() -> bool) -> StageError {
    let panic = LAST.lock().ok().and_then(|mut last| last.take()).unwrap_or_default();
    let loss = |reason: &str| {
        let text = format!(
            "failed to go on: the GPU was lost ({reason}); start the program again to use it"
        );
        StageError::new(Failure::DeviceLost, text)
    };
    if let ExecutionError::DevicePoisoned { reason } = error {
        return loss(reason);
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
    if lost() {
        return loss(&detail);
    }
    StageError::new(Failure::Bug, format!("failed to compute on the GPU: {detail}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_become_the_failures_that_a_retry_policy_knows() {
        let explain = |error, lost| explain(&error, || lost);
        let poisoned = ExecutionError::DevicePoisoned { reason: "Unknown: reset".into() };
        let lost = explain(poisoned, false);
        assert_eq!(lost.failure, Failure::DeviceLost);
        assert!(lost.message.contains("(Unknown: reset)"), "{}", lost.message);
        let context = |reason: &str| ExecutionError::WithContext { reason: reason.into() };
        let large =
            "An IO error happened\nCaused by:\n  can't allocate buffer of size: 5368709120\n";
        let large = explain(context(large), true);
        assert_eq!(large.failure, Failure::OutOfMemory);
        assert!(
            large.message.contains("(can't allocate buffer of size: 5368709120)"),
            "{}",
            large.message
        );
        let silent = explain(context("never written"), true);
        assert_eq!(silent.failure, Failure::DeviceLost);
        assert!(silent.message.contains("(never written)"), "{}", silent.message);
        let other = explain(context("this\n\n  that"), false);
        assert_eq!(other.failure, Failure::Bug);
        assert!(other.message.ends_with("this; that"), "{}", other.message);
    }
}
