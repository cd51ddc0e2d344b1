//! A run as one archive: out of one project and into another, and archives that lie.

use std::io::{Cursor, Read, Write};
use std::process::Stdio;

use serde_json::json;

use crate::chain::{LORA, chain};
use crate::project::{Ended, Project, all_tensors};
use crate::trainer;

const RUNS: &str = "checkpoints/base_training";
const RUN: &str = "checkpoints/base_training/run_001";

/// Content of every file of a run, by its path; no lock and no spare copy.
fn files(project: &Project, run: &str) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in ["", "adapter", "checkpoints", "logs", "samples"] {
        for name in project.list(&format!("{run}/{folder}")) {
            let path = project.path(run).join(folder).join(&name);
            if path.is_file() && !["run.lock", "metadata.json.previous"].contains(&name.as_str()) {
                all.push((format!("{folder}/{name}"), std::fs::read(path).unwrap()));
            }
        }
    }
    all
}

/// A project with a trained run, and the archive of it in another one.
fn exported() -> (Project, Project) {
    let (from, to) = (Project::new(), Project::new());
    from.pipe(&["run", "p.yaml"]).succeeds();
    from.pipe(&["runs", "note", "1", "the good one"]).succeeds();
    let archive = to.path("run.tar");
    from.pipe(&["runs", "export", "1", "-o", archive.to_str().unwrap()])
        .succeeds()
        .says("run 001, stage base of tiny, ");
    (from, to)
}

#[test]
fn an_imported_run_is_the_same_training_and_goes_on_to_the_bit() {
    let (from, to) = exported();
    let ended = to.pipe(&["runs", "import", "run.tar"]).succeeds();
    assert!(ended.stdout().starts_with(&format!("{RUN}: from run 001, ")), "{}", ended.stdout());
    assert!(files(&from, RUN) == files(&to, RUN), "all of it, byte for byte");
    to.pipe(&["verify"]).succeeds();
    to.pipe(&["plan", "p.yaml"]).succeeds().says("base  skip");
    to.pipe(&["run", "p.yaml"]).succeeds();
    assert_eq!(to.list(RUNS), ["run_001"], "nothing is trained anew");
    to.pipe(&["runs", "show", "1"]).succeeds().says("note        the good one");
    for project in [&from, &to] {
        project.pipe(&["run", "p.yaml", "--epochs", "4"]).succeeds().says("Resumed from epoch 2");
    }
    let last =
        |project: &Project| all_tensors(&project.path(&format!("{RUN}/checkpoints/last.ckpt")));
    assert!(last(&from) == last(&to));
}

#[test]
#[cfg(unix)]
fn best_and_last_are_still_one_file_with_their_epochs() {
    use std::os::unix::fs::MetadataExt;
    let (from, to) = exported();
    to.pipe(&["runs", "import", "run.tar"]).succeeds();
    let names = |project: &Project| -> Vec<(String, u64)> {
        let folder = format!("{RUN}/checkpoints");
        let links = |name: String| {
            let links = project.path(&format!("{folder}/{name}")).metadata().unwrap().nlink();
            (name, links)
        };
        project.list(&folder).into_iter().map(links).collect()
    };
    assert_eq!(names(&from), names(&to));
    assert!(names(&to).iter().filter(|(_, links)| *links > 1).count() >= 2);
    // An archive has each content once.
    let unique: u64 = ["epoch_001.ckpt", "epoch_002.ckpt"]
        .map(|name| to.path(&format!("{RUN}/checkpoints/{name}")).metadata().unwrap().len())
        .iter()
        .sum();
    assert!(to.path("run.tar").metadata().unwrap().len() < unique + unique / 2);
}

