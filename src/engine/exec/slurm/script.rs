//! The text of a job, and the arguments that submit it. Pure.

use std::path::Path;

use pipe_core::ids::StageId;
use sha2::{Digest, Sha256};

use super::SlurmError;
use crate::identity::hex;
use crate::pipeline_file::LoadedStage;
use crate::policy::Tasks;
use crate::state::JobId;

/// How this program is to be called on a node.
pub struct Invocation {
    /// The program itself.
    pub program: std::path::PathBuf,
    /// The pipeline file.
    pub file: std::path::PathBuf,
    /// Settings of the command line.
    pub settings: Vec<String>,
    /// What one types to end the pipeline's jobs.
    pub cancel: pipe_core::shell::CommandLine,
}

impl Invocation {
    /// The words of the command that runs one stage and nothing else.
    pub(super) fn words(
        &self,
        stage: &StageId,
        planned: &str,
        forced: bool,
        until: Option<u64>,
    ) -> Result<Vec<String>, SlurmError> {
        let text = |path: &Path| match path.to_str() {
            Some(text) => Ok(text.to_owned()),
            None => Err(SlurmError::Asked(format!(
                "the path {} cannot be written into a script",
                path.display()
            ))),
        };
        let mut words = vec![text(&self.program)?, "run".into()];
        // The file may begin with a dash.
        words.extend(self.settings.iter().cloned());
        words.extend(["--only", stage.as_str(), "--planned", planned].map(str::to_owned));
        words.extend(forced.then(|| "--force".to_owned()));
        words.extend(until.into_iter().flat_map(|until| ["--rung".to_owned(), until.to_string()]));
        words.extend(["--".to_owned(), text(&self.file)?, stage.to_string()]);
        Ok(words)
    }
}

/// The script of a job. It becomes this program, so that Slurm's signals reach it.
pub(super) fn script(
    pipeline: &str,
    stage: &StageId,
    words: &[String],
) -> Result<String, SlurmError> {
    if let Some(word) = words.iter().find(|word| word.contains('\0')) {
        return Err(SlurmError::Asked(format!("{word:?} cannot be written into a script")));
    }
    let command: Vec<String> = words.iter().map(|word| quoted(word)).collect();
    let project = "the project's folder must be on a file system that the nodes share";
    Ok(format!(
        "#!/bin/sh\n\
         # Stage {stage} of {}.\n\
         # A signal before the program listens is not the end of the job: the end of the walltime sends another.\n\
         trap '' TERM\n\
         if ! [ -d .pipe/slurm ]; then echo \"error: $(hostname) has no $(pwd)/.pipe: {project}\" >&2; exit 2; fi\n\
         exec {}\n",
        plain(pipeline),
        command.join(" ")
    ))
}

/// A word as a shell reads it back, whatever is in it.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// A name in letters that a comment or a list of jobs can hold.
fn plain(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_alphanumeric() || "._-=@+,".contains(c) { c } else { '_' })
        .collect()
}

/// Marks the jobs of one stage of one project, so that they are found again even if their id was
/// never written down.
pub(super) fn comment(root: &Path, pipeline: &str, stage: &StageId) -> String {
    let mut hash = Sha256::new();
    for part in
        [root.as_os_str().as_encoded_bytes(), pipeline.as_bytes(), stage.as_str().as_bytes()]
    {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    format!("pipe:{}", &hex(&hash.finalize())[..24])
}

/// The jobs that one waits for.
#[derive(Default)]
pub(super) struct Awaited {
    /// Until they have ended well.
    pub ended: Vec<JobId>,
    /// Until they have begun.
    pub begun: Vec<JobId>,
}

impl Awaited {
    /// As Slurm reads it, if there are any.
    fn dependency(&self) -> Option<String> {
        let part = |word: &str, jobs: &[JobId]| {
            let ids: Vec<String> = jobs.iter().map(JobId::to_string).collect();
            (!ids.is_empty()).then(|| format!("{word}:{}", ids.join(":")))
        };
        let parts = [part("afterok", &self.ended), part("after", &self.begun)];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| format!("--dependency={}", parts.join(",")))
    }
}

