//! The `PIPE_*` variables: which of them may be settings, and which belong to the program itself.

use std::ffi::OsString;

use crate::pipeline_file::overrides::Override;

const PREFIX: &str = "PIPE_";
/// The name of the stage, for a program that a `command` stage starts.
pub const STAGE: &str = "PIPE_STAGE";
/// The path of what a training program is told of its training.
pub const JOB: &str = "PIPE_JOB";
/// What such a program and all that it starts are known by.
pub const STAGE_TOKEN: &str = "PIPE_STAGE_TOKEN";
/// The filter of diagnostics.
pub const LOG: &str = "PIPE_LOG";
/// The commit of a build. `cargo run` and `cargo test` hand it on to what they start.
pub const COMMIT: &str = "PIPE_COMMIT";
/// The name of the event, for a hook. What else it is told begins so and with a `_`.
pub const EVENT: &str = "PIPE_EVENT";
/// The pipeline that a hook is told of.
const EVENT_PIPELINE: &str = "PIPE_EVENT_PIPELINE";
/// Variables of the program itself. They are no settings, whatever a pipeline's parameters are
/// called.
pub const OWN: [&str; 6] = [STAGE, JOB, STAGE_TOKEN, LOG, COMMIT, EVENT];
/// What its tests are told begins so.
const OF_TESTS: &str = "PIPE_TEST_";
/// What a hook is told begins so.
const OF_HOOKS: &str = "PIPE_EVENT_";

/// Whether a variable is one of those that hooks are told in.
pub fn is_of_hooks(name: &str) -> bool {
    name == EVENT || name.starts_with(OF_HOOKS)
}

/// Whether this process was started by a hook of that pipeline.
pub fn is_in_hook_of(pipeline: &str) -> bool {
    std::env::var_os(EVENT_PIPELINE).is_some_and(|name| name == pipeline)
}

/// What the environment may say about settings: `PIPE_EPOCHS` is `epochs`,
/// `PIPE_BASE__LEARNING_RATE` is `base.learning_rate`. Which of them name a setting turns out when
/// a pipeline is loaded.
pub fn settings() -> Vec<Override> {
    among(std::env::vars_os())
}

/// The same for any list of variables; in the order of their names.
pub fn among(variables: impl IntoIterator<Item = (OsString, OsString)>) -> Vec<Override> {
    let is_own = |name: &str| {
        OWN.contains(&name) || name.starts_with(OF_TESTS) || name.starts_with(OF_HOOKS)
    };
    let mut found: Vec<(String, OsString)> = variables
        .into_iter()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| name.starts_with(PREFIX) && !is_own(name))
        .collect();
    found.sort();
    found
        .into_iter()
        .map(|(name, value)| Override::variable(&name, &name[PREFIX.len()..], &value))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_variables_are_no_settings() {
        let variables = [
            "PIPE_STAGE",
            "PIPE_STAGE_TOKEN",
            "PIPE_LOG",
            "PIPE_COMMIT",
            "PIPE_TEST_PYTHON",
            "PIPE_EVENT",
            "PIPE_EVENT_CHECKPOINT",
            "HOME",
            "PIPE_EPOCHS",
        ];
        let found = among(variables.map(|name| (name.into(), "1".into())));
        assert_eq!(found.iter().map(|o| o.path.join(".")).collect::<Vec<_>>(), ["EPOCHS"]);
    }
}
