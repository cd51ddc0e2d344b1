//! The image grids that a training leaves on its way.

use pipe_core::progress::Event;
use pipe_engine::kind::StageError;
use pipe_fs::atomic;
use pipe_trainer::shown;

use super::super::settings::TrainingSettings;
use super::super::train_state::TrainState;
use super::super::training_context::{Position, TrainingContext};
use super::Recorder;
use crate::sampling::{Format, GridRequest, ModelView};

/// An image grid of a training, by when it is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SampleGrid {
    /// At an epoch's end, and the optimizer step of that.
    Epoch(u64, u64),
    /// At an optimizer step.
    Step(u64),
}

impl SampleGrid {
    /// The grid that a training leaves at a position, if it does.
    pub fn at(settings: &TrainingSettings, position: &Position) -> Option<Self> {
        let Position { epoch, global_step, step_in_epoch, .. } = *position;
        let is_due = |every: Option<u64>, count: u64| {
            count > 0 && every.is_some_and(|n| count.is_multiple_of(n))
        };
        if step_in_epoch == 0 && is_due(settings.sample_every_n_epochs, epoch) {
            Some(Self::Epoch(epoch, global_step))
        } else {
            is_due(settings.sample_every_n_steps, global_step).then_some(Self::Step(global_step))
        }
    }

    /// Its file, from the run's folder.
    fn path(self) -> String {
        match self {
            Self::Epoch(epoch, _) => format!("samples/epoch_{epoch:03}.png"),
            Self::Step(step) => format!("samples/step_{step:08}.png"),
        }
    }

    fn when(self) -> String {
        match self {
            Self::Epoch(epoch, _) => format!("epoch {epoch}"),
            Self::Step(step) => format!("step {step}"),
        }
    }

    /// Optimizer steps that were done.
    fn step(self) -> u64 {
        match self {
            Self::Epoch(_, step) | Self::Step(step) => step,
        }
    }
}

impl Recorder<'_> {
    /// Samples an image grid, if it is not there. `false`: it was asked to stop before it was.
    pub fn sample_if_missing(
        &mut self,
        grid: SampleGrid,
        state: &TrainState,
        training: &TrainingContext,
    ) -> Result<bool, StageError> {
        if self.run.folder.join(grid.path()).is_file() {
            Ok(true)
        } else {
            self.sample(grid, state, training)
        }
    }

    /// Samples some images of each class, and shows them in TensorBoard. `false`: it was asked to
    /// stop before they were sampled.
    pub fn sample(
        &mut self,
        grid: SampleGrid,
        state: &TrainState,
        training: &TrainingContext,
    ) -> Result<bool, StageError> {
        let title = format!("{}, {}", self.experiment, grid.when());
        let path = grid.path();
        let (seed, batch_size) = (self.settings.seed, self.settings.batch_size);
        let conditional = training.config.num_classes() > 0;
        let (request, part) =
            GridRequest::for_epoch(&title, &self.model_info.classes, conditional, seed, batch_size);
        let device = training.device.clone().inner();
        let going_on = |_, _| self.context.stop.requested().is_none();
        let (net, class_names) = (&state.weights(), &self.model_info.classes[..]);
        let model = ModelView { net, guide: None, config: training.config, class_names };
        let sampled = request.sample(model, &device, going_on)?;
        let Some(sampled) = sampled else { return Ok(false) };
        let image = sampled.render();
        let (size, png) = ([image.width(), image.height()], Format::Png.encode(&image)?);
        let file = self.run.folder.join(&path);
        file.parent().map_or(Ok(()), |above| atomic::create_folder(self.run.disk(), above))?;
        // Sampled again unless the file stands.
        self.events.image(grid.step(), "samples", size, &png)?;
        self.events.log().sync()?;
        atomic::write(self.run.disk(), &file, |out| out.write_all(&png))?;
        let part = part.map(|part| format!(": {part}")).unwrap_or_default();
        let text = format!("Sampled {}{part}", shown(&file, self.context));
        self.context.event(Event::Message { text });
        Ok(true)
    }
}
