//! What to type instead of what the command line does not know: words of other programs, and the
//! file that is missing. A slip of the fingers is found without them.

use std::path::Path;

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

use super::pipeline_name::{self, HERE};

/// Pipeline files that are named, at most.
const MOST: usize = 6;

/// Commands and arguments that are none, each with what is to be typed.
const SUGGESTIONS: [(&[&str], &str); 29] = [
    (&["--list-runs", "list-runs", "list", "ls", "history"], "pipe runs"),
    (
        &["--resume-from-run", "--resume-from", "--ckpt-path"],
        "pipe run FILE --run-number N --resume",
    ),
    (&["train", "fit", "start", "repro", "exec"], "pipe run FILE"),
    (&["validate", "lint", "test"], "pipe check FILE"),
    (&["dag", "draw"], "pipe graph FILE --dot"),
    (&["show", "info"], "pipe runs show N"),
    (&["compare", "diff"], "pipe runs compare N N"),
    (&["delete", "rm", "remove"], "pipe runs rm N"),
    (&["prune", "clean"], "pipe runs prune --keep N"),
    (&["generate", "infer", "predict"], "pipe sample CKPT"),
    (&["dashboard", "serve", "tensorboard"], "pipe ui"),
    (&["new", "create"], "pipe init DIR"),
    (&["--dry", "--dryrun"], "pipe run FILE --dry-run"),
    (&["-f", "--file", "-s", "--snakefile", "--config-name"], "pipe run FILE"),
    (&["--cores", "--max-parallel", "--workers"], "pipe run FILE --jobs N"),
    (&["--forceall", "-F", "--rerun"], "pipe run FILE --force"),
    (&["--max-epochs", "--num-epochs", "--max_epochs", "--num_epochs"], "pipe run FILE --epochs N"),
    (&["--lr", "--learning_rate"], "pipe run FILE --learning-rate LR"),
    (&["--bs", "--batch_size", "--batch"], "pipe run FILE --batch-size N"),
    (&["--gpu", "--gpus", "--cuda"], "pipe run FILE --device gpu"),
    (&["--cpu"], "pipe run FILE --device cpu"),
    (&["--rank", "--lora-r", "--lora-rank"], "pipe run FILE --set lora.lora.r=N"),
    (&["--alpha", "--lora-alpha"], "pipe run FILE --set lora.lora.lora_alpha=N"),
    (
        &["--experiment-name", "--experiment", "--run-name"],
        "pipe run FILE --set base.experiment_name=NAME",
    ),
    (
        &["--base-dir", "--checkpoint-dir", "--output-dir", "--default-root-dir"],
        "pipe run FILE --set checkpoint.base_dir=FOLDER",
    ),
    (
        &["--save-every-n-epochs", "--every-n-epochs", "--save-freq"],
        "pipe run FILE --set checkpoint.save_every_n_epochs=N",
    ),
    (&["--keep-last-n", "--save-top-k"], "pipe run FILE --set checkpoint.keep_last_n=N"),
    (&["--monitor"], "pipe run FILE --set checkpoint.monitor=val_loss"),
    (
        &["--resume-checkpoint", "--checkpoint", "--ckpt"],
        "pipe run FILE --set base.checkpoint.resume_checkpoint=CKPT",
    ),
];

/// Adds what is meant, where that is known, to what is said about a command line.
pub fn with_suggestion(mut error: Error) -> Error {
    if error.kind() == ErrorKind::MissingRequiredArgument && lacks_file(&error) {
        let files = pipeline_name::all(Path::new(HERE));
        let files: Vec<_> =
            files.iter().take(MOST).map(|path| path.display().to_string()).collect();
        let tip = if files.is_empty() {
            "there is no pipeline file here; `pipe init` makes a project with one".to_owned()
        } else {
            format!("the pipeline files here: {}", files.join(", "))
        };
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        return error;
    }
    let word =
        [ContextKind::InvalidArg, ContextKind::InvalidSubcommand].into_iter().find_map(|kind| {
            match error.get(kind) {
                Some(ContextValue::String(word)) => {
                    Some(word.split(['=', ' ']).next().unwrap_or(word).to_owned())
                }
                _ => None,
            }
        });
    let unknown = matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand);
    let suggestion = SUGGESTIONS
        .iter()
        .find(|(words, _)| unknown && word.as_deref().is_some_and(|word| words.contains(&word)));
    if let Some((_, suggestion)) = suggestion {
        // What is nearest by its letters is not meant then.
        for kind in
            [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::Suggested]
        {
            error.remove(kind);
        }
        let tip = format!("that is here: {suggestion}");
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}

/// Whether the file of a pipeline is what is missing.
fn lacks_file(error: &Error) -> bool {
    let missing = match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::Strings(missing)) => missing.as_slice(),
        _ => &[],
    };
    let of_checkpoints =
        error.get(ContextKind::Usage).is_some_and(|usage| usage.to_string().contains("pipe ckpt"));
    !of_checkpoints && missing.iter().any(|name| name == "<FILE>" || name == "<FILES>...")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::Arguments;

    #[test]
    fn what_is_pointed_to_is_understood_and_the_words_themselves_are_not() {
        for (words, suggestion) in SUGGESTIONS {
            let typed = suggestion.replace(" N", " 1").replace("=N", "=1").replace(" LR", " 1e-3");
            if let Err(error) = Arguments::try_parse_from(typed.split(' ')) {
                panic!("{suggestion}: {error}");
            }
            for word in words {
                let typed = if word.starts_with('-') {
                    vec!["pipe", "run", "p.yaml", word]
                } else {
                    vec!["pipe", word]
                };
                let error = match Arguments::try_parse_from(typed) {
                    Err(error) => with_suggestion(error).to_string(),
                    Ok(_) => panic!("{word} is understood"),
                };
                assert!(
                    error.contains(&format!("tip: that is here: {suggestion}")),
                    "{word}: {error}"
                );
            }
        }
    }
}
