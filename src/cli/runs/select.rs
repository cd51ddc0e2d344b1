//! Which runs to list, and in which order: by any column, setting or metric.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::str::FromStr;

use pipe_core::error::nearest;
use pipe_runs::{Labels, Metadata, Status};
use serde_json::Value;

use super::summary;
use crate::cli::CliError;

/// Every status that a run can have.
const STATUS: [Status; 4] =
    [Status::Running, Status::Completed, Status::Interrupted, Status::Failed];

/// A value of a run by its name: `run`, `status`, `best`, `epochs`, `seconds`, `note`, …, a setting
/// such as `learning_rate` or `model.dim`, or a metric of the last epoch such as `train_loss`.
pub fn value(key: &str, metadata: &Metadata, labels: &Labels) -> Option<Value> {
    let found = match key {
        "run" => metadata.run_number.into(),
        "experiment" => metadata.experiment_name.as_str().into(),
        "pipeline" => metadata.pipeline.as_str().into(),
        "stage" => metadata.stage.as_str().into(),
        "created" => metadata.created_at.to_rfc3339().into(),
        "status" => metadata.status.name().into(),
        "epochs" => summary::done(metadata).into(),
        "best" => summary::best(metadata)?.into(),
        "best_epoch" => metadata.best_checkpoint.as_ref()?.epoch.into(),
        "monitor" => summary::monitor(metadata).into(),
        "seconds" => summary::seconds(metadata).into(),
        "note" => labels.note.clone()?.into(),
        "tags" => labels.tags.iter().cloned().collect::<Vec<_>>().join(" ").into(),
        _ => {
            let metric = || metadata.history.last()?.metrics.get(key).copied().map(Value::from);
            let setting =
                || metadata.settings.pointer(&format!("/{}", key.replace('.', "/"))).cloned();
            return metadata.manifest.get(key).cloned().or_else(setting).or_else(metric);
        }
    };
    Some(found)
}

/// Columns and other values that every run has.
const COLUMNS: [&str; 13] = [
    "run",
    "experiment",
    "pipeline",
    "stage",
    "created",
    "status",
    "epochs",
    "best",
    "best_epoch",
    "monitor",
    "seconds",
    "note",
    "tags",
];

/// Every key that [`value`] knows for one of these runs.
pub fn keys<'a>(runs: impl Iterator<Item = &'a Metadata>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = COLUMNS.map(str::to_owned).into();
    for metadata in runs {
        all.extend(metadata.manifest.keys().cloned());
        all.extend(metadata.history.iter().flat_map(|epoch| epoch.metrics.keys().cloned()));
        below(&metadata.settings, "", &mut all);
    }
    all
}

/// Keys of settings inside settings, with dots between them.
fn below(settings: &Value, above: &str, all: &mut BTreeSet<String>) {
    for (key, value) in settings.as_object().into_iter().flatten() {
        let key = if above.is_empty() { key.clone() } else { format!("{above}.{key}") };
        below(value, &key, all);
        all.insert(key);
    }
}

/// Refuses a key that no run has.
pub fn check_key(shown: &str, key: &str, known: &BTreeSet<String>) -> Result<(), CliError> {
    if known.contains(key) {
        return Ok(());
    }
    let error = CliError::usage(format!("{shown}: no run has a `{key}`"));
    let columns = COLUMNS.join(", ");
    Err(match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => error.note(format!("did you mean `{near}`?")),
        None => error.note(format!("expected a column ({columns}), a setting or a metric")),
    })
}

/// Numbers by size, before text by the alphabet, before what is not there.
pub fn order(a: &Option<Value>, b: &Option<Value>) -> Ordering {
    let number = |v: &Option<Value>| v.as_ref().and_then(Value::as_f64);
    match (number(a), number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => match (a, b) {
            (Some(a), Some(b)) => plain(a).cmp(&plain(b)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (None, None) => Ordering::Equal,
        },
    }
}

/// A value without quotes.
pub fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// How to sort: `best`, or `-best` for the largest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    pub key: String,
    pub descending: bool,
}

impl FromStr for Sort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let key = text.strip_prefix('-').unwrap_or(text);
        if key.is_empty() {
            Err("expected a column, a setting or a metric, such as `best` or `-learning_rate`"
                .into())
        } else {
            Ok(Self { key: key.to_owned(), descending: key != text })
        }
    }
}

