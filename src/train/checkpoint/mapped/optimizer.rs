//! The state of Adam in a file of PyTorch's, by the names of the parameters.
//!
//! PyTorch keys it by the number of a parameter: its place among those that the optimizer was made
//! with, which are a module's `parameters()` in most scripts, in the order of its names in the
//! file.

use std::collections::{BTreeMap, BTreeSet};

use super::pickle::Node;

/// What Adam keeps of a parameter.
pub(super) const MOMENTS: [&str; 2] = ["exp_avg", "exp_avg_sq"];
pub(super) const STEP: &str = "step";
/// Where a file may have the states of its optimizers: as Lightning writes it, and as many scripts
/// do.
const PLACES: [&[&str]; 3] = [&["optimizer_states"], &["optimizer_state_dict"], &["optimizer"]];

/// One optimizer's state in a file.
pub(super) struct OptimizerState<'a> {
    /// What stands before the names of its tensors.
    pub prefix: String,
    /// What it keeps of each parameter, by number.
    pub state: BTreeMap<String, Node<'a>>,
    /// The numbers of its parameters.
    numbers: Vec<String>,
    /// Their names, where the file has them.
    names: Option<Vec<String>>,
}

impl<'a> OptimizerState<'a> {
    /// The state in a file, if there is one.
    ///
    /// # Errors
    /// Several optimizers, and one that is no Adam.
    pub fn find(root: Node<'a>) -> Result<Option<Self>, String> {
        for place in PLACES {
            let Some(found) = root.at(place) else { continue };
            let several: Vec<Node> = found.items().collect();
            let (prefix, one) = match several[..] {
                [] => (place.join("."), found),
                [one] => (format!("{}.0", place.join(".")), one),
                _ => return Err(format!("it has the states of {} optimizers", several.len())),
            };
            let Some(state) = one.get("state") else { continue };
            let state: BTreeMap<String, Node> = state.entries().collect();
            if state.is_empty() {
                continue; // before the first step there is nothing
            }
            let groups: Vec<Node> =
                one.get("param_groups").into_iter().flat_map(Node::items).collect();
            let of_groups = |key: &str| -> Vec<String> {
                let lists = groups.iter().filter_map(|group| group.get(key));
                lists.flat_map(Node::items).filter_map(Node::key).collect()
            };
            let (numbers, names) = (of_groups("params"), of_groups("param_names"));
            let names = (names.len() == numbers.len()).then_some(names);
            let found = Self { prefix, state, numbers, names };
            found.refuse_others()?;
            return Ok(Some(found));
        }
        Ok(None)
    }

    /// Refuses what Adam does not keep, rather than leave it out.
    fn refuse_others(&self) -> Result<(), String> {
        let fields = self.state.values().flat_map(|state| state.entries()).map(|(field, _)| field);
        let fields: BTreeSet<String> = fields.collect();
        let known = |field: &String| field == STEP || MOMENTS.contains(&field.as_str());
        let others: Vec<&str> = fields.iter().filter(|f| !known(f)).map(String::as_str).collect();
        let missing = MOMENTS.iter().chain([&STEP]).any(|field| !fields.contains(*field));
        if others.is_empty() && !missing {
            return Ok(());
        }
        let fields: Vec<&str> = fields.iter().map(String::as_str).collect();
        Err(format!(
            "its optimizer keeps {}, and Adam keeps exp_avg, exp_avg_sq and step",
            fields.join(", ")
        ))
    }

    /// The number of each parameter by its name. `listed`: the mapping's list; `mapped`: the
    /// names that are weights of ours, `wanted` with the EMA weights, `all` those of the file, in
    /// its order.
    ///
    /// # Errors
    /// Another number of parameters than any of these lists has.
    pub fn numbers(
        &self,
        listed: &[String],
        [mapped, wanted, all]: [&[String]; 3],
    ) -> Result<BTreeMap<String, String>, String> {
        let count = self.numbers.len();
        let by = |names: &[String]| {
            names.iter().cloned().zip(self.numbers.iter().cloned()).collect::<BTreeMap<_, _>>()
        };
        if !listed.is_empty() {
            return if listed.len() == count {
                Ok(by(listed))
            } else {
                Err(format!("`parameters` lists {}, and the optimizer has {count}", listed.len()))
            };
        }
        if let Some(names) = self.names.as_deref().filter(|names| is_of(names, mapped)) {
            return Ok(by(names));
        }
        match [mapped, wanted, all].into_iter().find(|names| names.len() == count) {
            Some(names) => Ok(by(names)),
            None => Err(format!(
                "its optimizer has {count} parameters, and {} weights are mapped of {}; list the names of its parameters \
                 in order, as `parameters`",
                mapped.len(),
                all.len()
            )),
        }
    }
}

/// Whether all of `wanted` are among `names`.
fn is_of(names: &[String], wanted: &[String]) -> bool {
    let names: BTreeSet<&String> = names.iter().collect();
    wanted.iter().all(|name| names.contains(name))
}
