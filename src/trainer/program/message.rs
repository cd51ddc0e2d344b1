//! What a training program says, a JSON object a line, and what it is answered.

use std::collections::BTreeMap;

use pipe_core::failure::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A line that a training program says.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// A step was done; steps count over all epochs.
    Step {
        step: u64,
        epoch: Option<u64>,
        steps: Option<u64>,
        step_in_epoch: Option<u64>,
        metrics: Metrics,
    },
    /// An epoch is complete.
    Epoch { epoch: u64, step: Option<u64>, metrics: Metrics },
    /// A file or folder holds the state at the end of `epoch`, or `step_in_epoch` steps behind it.
    Checkpoint { path: String, epoch: u64, step: Option<u64>, step_in_epoch: u64, metrics: Metrics },
    /// A picture.
    Sample { path: String, epoch: Option<u64> },
    /// The training ends before its last epoch on purpose.
    Finished { reason: String },
    /// The training is about to fail.
    Failure { failure: Failure, message: String },
    /// A line for people.
    Note { text: String, is_warning: bool },
}

/// Metrics as a program told them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    pub values: BTreeMap<String, f64>,
    /// Names of those that are no finite number.
    pub left_out: Vec<String>,
}

impl Metrics {
    /// The names of all.
    pub fn names(&self) -> impl Iterator<Item = &String> {
        self.values.keys().chain(&self.left_out)
    }
}

/// What a line is answered.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    pub ok: bool,
    /// Why not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// End soon: save, and exit with 0.
    #[serde(default, skip_serializing_if = "is_false")]
    pub stop: bool,
    /// A checkpoint is wanted now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub save: bool,
    /// A picture is wanted now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub sample: bool,
    /// Whether the checkpoint was taken into the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<bool>,
    /// Whether it is the best so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best: Option<bool>,
    /// Where it stands now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
}

fn is_false(value: &bool) -> bool {
    !value
}

/// Keys that say what a message is, the first of those that are there.
const KINDS: [&str; 8] =
    ["checkpoint", "sample", "finished", "failure", "warning", "message", "epoch", "step"];
/// Further keys.
const OTHERS: [&str; 3] = ["metrics", "steps", "step_in_epoch"];
/// A name of a metric is not longer.
const LONGEST_NAME: usize = 200;

impl Message {
    /// Reads a line.
    ///
    /// # Errors
    /// What is wrong with it, in words.
    pub fn parse(line: &str) -> Result<Self, String> {
        let value: Value = serde_json::from_str(&with_null_numbers(line))
            .map_err(|e| format!("expected a JSON object: {e}"))?;
        let Value::Object(mut fields) = value else {
            return Err("expected a JSON object".to_owned());
        };
        let unknown = fields
            .keys()
            .find(|key| !KINDS.contains(&key.as_str()) && !OTHERS.contains(&key.as_str()));
        if let Some(unknown) = unknown {
            return Err(format!("unknown key `{unknown}`"));
        }
        // An epoch that is complete is told with the number of its last step; a step with that of the
        // epoch which is under way.
        let is_step = fields.contains_key("steps") || fields.contains_key("step_in_epoch");
        let kind = KINDS.into_iter().find(|kind| {
            fields.contains_key(*kind)
                && !(*kind == "epoch" && is_step && fields.contains_key("step"))
        });
        let fields = &mut fields;
        match kind {
            Some("checkpoint") => Ok(Self::Checkpoint {
                path: text(fields, "checkpoint")?,
                epoch: number(fields, "epoch")?
                    .ok_or("a checkpoint needs `epoch`, the epochs that are complete in it")?,
                step: number(fields, "step")?,
                step_in_epoch: number(fields, "step_in_epoch")?.unwrap_or(0),
                metrics: metrics(fields)?,
            }),
            Some("sample") => {
                Ok(Self::Sample { path: text(fields, "sample")?, epoch: number(fields, "epoch")? })
            }
            Some("finished") => Ok(Self::Finished { reason: text(fields, "finished")? }),
            Some("failure") => {
                let failure = failure(&text(fields, "failure")?)?;
                let told = fields.contains_key("message");
                let message = if told { text(fields, "message")? } else { String::new() };
                Ok(Self::Failure { failure, message })
            }
            Some(kind @ ("warning" | "message")) => {
                Ok(Self::Note { text: text(fields, kind)?, is_warning: kind == "warning" })
            }
            Some("epoch") => Ok(Self::Epoch {
                epoch: number(fields, "epoch")?.unwrap_or(0),
                step: number(fields, "step")?,
                metrics: metrics(fields)?,
            }),
            Some(_) => Ok(Self::Step {
                step: number(fields, "step")?.unwrap_or(0),
                epoch: number(fields, "epoch")?,
                steps: number(fields, "steps")?,
                step_in_epoch: number(fields, "step_in_epoch")?,
                metrics: metrics(fields)?,
            }),
            None => Err(format!("expected one of the keys {}", KINDS.join(", "))),
        }
    }
}

fn text(fields: &Map<String, Value>, key: &str) -> Result<String, String> {
    match fields.get(key) {
        Some(Value::String(text)) => Ok(text.clone()),
        _ => Err(format!("`{key}` is no text")),
    }
}

fn number(fields: &Map<String, Value>, key: &str) -> Result<Option<u64>, String> {
    match fields.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64() {
            Some(number) => Ok(Some(number)),
            None => Err(format!("`{key}` is {value}, expected a whole number from 0 on")),
        },
    }
}

