//! The pipeline file of a proposal.

use super::pictures::Pictures;
use super::proposal::{Known, Proposal, Shapes};

/// All that the file says.
pub struct Written<'a> {
    /// Of the pipeline; a plain word.
    pub name: &'a str,
    pub pictures: &'a Pictures,
    pub shapes: Shapes,
    pub known: &'a Known,
    pub proposal: &'a Proposal,
    pub val_split: f64,
}

impl Written<'_> {
    pub fn text(&self) -> String {
        let Self { name, known, .. } = self;
        let images = known.train + known.validation;
        let (data, base, picture) = (self.data(), self.base(), self.picture());
        format!(
            "# yaml-language-server: $schema=../schemas/pipeline.schema.json
# A small U-Net on {images} pictures. What each key means: `pipe schema dataset`, `pipe schema train`.
#
#   pipe data pipelines/{name}.yaml -o sheet.png     # what the model will see
#   pipe run pipelines/{name}.yaml                   # stopped in any way, the same command goes on
#
# The rate falls until the last epoch, so that another number of epochs is another training.
name: {name}

stages:
{data}
{base}
{picture}"
        )
    }

    fn data(&self) -> String {
        let Self { pictures, shapes, known, .. } = self;
        let mut lines = vec![
            "  data:".to_owned(),
            "    kind: dataset".to_owned(),
            "    source: image_folder".to_owned(),
            format!("    root: {}", quoted(&pictures.root)),
            format!("    image_size: {}", known.image_size),
        ];
        if pictures.recursive {
            lines.push(noted("recursive: true", "the folders below those of the classes"));
        }
        if let Some(classes) = pictures.chosen_classes() {
            let names: Vec<String> = classes.iter().map(|name| quoted(name)).collect();
            lines.push(format!("    classes: [{}]", names.join(", ")));
        }
        if shapes.is_long() {
            lines.push(noted("fit: pad", "all of a picture between bars; crop takes its centre"));
        } else if shapes.cut > 0.0 {
            let why = "all of a picture between bars; without it the centre is cut out";
            lines.push(noted("# fit: pad", why));
        }
        if self.val_split > 0.0 {
            let why =
                format!("{} pictures to judge by, which are not trained on", known.validation);
            lines.push(noted(&format!("val_split: {}", self.val_split), &why));
        }
        lines.push(
            "    # Mirrored pictures are new ones, unless left and right matter, as in letters:"
                .to_owned(),
        );
        lines.push("    # augmentation: { enabled: true, horizontal_flip: true }".to_owned());
        lines.join("\n") + "\n"
    }

    fn base(&self) -> String {
        let Self { name, known, proposal: p, .. } = self;
        let unconditional = if known.classes == 0 { ", class_conditional: false" } else { "" };
        let monitor = if known.validation > 0 { "val_loss" } else { "train_loss" };
        format!(
            "  base:
    kind: train
    dataset: data
    model: {{ arch: unet, preset: unet_tiny, dim: {dim}{unconditional} }}
{epochs}
    batch_size: {batch}
    learning_rate: {rate:.1e}
    optimizer: {{ betas: [0.9, 0.99] }}
    schedule: {{ kind: cosine, warmup_steps: {warmup}, min_lr_ratio: 0.05 }}
    ema: {{ decay: {ema} }}
    sample_every_n_epochs: {sample}
    checkpoint: {{ base_dir: checkpoints/{name}, monitor: {monitor}, save_every_n_epochs: {save} }}
",
            dim = p.dim,
            epochs = noted(&format!("epochs: {}", p.epochs), &format!("{} steps", p.total_steps())),
            batch = p.batch_size,
            rate = p.learning_rate,
            warmup = p.warmup_steps,
            ema = p.ema,
            sample = p.sample_every,
            save = p.save_every,
        )
    }

    fn picture(&self) -> String {
        let Self { name, known, proposal, .. } = self;
        let guidance = if known.classes > 0 { "    guidance: 2.0\n" } else { "" };
        let n = proposal.n;
        format!(
            "  picture:
    kind: sample
    from: base
    to: samples/{name}.png
    n: {n}
{guidance}"
        )
    }
}

/// A setting with a remark behind it, in the column of all remarks.
fn noted(setting: &str, remark: &str) -> String {
    format!("    {setting:<24} # {remark}")
}

/// Text as YAML reads it back, whatever is in it.
fn quoted(text: &str) -> String {
    let is_plain = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c))
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"]
            .contains(&text.to_lowercase().as_str());
    if is_plain {
        return text.to_owned();
    }
    // JSON leaves some characters as they are that YAML does not take.
    let json = serde_json::Value::from(text).to_string();
    let escaped = |c: char| match c {
        c if c.is_control() => format!("\\u{:04x}", u32::from(c)),
        c => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn yaml_reads_back_every_text() {
        let all = [
            "a/b",
            "/abs/path.zip",
            "no",
            "a b",
            "x: y",
            "#1",
            "it's",
            "\"",
            "~",
            "1",
            "野菜",
            "a\\b",
            "",
            "\u{7f}\u{85}",
        ];
        for text in all {
            let read: String = serde_yaml::from_str(&quoted(text)).unwrap();
            assert_eq!(read, text);
        }
    }
}
