use std::fs;

use pipe_train::data::unpack::{Limits, unpack};

use crate::made::{Project, TarGz};

#[track_caller]
fn refused(archive: Vec<u8>, limits: Limits) -> String {
    let project = Project::new();
    let path = project.put("a.tgz", &archive);
    let message = unpack(&path, &project.data("out"), limits).unwrap_err().to_string();
    assert_eq!(project.listing(), [".out.lock", "a.tgz"], "nothing else may be left");
    assert_eq!(fs::read_dir(project.path()).unwrap().count(), 1, "nothing may be written outside");
    message
}

#[test]
fn paths_that_leave_the_folder_and_links_are_refused() {
    let file = |name: &str| TarGz::new().file("ok.txt", b"ok").file(name, b"evil").bytes();
    for name in ["../evil", "a/../../evil", "/evil", "./../evil"] {
        let message = refused(file(name), Limits::default());
        assert!(message.contains(&format!("entry {name}, at byte 1024 of the unpacked data")), "{message}");
        assert!(message.ends_with("its path leaves the folder, which is refused"), "{message}");
    }
    for kind in [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::Fifo] {
        let message = refused(
            TarGz::new().link("in", kind, "../..").file("in/evil", b"evil").bytes(),
            Limits::default(),
        );
        assert!(
            message.contains("entry in, at byte 0") && message.contains(&format!("{kind:?}")),
            "{message}"
        );
    }
}

#[test]
fn what_is_too_large_twice_there_or_cut_is_refused() {
    let two = || TarGz::new().file("a", &[0; 3000]).file("b", &[0; 3000]);
    let message = refused(two().bytes(), Limits { bytes: 5000, ..Limits::default() });
    assert!(message.contains("entry b") && message.contains("more than 5000 bytes"), "{message}");
    let message = refused(two().bytes(), Limits { entries: 1, ..Limits::default() });
    assert!(message.contains("1 files"), "{message}");
    assert!(refused(two().file("a", b"again").bytes(), Limits::default()).contains("entry a"));
    assert!(
        refused(TarGz::new().file("a", b"").file("a/b", b"x").bytes(), Limits::default())
            .contains("entry a/b")
    );
    let message = refused(two().cut(5000), Limits::default());
    assert!(message.contains("entry b"), "{message}");
    let whole = two().bytes();
    for length in (0..whole.len()).step_by(10) {
        assert!(refused(whole[..length].to_vec(), Limits::default()).contains("a.tgz"));
    }
}

#[test]
fn a_good_archive_is_unpacked_once() {
    let project = Project::new();
    let path =
        project.put("a.tgz", &TarGz::new().file("top/deep/x.txt", b"x").file("top/y.txt", b"y").bytes());
    fs::create_dir(project.data("out.part")).unwrap(); // of a process that was killed
    let target = project.data("out");
    let md5 = unpack(&path, &target, Limits::default()).unwrap().unwrap();
    assert_eq!(md5.len(), 32);
    assert_eq!(fs::read(target.join("deep/x.txt")).unwrap(), b"x");
    assert_eq!(project.listing(), [".out.lock", "a.tgz", "out"]);
    assert_eq!(unpack(&path, &target, Limits::default()).unwrap(), None);
}
