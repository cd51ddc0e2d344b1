//! Sends events to the addresses of hooks, over the blocking `ureq` that downloads are made with.

use std::time::Duration;

use pipe_core::secret;
use pipe_engine::hooks::HookClient;
use ureq::Agent;

/// One POST for each event, without a second attempt. What a server answers is not read, beyond
/// whether it took the event.
pub struct HttpHooks;

impl HookClient for HttpHooks {
    fn post(&self, url: &str, body: &str, limit: Duration) -> Result<(), String> {
        let agent: Agent = Agent::config_builder()
            .http_status_as_error(false)
            // An address elsewhere is not told what this one may know.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .timeout_global(Some(limit))
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            .build()
            .into();
        let sent = agent.post(url).header("content-type", "application/json").send(body);
        let answer = sent.map_err(|error| in_words(&error, limit))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(());
        }
        let note = if status.is_redirection() { "; give the address that it leads to" } else { "" };
        Err(format!("it answered {status}{note}"))
    }
}

fn in_words(error: &ureq::Error, limit: Duration) -> String {
    match error {
        ureq::Error::Timeout(_) => {
            format!("no answer within {:.0?}, its time limit", limit)
        }
        other => secret::mask(&other.to_string()).into_owned(),
    }
}
