//! `pipe ckpt export FILE --hub DIR`: a folder as model hubs take it, with `model.safetensors`,
//! `config.json` and a model card that says what it was trained on, how, and how well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipe_core::shell::CommandLine;
use pipe_fs::{Disk, atomic};
use pipe_models::architecture::Architectures;
use pipe_models::header::{BASE_DIGEST, class_names};
use pipe_runs::checkpoint::HUB_WEIGHTS;
use pipe_runs::{Checkpoint, CheckpointRecord, Metadata, Runs};
use pipe_train::checkpoint as model;
use serde_json::{Value, json};

use super::{CliError, files, output_file};
use crate::report::stdout::say;
use crate::report::{message, table};

/// Files of the folder.
const CONFIG: &str = "config.json";
const CARD: &str = "README.md";
/// Pictures that are drawn beside the training and copied from a run, at most.
const PICTURES: usize = 2;

/// Writes the folder. `pictures` stand on the card, in the place of those of the run.
pub(super) fn export(
    known: &Architectures,
    checkpoint: &Checkpoint,
    folder: &Path,
    pictures: &[PathBuf],
    overwrite: bool,
) -> Result<(), CliError> {
    if checkpoint.is_of_program() {
        return Err(CliError::usage(
            "a training program wrote it in a form of its own: there is no model in it that this program knows",
        ));
    }
    for name in [HUB_WEIGHTS, CONFIG, CARD] {
        if folder.join(name).exists() && !overwrite {
            let shown = folder.join(name).display().to_string();
            return Err(CliError::usage(format!("{shown} exists; --overwrite replaces it")));
        }
    }
    let disk = Disk::default();
    atomic::create_folder(&disk, folder).map_err(CliError::failed)?;
    let run = run_of(checkpoint.path());
    let pictures = match (&run, pictures) {
        (Some((run, _)), []) => samples(run),
        (_, named) => named.to_vec(),
    };
    let pictures = copied(&disk, &pictures, folder)?;
    if pictures.is_empty() {
        message::note("no picture on the card; --picture FILE puts one there");
    }
    let written = model::inference_weights(&disk, known, checkpoint, &folder.join(HUB_WEIGHTS));
    let written = written.map_err(CliError::failed)?;
    let card = Card { checkpoint, metadata: run.map(|(_, metadata)| metadata), pictures, folder };
    let config = format!("{:#}\n", card.config());
    for (name, text) in [(CONFIG, config), (CARD, card.to_markdown())] {
        output_file::write(&disk, &folder.join(name), |out| out.write_all(text.as_bytes()))?;
    }
    say!(
        "{}: {}, {}",
        folder.join(HUB_WEIGHTS).display(),
        table::bytes(written.bytes),
        written.file_digest
    );
    Ok(())
}

/// The run that keeps a checkpoint, and what is known of it, also what other stages found.
fn run_of(checkpoint: &Path) -> Option<(PathBuf, Metadata)> {
    let folder = checkpoint.canonicalize().ok()?.parent()?.parent()?.to_owned();
    let runs = Runs::at(&Disk::default(), folder.parent()?).list();
    let metadata = runs.iter().find(|run| run.folder == folder)?.current_metadata().ok()?;
    Some((folder, metadata))
}

/// The newest pictures that a training drew of itself.
fn samples(run: &Path) -> Vec<PathBuf> {
    let files = std::fs::read_dir(run.join("samples")).into_iter().flatten().flatten();
    let mut files: Vec<PathBuf> =
        files.map(|entry| entry.path()).filter(|p| is_picture(p)).collect();
    files.sort();
    files.split_off(files.len().saturating_sub(PICTURES))
}

fn is_picture(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ["png", "jpg", "jpeg", "webp"].contains(&ending.as_str()))
}

/// Puts pictures into the folder; their names there.
fn copied(disk: &Disk, pictures: &[PathBuf], folder: &Path) -> Result<Vec<String>, CliError> {
    let copy = |picture: &PathBuf| {
        let failed = |e: std::io::Error| CliError::usage(format!("{}: {e}", picture.display()));
        if !is_picture(picture) {
            let shown = picture.display();
            return Err(CliError::usage(format!(
                "--picture {shown}: expected a .png, .jpg or .webp"
            )));
        }
        let bytes = std::fs::read(picture).map_err(failed)?;
        let name = picture.file_name().unwrap_or_default().to_string_lossy().into_owned();
        output_file::write(disk, &folder.join(&name), |out| out.write_all(&bytes))?;
        Ok(name)
    };
    pictures.iter().map(copy).collect()
}

/// What the folder says of the model.
struct Card<'a> {
    checkpoint: &'a Checkpoint,
    metadata: Option<Metadata>,
    pictures: Vec<String>,
    folder: &'a Path,
}

