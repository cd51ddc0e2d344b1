//! What a person asks for: so many images, of these classes, in one picture.

use burn::tensor::Device;
use pipe_engine::kind::{Failure, StageError};

use super::{Drawing, Picture, draw};
use crate::data::same_name;
use crate::diffit::{Diffit, DiffitConfig};
use crate::kernels;
use crate::noise::Sampler;

/// A picture to be drawn.
#[derive(Debug, Clone)]
pub struct Request {
    pub title: String,
    /// Images in all, shared out among the classes.
    pub n: usize,
    /// By name, a row each; all of them if empty.
    pub classes: Vec<String>,
    pub seed: u64,
    pub sampler: Sampler,
    /// Images that are drawn at once.
    pub batch_size: usize,
}

/// One row of the picture.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Row {
    name: String,
    label: usize,
    count: usize,
}

impl Request {
    /// Draws it with a network on `device`, whose classes are called `names`. `after` is told how many steps of how many
    /// are done, and stops by answering `false`; the result is `None` then.
    ///
    /// # Errors
    /// A class that the network does not know, and what [`draw`] reports.
    pub fn picture(
        &self,
        net: &Diffit,
        config: &DiffitConfig,
        names: &[String],
        device: &Device,
        mut after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<Option<Picture>, StageError> {
        let rows = self.rows(config.num_classes, names)?;
        let labels = rows.iter().flat_map(|row| vec![row.label; row.count]).collect();
        let Self { seed, sampler, batch_size, .. } = *self;
        let drawing = Drawing { labels, seed, sampler, batch_size };
        let total = drawing.total_steps();
        let drawn = kernels::in_own_pool(|| draw(net, config, &drawing, device, |done| after(done, total)));
        let Some(images) = drawn? else {
            return Ok(None);
        };
        let mut images = images.into_iter();
        let rows = rows.into_iter().map(|row| (row.name, images.by_ref().take(row.count).collect()));
        Ok(Some(Picture { title: self.title.clone(), rows: rows.collect() }))
    }

    fn rows(&self, num_classes: usize, names: &[String]) -> Result<Vec<Row>, StageError> {
        let setting = |message: String| StageError::new(Failure::Setting, message);
        if num_classes == 0 {
            if let Some(class) = self.classes.first() {
                return Err(setting(format!(
                    "classes: the model knows no classes, so none is called `{class}`"
                )));
            }
            let columns = (self.n as f64).sqrt().ceil().max(1.0) as usize;
            let count = |row: usize| columns.min(self.n - row * columns);
            let row = |row: usize| Row { name: String::new(), label: 0, count: count(row) };
            return Ok((0..self.n.div_ceil(columns)).map(row).collect());
        }
        let name = |label: usize| names.get(label).cloned().unwrap_or_else(|| format!("class {label}"));
        let labels: Vec<usize> = match self.classes.is_empty() {
            true => (0..num_classes).collect(),
            false => {
                let find = |class: &String| {
                    let exact = (0..num_classes).find(|label| name(*label) == *class);
                    let same = || (0..num_classes).find(|label| same_name(&name(*label), class));
                    exact.or_else(same).ok_or_else(|| {
                        let all: Vec<String> = (0..num_classes).map(name).collect();
                        setting(format!(
                            "classes: the model has no class `{class}`; it has {}",
                            all.join(", ")
                        ))
                    })
                };
                self.classes.iter().map(find).collect::<Result<_, _>>()?
            }
        };
        let (each, rest) = (self.n / labels.len(), self.n % labels.len());
        let row = |(index, label): (usize, usize)| Row {
            name: name(label),
            label,
            count: each + usize::from(index < rest),
        };
        Ok(labels.into_iter().enumerate().map(row).filter(|row| row.count > 0).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(n: usize, classes: &[&str], num_classes: usize) -> Result<Vec<(String, usize, usize)>, String> {
        let request = Request {
            title: String::new(),
            n,
            classes: classes.iter().map(|c| c.to_string()).collect(),
            seed: 0,
            sampler: Sampler::default(),
            batch_size: 16,
        };
        let names = ["oak".to_owned(), "pine".to_owned(), "palm".to_owned()];
        let rows = request.rows(num_classes, &names).map_err(|e| e.message)?;
        Ok(rows.into_iter().map(|row| (row.name, row.label, row.count)).collect())
    }

    #[test]
    fn images_are_shared_out_among_the_classes() {
        let expected = [("oak", 0, 3), ("pine", 1, 2), ("palm", 2, 2)];
        assert_eq!(rows(7, &[], 3).unwrap(), expected.map(|(n, l, c)| (n.to_owned(), l, c)));
        assert_eq!(rows(2, &["palm"], 3).unwrap(), [("palm".to_owned(), 2, 2)]);
        assert_eq!(rows(1, &[], 3).unwrap().len(), 1, "no empty rows");
        let error = rows(1, &["fir"], 3).unwrap_err();
        assert_eq!(error, "classes: the model has no class `fir`; it has oak, pine, palm");
    }

    #[test]
    fn without_classes_the_picture_is_about_square() {
        let counts: Vec<usize> = rows(7, &[], 0).unwrap().into_iter().map(|(.., count)| count).collect();
        assert_eq!(counts, [3, 3, 1]);
        assert!(rows(7, &["oak"], 0).unwrap_err().contains("knows no classes"));
    }
}
