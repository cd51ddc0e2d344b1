//! Hooks: commands and addresses that are told what happens to stages, and how a run ended.
//!
//! # What is told, and when
//!
//! | event | when |
//! |---|---|
//! | `new_best` | a file stands that is the best so far |
//! | `epoch_end` | a round was done |
//! | `failure` | a stage has failed for good, after its last attempt, or was stopped |
//! | `end` | a stage has ended, well or badly; of the pipeline, once for a run in which any did |
//!
//! A stage's own hooks come first, then those of the pipeline. A stage that is up to date tells
//! nothing. The end of the pipeline is told by the process that follows all of its stages: not by a
//! job of a cluster, which carries out one of them.
//!
//! # Beside the stages
//!
//! An event costs its stage a place in a queue, no more. Hooks run in threads of their own, those
//! of a stage one after the other, each within its time limit; `queue` has the rules. They hold no
//! lock of a stage. What becomes of one is told as a warning and changes nothing else. A run ends
//! when its hooks have ended, also one that was stopped; a second Ctrl-C ends them at once. A
//! pipeline that one of its own hooks runs tells nobody: what fails again and again would never
//! end.

mod client;
mod message;
mod queue;

use std::sync::{Mutex, PoisonError};
use std::thread::Scope;
use std::time::Duration;

use pipe_core::failure::panic_message;
use pipe_core::ids::StageId;
use pipe_core::progress::{Event, EventListener};
use pipe_core::secret;

pub use self::client::HookClient;
use self::message::{Message, Origin, Progress};
use self::queue::{BACKLOG, Job, Queue};
use crate::command::hook::HookProgram;
use crate::exec::{Execution, Summary};
use crate::pipeline_file::environment;
use crate::policy::{Hook, HookAction, HookEvent};

/// Does the work with a listener that tells hooks what stages say, and waits for them.
pub(crate) fn listening<R>(execution: &Execution, work: impl FnOnce(&dyn EventListener) -> R) -> R {
    let graph = execution.graph;
    let has_none =
        graph.pipeline.on.is_empty() && graph.stages().all(|stage| stage.options.on.is_empty());
    if has_none || environment::is_in_hook_of(&graph.pipeline.name) {
        return work(execution.report);
    }
    let queue = Queue::default();
    std::thread::scope(|scope| {
        let listener = HookListener { execution, queue: &queue, scope, told: Mutex::default() };
        let done = work(&listener);
        for (stage, count) in queue.wait() {
            let text = format!("hooks of {count} epochs were left out: they are slower than these");
            execution.report.event(&stage, &Event::Warning { text });
        }
        done
    })
}

/// Tells the hooks of the pipeline how a run of it ended, if anything was done in it, and waits for
/// them.
pub(crate) fn tell_end(execution: &Execution, ended: Result<&Summary, String>, took: Duration) {
    let pipeline = &execution.graph.pipeline;
    let hooks = pipeline.on.of(HookEvent::End);
    // Nobody follows jobs that were submitted and left to themselves.
    let is_detached = ended.as_ref().is_ok_and(|summary| !summary.submitted.is_empty());
    let is_in_hook = environment::is_in_hook_of(&pipeline.name);
    if hooks.is_empty() || execution.is_part || is_detached || is_in_hook {
        return;
    }
    let is_stopped = execution.stop.requested().is_some();
    let Some(message) = message::of_end(&pipeline.name, ended, is_stopped, took) else { return };
    for hook in hooks {
        let message = message.clone();
        carry_out(execution, &Job { stage: None, event: HookEvent::End, hook, message });
    }
}

/// Hands events on, and queues what hooks are to be told of them.
struct HookListener<'scope, 'env> {
    execution: &'env Execution<'env>,
    queue: &'env Queue<'env>,
    scope: &'scope Scope<'scope, 'env>,
    told: Mutex<Progress>,
}

impl EventListener for HookListener<'_, '_> {
    fn event(&self, stage: &StageId, event: &Event) {
        self.execution.report.event(stage, event);
        // Many a second, and no hook's business.
        if matches!(event, Event::Step { .. } | Event::Preparing { .. } | Event::Output { .. }) {
            return;
        }
        let Execution { graph, formats, .. } = self.execution;
        let origin = Origin { pipeline: &graph.pipeline.name, formats: *formats };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for (kind, message) in told.take_in(&origin, stage, event) {
            self.tell(stage, kind, &message);
        }
        if matches!(event, Event::Finished { .. } | Event::Failed { .. }) {
            self.queue.end(stage);
        }
    }
}

impl HookListener<'_, '_> {
    fn tell(&self, stage: &StageId, event: HookEvent, message: &Message) {
        let graph = self.execution.graph;
        let own = graph.stage(stage).map_or(&[][..], |stage| stage.options.on.of(event));
        // The pipeline has an end of its own.
        let of_all = if event == HookEvent::End { &[] } else { graph.pipeline.on.of(event) };
        for hook in own.iter().chain(of_all) {
            let stage_of = Some(stage.clone());
            let pushed =
                self.queue.push(Job { stage: stage_of, event, hook, message: message.clone() });
            if pushed.leaves_out {
                let reason = format!(
                    "it is slower than the epochs: {BACKLOG} of them wait, older ones are left out"
                );
                warn(self.execution, Some(stage), event, hook, &reason);
            }
            if pushed.wants_worker {
                self.start_worker();
            }
        }
    }

    fn start_worker(&self) {
        let (execution, queue) = (self.execution, self.queue);
        let work = move || queue.work(|job| carry_out(execution, job));
        let thread = std::thread::Builder::new().name("hooks".into());
        if let Err(error) = thread.spawn_scoped(self.scope, work) {
            for job in queue.worker_failed() {
                let reason = format!("failed to start a thread: {error}");
                warn(execution, job.stage.as_ref(), job.event, job.hook, &reason);
            }
        }
    }
}

/// Runs a hook to its end, and warns if that is no good one.
fn carry_out(execution: &Execution, job: &Job) {
    let Job { stage, event, hook, message } = job;
    let run = || match hook.action() {
        Some(HookAction::Run(program)) => {
            let name = stage.as_ref().map_or(&*execution.graph.pipeline.name, StageId::as_str);
            let program = HookProgram {
                program,
                folder: execution.root,
                input: message.json(),
                variables: message.variables(),
                limit: hook.timeout(),
            };
            // Millions of lines that nobody asked for take no time.
            program
                .run(|line| tracing::info!("{name}: hook {}: {}", event.name(), secret::mask(line)))
        }
        Some(HookAction::Post(url)) => match execution.hook_client {
            Some(client) => client.post(url, &message.json(), hook.timeout()),
            None => Err("this program sends nothing over HTTP".to_owned()),
        },
        None => Ok(()),
    };
    let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run));
    let ended = ended.unwrap_or_else(|panic| Err(panic_message(panic.as_ref()).to_owned()));
    if let Err(reason) = ended {
        warn(execution, stage.as_ref(), *event, hook, &reason);
    }
}

/// Says what went wrong with a hook.
fn warn(
    execution: &Execution,
    stage: Option<&StageId>,
    event: HookEvent,
    hook: &Hook,
    reason: &str,
) {
    let of = stage.map_or("the pipeline".to_owned(), |stage| format!("stage {stage}"));
    let text = format!("hook `on.{}` of {of}, `{}`: {reason}", event.name(), hook.shown());
    let text = secret::told(&text);
    match stage {
        Some(stage) => execution.report.event(stage, &Event::Warning { text }),
        None => tracing::warn!("{text}"),
    }
}
