//! The pipelines that `pipe init` writes.

use std::path::Path;

use clap::ValueEnum;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Template {
    /// A base model on drawn shapes
    Base,
    /// A base model, LoRA fine-tuning, image grids from both
    Chain,
    /// A base model on a folder of your own images
    Folder,
    /// Three learning rates side by side, and the best of them
    Sweep,
    /// DiffiT on drawn shapes, in the place of the U-Net
    Diffit,
    /// CIFAR-10, and LoRA on the trees of CIFAR-100
    Cifar,
}

/// The template that writes a pipeline file of this name, if one does.
pub fn template_of(file: &Path) -> Option<String> {
    let writes = |template: &&Template| {
        let shipped = Path::new(template.shipped().file);
        shipped == file || shipped.file_name() == Some(file.as_os_str())
    };
    let template = Template::value_variants().iter().find(writes)?;
    Some(template.to_possible_value()?.get_name().to_owned())
}

/// A pipeline file of ours.
pub struct Shipped {
    pub file: &'static str,
    pub text: &'static str,
    /// What is to be done before its first run, if anything.
    pub first: &'static str,
}

impl Shipped {
    /// One that needs nothing before its first run.
    const fn plain(file: &'static str, text: &'static str) -> Self {
        Self { file, text, first: "" }
    }
}

impl Template {
    pub fn shipped(self) -> Shipped {
        match self {
            Template::Sweep => {
                Shipped::plain("pipelines/sweep.yaml", include_str!("../../pipelines/sweep.yaml"))
            }
            Template::Diffit => {
                Shipped::plain("pipelines/diffit.yaml", include_str!("../../pipelines/diffit.yaml"))
            }
            Template::Cifar => Shipped::plain(
                "pipelines/cifar_to_trees.yaml",
                include_str!("../../pipelines/cifar_to_trees.yaml"),
            ),
            Template::Base => Shipped::plain(
                "pipelines/base_training.yaml",
                include_str!("../../pipelines/base_training.yaml"),
            ),
            Template::Chain => Shipped::plain(
                "pipelines/base_to_lora.yaml",
                include_str!("../../pipelines/base_to_lora.yaml"),
            ),
            Template::Folder => Shipped {
                file: "pipelines/image_folder.yaml",
                text: include_str!("../../pipelines/image_folder.yaml"),
                first: "put your images into data/my_images/CLASS/, a folder for each class, or all into data/my_images/\n",
            },
        }
    }
}
