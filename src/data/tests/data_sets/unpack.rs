use std::fs;

use pipe_data::unpack::{Limits, unpack};
use pipe_fs::Disk;

use crate::made::{Project, TarGz};

#[track_caller]
fn refused(archive: Vec<u8>, limits: Limits) -> String {
    let project = Project::new();
    let path = project.put("a.tgz", &archive);
    let message =
        unpack(&Disk::default(), &path, &project.data("out"), limits).unwrap_err().to_string();
    assert_eq!(project.listing(), [".out.lock", "a.tgz"], "nothing else may be left");
    assert_eq!(fs::read_dir(project.path()).unwrap().count(), 1, "nothing may be written outside");
    message
}

#[test]
fn paths_that_leave_the_folder_and_links_are_refused() {
    let file = |name: &str| TarGz::new().file("ok.txt", b"ok").file(name, b"evil").bytes();
    for name in ["../evil", "a/../../evil", "/evil", "./../evil"] {
        let message = refused(file(name), Limits::default());
        assert!(
            message.contains(&format!("entry {name}, at byte 1024 of the unpacked data")),
            "{message}"
        );
        assert!(message.ends_with("its path leaves the folder, which is refused"), "{message}");
    }
    for kind in
        [tar::EntryType::Symlink, tar::EntryType::Link, tar::EntryType::Char, tar::EntryType::Fifo]
    {
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
    let path = project
        .put("a.tgz", &TarGz::new().file("top/deep/x.txt", b"x").file("top/y.txt", b"y").bytes());
    fs::create_dir(project.data("out.part")).unwrap(); // of a process that was killed
    let target = project.data("out");
    let md5 = unpack(&Disk::default(), &path, &target, Limits::default()).unwrap().unwrap();
    assert_eq!(md5.len(), 32);
    assert_eq!(fs::read(target.join("deep/x.txt")).unwrap(), b"x");
    assert_eq!(project.listing(), [".out.lock", "a.tgz", "out"]);
    assert_eq!(unpack(&Disk::default(), &path, &target, Limits::default()).unwrap(), None);
}

#[test]
fn long_names_are_read_in_both_forms_and_no_longer_than_names_are() {
    let long = format!("top/{}/x.txt", "d".repeat(180));
    let pax = |key: &str, value: &str| {
        let rest = format!(" {key}={value}\n");
        let length = (rest.len() + 3).to_string();
        format!("{length}{rest}")
    };
    let line = pax("path", &long);
    assert_eq!(line.len(), 200);
    for (kind, text) in
        [(tar::EntryType::GNULongName, format!("{long}\0")), (tar::EntryType::XHeader, line)]
    {
        let project = Project::new();
        let archive =
            TarGz::new().about(kind, text.as_bytes()).file("short", b"x").file("top/y.txt", b"y");
        let path = project.put("a.tgz", &archive.bytes());
        unpack(&Disk::default(), &path, &project.data("out"), Limits::default()).unwrap();
        assert_eq!(
            fs::read(project.data("out").join("d".repeat(180)).join("x.txt")).unwrap(),
            b"x"
        );
        assert_eq!(fs::read(project.data("out/y.txt")).unwrap(), b"y");
    }
    let too_long = vec![b'a'; 64 << 20];
    for kind in [
        tar::EntryType::GNULongName,
        tar::EntryType::GNULongLink,
        tar::EntryType::XHeader,
        tar::EntryType::XGlobalHeader,
    ] {
        let message =
            refused(TarGz::new().about(kind, &too_long).file("x", b"x").bytes(), Limits::default());
        assert!(
            message.contains("a name or header of 67108864 bytes, which is refused"),
            "{message}"
        );
    }
    let size = TarGz::new().about(tar::EntryType::XHeader, b"13 size=9999\n").file("x", b"x");
    assert!(refused(size.bytes(), Limits::default()).contains("a size of its own"));
    let evil = TarGz::new().about(tar::EntryType::GNULongName, b"../evil\0").file("x", b"evil");
    assert!(refused(evil.bytes(), Limits::default()).contains("its path leaves the folder"));
}
