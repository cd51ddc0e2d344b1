//! The stage kind `trainer`.

use std::sync::Arc;

use figment::Figment;
use pipe_engine::command::{check_program, learn_environment};
use pipe_engine::kind::{ArtifactType, Rejection, Stage, StageKind};

use super::settings::TrainerSettings;
use super::stage::TrainerStage;
use crate::artifacts::CHECKPOINT;

/// The kind `trainer`.
pub struct TrainerKind;

impl StageKind for TrainerKind {
    fn name(&self) -> &'static str {
        "trainer"
    }

    fn length(&self) -> Option<&'static str> {
        Some("epochs")
    }

    fn makes(&self) -> ArtifactType {
        CHECKPOINT
    }

    fn schema(&self) -> schemars::Schema {
        schemars::schema_for!(TrainerSettings)
    }

    fn policies(&self) -> &'static [&'static str] {
        &["checkpoint"]
    }

    fn resolve(&self, settings: &Figment) -> Result<Arc<dyn Stage>, Rejection> {
        learn_environment(settings);
        let text = "a program decides itself what its epochs do: `then` is for `train` and `lora`. Hand it over below \
                    `settings`, if the program knows such a thing";
        Rejection::if_unused("then", settings.find_value("then").is_ok(), text)?;
        let settings: TrainerSettings = settings.extract()?;
        let TrainerSettings { run, env, working_dir, checkpoint, epochs, .. } = &settings;
        check_program(run, &settings.inputs, env, working_dir.as_deref())?;
        Rejection::unless("epochs", *epochs > 0, "at least 1")?;
        if let Some(file) = settings.init_file() {
            check_program(run, &[file.to_owned()], env, None)
                .map_err(|_| Rejection::value("init", "expected a path inside the project"))?;
        }
        if let Err(wrong) = checkpoint.validate() {
            return Err(Rejection::value(format!("checkpoint.{}", wrong.key), wrong.message));
        }
        if let Some(Err(wrong)) =
            settings.early_stopping.as_ref().map(|rule| rule.validate(checkpoint))
        {
            return Err(Rejection::value(format!("early_stopping.{}", wrong.key), wrong.message));
        }
        Rejection::unless("max_steps", settings.max_steps != Some(0), "at least 1")?;
        let has_time = settings.max_time.is_none_or(|max| !max.0.is_zero());
        Rejection::unless("max_time", has_time, "a time above 0")?;
        let has_time = settings.budget.is_none_or(|budget| !budget.0.is_zero());
        Rejection::unless("budget", has_time, "a time above 0")?;
        let no_file = checkpoint.resume_checkpoint.is_none();
        let expected = "`init` for a file that a training of a program begins from";
        Rejection::unless("checkpoint.resume_checkpoint", no_file, expected)?;
        Ok(Arc::new(TrainerStage::new(settings)))
    }
}
