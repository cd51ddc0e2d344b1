//! Mean and spread of runs that differ in nothing but the seed.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// Settings by dotted key, or results by name.
type Values = BTreeMap<String, Value>;

/// A run as it is compared: its title, what decides it, what came out.
pub(super) struct Column<'a> {
    pub title: &'a str,
    pub manifest: &'a Values,
    pub results: Values,
}

/// Runs whose manifests differ in the seed alone.
#[derive(Debug, PartialEq)]
pub(super) struct OverSeeds {
    pub runs: Vec<String>,
    pub seeds: Vec<Value>,
    pub results: BTreeMap<String, Moments>,
}

/// Mean and spread of some numbers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Moments {
    pub n: usize,
    pub mean: f64,
    /// The sample's standard deviation, with `n - 1`; nothing for one number alone.
    pub spread: Option<f64>,
}

impl Moments {
    fn of(numbers: &[f64]) -> Option<Self> {
        if numbers.is_empty() {
            return None;
        }
        let n = numbers.len() as f64;
        let mean = numbers.iter().sum::<f64>() / n;
        let squares: f64 = numbers.iter().map(|x| (x - mean).powi(2)).sum();
        let spread = (numbers.len() > 1).then(|| (squares / (n - 1.0)).sqrt());
        Some(Self { n: numbers.len(), mean, spread })
    }
}

/// The groups of two runs or more with different seeds, in the order of their first runs. A run
/// that has no such result is not among the numbers of it.
pub(super) fn groups(columns: &[Column]) -> Vec<OverSeeds> {
    let mut groups: Vec<(Values, Vec<&Column>)> = Vec::new();
    for column in columns.iter().filter(|column| column.manifest.contains_key("seed")) {
        let mut rest = column.manifest.clone();
        rest.remove("seed");
        match groups.iter_mut().find(|(others, _)| *others == rest) {
            Some((_, group)) => group.push(column),
            None => groups.push((rest, vec![column])),
        }
    }
    let summary = |(_, group): (Values, Vec<&Column>)| {
        let seeds: Vec<Value> = group.iter().map(|c| c.manifest["seed"].clone()).collect();
        let differ = seeds.iter().enumerate().all(|(i, seed)| !seeds[..i].contains(seed));
        if group.len() < 2 || !differ {
            return None;
        }
        let names = group.iter().flat_map(|c| c.results.keys());
        let of = |name: &String| {
            let values = group.iter().filter_map(|c| c.results.get(name)?.as_f64());
            Some((name.clone(), Moments::of(&values.collect::<Vec<_>>())?))
        };
        let results = names.filter_map(of).collect();
        let runs = group.iter().map(|c| c.title.to_owned()).collect();
        Some(OverSeeds { runs, seeds, results })
    };
    groups.into_iter().filter_map(summary).collect()
}

impl OverSeeds {
    pub(super) fn to_json(&self) -> Value {
        let one = |(name, m): (&String, &Moments)| {
            let value = serde_json::json!({"n": m.n, "mean": m.mean, "spread": m.spread});
            (name.clone(), value)
        };
        let results: Map<String, Value> = self.results.iter().map(one).collect();
        serde_json::json!({"runs": self.runs, "seeds": self.seeds, "results": results})
    }

    /// A line for the runs, then one for each result.
    pub(super) fn to_text(&self) -> String {
        let seeds: Vec<String> = self.seeds.iter().map(Value::to_string).collect();
        let mut text = format!("{}: seeds {}", self.runs.join(", "), seeds.join(", "));
        for (name, m) in &self.results {
            let spread = m.spread.map(|spread| format!(" ± {}", short(spread))).unwrap_or_default();
            text += &format!("\n  {name}: {}{spread} (mean of {})", short(m.mean), m.n);
        }
        text
    }
}

/// A number in four digits.
fn short(number: f64) -> String {
    format!("{number:.3e}").parse().map_or_else(|_| number.to_string(), |n: f64| n.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn values(value: Value) -> Values {
        value.as_object().unwrap().clone().into_iter().collect()
    }

    #[test]
    fn runs_that_differ_in_the_seed_alone_belong_together() {
        let manifests: Vec<Values> = [
            json!({"seed": 1, "rate": 0.1}),
            json!({"seed": 2, "rate": 0.1}),
            json!({"seed": 1, "rate": 0.2}),
            json!({"seed": 3, "rate": 0.1}),
            json!({"rate": 0.1}),
        ]
        .map(values)
        .to_vec();
        let results = [json!(2.0), json!(4.0), json!(9.0), Value::Null, json!(1.0)]
            .map(|loss| json!({"loss": loss}));
        let titles = ["run 1", "run 2", "run 3", "run 4", "run 5"];
        let columns: Vec<Column> = (0..5)
            .map(|i| Column {
                title: titles[i],
                manifest: &manifests[i],
                results: values(results[i].clone()),
            })
            .collect();
        let found = groups(&columns);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].runs, ["run 1", "run 2", "run 4"]);
        assert_eq!(found[0].seeds, [json!(1), json!(2), json!(3)]);
        let loss = found[0].results["loss"];
        assert_eq!((loss.n, loss.mean), (2, 3.0), "one without the result is not among them");
        assert!((loss.spread.unwrap() - 2f64.sqrt()).abs() < 1e-12);
        assert_eq!(
            found[0].to_text(),
            "run 1, run 2, run 4: seeds 1, 2, 3\n  loss: 3 ± 1.414 (mean of 2)"
        );
        // The same seed twice tells nothing of seeds.
        assert_eq!(
            groups(&[&columns[0], &columns[0]].map(|c| Column {
                title: c.title,
                manifest: c.manifest,
                results: c.results.clone()
            })),
            []
        );
    }
}