fn metrics(fields: &mut Map<String, Value>) -> Result<Metrics, String> {
    let mut metrics = Metrics::default();
    let told = match fields.remove("metrics") {
        None | Some(Value::Null) => return Ok(metrics),
        Some(Value::Object(told)) => told,
        Some(_) => return Err("`metrics` is no object of names and numbers".to_owned()),
    };
    for (name, value) in told {
        if name.is_empty() || name.len() > LONGEST_NAME || name.contains(char::is_control) {
            return Err(format!("`metrics` has a name that cannot be one: {name:?}"));
        }
        match value {
            Value::Null => metrics.left_out.push(name),
            Value::Number(number) => match number.as_f64().filter(|number| number.is_finite()) {
                Some(number) => drop(metrics.values.insert(name, number)),
                None => metrics.left_out.push(name),
            },
            other => return Err(format!("metric `{name}` is {other}, expected a number")),
        }
    }
    Ok(metrics)
}

fn failure(name: &str) -> Result<Failure, String> {
    const KNOWN: [Failure; 5] = [
        Failure::OutOfMemory,
        Failure::DeviceLost,
        Failure::NotFinite,
        Failure::Input,
        Failure::Command,
    ];
    let found = KNOWN.into_iter().find(|failure| failure.name() == name);
    found.ok_or_else(|| {
        let known = KNOWN.map(Failure::name).join(", ");
        format!("`failure` is {name:?}, expected one of {known}")
    })
}

/// A line in which `NaN` and infinities, which JSON does not have and many programs write, are
/// `null`.
fn with_null_numbers(line: &str) -> String {
    let mut out = String::with_capacity(line.len());
    let (mut rest, mut is_text) = (line, false);
    while let Some(next) = rest.chars().next() {
        let word = ["-Infinity", "Infinity", "NaN"].into_iter().find(|word| rest.starts_with(word));
        let taken = match (word, next) {
            (Some(word), _) if !is_text => {
                out.push_str("null");
                word.len()
            }
            (_, '\\') if is_text => {
                let escaped = rest.chars().take(2).map(char::len_utf8).sum();
                out.push_str(&rest[..escaped]);
                escaped
            }
            _ => {
                is_text ^= next == '"';
                out.push(next);
                next.len_utf8()
            }
        };
        rest = &rest[taken..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Message {
        Message::parse(line).unwrap()
    }

    fn values(pairs: &[(&str, f64)]) -> Metrics {
        let values = pairs.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect();
        Metrics { values, left_out: Vec::new() }
    }

    #[test]
    fn each_message_is_known_by_its_key() {
        let step = |epoch, step_in_epoch| Message::Step {
            step: 120,
            epoch,
            steps: None,
            step_in_epoch,
            metrics: values(&[("loss", 0.5)]),
        };
        assert_eq!(said(r#"{"step": 120, "metrics": {"loss": 0.5}}"#), step(None, None));
        let within = r#"{"step": 120, "epoch": 3, "step_in_epoch": 20, "metrics": {"loss": 0.5}}"#;
        assert_eq!(said(within), step(Some(3), Some(20)));
        assert_eq!(
            said(r#"{"epoch": 3, "step": 120, "metrics": {"train_loss": 1}}"#),
            Message::Epoch { epoch: 3, step: Some(120), metrics: values(&[("train_loss", 1.0)]) }
        );
        assert_eq!(
            said(r#"{"checkpoint": "x", "epoch": 2, "step": 9, "step_in_epoch": 4}"#),
            Message::Checkpoint {
                path: "x".into(),
                epoch: 2,
                step: Some(9),
                step_in_epoch: 4,
                metrics: Metrics::default(),
            }
        );
        let sample = Message::Sample { path: "g.png".into(), epoch: Some(3) };
        assert_eq!(said(r#"{"sample": "g.png", "epoch": 3}"#), sample);
        assert_eq!(said(r#"{"finished": "x"}"#), Message::Finished { reason: "x".into() });
        assert_eq!(
            said(r#"{"failure": "out_of_memory", "message": "no room"}"#),
            Message::Failure { failure: Failure::OutOfMemory, message: "no room".into() }
        );
        let note = Message::Note { text: "hm".into(), is_warning: true };
        assert_eq!(said(r#"{"warning": "hm"}"#), note);
    }

    #[test]
    fn numbers_that_are_none_are_left_out() {
        let line = r#"{"epoch": 1, "metrics": {"a": NaN, "b": -Infinity, "c": null, "d": 2}}"#;
        let Message::Epoch { metrics, .. } = said(line) else { panic!("an epoch") };
        assert_eq!(metrics.values, values(&[("d", 2.0)]).values);
        assert_eq!(metrics.left_out, ["a", "b", "c"]);
        let text = r#"{"message": "NaN \" Infinity"}"#;
        assert_eq!(said(text), Message::Note { text: "NaN \" Infinity".into(), is_warning: false });
    }

    #[test]
    fn what_is_no_message_is_told_in_words() {
        for (line, error) in [
            ("hello", "expected a JSON object"),
            ("[1]", "expected a JSON object"),
            ("{}", "expected one of the keys checkpoint"),
            (r#"{"epohc": 1}"#, "unknown key `epohc`"),
            (r#"{"epoch": -1}"#, "`epoch` is -1"),
            (r#"{"epoch": 1.5}"#, "`epoch` is 1.5"),
            (r#"{"epoch": 1, "metrics": {"a": "b"}}"#, "metric `a` is \"b\""),
            (r#"{"epoch": 1, "metrics": [1]}"#, "`metrics` is no object"),
            (r#"{"epoch": 1, "metrics": {"": 1}}"#, "cannot be one"),
            (r#"{"checkpoint": "x"}"#, "needs `epoch`"),
            (r#"{"checkpoint": 1, "epoch": 1}"#, "`checkpoint` is no text"),
            (r#"{"failure": "bad luck"}"#, "expected one of out_of_memory"),
        ] {
            let told = Message::parse(line).unwrap_err();
            assert!(told.contains(error), "{line}: {told}");
        }
    }
}
