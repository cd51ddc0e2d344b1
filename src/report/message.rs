//! Errors and warnings: for people in colour, with `--log json` as lines for programs.

use std::sync::OnceLock;

use serde_json::json;

use super::{stderr, style};
use crate::cli::{LogFormat, Output};

#[derive(Clone, Copy)]
struct Manner {
    json: bool,
    quiet: bool,
}

static MANNER: OnceLock<Manner> = OnceLock::new();

/// Says once how messages are to be shown.
pub fn start(output: &Output) {
    let manner = Manner { json: output.log == LogFormat::Json, quiet: output.quiet };
    MANNER.get_or_init(|| manner);
}

fn manner() -> Manner {
    MANNER.get().copied().unwrap_or(Manner { json: false, quiet: false })
}

/// What ended the program.
pub fn error(text: &str) {
    show("error", style::ERROR, text);
}

/// Something legal and probably not meant.
pub fn warning(text: &str) {
    if !manner().quiet {
        show("warning", style::WARNING, text);
    }
}

/// Something good to know, without a word before it.
pub fn note(text: &str) {
    match manner() {
        Manner { quiet: true, .. } => {}
        Manner { json: true, .. } => show("note", style::STRONG, text),
        Manner { json: false, .. } => stderr::line(text),
    }
}

fn show(label: &str, painted: anstyle::Style, text: &str) {
    match manner().json {
        true => {
            let time = chrono::Utc::now().to_rfc3339();
            stderr::line(json!({"event": label, "text": text, "time": time}).to_string());
        }
        false => stderr::line(style::message(label, painted, text)),
    }
}
