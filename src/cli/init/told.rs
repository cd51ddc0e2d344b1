//! What `pipe init --images` says: what it found, what it proposes and why.

use std::fs::DirEntry;

use pipe_core::number_text::plural;
use pipe_train::data::BadImage;

use super::pictures::{Opened, Pictures};
use super::proposal::{Known, Proposal, Shapes};
use crate::report::progress_line::duration;

/// Names that are shown of many.
const SHOWN: usize = 6;
/// Pictures of a class from which on a training is worth its time.
const FEW: usize = 20;
/// Epochs of the shipped pipeline for pictures of one's own.
const USUAL: usize = 50;

/// What there is of the pictures.
pub fn found(name: &str, pictures: &Pictures, shapes: &Shapes, opened: &Opened) -> String {
    let classes: Vec<_> = pictures.survey.classes.iter().filter(|c| c.images > 0).collect();
    let count: usize = classes.iter().map(|class| class.images).sum();
    let mut first =
        format!("{name}: {} in {}", counted(count, "picture"), pictures.place.display());
    if classes.len() > 1 {
        let names: Vec<String> =
            classes.iter().take(SHOWN).map(|c| format!("{} ({})", c.name, c.images)).collect();
        let more = if classes.len() > SHOWN { ", …" } else { "" };
        first.push_str(&format!(", {} classes: {}{more}", classes.len(), names.join(", ")));
    }
    let Shapes { smallest, median, largest, .. } = shapes;
    let sides = if smallest == largest {
        smallest.to_string()
    } else {
        format!("{smallest} to {largest}, half of them {median} or more,")
    };
    let kind = if shapes.has_photographs { "photographs" } else { "drawings or the like" };
    let mut lines = vec![
        first,
        format!("  {kind}; pixels of the shorter side: {sides}").trim_end_matches(',').to_owned(),
    ];
    if !shapes.is_long() && shapes.cut > 0.0 {
        let percent = (100.0 * shapes.cut).ceil();
        lines.push(format!(
            "  {percent} % of them lose a third or more, since their centre is cut out; `fit: pad` keeps all of a picture"
        ));
    }
    if pictures.recursive
        && let Some((class, folders)) =
            classes.iter().find_map(|class| below(pictures, &class.name))
    {
        lines.push(format!(
            "  {class} holds {folders} folders, whose pictures are of one class here; if these are the classes, name {}",
            pictures.place.join(class).display()
        ));
    }
    if !pictures.survey.skipped.is_empty() {
        lines.push(format!("  passed over: {}", pictures.survey.skipped));
    }
    let empty: Vec<&str> = pictures
        .survey
        .classes
        .iter()
        .filter(|class| class.images == 0)
        .map(|class| class.name.as_str())
        .collect();
    if !empty.is_empty() {
        let shown = empty[..empty.len().min(SHOWN)].join(", ");
        let more = if empty.len() > SHOWN { ", …" } else { "" };
        lines.push(format!("  folders without pictures, left out: {shown}{more}"));
    }
    lines.extend(bad(&opened.bad, pictures));
    if !opened.is_complete {
        lines.push(
            "  a minute was not enough to look into all of them; the first run does".to_owned(),
        );
    }
    let smallest = classes.iter().min_by_key(|class| class.images);
    if let Some(smallest) = smallest.filter(|class| class.images < FEW) {
        let of = match classes.len() {
            1 => "there are".to_owned(),
            _ => format!("the smallest class, {}, has", smallest.name),
        };
        lines.push(format!(
            "  {of} few pictures, {}: a model learns them by heart and draws little else. {FEW} are a beginning, a few hundred are better",
            smallest.images
        ));
    }
    // Names of files may hold what moves a terminal's cursor.
    lines
        .iter()
        .map(|line| line.replace(char::is_control, "\u{fffd}"))
        .collect::<Vec<_>>()
        .join("\n")
}

/// A class whose folder holds several folders, and how many.
fn below<'a>(pictures: &Pictures, class: &'a str) -> Option<(&'a str, usize)> {
    let entries = std::fs::read_dir(pictures.place.join(class)).ok()?;
    let is_folder = |entry: &DirEntry| {
        !entry.file_name().to_string_lossy().starts_with('.') && entry.path().is_dir()
    };
    let folders = entries.flatten().filter(is_folder).count();
    (folders > 1).then_some((class, folders))
}

fn bad(bad: &[BadImage], pictures: &Pictures) -> Vec<String> {
    if bad.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![format!(
        "  {} cannot be read; no run begins until they are replaced or removed:",
        counted(bad.len(), "picture")
    )];
    lines
        .extend(bad.iter().take(SHOWN).map(|image| format!("    {}", image.line(&pictures.place))));
    if let Some(more) = bad.len().checked_sub(SHOWN).filter(|more| *more > 0) {
        lines.push(format!("    and {more} more"));
    }
    lines
}

/// What is proposed, each with its reason.
pub fn proposed(known: &Known, shapes: &Shapes, p: &Proposal) -> String {
    let size = known.image_size;
    let size_reason = match (known.has_gpu, size < shapes.median as usize) {
        (false, true) => format!(
            "what a CPU learns in hours; {} px would take four times as long a step",
            2 * size
        ),
        (true, true) => "what a GPU learns in hours".to_owned(),
        (_, false) => "about the size of the pictures".to_owned(),
    };
    let aside = match known.validation {
        0 => "so few pictures are all needed; the best checkpoint is the one with the lowest train_loss".to_owned(),
        count => format!(
            "{} kept aside: the best checkpoint is the one that knows those best",
            if count == 1 { "1 picture is".to_owned() } else { format!("{} pictures are", grouped(count)) }
        ),
    };
    let total = p.total_steps();
    let usual = USUAL * p.steps;
    let few = if 2 * usual < total {
        format!(
            "{} steps; {USUAL} epochs would be {}, which are few",
            grouped(total),
            grouped(usual)
        )
    } else {
        format!("{} steps", grouped(total))
    };
    let rows = [
        (format!("image_size {size}"), size_reason),
        (
            format!("unet_tiny, dim {}", p.dim),
            "the model that learned most in the same time".to_owned(),
        ),
        (format!("batch_size {}", p.batch_size), format!("{} an epoch", counted(p.steps, "step"))),
        (format!("epochs {}", p.epochs), few),
        (format!("val_split {}", if known.validation > 0 { "0.1" } else { "0" }), aside),
    ];
    let width = rows.iter().map(|(what, _)| what.len()).max().unwrap_or(0);
    let lines: Vec<String> =
        rows.iter().map(|(what, why)| format!("  {what:width$}  {why}")).collect();
    format!("proposed:\n{}", lines.join("\n"))
}

/// How long it takes, where a step was timed on a device.
pub fn time(proposal: &Proposal, known: &Known, step: Option<&(f64, String)>) -> String {
    let Some((step, device)) = step else {
        return "how long it takes could not be measured".to_owned();
    };
    let all = duration(proposal.seconds(known, *step));
    format!("it takes about {all} on {device}: {step:.2} s a step, as the first few took just now")
}

/// A count with its thousands apart, and what is counted.
fn counted(n: usize, what: &str) -> String {
    format!("{} {}", grouped(n), plural(&n, what))
}

/// A number with its thousands apart.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_stand_apart() {
        assert_eq!([7, 1000, 12_345_678].map(grouped), ["7", "1,000", "12,345,678"]);
    }
}
