//! Tells the program which commit it is built from, as far as git knows: `pipe --version`.

use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Unpacked from an archive inside some other repository, that one's commit would be wrong.
    let here = Path::new(".git").exists();
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]).filter(|_| here) else { return };
    for name in ["HEAD".to_owned(), git(&["symbolic-ref", "-q", "HEAD"]).unwrap_or_default()] {
        if let Some(path) = git(&["rev-parse", "--git-path", &name]).filter(|path| Path::new(path).is_file())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let date =
        git(&["show", "-s", "--format=%cs", "HEAD"]).map(|date| format!(" {date}")).unwrap_or_default();
    println!("cargo::rustc-env=PIPE_COMMIT={commit}{date}");
}
