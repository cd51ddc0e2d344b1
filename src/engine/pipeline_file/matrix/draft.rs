//! Members on their way: the values that they have so far, where these stand, and what their names
//! say.

use pipe_core::ids::StageId;
use serde_json::{Map, Value};

use super::axes::Axis;
use super::names::Name;
use crate::pipeline_file::overrides::OverrideSource;

/// Values of a member that stand in one place of the file.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Portion {
    /// Where, below `matrix`.
    pub at: Vec<String>,
    pub values: Map<String, Value>,
    /// Keys whose values stand elsewhere, below `matrix`.
    pub moved: Vec<(String, Vec<String>)>,
    /// What gave them, if they do not stand in the file.
    pub by: Option<OverrideSource>,
}

/// A member on its way.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub values: Map<String, Value>,
    pub portions: Vec<Portion>,
    pub name: Name,
    /// The name without what is swept over, if anything is.
    pub plain: Option<StageId>,
    /// What is swept over.
    pub swept: Map<String, Value>,
}

impl Draft {
    /// The same with one more value of an axis.
    pub fn with(&self, axis: &Axis, index: usize) -> Self {
        let mut this = self.clone();
        this.values.insert(axis.key.clone(), axis.values[index].clone());
        if this.plain.is_some() {
            this.swept.insert(axis.key.clone(), axis.values[index].clone());
        }
        this.name.extend(&axis.words[index]);
        if axis.is_inherited {
            return this;
        }
        let fits = |portion: &&mut Portion| portion.at == axis.at && portion.by == axis.by;
        let portion = match this.portions.iter_mut().find(fits) {
            Some(portion) => portion,
            None => {
                this.portions.push(Portion {
                    at: axis.at.clone(),
                    by: axis.by.clone(),
                    ..Portion::default()
                });
                let last = this.portions.len() - 1;
                &mut this.portions[last]
            }
        };
        portion.values.insert(axis.key.clone(), axis.values[index].clone());
        portion.moved.extend(axis.moved(index));
        this
    }
}