#[test]
fn numbers_are_the_next_free_one_or_ones_own() {
    let (_, to) = exported();
    to.pipe(&["run", "p.yaml", "--seed", "7"]).succeeds();
    to.pipe(&["runs", "import", "run.tar"])
        .succeeds()
        .says(&format!("{RUNS}/run_002: from run 001"));
    assert_eq!(to.metadata(&format!("{RUNS}/run_002"))["run_number"], 2);
    to.pipe(&["run", "p.yaml"]).succeeds().says("up to date");
    to.pipe(&["runs", "import", "run.tar", "--run-number", "2"])
        .exits(2)
        .says("a run of that number is in checkpoints/base_training already");
    to.pipe(&["runs", "import", "run.tar", "--run-number", "9", "--to", "elsewhere"]).succeeds();
    assert_eq!(to.list("elsewhere"), ["run_009"]);
    to.pipe(&["verify"]).succeeds();
}

#[test]
fn a_run_that_is_there_is_not_taken_in_again_and_a_copy_takes_nothing_over() {
    let (from, _) = exported();
    from.pipe(&["runs", "export", "1", "-o", "run.tar"]).succeeds();
    from.pipe(&["runs", "import", "run.tar"])
        .succeeds()
        .says(&format!("{RUN}: it is run 001, "))
        .says("already; `--run-number N` takes it in once more");
    assert_eq!(from.list(RUNS), ["run_001"]);
    // A copy is not newer than what it was copied from, which may have gone on since.
    from.pipe(&["runs", "import", "run.tar", "--run-number", "2"]).succeeds();
    from.pipe(&["run", "p.yaml"]).succeeds().says("up to date, run 001");
    from.pipe(&["runs", "import", "run.tar"]).succeeds().says("run_001: it is run 001");
    from.pipe(&["run", "p.yaml", "--epochs", "3"]).succeeds().says("Resumed from epoch 2");
    assert_eq!(from.metadata(RUN)["epochs"], 3);
    from.pipe(&["plan", "p.yaml", "--epochs", "4"]).succeeds().says("extend 3 -> 4");
    // The copy that is left is of use, and so is an archive of what has gone on.
    from.pipe(&["runs", "rm", "1", "--force"]).succeeds();
    from.pipe(&["plan", "p.yaml"]).succeeds().says("up to date, run 002");
    from.pipe(&["runs", "import", "run.tar"]).succeeds().says("run_002: it is run 001");
    // One that lost a file is no hindrance to what brings it back.
    let lost = format!("{RUNS}/run_002/checkpoints/epoch_001.ckpt");
    std::fs::remove_file(from.path(&lost)).unwrap();
    from.pipe(&["runs", "import", "run.tar"]).succeeds().says("run_003: from run 001");
}

#[test]
fn runs_in_a_folder_of_ones_own_are_found_after_an_import_and_without_state() {
    let keys = "    epochs: ${params.epochs}\n    checkpoint: { base_dir: ck/base }\n";
    let with = || Project::with("    epochs: ${params.epochs}\n", keys);
    let (from, to) = (with(), with());
    from.pipe(&["run", "p.yaml"]).succeeds();
    let archive = to.path("run.tar");
    from.pipe(&["runs", "export", "1", "-o", archive.to_str().unwrap()]).succeeds();
    to.pipe(&["runs", "import", "run.tar", "--to", "ck/base"]).succeeds();
    std::fs::remove_dir_all(from.path(".pipe")).unwrap();
    from.pipe(&["run", "p.yaml"]).succeeds().says("up to date");
    for project in [&from, &to] {
        project.pipe(&["runs"]).succeeds().says("ck/base:").says("completed");
        project.pipe(&["runs", "show", "base/1"]).succeeds().says("Run 001");
        project.pipe(&["report"]).succeeds();
        project.pipe(&["audit", "1"]).succeeds().says("the same");
    }
}

#[test]
fn a_lora_run_brings_its_base_and_its_adapter() {
    let from = chain();
    from.pipe(&["run", "p.yaml"]).succeeds();
    let to = chain();
    let archive = to.path("lora.tar");
    from.pipe(&["runs", "export", "lora/1", "-o", archive.to_str().unwrap()]).succeeds();
    to.pipe(&["runs", "import", "lora.tar"]).succeeds();
    assert!(files(&from, LORA) == files(&to, LORA));
    let sample = ["sample", LORA, "--n", "6", "--steps", "2", "--device", "cpu", "-o"];
    for project in [&from, &to] {
        project.pipe(&[&sample[..], &["a.png"]].concat()).succeeds();
    }
    let picture = |project: &Project| std::fs::read(project.path("a.png")).unwrap();
    assert!(picture(&from) == picture(&to));
}