/// All that a job is, as arguments of `sbatch`. `log`: relative to the project, with `%j` for the
/// job's id.
pub(super) fn arguments(
    root: &Path,
    pipeline: &str,
    stage: &LoadedStage,
    log: &str,
    awaited: &Awaited,
) -> Result<Vec<String>, SlurmError> {
    let Some(folder) = root.to_str().filter(|text| !text.contains(char::is_control)) else {
        let text = format!("the project's path {} cannot be handed to Slurm", root.display());
        return Err(SlurmError::Asked(text));
    };
    // Slurm puts the project's path before the log's, and then reads both: `%` stands for something
    // else there, and a backslash switches that off for the job's number too.
    if folder.contains('\\') {
        let text = format!(
            "the project's path {folder} has a backslash, which Slurm does not take in the name of a log; move the project"
        );
        return Err(SlurmError::Asked(text));
    }
    let log = if folder.contains('%') {
        format!("{}/{log}", folder.replace('%', "%%"))
    } else {
        log.to_owned()
    };
    let mut all = vec![
        "--parsable".to_owned(),
        format!("--job-name={}.{}", plain(pipeline), plain(stage.id.as_str())),
        format!("--comment={}", comment(root, pipeline, &stage.id)),
        format!("--chdir={folder}"),
        format!("--output={log}"),
        "--open-mode=append".to_owned(),
        "--requeue".to_owned(),
    ];
    all.extend(match stage.tasks() {
        Tasks::ONE => ["--nodes=1".to_owned(), "--ntasks=1".to_owned()],
        Tasks { nodes, per_node } => {
            [format!("--nodes={nodes}"), format!("--ntasks-per-node={per_node}")]
        }
    });
    if let Some(dependency) = awaited.dependency() {
        all.push(dependency);
        all.push("--kill-on-invalid-dep=yes".to_owned());
    }
    all.extend(stage.options.slurm.arguments(stage.gpus()));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_job_waits_for_is_told_by_how_far_it_is_to_be() {
        let jobs = |ids: &[&str]| ids.iter().map(|id| id.parse().unwrap()).collect();
        let told = |ended: &[&str], begun: &[&str]| {
            Awaited { ended: jobs(ended), begun: jobs(begun) }.dependency()
        };
        assert_eq!(told(&[], &[]), None);
        assert_eq!(told(&["4", "7"], &[]).unwrap(), "--dependency=afterok:4:7");
        assert_eq!(told(&["4"], &["9", "5"]).unwrap(), "--dependency=afterok:4,after:9:5");
        assert_eq!(told(&[], &["9"]).unwrap(), "--dependency=after:9");
    }

    #[test]
    fn a_shell_reads_back_what_was_written() {
        let hostile = [
            "plain",
            "two words",
            "it's",
            "$(touch x)",
            "`id`",
            "a\nb",
            "\\",
            "",
            "--",
            "*",
            "é\"!",
        ];
        let words: Vec<String> =
            ["printf", "%s\\0"].iter().chain(&hostile).map(|word| (*word).to_owned()).collect();
        let stage = StageId::new("base").unwrap().member("x=1");
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join(".pipe/slurm")).unwrap();
        let text = script("a pipeline\n$(touch y)", &stage, &words).unwrap();
        let run = |folder: &Path| {
            std::process::Command::new("sh").args(["-c", &text]).current_dir(folder).output()
        };
        let output = run(folder.path()).unwrap();
        let heard = String::from_utf8(output.stdout).unwrap();
        assert_eq!(heard.split('\0').take(hostile.len()).collect::<Vec<_>>(), hostile);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else was run");
        assert!(script("p", &stage, &["a\0b".into()]).is_err());

        let elsewhere = tempfile::tempdir().unwrap();
        let output = run(elsewhere.path()).unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("a file system that the nodes share")
        );
    }

    #[test]
    fn the_log_is_where_it_is_looked_for_whatever_the_project_s_path_holds() {
        let stages = "name: p\nstages:\n  a: { kind: command, run: 'true' }\n";
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("p.yaml"), stages).unwrap();
        let kinds: Vec<std::sync::Arc<dyn crate::kind::StageKind>> =
            vec![std::sync::Arc::new(crate::command::CommandKind)];
        let loaded =
            crate::pipeline_file::load(folder.path(), Path::new("p.yaml"), &kinds, &[]).unwrap();
        let output = |root: &str| {
            let all = arguments(
                Path::new(root),
                "p",
                &loaded.stages[0],
                ".pipe/a-%j.log",
                &Awaited::default(),
            )?;
            Ok::<_, SlurmError>(
                all.into_iter()
                    .find_map(|a| a.strip_prefix("--output=").map(str::to_owned))
                    .unwrap(),
            )
        };
        assert_eq!(output("/home/me").unwrap(), ".pipe/a-%j.log");
        assert_eq!(output("/home/100%j/me").unwrap(), "/home/100%%j/me/.pipe/a-%j.log");
        let refused = output("/home/m\\e").unwrap_err().to_string();
        assert!(refused.contains("backslash") && refused.contains("move the project"), "{refused}");
    }

    #[test]
    fn a_comment_is_that_of_one_stage() {
        let stage = |name| StageId::new(name).unwrap();
        let of = |root, pipeline, name| comment(Path::new(root), pipeline, &stage(name));
        let one = of("/a", "p", "base");
        assert!(one.starts_with("pipe:") && one.len() == 29, "{one}");
        assert_eq!(one, of("/a", "p", "base"));
        for other in [
            of("/b", "p", "base"),
            of("/a", "q", "base"),
            of("/a", "p", "best"),
            of("/a", "pb", "ase"),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn the_command_says_all_and_no_name_is_taken_for_an_option() {
        let call = Invocation {
            program: "/opt/pipe".into(),
            file: "-p.yaml".into(),
            settings: vec!["--epochs".into(), "3".into()],
            cancel: pipe_core::shell::CommandLine::new(["pipe", "cancel"]),
        };
        let base = StageId::new("base").unwrap();
        let words = call.words(&base, "sha256:1", true, Some(4)).unwrap();
        assert_eq!(
            words.join(" "),
            "/opt/pipe run --epochs 3 --only base --planned sha256:1 --force --rung 4 -- -p.yaml base"
        );
    }
}
