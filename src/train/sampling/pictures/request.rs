//! A picture for each seed: which ones are there already, and what makes the others.

use std::io;
use std::path::Path;

use burn::tensor::Device;
use pipe_engine::kind::StageError;
use pipe_fs::{Disk, atomic};

use super::archive::{Entry, write_npz, write_zip};
use super::png::{self, Making};
use super::{Seeds, Target};
use crate::architecture::{ModelConfig, Network};
use crate::diffusion::Sampler;
use crate::kernels;
use crate::sampling::grid_request::chosen_classes;
use crate::sampling::{Draw, SampleSpec, generate};

/// A picture for each of some seeds.
#[derive(Debug, Clone)]
pub struct PictureRequest {
    pub seeds: Seeds,
    /// By name; all of them if empty. The seeds go round them: seed s has the class s modulo their
    /// number.
    pub classes: Vec<String>,
    pub sampler: Sampler,
    /// Pictures that are sampled at once.
    pub batch_size: usize,
    /// What else decides the pictures, as they say it: the checkpoint's digest, its weights.
    pub source: Vec<(&'static str, String)>,
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
    /// A class that the network does not know, what [`generate`] reports, and files that cannot be
    /// written.
    pub fn write(
        &self,
        disk: &Disk,
        target: &Target,
        (net, config, names): (&Network, &ModelConfig, &[String]),
        device: &Device,
        mut after: impl FnMut(u64, u64) -> bool + Send,
    ) -> Result<Option<Pictures>, StageError> {
        let planned = self.planned(config.num_classes(), names)?;
        let folder = target.folder();
        let is_there =
            |picture: &&Planned| png::matches(&folder.join(&picture.name), &self.making(picture));
        let missing: Vec<&Planned> = planned.iter().filter(|p| !is_there(p)).collect();
        let batch = self.batch_size.max(1);
        let total = (missing.len().div_ceil(batch) * self.sampler.steps) as u64;
        let mut before = 0;
        for pictures in missing.chunks(batch) {
            let draws = pictures.iter().map(|p| Draw { label: p.label, seed: p.seed, number: 0 });
            let spec =
                SampleSpec { draws: draws.collect(), sampler: self.sampler, batch_size: batch };
            let sampled = kernels::in_own_pool(|| {
                generate(net, config, &spec, device, |done| after(before + done, total))
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
        self.pack(disk, target, &planned, config)?;
        let kept = (planned.len() - missing.len()) as u64;
        let files = planned.into_iter().map(|picture| picture.name).collect();
        Ok(Some(Pictures { files, kept }))
    }

    fn planned(&self, num_classes: usize, names: &[String]) -> Result<Vec<Planned>, StageError> {
        let classes = chosen_classes(&self.classes, num_classes, names)?;
        let folders = folder_names(&classes);
        let plan = |seed: u64| {
            let number = format!("{seed:06}.png");
            let at = (seed % classes.len().max(1) as u64) as usize;
            match (classes.get(at), folders.get(at)) {
                (Some((label, class)), Some(folder)) => Planned {
                    seed,
                    label: *label,
                    class: class.clone(),
                    name: format!("{folder}/{number}"),
                },
                _ => Planned { seed, label: 0, class: String::new(), name: number },
            }
        };
        Ok(self.seeds.iter().map(plan).collect())
    }

    fn making(&self, picture: &Planned) -> Making {
        let mut making = vec![("seed", picture.seed.to_string())];
        if !picture.class.is_empty() {
            making.push(("class", picture.class.clone()));
        }
        making.push(("guidance", self.sampler.guidance.to_string()));
        making.push(("steps", self.sampler.steps.to_string()));
        making.extend(self.source.iter().cloned());
        making
    }

    /// Makes one file of all pictures where one is wanted, and removes what they were gathered in.
    fn pack(
        &self,
        disk: &Disk,
        target: &Target,
        planned: &[Planned],
        config: &ModelConfig,
    ) -> Result<(), StageError> {
        let folder = target.folder();
        let entries: Vec<Entry> =
            planned.iter().map(|p| Entry { name: p.name.clone(), label: p.label }).collect();
        let read = |index: usize| {
            let picture = &planned[index];
            read_whole(&folder.join(&picture.name), &self.making(picture))
        };
        let has_classes = config.num_classes() > 0;
        match target {
            Target::Folder(_) => return Ok(()),
            Target::Zip(path) => atomic::write(disk, path, |out| {
                write_zip(out, &entries, has_classes, |index| Ok(read(index)?.0))
            })?,
            Target::Npz(path) => atomic::write(disk, path, |out| {
                let side = config.image_size();
                write_npz(out, &entries, has_classes, side, |index| Ok(read(index)?.1))
            })?,
        }
        atomic::remove_tree(disk, &folder)?;
        Ok(())
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
mod tests {
    use super::*;
    use crate::architecture::Architectures;

    fn request(seeds: &str, classes: &[&str]) -> PictureRequest {
        PictureRequest {
            seeds: seeds.parse().unwrap(),
            classes: classes.iter().map(|class| class.to_string()).collect(),
            sampler: Sampler { steps: 2, ..Sampler::default() },
            batch_size: 2,
            source: vec![("checkpoint", "abc".to_owned())],
        }
    }

    fn model(classes: usize) -> (Network, ModelConfig, Vec<String>) {
        let text = format!(
            r#"{{"dim": 16, "mults": [1, 2], "depths": [1, 1], "heads": 2, "window": 4, "image_size": 8,
                 "channels": 3, "num_classes": {classes}}}"#
        );
        let config = Architectures::builtin().read(serde_json::from_str(&text).unwrap()).unwrap();
        let net = config.init(7, &Device::flex()).unwrap();
        (net, config, ["oak", "fir"].map(str::to_owned)[..classes].into())
    }

    /// How many were made, and how many were there.
    fn write(request: &PictureRequest, target: &Target, classes: usize) -> [u64; 2] {
        let (net, config, names) = model(classes);
        let disk = Disk::default();
        let parts = (&net, &config, &names[..]);
        let written = request.write(&disk, target, parts, &Device::flex(), |_, _| true);
        let written = written.unwrap().unwrap();
        [written.files.len() as u64 - written.kept, written.kept]
    }

    #[test]
    fn a_seed_is_the_same_picture_whatever_is_sampled_with_it() {
        let place = tempfile::tempdir().unwrap();
        let all = Target::Folder(place.path().join("all"));
        let one = Target::Folder(place.path().join("one"));
        assert_eq!(write(&request("0-4", &[]), &all, 2), [5, 0]);
        let few = PictureRequest { batch_size: 7, ..request("3,0", &[]) };
        assert_eq!(write(&few, &one, 2), [2, 0]);
        for name in ["fir/000003.png", "oak/000000.png"] {
            let read = |target: &Target| std::fs::read(target.path().join(name)).unwrap();
            assert!(read(&all) == read(&one), "{name}");
        }
        let other = Target::Folder(place.path().join("other"));
        write(&request("4", &["fir"]), &other, 2);
        assert!(other.path().join("fir/000004.png").exists(), "the class that was named");
    }

    #[test]
    fn pictures_that_are_there_are_not_made_again_and_others_are() {
        let place = tempfile::tempdir().unwrap();
        let folder = Target::Folder(place.path().join("p"));
        write(&request("0-2", &[]), &folder, 2);
        let first = folder.path().join("oak/000000.png");
        let made = std::fs::read(&first).unwrap();
        assert_eq!(write(&request("0-4", &[]), &folder, 2), [2, 3]);
        std::fs::write(&first, &made[..made.len() / 2]).unwrap();
        assert_eq!(write(&request("0-4", &[]), &folder, 2), [1, 4]);
        assert!(std::fs::read(&first).unwrap() == made, "half of a picture is made again");
        let guided = Sampler { steps: 2, guidance: 2.0, ..Sampler::default() };
        let guided = PictureRequest { sampler: guided, ..request("0-4", &[]) };
        assert_eq!(write(&guided, &folder, 2), [5, 0]);
    }

    #[test]
    fn a_file_of_all_pictures_is_made_in_pieces_too() {
        let place = tempfile::tempdir().unwrap();
        let (net, config, names) = model(2);
        let folder = Target::Folder(place.path().join("p"));
        write(&request("0-4", &[]), &folder, 2);
        let file = place.path().join("all.zip");
        let target = Target::Zip(file.clone());
        let stop_in_second = |done: u64, _| done < 4;
        let parts = (&net, &config, &names[..]);
        let disk = Disk::default();
        let request = request("0-4", &[]);
        let stopped = request.write(&disk, &target, parts, &Device::flex(), stop_in_second);
        assert_eq!(stopped.unwrap(), None);
        assert!(!file.exists());
        assert_eq!(write(&request, &target, 2), [3, 2]);
        assert!(!target.folder().exists());
        let mut archive = zip::ZipArchive::new(std::fs::File::open(&file).unwrap()).unwrap();
        assert_eq!(archive.len(), 6);
        let mut bytes = Vec::new();
        io::copy(&mut archive.by_name("fir/000003.png").unwrap(), &mut bytes).unwrap();
        assert!(bytes == std::fs::read(folder.path().join("fir/000003.png")).unwrap());
        let npz = Target::Npz(place.path().join("all.npz"));
        write(&request, &npz, 2);
        assert_eq!(
            zip::ZipArchive::new(std::fs::File::open(npz.path()).unwrap()).unwrap().len(),
            2
        );
    }

    #[test]
    fn without_classes_pictures_have_numbers_alone() {
        let place = tempfile::tempdir().unwrap();
        let folder = Target::Folder(place.path().join("p"));
        write(&request("12", &[]), &folder, 0);
        assert!(folder.path().join("000012.png").exists());
    }

    #[test]
    fn classes_have_folders_that_every_file_system_takes() {
        let of = |names: &[&str]| {
            let classes: Vec<_> =
                names.iter().enumerate().map(|(label, name)| (label, name.to_string())).collect();
            folder_names(&classes)
        };
        assert_eq!(of(&["oak", "a/b", "..", "野菜 "]), ["oak", "a_b", "_", "野菜"]);
        assert_eq!(of(&["a/b", "A_b", "c"]), ["a_b 0", "A_b 1", "c"]);
    }
}
