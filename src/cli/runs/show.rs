//! `pipe runs show N`

use pipe_runs::{Labels, Runs};

use super::curve;
use super::entry::Entry;
use super::named::{self, Name, one};
use super::summary::{best, monitor};
use crate::cli::CliError;
use crate::report::stdout::say;
use crate::report::table;

pub(super) fn show(folders: &[Runs], name: &Name, curve: bool, json: bool) -> Result<(), CliError> {
    let run = one(folders, name)?;
    let m = run.current_metadata().map_err(CliError::failed)?;
    let labels = Labels::load(&run).map_err(CliError::failed)?;
    if json {
        let mut all = named::all(folders).into_iter();
        let own = all.find(|(_, other)| other.folder == run.folder);
        let name = own.map_or_else(|| run.number.0.to_string(), |(name, _)| name);
        say!("{:#}", Entry { run, name, known: Ok(m), labels }.to_json());
        return Ok(());
    }
    say!("Run {}: {}", run.number, m.experiment_name);
    say!("directory   {}", run.folder.display());
    say!(
        "status      {}{}",
        m.status.name(),
        m.message.as_ref().map(|t| format!(" ({t})")).unwrap_or_default()
    );
    say!("created     {}", table::time(&m.created_at));
    say!("updated     {}", table::time(&m.updated_at));
    say!("stage       {} of {}", m.stage, m.pipeline);
    say!("device      {}", m.device);
    let (train, validation) = (m.dataset.train_images, m.dataset.validation_images);
    if train > 0 {
        let images = format!("{train} training and {validation} validation images");
        say!("data        {}, {images}, {} classes", m.dataset.source, m.dataset.classes.len());
    }
    if let Some(note) = &labels.note {
        say!("note        {note}");
    }
    if !labels.tags.is_empty() {
        say!("tags        {}", labels.shown_tags());
    }
    say!("seed        {}", m.seed);
    say!("identity    {}", m.identity);
    for change in &m.changes {
        say!("changed     {} ({})", change.in_words(), table::time(&change.at));
    }
    if let Some(commit) = &m.git_commit {
        say!("git commit  {commit}");
    }
    if let (Some(record), Some(value)) = (&m.best_checkpoint, best(&m)) {
        say!(
            "best        {} {} at epoch {}: {}",
            monitor(&m),
            table::number(value),
            record.epoch,
            run.best().display()
        );
    }
    let rows: Vec<Vec<String>> = m
        .history
        .iter()
        .map(|e| {
            let saved =
                m.checkpoints.iter().find(|c| c.epoch == e.epoch).map(|c| table::bytes(c.bytes));
            vec![
                e.epoch.to_string(),
                table::metrics(&e.metrics),
                format!("{:.1}", e.seconds),
                if e.images_per_second > 0.0 {
                    format!("{:.0}", e.images_per_second)
                } else {
                    String::new()
                },
                saved.unwrap_or_default(),
            ]
        })
        .collect();
    say!("\n{}", table::table(&["Epoch", "Metrics", "Seconds", "Images/s", "Checkpoint"], &rows));
    if curve {
        say!("\n{}", curve::plots(&m));
    }
    Ok(())
}
