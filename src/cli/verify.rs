//! `pipe verify [FILE]`

use pipe_engine::store::Runs;
use pipe_engine::store::verify::{self, Damage};
use pipe_train::checkpoint::adapter_damage;
use serde_json::json;

use super::asked::AskedFile;
use super::report::Subject;
use super::{CliError, ExitCode, project};
use crate::report::table;
use crate::say;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe verify\n  pipe verify pipelines/base_to_lora.yaml\n\nExit code 1 if anything is damaged. Changes nothing."
)]
pub struct VerifyArguments {
    #[command(flatten)]
    asked: AskedFile,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn verify(arguments: VerifyArguments) -> Result<ExitCode, CliError> {
    let folders = Subject::of(arguments.asked.asked()?)?.folders()?;
    let mut found = verify::verify(&project::root()?, &folders);
    let runs = folders.iter().flat_map(Runs::list).filter(|run| run.holder().is_none());
    found.damaged.extend(runs.filter_map(|run| adapter_damage(&run)).map(|(path, what)| Damage {
        path,
        what,
        advice: "remove the folder, and `pipe run` makes it again from the best checkpoint",
    }));
    let code = if found.damaged.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) };
    let shown = |path: &std::path::Path| {
        let root = project::root().unwrap_or_default();
        path.strip_prefix(root).unwrap_or(path).display().to_string()
    };
    if arguments.json {
        let damage = |d: &Damage| json!({"path": shown(&d.path), "what": d.what, "advice": d.advice});
        let damaged: Vec<_> = found.damaged.iter().map(damage).collect();
        let all = json!({
            "good": found.good, "bytes": found.bytes, "damaged": damaged, "left_out": found.left_out,
        });
        say!("{all:#}");
        return Ok(code);
    }
    for damage in &found.damaged {
        say!("damaged {}: {}\n  {}", shown(&damage.path), damage.what, damage.advice);
    }
    found.left_out.iter().for_each(|what| say!("left out {what}"));
    let good = format!("{} files are as they were noted, {}", found.good, table::bytes(found.bytes));
    match found.damaged.len() {
        0 => say!("{good}"),
        1 => say!("{good}; 1 is not"),
        n => say!("{good}; {n} are not"),
    }
    Ok(code)
}