#[test]
fn an_archive_goes_through_a_pipe() {
    let (from, to) = exported();
    let output = from.command(&["runs", "export", "1", "-o", "-"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        output.stdout == std::fs::read(to.path("run.tar")).unwrap(),
        "the archive and no word besides"
    );
    let mut command = to.command(&["runs", "import", "-"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(&output.stdout).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(files(&from, RUN) == files(&to, RUN));
}

#[test]
fn tar_itself_unpacks_it() {
    let (from, to) = exported();
    let mut command = std::process::Command::new("tar");
    command.args(["xf", "run.tar"]).current_dir(to.path(""));
    Ended::of(command, &["tar"]).succeeds();
    let mut unpacked = files(&to, "run_001");
    unpacked.retain(|(name, _)| name != "/manifest.json");
    assert!(unpacked == files(&from, RUN));
}

/// A program's checkpoint is a folder whose files may be called as deep and as long as the disk
/// takes it.
#[test]
#[cfg(unix)]
fn files_with_names_of_any_length_go_along() {
    let deep = format!("{}/{}", ["shard"; 40].join("/"), "x".repeat(200));
    let names = ["short".to_owned(), "y".repeat(101), "z".repeat(255), deep];
    let write = |epoch: u32| {
        let names = names.iter().enumerate();
        names.map(move |(i, name)| json!({"write": format!("{epoch}/{name}"), "text": format!("{epoch} {i}")}))
    };
    let mut script = Vec::new();
    for epoch in 1..=2 {
        script.extend(write(epoch));
        script.push(json!(json!({"epoch": epoch, "step": epoch, "metrics": {"train_loss": 1.0 / f64::from(epoch)}}).to_string()));
        script.push(json!(
            json!({"checkpoint": epoch.to_string(), "epoch": epoch, "step": epoch}).to_string()
        ));
    }
    let pipeline = trainer::stage(&format!("    settings: {{ script: {} }}\n", json!(script)));
    let pipeline = pipeline.replace("epochs: 4", "epochs: 2");
    let (from, to) = (Project::new(), Project::new());
    for project in [&from, &to] {
        project.write("p.yaml", &pipeline);
    }
    from.pipe(&["run", "p.yaml"]).succeeds();
    for archive in ["run.tar", "again.tar"] {
        let path = to.path(archive);
        from.pipe(&["runs", "export", "1", "-o", path.to_str().unwrap()]).succeeds();
    }
    let archive = std::fs::read(to.path("run.tar")).unwrap();
    assert!(archive == std::fs::read(to.path("again.tar")).unwrap(), "the same bytes each time");
    to.pipe(&["runs", "import", "run.tar"]).succeeds();
    to.pipe(&["verify"]).succeeds();
    to.pipe(&["plan", "p.yaml"]).succeeds().says("up to date, run 001");
    let mut command = std::process::Command::new("tar");
    command.args(["xf", "run.tar"]).current_dir(to.path(""));
    Ended::of(command, &["tar"]).succeeds();
    for (i, name) in names.iter().enumerate() {
        for (folder, epoch) in [("epoch_001.ckpt", 1), ("epoch_002.ckpt", 2)] {
            for run in ["checkpoints/trainer/run_001", "run_001"] {
                let text = to.read(&format!("{run}/checkpoints/{folder}/{name}"));
                assert_eq!(text, format!("{epoch} {i}"), "{run} {folder} {name}");
            }
        }
    }
    // A name that was changed in the archive is not taken in.
    let at = archive.windows(120).position(|bytes| bytes == [b'z'; 120]).unwrap();
    let mut lying = archive;
    lying[at] = b'a';
    to.write("lie.tar", lying);
    to.pipe(&["runs", "import", "lie.tar", "--to", "lies"]).exits(2).says("where it lists");
    assert!(!to.path("lies/run_001").exists());
}

#[test]
fn what_is_damaged_held_or_none_of_the_programs_is_told() {
    let project = Project::new();
    project.pipe(&["run", "p.yaml"]).succeeds();
    project.write(&format!("{RUN}/notes.txt"), "a year of work");
    project.write("there.tar", "something else");
    project
        .pipe(&["runs", "export", "1", "-o", "there.tar"])
        .exits(2)
        .says("--overwrite replaces it");
    project
        .pipe(&["runs", "export", "1", "-o", "there.tar", "--overwrite"])
        .succeeds()
        .says("notes.txt is no file of a run, and stays behind");
    let path = project.path(&format!("{RUN}/checkpoints/epoch_001.ckpt"));
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();
    project
        .pipe(&["runs", "export", "1", "-o", "a.tar"])
        .exits(2)
        .says("epoch_001.ckpt: it is damaged");
    assert!(!project.path("a.tar").exists());
}

/// An archive as its entries: name, kind, what a link leads to, content.
#[derive(Clone)]
struct Piece {
    name: String,
    kind: tar::EntryType,
    link: Option<String>,
    content: Vec<u8>,
}

fn pieces(archive: &[u8]) -> Vec<Piece> {
    let mut tar = tar::Archive::new(Cursor::new(archive));
    let piece = |entry: std::io::Result<tar::Entry<Cursor<&[u8]>>>| {
        let mut entry = entry.unwrap();
        let mut content = Vec::new();
        entry.read_to_end(&mut content).unwrap();
        Piece {
            name: String::from_utf8(entry.path_bytes().into_owned()).unwrap(),
            kind: entry.header().entry_type(),
            link: entry.link_name_bytes().map(|l| String::from_utf8(l.into_owned()).unwrap()),
            content,
        }
    };
    tar.entries().unwrap().map(piece).collect()
}

fn packed(pieces: &[Piece]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for Piece { name, kind, link, content } in pieces {
        let mut header = tar::Header::new_ustar();
        // Past the checks of the writer, which refuses what a liar would write.
        header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        header.set_cksum();
        tar.append(&header, content.as_slice()).unwrap();
    }
    tar.into_inner().unwrap()
}

/// The list at the beginning, changed.
fn listing(pieces: &mut [Piece], change: impl FnOnce(&mut serde_json::Value)) {
    let mut list: serde_json::Value = serde_json::from_slice(&pieces[0].content).unwrap();
    change(&mut list);
    pieces[0].content = serde_json::to_vec(&list).unwrap();
}

fn sha256(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    pipe_fs::sha256_of(file.path()).unwrap()
}

type Lie = fn(&mut Vec<Piece>);

#[test]
fn archives_that_lie_are_refused_and_leave_nothing() {
    use tar::EntryType;
    let lies: [(&str, &str, Lie); 19] = [
        ("a path outside", "which is no file of a run", |p| {
            listing(p, |l| l["files"][1]["path"] = "../../../../victim".into());
            p[2].name = "run_001/../../../../victim".into();
        }),
        ("an absolute path", "which is no file of a run", |p| {
            listing(p, |l| l["files"][1]["path"] = "/tmp/victim".into());
        }),
        ("a file that is no run's", "which is no file of a run", |p| {
            listing(p, |l| l["files"][1]["path"] = ".git/hooks/post-checkout".into());
        }),
        ("another name than listed", "where it lists", |p| {
            p[2].name = "run_001/../../victim".into()
        }),
        ("a name twice in the list", "twice", |p| {
            listing(p, |l| l["files"][2]["path"] = l["files"][1]["path"].clone());
        }),
        ("an entry twice", "where it lists", |p| p[2] = p[1].clone()),
        ("an entry more", "more than it lists", |p| {
            p.push(Piece { name: "run_001/victim".into(), ..p[1].clone() });
        }),
        ("an entry less", "it ends before", |p| _ = p.pop()),
        ("a link that leads out", "is no link to", |p| {
            let link = p.iter_mut().find(|piece| piece.link.is_some()).unwrap();
            link.link = Some("/etc/passwd".into());
        }),
        ("a listed link that leads out", "no file before it", |p| {
            listing(p, |l| {
                let files = l["files"].as_array_mut().unwrap();
                files.last_mut().unwrap()["link"] = "../../victim".into();
            });
        }),
        ("a symbolic link for a file", "special file", |p| {
            (p[1].kind, p[1].link, p[1].content) =
                (EntryType::Symlink, Some("/etc/passwd".into()), Vec::new());
        }),
        ("a device for a file", "special file", |p| {
            (p[1].kind, p[1].content) = (EntryType::Char, Vec::new());
        }),
        ("fewer bytes than listed", "bytes, and it lists", |p| _ = p[1].content.pop()),
        ("more bytes than a disk has", "are free", |p| {
            listing(p, |l| l["files"][0]["bytes"] = (1u64 << 60).into());
        }),
        ("more bytes than there are", "more bytes than there are", |p| {
            listing(p, |l| {
                for at in [0, 1] {
                    l["files"][at]["bytes"] = u64::MAX.into();
                }
            });
        }),
        ("another content than listed", "is damaged", |p| p[1].content[0] ^= 1),
        ("a run without metadata", "nobody knows what the run is", |p| {
            let at = p.iter().position(|piece| piece.name.ends_with("metadata.json")).unwrap();
            p.remove(at);
            listing(p, |l| drop(l["files"].as_array_mut().unwrap().remove(at - 1)));
        }),
        ("a newer form", "newer version", |p| listing(p, |l| l["version"] = 2.into())),
        ("metadata that name a file outside", "epoch_001.ckpt", |p| {
            let at = p.iter().position(|piece| piece.name.ends_with("metadata.json")).unwrap();
            let text = String::from_utf8(p[at].content.clone()).unwrap();
            let mut metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
            metadata["checkpoints"][0]["path"] = "../../victim".into();
            metadata.as_object_mut().unwrap().remove("checksum");
            p[at].content = serde_json::to_vec(&metadata).unwrap();
            let (bytes, digest) = (p[at].content.len(), sha256(&p[at].content));
            listing(p, |l| {
                l["files"][at - 1]["bytes"] = bytes.into();
                l["files"][at - 1]["digest"] = digest.into();
            });
        }),
    ];
    let (_, to) = exported();
    let honest = std::fs::read(to.path("run.tar")).unwrap();
    to.write("again.tar", packed(&pieces(&honest)));
    to.pipe(&["runs", "import", "again.tar", "--to", "honest"]).succeeds();
    for (what, says, lie) in lies {
        let mut lying = pieces(&honest);
        lie(&mut lying);
        to.write("lie.tar", packed(&lying));
        let ended = to.pipe(&["runs", "import", "lie.tar"]);
        let said = ended.stderr();
        assert!(said.contains(says), "{what}: {said}");
        assert!(!said.contains("panicked"), "{what}: {said}");
        assert!(to.list(RUNS).is_empty(), "{what} leaves {:?}", to.list(RUNS));
    }
    // Cut anywhere, and no archive at all.
    for length in [0, 100, 512, 700, 5000, honest.len() / 2] {
        to.write("cut.tar", &honest[..length]);
        to.pipe(&["runs", "import", "cut.tar"]).exits(2);
        assert!(to.list(RUNS).is_empty(), "cut to {length}");
    }
    to.write("text.tar", "x".repeat(4096));
    to.pipe(&["runs", "import", "text.tar"]).exits(2).says("text.tar: ");
    to.pipe(&["runs", "import", "nowhere.tar"]).exits(2).says("failed to read nowhere.tar");
    assert!(!to.path("victim").exists());
}

#[test]
fn what_a_killed_import_left_is_removed_even_where_there_is_no_run() {
    let project = Project::new();
    project.write(&format!("{RUNS}/.import.tmp-1-1/checkpoints/epoch_001.ckpt"), "half");
    project.write("checkpoints/base/.best.ckpt.tmp-1-1", "of somebody who writes");
    project.pipe(&["gc"]).succeeds().says("left by a crash while a run was imported");
    assert_eq!(project.list(RUNS), [] as [&str; 0]);
    assert_eq!(project.list("checkpoints/base"), [".best.ckpt.tmp-1-1"]);
}
