//! Members on their way: the values that they have so far, where these stand, and what their names
//! say.

use serde_json::{Map, Value};

use super::axes::Axis;
use super::names::Name;

/// Values of a member that stand in one place of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Portion {
    /// Where, below `matrix`.
    pub at: Vec<String>,
    pub values: Map<String, Value>,
    /// Keys whose values stand elsewhere, below `matrix`.
    pub moved: Vec<(String, Vec<String>)>,
}

/// A member on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub values: Map<String, Value>,
    pub portions: Vec<Portion>,
    pub name: Name,
}

impl Draft {
    /// The same with one more value of an axis.
    pub fn with(&self, axis: &Axis, index: usize) -> Self {
        let mut this = self.clone();
        this.values.insert(axis.key.clone(), axis.values[index].clone());
        let portion = match this.portions.iter_mut().find(|portion| portion.at == axis.at) {
            Some(portion) => portion,
            None => {
                this.portions.push(Portion { at: axis.at.clone(), ..Portion::default() });
                let last = this.portions.len() - 1;
                &mut this.portions[last]
            }
        };
        portion.values.insert(axis.key.clone(), axis.values[index].clone());
        portion.moved.extend(axis.moved(index));
        this.name.extend(&axis.words[index]);
        this
    }
}
