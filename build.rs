//! Tells the program which commit it is built from, as far as git knows: `pipe --version`; and has
//! the linker fold functions that are the same machine code, of which generic kernels make
//! thousands.

use std::path::Path;
use std::process::Command;

fn git(arguments: &[&str]) -> Option<String> {
    let output =
        Command::new("git").args(arguments).output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// Folding is an option of lld, which the compiler links with on this target unless it is told
/// otherwise.
fn links_with_lld() -> bool {
    let is = |key: &str, value: &str| std::env::var(key).is_ok_and(|found| found == value);
    let chosen = std::env::var_os("RUSTC_LINKER").is_some()
        || std::env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("link"));
    let target = is("CARGO_CFG_TARGET_OS", "linux") && is("CARGO_CFG_TARGET_ENV", "gnu");
    target && is("CARGO_CFG_TARGET_ARCH", "x86_64") && !chosen
}

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=CARGO_ENCODED_RUSTFLAGS");
    println!("cargo::rerun-if-env-changed=RUSTC_LINKER");
    if links_with_lld() {
        println!("cargo::rustc-link-arg-bins=-Wl,--icf=all");
    }
    // Unpacked from an archive inside some other repository, that one's commit would be wrong.
    let here = Path::new(".git").exists();
    let Some(commit) = git(&["rev-parse", "--short=10", "HEAD"]).filter(|_| here) else { return };
    for name in ["HEAD".to_owned(), git(&["symbolic-ref", "-q", "HEAD"]).unwrap_or_default()] {
        if let Some(path) =
            git(&["rev-parse", "--git-path", &name]).filter(|path| Path::new(path).is_file())
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let date = git(&["show", "-s", "--format=%cs", "HEAD"])
        .map(|date| format!(" {date}"))
        .unwrap_or_default();
    println!("cargo::rustc-env=PIPE_COMMIT={commit}{date}");
}
