//! Which stage's metrics judge which checkpoint: of two matrices the stages with the same values
//! belong together.

use std::collections::{BTreeMap, BTreeSet};

/// Why stages do not belong together, and what would.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unpaired {
    pub message: String,
    pub note: String,
}

/// For each stage of `over` the one of `judges` with the same values of a matrix; where there is
/// one of each, and not of different values, these two. Judges that are left over do nothing.
pub(super) fn pair<'a>(
    over: &BTreeSet<&'a str>,
    judges: &BTreeSet<&'a str>,
) -> Result<BTreeMap<&'a str, &'a str>, Unpaired> {
    if let (Some(one), Some(judge), 1, 1) = (over.first(), judges.first(), over.len(), judges.len())
        && (values(one).is_none() || values(judge).is_none() || values(one) == values(judge))
    {
        return Ok(BTreeMap::from([(*one, *judge)]));
    }
    let by_values: BTreeMap<Option<&str>, &str> =
        judges.iter().map(|judge| (values(judge), *judge)).collect();
    let mut pairs = BTreeMap::new();
    let mut taken: BTreeMap<&str, &str> = BTreeMap::new();
    for one in over {
        let Some(judge) = by_values.get(&values(one)) else { return Err(alone(one, judges)) };
        if let Some(other) = taken.insert(judge, one) {
            return Err(Unpaired {
                message: format!("`{judge}` would judge both `{other}` and `{one}`"),
                note: "each checkpoint needs metrics of its own: choose among the stages of one \
                       matrix, and give the stage of the metrics the same `matrix`"
                    .to_owned(),
            });
        }
        pairs.insert(*one, *judge);
    }
    Ok(pairs)
}

/// `one` has no judge.
fn alone(one: &str, judges: &BTreeSet<&str>) -> Unpaired {
    let judge = judges.first().copied().unwrap_or_default();
    let (whose, name) = (declared(one), declared(judge));
    let message = match values(one) {
        Some(values) => format!("nothing judges `{one}`: there is no stage `{name}@{values}`"),
        None => format!("nothing judges `{one}`: `{name}` is a matrix, and `{whose}` is none"),
    };
    let note = format!(
        "each checkpoint is judged by the stage with the same values of a matrix: give `{name}` the `matrix` of \
         `{whose}`, or choose from one stage by one stage"
    );
    Unpaired { message, note }
}

/// The name without the values of a matrix.
fn declared(stage: &str) -> &str {
    stage.split('@').next().unwrap_or(stage)
}

/// The values of a matrix in a stage's name.
fn values(stage: &str) -> Option<&str> {
    stage.split_once('@').map(|(_, values)| values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paired(over: &[&'static str], judges: &[&'static str]) -> Result<Vec<String>, String> {
        let (over, judges) = (over.iter().copied().collect(), judges.iter().copied().collect());
        let pairs = pair(&over, &judges).map_err(|unpaired| unpaired.message)?;
        Ok(pairs.iter().map(|(one, judge)| format!("{one} {judge}")).collect())
    }

    #[test]
    fn stages_with_the_same_values_belong_together() {
        let said = paired(&["a@x=1,y=0.5", "a@x=2,y=0.5"], &["q@x=2,y=0.5", "q@x=1,y=0.5"]);
        assert_eq!(said.unwrap(), ["a@x=1,y=0.5 q@x=1,y=0.5", "a@x=2,y=0.5 q@x=2,y=0.5"]);
        assert_eq!(paired(&["a@x=1"], &["q@x=1", "q@x=2"]).unwrap(), ["a@x=1 q@x=1"]);
        assert_eq!(paired(&["a", "b@x=1"], &["q", "q@x=1"]).unwrap(), ["a q", "b@x=1 q@x=1"]);
    }

    #[test]
    fn one_stage_is_judged_by_one_stage() {
        for (over, judge) in [("a", "q"), ("a@x=1", "q"), ("a", "q@x=1"), ("a@x=1", "q@x=1")] {
            assert_eq!(paired(&[over], &[judge]).unwrap(), [format!("{over} {judge}")]);
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let said =
            |over: &[&'static str], judges: &[&'static str]| paired(over, judges).unwrap_err();
        assert_eq!(
            said(&["a@x=1", "a@x=2"], &["q"]),
            "nothing judges `a@x=1`: there is no stage `q@x=1`"
        );
        assert_eq!(
            said(&["a@x=1"], &["q@x=2"]),
            "nothing judges `a@x=1`: there is no stage `q@x=1`"
        );
        assert_eq!(
            said(&["a@x=1,y=1"], &["q@x=1", "q@x=2"]),
            "nothing judges `a@x=1,y=1`: there is no stage `q@x=1,y=1`"
        );
        assert_eq!(
            said(&["a"], &["q@x=1", "q@x=2"]),
            "nothing judges `a`: `q` is a matrix, and `a` is none"
        );
        assert_eq!(said(&["a", "b"], &["q"]), "`q` would judge both `a` and `b`");
        assert_eq!(
            said(&["a@x=1", "b@x=1"], &["q@x=1", "q@x=2"]),
            "`q@x=1` would judge both `a@x=1` and `b@x=1`"
        );
    }
}
