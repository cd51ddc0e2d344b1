use super::super::finding::Verdict;
use super::super::machine::tests::TestMachine;
use super::*;

const ICD: &str = "/usr/share/vulkan/icd.d";

fn adapter(kind: &str) -> Adapter {
    Adapter {
        device: "gpu:0".into(),
        name: "Card".into(),
        kind: kind.into(),
        backend: "Vulkan".into(),
        software: kind == "software",
        precision: vec!["f32".into(), "f16".into()],
        capabilities: Some(Compiled { compiler: "SPIR-V".into() }),
        unopened: None,
    }
}

fn nvidia() -> TestMachine {
    TestMachine::new().debian().file("/dev/nvidiactl", "")
}

fn render_node(vendor: &str) -> TestMachine {
    TestMachine::new()
        .debian()
        .file("/dev/dri/card0", "")
        .file("/dev/dri/renderD128", "")
        .file("/sys/class/drm/renderD128/device/vendor", vendor)
}

#[track_caller]
fn assert_missing(made: TestMachine, verdict: Verdict, said: &str, remedy: Option<&str>) {
    let machine = &made.machine;
    let found = findings(machine, &Hardware::of(machine), &[adapter("processor")]);
    assert_eq!(found.len(), 1);
    assert!(found[0].text.contains(said), "{}", found[0].text);
    assert_eq!((found[0].verdict, found[0].remedy.as_deref()), (verdict, remedy));
}

#[test]
fn each_way_to_miss_a_gpu_has_its_reason_and_what_to_type() {
    use Verdict::{Problem, Warning};
    let none = TestMachine::new().debian();
    assert_missing(none, Warning, "no GPU is in this machine", None);
    let remedy = Some("apt-get install nvidia-vulkan-icd");
    assert_missing(nvidia(), Problem, "no Vulkan driver for it", remedy);
    let docker = Some("docker run --gpus all -e NVIDIA_DRIVER_CAPABILITIES=all …");
    let container = || nvidia().file("/.dockerenv", "");
    assert_missing(container(), Problem, "NVIDIA_DRIVER_CAPABILITIES is not set", docker);
    let compute = container().variable("NVIDIA_DRIVER_CAPABILITIES", "compute,utility");
    assert_missing(compute, Problem, "NVIDIA_DRIVER_CAPABILITIES is compute,utility", docker);
    for list in ["compute,graphics", "all"] {
        let graphics = container().variable("NVIDIA_DRIVER_CAPABILITIES", list);
        assert_missing(graphics, Problem, "the machine outside", remedy);
    }
    let driver = nvidia().file(&format!("{ICD}/nvidia_icd.json"), "{}");
    let debug = Some("VK_LOADER_DEBUG=error,warn,driver pipe devices");
    assert_missing(driver, Problem, "the driver nvidia_icd are there", debug);
    let mesa = Some("apt-get install mesa-vulkan-drivers");
    for vendor in ["0x1002\n", "0x8086\n"] {
        assert_missing(render_node(vendor), Problem, "a GPU of AMD or Intel is there", mesa);
    }
    let amd = render_node("0x1002\n").file(&format!("{ICD}/radeon_icd.x86_64.json"), "{}");
    assert_missing(amd, Problem, "the driver radeon_icd.x86_64 are there", debug);
    assert_missing(render_node("0x10de\n"), Problem, "kernel module is not loaded", remedy);
    assert_missing(render_node("0x1af4\n"), Warning, "no GPU is in this machine", None);
    let windows = TestMachine::new().debian().file("/dev/dxg", "");
    assert_missing(windows, Warning, "Windows' GPU", mesa);
}

#[test]
fn a_file_that_the_user_may_not_open_is_the_reason() {
    let made = render_node("0x1002\n");
    let mut hardware = Hardware::of(&made.machine);
    assert!(hardware.is_any() && hardware.nodes[0].may_use);
    hardware.nodes[0].may_use = false;
    let found = findings(&made.machine, &hardware, &[]);
    assert_eq!(found[0].verdict, Verdict::Problem);
    assert!(found[0].text.starts_with("/dev/dri/renderD128 may not be used"), "{found:?}");
    assert_eq!(found[0].remedy.as_deref(), Some("sudo usermod -aG render,video $USER"));
}

#[test]
fn what_is_found_is_told_and_a_software_adapter_is_no_gpu() {
    let made = nvidia();
    let of = |adapters: &[Adapter]| findings(&made.machine, &Hardware::of(&made.machine), adapters);
    let gpu = of(&[adapter("discrete"), adapter("software"), adapter("processor")]);
    let text = "gpu:0 Card (Vulkan), SPIR-V kernels, f32 and f16";
    assert_eq!(gpu, [Finding::ok("gpu", text)]);
    let refused = Adapter { unopened: Some("in use".into()), ..adapter("discrete") };
    assert_eq!(of(&[refused])[0].verdict, Verdict::Problem);
    assert_eq!(of(&[adapter("software")])[0].verdict, Verdict::Problem, "the card is there");
    let none = TestMachine::new();
    let found = findings(&none.machine, &Hardware::default(), &[adapter("software")]);
    assert_eq!(found[0].verdict, Verdict::Warning);
    assert!(found[0].text.contains("computes on the processor"), "{found:?}");
}

#[test]
fn variables_that_leave_drivers_out_are_named() {
    let said = |made: TestMachine| -> Vec<Option<String>> {
        variable_findings(&made.machine).into_iter().map(|finding| finding.remedy).collect()
    };
    assert_eq!(said(TestMachine::new()), []);
    let disabled = TestMachine::new().variable("VK_LOADER_DRIVERS_DISABLE", "*nvidia*");
    assert_eq!(said(disabled), [Some("unset VK_LOADER_DRIVERS_DISABLE".into())]);
    let layer = "/usr/share/vulkan/implicit_layer.d/VkLayer_MESA_device_select.json";
    let mesa = || TestMachine::new().file(layer, "{}");
    assert_eq!(said(mesa()), [Some("export NODEVICE_SELECT=1".into())]);
    assert_eq!(said(mesa().variable("XDG_RUNTIME_DIR", "/run/user/1000")), []);
    assert_eq!(said(mesa().variable("NODEVICE_SELECT", "1")), []);
}

#[test]
fn the_libraries_of_runtimes_are_looked_for_where_the_program_has_those() {
    let made = TestMachine::new().file("/usr/lib64/libcuda.so.1", "");
    assert_eq!(runtime_findings(&made.machine, &[]), []);
    let found = runtime_findings(&made.machine, &[VendorRuntime::Cuda, VendorRuntime::Rocm]);
    assert_eq!(found[0], Finding::ok("loader", "/usr/lib64/libcuda.so.1 for cuda"));
    assert_eq!(found[1].verdict, Verdict::Warning);
    assert!(found[1].text.starts_with("there is no libamdhip64.so"), "{found:?}");
}
