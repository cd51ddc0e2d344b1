//! The image grids that a training leaves on its way.

use std::path::PathBuf;

use pipe_core::progress::Event;
use pipe_engine::kind::StageError;
use pipe_fs::atomic;

use super::super::train_state::TrainState;
use super::super::training_context::{Position, TrainingContext};
use super::Recorder;
use crate::sampling::{Format, GridRequest};

impl Recorder<'_> {
    /// Samples the image grid of an epoch that ended, if it is not there. `false`: it was asked to
    /// stop before it was.
    pub fn sample_if_missing(
        &mut self,
        position: &Position,
        state: &TrainState,
        training: &TrainingContext,
    ) -> Result<bool, StageError> {
        if self.samples_path(position).is_file() {
            Ok(true)
        } else {
            self.sample_epoch(position, state, training)
        }
    }

    /// The image grid of an epoch.
    fn samples_path(&self, position: &Position) -> PathBuf {
        self.run.folder.join(format!("samples/epoch_{:03}.png", position.epoch))
    }

    /// Samples some images of each class as `samples/epoch_NNN.png`, and shows them in TensorBoard.
    /// `false`: it was asked to stop before they were sampled.
    pub fn sample_epoch(
        &mut self,
        position: &Position,
        state: &TrainState,
        training: &TrainingContext,
    ) -> Result<bool, StageError> {
        let title = format!("{}, epoch {}", self.experiment, position.epoch);
        let (seed, batch_size) = (self.settings.seed, self.settings.batch_size);
        let conditional = training.config.num_classes() > 0;
        let (request, part) =
            GridRequest::for_epoch(&title, &self.model_info.classes, conditional, seed, batch_size);
        let device = training.device.clone().inner();
        let going_on = |_, _| self.context.stop.requested().is_none();
        let sampled = request.sample(
            &state.weights(),
            training.config,
            &self.model_info.classes,
            &device,
            going_on,
        )?;
        let Some(grid) = sampled else { return Ok(false) };
        let grid = grid.render();
        let (size, png) = ([grid.width(), grid.height()], Format::Png.encode(&grid)?);
        let file = self.samples_path(position);
        file.parent().map_or(Ok(()), atomic::create_folder)?;
        // Sampled again unless the file stands.
        self.events.image(position.global_step, "samples", size, &png)?;
        self.events.log().sync()?;
        atomic::write(&file, |out| out.write_all(&png))?;
        let part = part.map(|part| format!(": {part}")).unwrap_or_default();
        let text = format!("Sampled samples/epoch_{:03}.png{part}", position.epoch);
        self.context.event(Event::Message { text });
        Ok(true)
    }
}
