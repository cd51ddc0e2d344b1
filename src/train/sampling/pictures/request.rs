//! A picture for each seed: which ones are there already, and what makes the others.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pipe_engine::kind::StageError;
use pipe_fs::{Disk, atomic};

use super::archive::{Entry, write_npz, write_zip};
use super::png::{self, Making};
use super::{Seeds, Target};
use crate::data::is_image;
use crate::diffusion::Sampler;
use crate::kernels;
use crate::sampling::grid_request::{chosen_classes, rows};
use crate::sampling::mark::is_sampled_grid;
use crate::sampling::sampler_settings::unusual;
use crate::sampling::{Draw, ModelView, SampleSpec, generate};

/// Pictures, a file for each.
#[derive(Debug, Clone)]
pub struct PictureRequest {
    pub which: Which,
    /// By name; all of them if empty.
    pub classes: Vec<String>,
    pub sampler: Sampler,
    /// Pictures that are sampled at once.
    pub batch_size: usize,
    /// What else decides the pictures, as they say it: the checkpoint's digest, its weights.
    pub source: Vec<(&'static str, String)>,
}

/// Which pictures are sampled.
#[derive(Debug, Clone)]
pub enum Which {
    /// One for each seed. Seeds go round the classes: seed s has the class s modulo their number.
    Seeds(Seeds),
    /// Those of these numbers in the grid of `n` images of one seed.
    OfGrid { n: usize, seed: u64, numbers: Seeds },
}

/// The pictures that are there now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pictures {
    /// Their names in the folder, or in the file that has them all.
    pub files: Vec<String>,
    /// How many of them an earlier call had made.
    pub kept: u64,
}

/// One picture of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Planned {
    seed: u64,
    /// In a grid.
    number: Option<u64>,
    label: usize,
    /// Empty where there are no classes.
    class: String,
    /// Below the folder, with `/` between its parts.
    name: String,
}

