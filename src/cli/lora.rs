//! `pipe lora layers FILE`

use std::path::PathBuf;

use pipe_models::architecture::Architectures;
use pipe_models::lora::LoraConfig;
use pipe_train::checkpoint::LoraLayers;

use super::{CliError, ExitCode, files};
use crate::report::stdout::say;
use crate::report::table;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe lora layers checkpoints/base_training/run_001\n  pipe lora layers --preset unet_small --target-modules qkv,proj --r 16\n  pipe lora layers checkpoints/lora/run_001/adapter --json"
)]
pub struct LoraArguments {
    #[command(subcommand)]
    command: LoraCommand,
}

#[derive(clap::Subcommand)]
enum LoraCommand {
    /// List the layers that LoRA puts factors beside: name, type, shape, rank, parameters
    #[command(group = clap::ArgGroup::new("of").required(true))]
    Layers {
        /// A checkpoint of a base model or of LoRA, an adapter's folder, or a run's folder or name
        #[arg(group = "of")]
        file: Option<PathBuf>,
        /// A new model of this size instead: diffit_tiny, diffit_small, diffit_cifar10, unet_tiny,
        /// unet_small, unet_cifar10
        #[arg(long, group = "of", value_name = "NAME")]
        preset: Option<String>,
        /// Side of the images of that model in pixels
        #[arg(long, default_value_t = 32, value_name = "PIXELS", requires = "preset", value_parser = clap::value_parser!(u32).range(8..=1024))]
        image_size: u32,
        /// Names as in the settings of a `lora` stage; all layers that can have factors if unset
        #[arg(long, value_name = "NAMES", value_delimiter = ',')]
        target_modules: Vec<String>,
        /// Rank of the factors
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        r: Option<u32>,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
}

pub fn lora(arguments: LoraArguments, known: &Architectures) -> Result<ExitCode, CliError> {
    let LoraCommand::Layers { file, preset, image_size, target_modules, r, json } =
        arguments.command;
    let is_chosen = !target_modules.is_empty() || r.is_some();
    let defaults = LoraConfig::default();
    let config = LoraConfig { target_modules, r: r.map_or(defaults.r, |r| r as usize), ..defaults };
    let found = if let Some(preset) = preset {
        let Some(arch) = known.of_preset(&preset) else {
            let known = known.presets().join(", ");
            let text = format!("invalid value '{preset}' for '--preset <NAME>': expected {known}");
            return Err(CliError::usage(text));
        };
        LoraLayers::of_preset(arch, &preset, image_size as usize, &config)
    } else {
        let typed = file.unwrap_or_default();
        let adapter = files::adapter(&typed);
        let is_adapter = files::is_adapter(&adapter);
        let file = if is_adapter { adapter } else { files::checkpoint_or_run(&typed)? };
        LoraLayers::of_file(known, &file, &config, is_chosen)
    };
    let found = found.map_err(CliError::usage)?;
    if json {
        say!("{:#}", to_json(&found))
    } else {
        show(&found)
    }
    Ok(ExitCode::SUCCESS)
}

/// Share of the model's parameters that is trained.
fn share(found: &LoraLayers) -> Option<f64> {
    found.parameters().map(|all| found.trainable() as f64 / all.max(1) as f64)
}

fn to_json(found: &LoraLayers) -> serde_json::Value {
    serde_json::json!({
        "layers": found.layers,
        "trained_in_full": found.in_full.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "trainable": found.trainable(),
        "parameters": found.parameters(),
        "share": share(found),
    })
}

fn show(found: &LoraLayers) {
    let rows: Vec<Vec<String>> = found
        .layers
        .iter()
        .map(|layer| {
            vec![
                layer.name.clone(),
                layer.kind.name().to_owned(),
                format!("{:?}", layer.shape),
                layer.rank.to_string(),
                layer.parameters.to_string(),
            ]
        })
        .collect();
    say!("{}", table::table(&["Layer", "Type", "Shape", "Rank", "Parameters"], &rows));
    for (name, count) in &found.in_full {
        say!("\n{name} is trained in full: {count} parameters");
    }
    let of = found.parameters().zip(share(found));
    let of = of.map(|(all, share)| format!(" of {all} ({:.2}%)", 100.0 * share));
    let (count, trainable) = (found.layers.len(), found.trainable());
    say!("\n{count} layers, {trainable} parameters{}", of.unwrap_or_default());
}
