//! `pipe verify [FILE]`

use std::path::Path;

use pipe_core::shell::CommandLine;
use pipe_fs::ProjectRoot;
use pipe_remote::RepairRecord;
use pipe_runs::{Run, Runs};
use pipe_train::checkpoint::{LoraFile, lora_damage};
use pipe_upkeep::repair::{Repaired, repair};
use pipe_upkeep::verify;
use pipe_upkeep::verify::{Damage, Owner, Verified};
use serde_json::json;

use super::pipeline_args::OptionalPipelineArgs;
use super::report::Subject;
use super::todays_stages::TodaysStages;
use super::{CliError, ExitCode, Kinds, project};
use crate::report::stdout::say;
use crate::report::table;

#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  pipe verify\n  pipe verify pipelines/base_to_lora.yaml\n  pipe verify --repair\n\nExit code 1 if anything is damaged, or could not be repaired. Without --repair nothing is changed."
)]
pub struct VerifyArguments {
    #[command(flatten)]
    args: OptionalPipelineArgs,
    /// Set what is damaged aside, so that the next run makes it again; what somebody holds is left
    /// alone
    #[arg(long)]
    repair: bool,
    /// With --repair: change nothing and say what is damaged, as without it
    #[arg(long, requires = "repair")]
    dry_run: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub fn verify(arguments: VerifyArguments, kinds: &Kinds) -> Result<ExitCode, CliError> {
    let args = arguments.args.pipeline_args()?;
    let file = args.as_ref().map(|args| args.selection.file.clone());
    let subject = Subject::of(args, kinds)?;
    let (folders, root) = (subject.folders()?, subject.root()?);
    let found = look(&folders, &subject.todays_stages(kinds)?)?;
    let repaired =
        (arguments.repair && !arguments.dry_run).then(|| mend(&root, &found)).transpose()?;
    let whole = match &repaired {
        Some(repaired) => repaired.failed.is_empty(),
        None => found.damaged.is_empty(),
    };
    let code = if whole { ExitCode::SUCCESS } else { ExitCode::from(1) };
    if arguments.json {
        let damage =
            |d: &Damage| json!({"path": shown(&d.path), "what": d.what, "advice": d.advice});
        let all = json!({
            "good": found.good,
            "bytes": found.bytes,
            "damaged": found.damaged.iter().map(damage).collect::<Vec<_>>(),
            "shared": found.shared.iter().map(damage).collect::<Vec<_>>(),
            "left_out": found.left_out,
            "nobodys": found.nobodys.iter().map(|path| shown(path)).collect::<Vec<_>>(),
            "repaired": repaired.as_ref().map(|r| json!({
                "set_aside": r.set_aside.iter().map(|(from, to)| json!({"path": shown(from), "now": shown(to)})).collect::<Vec<_>>(),
                "put_in_order": r.put_in_order.iter().map(|path| shown(path)).collect::<Vec<_>>(),
                "separated": r.separated.iter().map(|path| shown(path)).collect::<Vec<_>>(),
                "failed": r.failed,
            })),
        });
        say!("{all:#}");
        return Ok(code);
    }
    for (word, damage) in found
        .damaged
        .iter()
        .map(|d| ("damaged", d))
        .chain(found.shared.iter().map(|d| ("shared", d)))
    {
        say!("{word} {}: {}\n  {}", shown(&damage.path), damage.what, damage.advice);
    }
    found.left_out.iter().for_each(|what| say!("left out {what}"));
    for folder in &found.nobodys {
        say!("left alone {}: it has no metadata.json, so it is nobody's", shown(folder));
    }
    let good =
        format!("{} files are as they were noted, {}", found.good, table::bytes(found.bytes));
    match found.damaged.len() {
        0 if found.good == 0 && found.left_out.is_empty() => {
            say!("nothing is noted in this folder: no run, and no result of a pipeline");
        }
        0 if found.good == 0 => say!("nothing else is noted in this folder"),
        0 => say!("{good}"),
        1 => say!("{good}; 1 is not"),
        n => say!("{good}; {n} are not"),
    }
    let command = |line: CommandLine| file.iter().fold(line, |line, file| line.path(file));
    match repaired {
        None if found.damaged.is_empty() && found.shared.is_empty() => {}
        None => say!(
            "`{}` sets what is damaged aside, so that the next run makes it again",
            command(CommandLine::new(["pipe", "verify"])).options(["--repair"])
        ),
        Some(done) => {
            done.set_aside
                .iter()
                .for_each(|(from, to)| say!("set aside {} as {}", shown(from), shown(to)));
            done.put_in_order.iter().for_each(|run| say!("put in order {}", shown(run)));
            done.separated.iter().for_each(|path| say!("made {} a file of its own", shown(path)));
            done.failed.iter().for_each(|what| say!("not repaired: {what}"));
        }
    }
    Ok(code)
}

/// Repairs what was found, and notes what comes back from a store.
fn mend(root: &ProjectRoot, found: &Verified) -> Result<Repaired, CliError> {
    let damaged: Vec<&Path> = found.damaged.iter().map(|d| d.path.as_path()).collect();
    let runs = found.damaged.iter().filter_map(|damage| match &damage.owner {
        Owner::Run(run) => Some(run.folder.as_path()),
        Owner::Lock(_) => None,
    });
    let record = RepairRecord::begin(root, &damaged, runs)?;
    let repaired = repair(root.disk(), &found.damaged, &found.shared);
    record.finish(&repaired.put_in_order)?;
    Ok(repaired)
}

/// Looks at everything: at what the engine keeps, and at what LoRA runs keep besides.
fn look(folders: &[Runs], stages: &TodaysStages) -> Result<Verified, CliError> {
    let mut found = verify::verify(&project::root()?, folders, &|record| stages.lack(record));
    for run in folders.iter().flat_map(Runs::list).filter(|run| run.holder().is_none()) {
        if found.nobodys.contains(&run.folder) {
            continue;
        }
        let known = |damage: &Verified, path: &Path| damage.damaged.iter().any(|d| d.path == path);
        for (path, what, part) in lora_damage(&run) {
            if !known(&found, &path) {
                found.damaged.push(of_lora(path, what, part, &run));
            }
        }
    }
    Ok(found)
}

fn of_lora(path: std::path::PathBuf, what: String, part: LoraFile, run: &Run) -> Damage {
    let advice = match part {
        LoraFile::Adapter => "without it `pipe run` makes it again from the best checkpoint",
        LoraFile::Base => verify::BASE,
    };
    Damage { path, what, advice, owner: Owner::Run(run.clone()) }
}

/// A path as it is seen from the project.
fn shown(path: &Path) -> String {
    let root = project::root().map(|root| root.to_path_buf()).unwrap_or_default();
    path.strip_prefix(root).unwrap_or(path).display().to_string()
}
