use super::super::finding::Verdict;
use super::super::machine::tests::TestMachine;
use super::*;

const ICD: &str = "/usr/share/vulkan/icd.d";

fn icd(library: &str) -> String {
    format!(r#"{{"file_format_version": "1.0.0", "ICD": {{"library_path": "{library}"}}}}"#)
}

fn names(machine: &Machine) -> Vec<(String, bool)> {
    drivers(machine).iter().map(|driver| (driver.name(), driver.works())).collect()
}

fn seen(found: &[(&str, bool)]) -> Vec<(String, bool)> {
    found.iter().map(|(name, works)| ((*name).to_owned(), *works)).collect()
}

#[test]
fn a_driver_works_if_the_library_that_it_names_is_where_the_linker_or_the_file_says() {
    let made = TestMachine::new()
        .file(&format!("{ICD}/by_name.json"), &icd("libGLX_nvidia.so.0"))
        .file("/etc/ld.so.conf.d/nvidia.conf", "# a comment\n/opt/nvidia/lib\n")
        .file("/opt/nvidia/lib/libGLX_nvidia.so.0", "")
        .file(&format!("{ICD}/beside.json"), &icd("./libvk.so"))
        .file(&format!("{ICD}/libvk.so"), "")
        .file(&format!("{ICD}/by_path.json"), &icd("/opt/gone.so"))
        .file(&format!("{ICD}/broken.json"), "{")
        .file(&format!("{ICD}/nothing.json"), "{}")
        .file(&format!("{ICD}/old.i686.json"), &icd("libold.so"));
    let found = [
        ("beside", true),
        ("broken", false),
        ("by_name", true),
        ("by_path", false),
        ("nothing", false),
    ];
    assert_eq!(names(&made.machine), seen(&found));
}

#[test]
fn drivers_are_read_of_in_the_users_folders_too_and_where_variables_say() {
    let made = || {
        TestMachine::new()
            .file("/usr/lib64/libvk.so", "")
            .file(&format!("{ICD}/system.json"), &icd("libvk.so"))
            .file("/home/me/.local/share/vulkan/icd.d/mine.json", &icd("libvk.so"))
            .file("/etc/vulkan/icd.d/admin.json", &icd("libvk.so"))
            .file("/opt/given.json", &icd("/usr/lib64/libvk.so"))
            .variable("HOME", "/home/me")
    };
    let all = seen(&[("admin", true), ("mine", true), ("system", true)]);
    assert_eq!(names(&made().machine), all);
    let given = seen(&[("given", true)]);
    for variable in ["VK_DRIVER_FILES", "VK_ICD_FILENAMES"] {
        assert_eq!(names(&made().variable(variable, "/opt/given.json").machine), given);
        let missing = made().variable(variable, "/opt/missing.json");
        assert_eq!(names(&missing.machine), seen(&[("missing", false)]));
    }
    let added = made().variable("VK_ADD_DRIVER_FILES", "/opt/given.json");
    assert_eq!(names(&added.machine).len(), 4);
    let elsewhere = made().variable("XDG_DATA_DIRS", "/nowhere").variable("HOME", "");
    assert_eq!(names(&elsewhere.machine), seen(&[("admin", true)]));
    let folder = made().variable("VK_DRIVER_FILES", ICD);
    assert_eq!(names(&folder.machine), seen(&[("system", true)]));
}

#[test]
fn the_loader_is_missed_where_there_is_a_gpu() {
    let none = TestMachine::new().debian();
    let finding = loader_finding(&none.machine, false, true);
    assert_eq!(finding.verdict, Verdict::Problem);
    assert_eq!(finding.remedy.as_deref(), Some("apt-get install libvulkan1"));
    assert_eq!(loader_finding(&none.machine, false, false).verdict, Verdict::Warning);
    assert_eq!(loader_finding(&none.machine, true, true).verdict, Verdict::Ok);
    let garbage = none.file("/usr/lib/libvulkan.so.1", "not found");
    let finding = loader_finding(&garbage.machine, false, false);
    assert_eq!(finding, Finding::problem("loader", "/usr/lib/libvulkan.so.1 is no library"));
    let there = garbage.file("/usr/lib/libvulkan.so.1", "\x7fELF\x02");
    assert_eq!(
        loader_finding(&there.machine, false, true),
        Finding::ok("loader", "/usr/lib/libvulkan.so.1")
    );
    let elsewhere = TestMachine::new()
        .file("/opt/vulkan/libvulkan.so.1", "")
        .variable("LD_LIBRARY_PATH", "/x:/opt/vulkan");
    assert_eq!(loader(&elsewhere.machine), Some("/opt/vulkan/libvulkan.so.1".into()));
}

#[test]
fn what_is_wrong_with_drivers_is_a_problem_where_none_works() {
    let verdicts = |made: &TestMachine| -> Vec<Verdict> {
        driver_findings(&made.machine).iter().map(|finding| finding.verdict).collect()
    };
    assert_eq!(verdicts(&TestMachine::new()), [Verdict::Warning]);
    let broken = TestMachine::new().file(&format!("{ICD}/a.json"), &icd("liba.so"));
    assert_eq!(verdicts(&broken), [Verdict::Problem]);
    assert!(
        driver_findings(&broken.machine)[0].text.ends_with("names liba.so, which is not there")
    );
    let one_works =
        broken.file(&format!("{ICD}/b.json"), &icd("libb.so")).file("/usr/lib/libb.so", "");
    assert_eq!(verdicts(&one_works), [Verdict::Ok, Verdict::Warning]);
    let given = one_works.variable("VK_DRIVER_FILES", "/gone.json");
    let findings = driver_findings(&given.machine);
    assert_eq!((findings.len(), findings[0].verdict), (1, Verdict::Problem));
    assert_eq!(findings[0].remedy.as_deref(), Some("unset VK_DRIVER_FILES"));
}