/// A condition such as `best<0.2`, `status=completed` or `learning_rate>=1e-4`.
#[derive(Debug, Clone, PartialEq)]
pub struct Filter {
    /// As it was typed.
    text: String,
    key: String,
    operator: Operator,
    than: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Less,
    AtMost,
    More,
    AtLeast,
    Equal,
    Other,
}

impl FromStr for Filter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        use Operator::*;
        // The longer ones first: `<=` is not `<` and a value that begins with `=`.
        let operators = [
            ("<=", AtMost),
            (">=", AtLeast),
            ("!=", Other),
            ("<", Less),
            (">", More),
            ("=", Equal),
        ];
        let first =
            operators.into_iter().filter_map(|(sign, op)| Some((text.find(sign)?, sign, op)));
        let first = first.min_by_key(|(at, sign, _)| (*at, std::cmp::Reverse(sign.len())));
        let wrong = || {
            format!("expected a condition such as `best<0.2` or `status=completed`, found {text:?}")
        };
        let (_, sign, operator) = first.ok_or_else(wrong)?;
        let (key, than) = text.split_once(sign).ok_or_else(wrong)?;
        let (key, than) = (key.trim().to_owned(), than.trim().to_owned());
        if key.is_empty() || than.is_empty() {
            return Err(wrong());
        }
        let ordered = !matches!(operator, Equal | Other);
        if ordered && than.parse::<f64>().is_err() {
            return Err(format!("{sign} compares numbers, and {than:?} is none"));
        }
        Ok(Self { text: text.to_owned(), key, operator, than })
    }
}

impl Filter {
    /// Refuses what no run can ever fulfil: an unknown key, an unknown status.
    pub fn check(&self, known: &BTreeSet<String>) -> Result<(), CliError> {
        let shown = format!("--filter {}", self.text);
        check_key(&shown, &self.key, known)?;
        if self.key != "status" || STATUS.iter().any(|status| status.name() == self.than) {
            return Ok(());
        }
        let names = STATUS.map(Status::name);
        let error = CliError::usage(format!("{shown}: no status is called `{}`", self.than));
        Err(match nearest(&self.than, names) {
            Some(near) => error.note(format!("did you mean `{near}`?")),
            None => error.note(format!("expected one of: {}", names.join(", "))),
        })
    }

    /// A run without the value fulfils only `!=`.
    pub fn holds(&self, metadata: &Metadata, labels: &Labels) -> bool {
        let found = value(&self.key, metadata, labels);
        let numbers = (found.as_ref().and_then(Value::as_f64), self.than.parse::<f64>().ok());
        let compared = match numbers {
            (Some(a), Some(b)) => a.partial_cmp(&b),
            _ => None,
        };
        let equal = || match compared {
            Some(order) => order.is_eq(),
            None if self.key == "tags" => labels.tags.contains(&self.than),
            None => found.as_ref().is_some_and(|v| plain(v) == self.than),
        };
        match self.operator {
            Operator::Less => compared.is_some_and(Ordering::is_lt),
            Operator::AtMost => compared.is_some_and(Ordering::is_le),
            Operator::More => compared.is_some_and(Ordering::is_gt),
            Operator::AtLeast => compared.is_some_and(Ordering::is_ge),
            Operator::Equal => equal(),
            Operator::Other => !equal(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_are_read() {
        let read = |text: &str| text.parse::<Filter>();
        let filter = read("learning_rate >= 1e-4").unwrap();
        assert_eq!(
            (filter.key.as_str(), filter.operator, filter.than.as_str()),
            ("learning_rate", Operator::AtLeast, "1e-4")
        );
        assert_eq!(read("status!=failed").unwrap().operator, Operator::Other);
        assert_eq!(read("best<0.2").unwrap().operator, Operator::Less);
        for wrong in ["best", "<3", "best<", "best<low"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
        assert_eq!("-best".parse::<Sort>().unwrap(), Sort { key: "best".into(), descending: true });
    }

    #[test]
    fn numbers_come_before_text_and_text_before_nothing() {
        let mut values = [
            None,
            Some("b".into()),
            Some(Value::from(2.5)),
            Some("a".into()),
            Some(Value::from(1)),
        ];
        values.sort_by(order);
        let shown: Vec<String> = values.iter().flatten().map(plain).collect();
        assert_eq!(shown, ["1", "2.5", "a", "b"]);
        assert_eq!(values[4], None);
    }
}