impl Card<'_> {
    fn config(&self) -> Value {
        let header = self.checkpoint.header();
        json!({
            "library_name": "burn-pipe",
            "model_type": self.architecture(),
            "model_config": header.model_config,
            "classes": class_names(self.checkpoint),
        })
    }

    fn architecture(&self) -> &str {
        self.checkpoint.header().model_config["arch"].as_str().unwrap_or("diffit")
    }

    /// The checkpoint as the run's list has it.
    fn record(&self) -> Option<&CheckpointRecord> {
        let metadata = self.metadata.as_ref()?;
        let epoch = self.checkpoint.header().epoch;
        let best = metadata.best_checkpoint.iter();
        metadata.checkpoints.iter().chain(best).find(|record| record.epoch == epoch)
    }

    fn metrics(&self) -> &BTreeMap<String, f64> {
        self.record().map_or(&self.checkpoint.header().metrics, |record| &record.metrics)
    }

    fn name(&self) -> String {
        let folder = self.folder.file_name().map(|name| name.to_string_lossy().into_owned());
        folder.unwrap_or_else(|| "model".to_owned())
    }

    /// The head of the card, for the hub: YAML, of which JSON is a part.
    ///
    /// Keys of "Model Cards" in the documentation of the Hugging Face Hub.
    fn front_matter(&self) -> String {
        let source = self.metadata.as_ref().map_or("unknown", |m| m.dataset.source.as_str());
        let metric =
            |(name, value): (&String, &f64)| json!({"type": name, "name": name, "value": value});
        let results = json!([{
            "task": {"type": "unconditional-image-generation"},
            "dataset": {"type": source, "name": source},
            "metrics": self.metrics().iter().map(metric).collect::<Vec<_>>(),
        }]);
        let index = json!([{"name": self.name(), "results": results}]);
        let tags = json!(["diffusion", "pixel-space", self.architecture()]);
        let index = if self.metrics().is_empty() {
            String::new()
        } else {
            format!("model-index: {index}\n")
        };
        format!(
            "---\nlibrary_name: burn-pipe\npipeline_tag: unconditional-image-generation\ntags: {tags}\n{index}---\n"
        )
    }

    fn to_markdown(&self) -> String {
        let header = self.checkpoint.header();
        let mut card = format!("{}\n# {}\n", self.front_matter(), self.name());
        let mut add = |text: String| card.push_str(&format!("\n{text}\n"));
        let classes = class_names(self.checkpoint);
        let of = if classes.is_empty() { String::new() } else { format!(" of {}", list(&classes)) };
        add(format!("A diffusion model that draws pictures{of}."));
        if let Some(base) = header.extra.get(BASE_DIGEST) {
            add(format!("Weights of LoRA are folded into their base model, checkpoint `{base}`."));
        }
        self.pictures
            .iter()
            .for_each(|name| add(format!("![Pictures drawn by the model]({name})")));
        let sample =
            CommandLine::new(["pipe", "sample", HUB_WEIGHTS, "--n", "16", "-o", "samples.png"]);
        add(format!("## Use\n\n```sh\npip install burn-pipe\n{sample}\n```"));
        if let Some(m) = &self.metadata {
            let data = &m.dataset;
            add(format!(
                "## Training data\n\n`{}`: {} training images and {} for validation, {} classes. Digest of their content: `{}`.",
                data.source,
                data.train_images,
                data.validation_images,
                data.classes.len(),
                data.digest
            ));
        }
        if !self.metrics().is_empty() {
            let rows = self
                .metrics()
                .iter()
                .map(|(name, value)| format!("| {name} | {} |", table::number(*value)));
            let rows = rows.collect::<Vec<_>>().join("\n");
            add(format!(
                "## Metrics\n\nAt the end of epoch {}, step {}.\n\n| metric | value |\n|---|---|\n{rows}",
                header.epoch, header.global_step
            ));
        }
        if let Some(m) = &self.metadata {
            let rows = m
                .manifest
                .iter()
                .map(|(key, value)| format!("| `{key}` | `{}` |", table::value(Some(value))));
            add(format!(
                "## Settings\n\n| setting | value |\n|---|---|\n{}",
                rows.collect::<Vec<_>>().join("\n")
            ));
        }
        add(self.provenance());
        card
    }

    fn provenance(&self) -> String {
        let header = self.checkpoint.header();
        let digest = files::digest(self.checkpoint);
        let mut lines = vec![
            "## Provenance\n".to_owned(),
            format!(
                "- Checkpoint: `{digest}`, written {}",
                header.saved_at.format("%Y-%m-%d %H:%M UTC")
            ),
            format!(
                "- Identity of the training, a digest of all that decides its result: `{}`",
                header.identity
            ),
            format!("- Seed: {}", header.seed),
        ];
        if let Some(m) = &self.metadata {
            let commit =
                m.git_commit.as_ref().map(|commit| format!(", project at commit `{commit}`"));
            lines.push(format!(
                "- pipe {} on {}{}",
                m.version,
                m.device,
                commit.unwrap_or_default()
            ));
            lines.push(format!(
                "- Pipeline `{}`, stage `{}`, run {}",
                m.pipeline, m.stage, m.run_number
            ));
        }
        lines.join("\n")
    }
}

/// The first few names of a list.
fn list(names: &[String]) -> String {
    const MOST: usize = 10;
    let shown = names.iter().take(MOST).cloned().collect::<Vec<_>>().join(", ");
    match names.len().saturating_sub(MOST) {
        0 => shown,
        more => format!("{shown} and {more} more classes"),
    }
}
