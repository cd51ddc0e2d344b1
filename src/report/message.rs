//! Errors and warnings: for people in colour, with `--log json` as lines for programs.

use std::sync::OnceLock;

use serde_json::json;

use super::{LogFormat, Output, stderr, style};

#[derive(Clone, Copy)]
struct MessageFormat {
    json: bool,
    quiet: bool,
}

static FORMAT: OnceLock<MessageFormat> = OnceLock::new();

/// Says once how messages are to be shown.
pub fn init(output: &Output) {
    let format = MessageFormat { json: output.log == LogFormat::Json, quiet: output.quiet };
    FORMAT.get_or_init(|| format);
}

fn format() -> MessageFormat {
    FORMAT.get().copied().unwrap_or(MessageFormat { json: false, quiet: false })
}

/// What ended the program.
pub fn error(text: &str) {
    show("error", style::ERROR, text);
}

/// Something legal and probably not meant.
pub fn warning(text: &str) {
    if !format().quiet {
        show("warning", style::WARNING, text);
    }
}

/// Something good to know, without a word before it.
pub fn note(text: &str) {
    match format() {
        MessageFormat { quiet: true, .. } => {}
        MessageFormat { json: true, .. } => show("note", style::STRONG, text),
        MessageFormat { json: false, .. } => stderr::line(text),
    }
}

fn show(label: &str, painted: anstyle::Style, text: &str) {
    if format().json {
        let time = chrono::Utc::now().to_rfc3339();
        stderr::line(json!({"event": label, "text": text, "time": time}).to_string());
    } else {
        stderr::line(style::message(label, painted, text))
    }
}