impl PictureRequest {
    /// Makes the pictures that are not there yet. `after` is told how many steps of how many are
    /// done, and stops by answering `false`; the result is `None` then, and what was made stays for
    /// the next call.
    ///
    /// # Errors
    /// A class that the network does not know, a number that the grid has not, what [`generate`]
    /// reports, and files that cannot be written.
    pub fn write(
        &self,
        disk: &Disk,
        target: &Target,
        model: ModelView,
        device: &Device,
        mut after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<Option<Pictures>, StageError> {
        let classes = model.config.num_classes();
        let planned = self.planned(classes, model.class_names)?;
        let folder = target.folder();
        let is_there =
            |picture: &&Planned| png::matches(&folder.join(&picture.name), &self.making(picture));
        let missing: Vec<&Planned> = planned.iter().filter(|p| !is_there(p)).collect();
        check_not_foreign(&folder, &missing)?;
        remove_unfinished(disk, target, &missing);
        let batch = self.batch_size.max(1);
        let total = (missing.len().div_ceil(batch) * self.sampler.steps) as u64;
        let mut before = 0;
        for pictures in missing.chunks(batch) {
            let draw = |p: &&Planned| {
                let Planned { label, seed, number, .. } = **p;
                Draw { label, seed, number: number.unwrap_or(0) }
            };
            let draws = pictures.iter().map(draw);
            let spec =
                SampleSpec { draws: draws.collect(), sampler: self.sampler, batch_size: batch };
            let sampled = kernels::in_own_pool(|| {
                generate(model, &spec, device, |done| after(before + done, total))
            });
            let Some(images) = sampled? else { return Ok(None) };
            before += spec.total_steps();
            for (picture, image) in pictures.iter().zip(images) {
                let file = folder.join(&picture.name);
                let bytes = png::encode(&image, &self.making(picture))?;
                atomic::create_folder(disk, file.parent().unwrap_or(&folder))?;
                atomic::write(disk, &file, |out| out.write_all(&bytes))?;
            }
        }
        self.pack(disk, target, &planned, model)?;
        let kept = (planned.len() - missing.len()) as u64;
        let files = planned.into_iter().map(|picture| picture.name).collect();
        Ok(Some(Pictures { files, kept }))
    }

    /// Refuses a folder in whose places for pictures others stand that were not sampled, such as
    /// those of a data set: what is drawn would be among them.
    ///
    /// # Errors
    /// Names such a picture, besides what [`Self::write`] says of classes and numbers.
    pub fn check_alone(&self, folder: &Path, model: ModelView) -> Result<(), StageError> {
        let planned = self.planned(model.config.num_classes(), model.class_names)?;
        let files: Vec<PathBuf> = planned.iter().map(|p| folder.join(&p.name)).collect();
        let places: BTreeSet<&Path> = files.iter().filter_map(|file| file.parent()).collect();
        let mut there: Vec<PathBuf> = places
            .into_iter()
            .filter_map(|place| std::fs::read_dir(place).ok())
            .flat_map(|entries| entries.flatten().map(|entry| entry.path()))
            .filter(|path| path.file_name().is_some_and(is_image) && path.is_file())
            .collect();
        there.sort();
        let others = there.into_iter().find(|f| !png::is_replaceable(f) && !is_sampled_grid(f));
        others.map_or(Ok(()), |file| Err(foreign(&file)))
    }

    fn planned(&self, num_classes: usize, names: &[String]) -> Result<Vec<Planned>, StageError> {
        let classes = chosen_classes(&self.classes, num_classes, names)?;
        let seeds = match &self.which {
            Which::Seeds(seeds) => seeds,
            Which::OfGrid { n, seed, numbers } => {
                return self.of_grid((*n, *seed), numbers, (num_classes, names, &classes));
            }
        };
        let folders = folder_names(&classes);
        let plan = |seed: u64| {
            let number = format!("{seed:06}.png");
            let at = (seed % classes.len().max(1) as u64) as usize;
            match (classes.get(at), folders.get(at)) {
                (Some((label, class)), Some(folder)) => Planned {
                    seed,
                    number: None,
                    label: *label,
                    class: class.clone(),
                    name: format!("{folder}/{number}"),
                },
                _ => Planned { seed, number: None, label: 0, class: String::new(), name: number },
            }
        };
        Ok(seeds.iter().map(plan).collect())
    }

    /// Pictures of a grid of `n` images, whose classes are all those of the network or some of them.
    fn of_grid(
        &self,
        (n, seed): (usize, u64),
        numbers: &Seeds,
        (num_classes, names, classes): (usize, &[String], &[(usize, String)]),
    ) -> Result<Vec<Planned>, StageError> {
        let rows = rows(n, &self.classes, num_classes, names)?;
        let folders = folder_names(classes);
        let folder = |label: usize| {
            let at = classes.iter().position(|(other, _)| *other == label);
            at.and_then(|at| folders.get(at)).map(|folder| format!("{folder}/")).unwrap_or_default()
        };
        let of_number: Vec<(usize, String)> =
            rows.into_iter().flat_map(|row| vec![(row.label, row.name); row.count]).collect();
        let plan = |number: u64| {
            let found = of_number.get(number as usize).cloned();
            let (label, class) = found.ok_or_else(|| {
                let last = n.saturating_sub(1);
                StageError::setting(format!(
                    "the grid has no image {number}; its {n} images are 0 to {last}"
                ))
                .at("numbers")
            })?;
            let name = format!("{}{seed:06}_{number:06}.png", folder(label));
            Ok(Planned { seed, number: Some(number), label, class, name })
        };
        numbers.iter().map(plan).collect()
    }

    fn making(&self, picture: &Planned) -> Making {
        let mut making = vec![("seed", picture.seed.to_string())];
        making.extend(picture.number.map(|number| ("number", number.to_string())));
        if !picture.class.is_empty() {
            making.push(("class", picture.class.clone()));
        }
        making.push(("guidance", self.sampler.guidance.to_string()));
        making.push(("steps", self.sampler.steps.to_string()));
        making.extend(unusual(&self.sampler));
        making.extend(self.source.iter().cloned());
        making
    }

    /// Makes one file of all pictures where one is wanted, and removes what they were gathered in.
    fn pack(
        &self,
        disk: &Disk,
        target: &Target,
        planned: &[Planned],
        model: ModelView,
    ) -> Result<(), StageError> {
        let folder = target.folder();
        let entries: Vec<Entry> =
            planned.iter().map(|p| Entry { name: p.name.clone(), label: p.label }).collect();
        let read = |index: usize| {
            let picture = &planned[index];
            read_whole(&folder.join(&picture.name), &self.making(picture))
        };
        let has_classes = model.config.num_classes() > 0;
        match target {
            Target::Folder(_) => return Ok(()),
            Target::Zip(path) => atomic::write(disk, path, |out| {
                write_zip(out, &entries, has_classes, |index| Ok(read(index)?.0))
            })?,
            Target::Npz(path) => atomic::write(disk, path, |out| {
                let side = model.config.image_size();
                write_npz(out, &entries, has_classes, side, |index| Ok(read(index)?.1))
            })?,
        }
        atomic::remove_tree(disk, &folder)?;
        Ok(())
    }
}

/// Refuses to write over a file that is no sampled picture: it may be all that somebody has.
fn check_not_foreign(folder: &Path, missing: &[&Planned]) -> Result<(), StageError> {
    let mut files = missing.iter().map(|picture| folder.join(&picture.name));
    match files.find(|file| file.exists() && !png::is_replaceable(file)) {
        None => Ok(()),
        Some(file) => Err(foreign(&file)),
    }
}

fn foreign(file: &Path) -> StageError {
    StageError::setting(format!(
        "{} is there and is no sampled picture: name another folder, or move it away",
        file.display()
    ))
}

/// Removes what a call that died has left of the files that are missing.
fn remove_unfinished(disk: &Disk, target: &Target, missing: &[&Planned]) {
    atomic::remove_temporary_files_for(disk, target.path());
    let files: Vec<PathBuf> = missing.iter().map(|p| target.folder().join(&p.name)).collect();
    let mut of_folder: BTreeMap<&Path, BTreeSet<&OsStr>> = BTreeMap::new();
    for file in &files {
        if let (Some(folder), Some(name)) = (file.parent(), file.file_name()) {
            of_folder.entry(folder).or_default().insert(name);
        }
    }
    for (folder, names) in of_folder {
        atomic::remove_temporary_files_if(disk, folder, |name| names.contains(OsStr::new(name)));
    }
}

/// A picture's file, and its pixels.
fn read_whole(file: &Path, making: &Making) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let bytes = std::fs::read(file)?;
    let pixels = png::read(&bytes, making).ok_or_else(|| {
        let text = format!("{} was changed while pictures were made", file.display());
        io::Error::new(io::ErrorKind::InvalidData, text)
    })?;
    Ok((bytes, pixels))
}

/// A folder for each class: its name, without what file systems do not take; with its label where
/// two would have the same.
fn folder_names(classes: &[(usize, String)]) -> Vec<String> {
    let plain = |name: &str| {
        let taken = |c: char| c.is_control() || r#"/\:*?"<>|"#.contains(c);
        let name: String = name.chars().map(|c| if taken(c) { '_' } else { c }).collect();
        match name.trim_matches(['.', ' ']) {
            "" => "_".to_owned(),
            name => name.to_owned(),
        }
    };
    let names: Vec<String> = classes.iter().map(|(_, name)| plain(name)).collect();
    let same =
        |name: &str| names.iter().filter(|n| n.to_lowercase() == name.to_lowercase()).count();
    let folder = |((label, _), name): (&(usize, String), &String)| match same(name) {
        1 => name.clone(),
        _ => format!("{name} {label}"),
    };
    classes.iter().zip(&names).map(folder).collect()
}

#[cfg(test)]
mod tests;
