//! What comes from outside, given to what reads it: it may be refused, and must neither panic nor
//! take all memory. Used by the fuzz targets, and by a test that tries every file of `corpus`.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use pipe_engine::command::CommandKind;
use pipe_engine::graph::Graph;
use pipe_engine::kind::StageKind;
use pipe_engine::pipeline_file;
use pipe_models::architecture::Architectures;
use pipe_models::lora::Adapter;
use pipe_runs::Checkpoint;
use pipe_train::checkpoint::{self, ImportOptions, Mapping};
use pipe_train::data::{Dataset, DatasetSettings, Split};
use serde_json::{Value, json};

#[path = "state.rs"]
pub mod state;

/// Reads what somebody else wrote.
pub type Target = fn(&[u8]);

/// Made once: each registry leaves its names in memory, which a leak checker would count.
static ARCHITECTURES: LazyLock<Architectures> = LazyLock::new(Architectures::builtin);

/// Every target with the name of its folder in `corpus`.
pub const ALL: [(&str, Target); 9] = [
    ("pipeline", pipeline),
    ("checkpoint", checkpoint),
    ("metadata", state::metadata),
    ("index", state::index),
    ("cifar", cifar),
    ("archive", archive),
    ("image", image),
    ("adapter", adapter),
    ("pytorch", pytorch),
];

/// A pipeline file: reading, settings, graph.
pub fn pipeline(data: &[u8]) {
    in_folder(|folder| {
        write(&folder.join("p.yaml"), data);
        let mut kinds = pipe_train::stages::kinds(&ARCHITECTURES);
        kinds.push(Arc::new(CommandKind) as Arc<dyn StageKind>);
        match pipeline_file::load(folder, Path::new("p.yaml"), &kinds, &[]).and_then(Graph::build) {
            Ok(graph) => drop(graph.stages().count()),
            Err(error) => drop(error.to_string()),
        }
    });
}

/// A checkpoint file: header, digest, every tensor, and what its model would be.
pub fn checkpoint(data: &[u8]) {
    in_folder(|folder| {
        let path = folder.join("a.ckpt");
        write(&path, data);
        let Ok(file) = Checkpoint::open(&path) else { return };
        let _ = file.verify();
        for tensor in file.tensors() {
            let _ = file.read(&tensor.name);
        }
        let _ = checkpoint::class_names(&file);
        let _ = Adapter::from_checkpoint(&file, "state_dict");
    });
}

/// A batch file of CIFAR-10's binary version.
pub fn cifar(data: &[u8]) {
    in_folder(|folder| {
        let batches = folder.join("cifar-10-batches-bin");
        std::fs::create_dir(&batches).unwrap();
        write(&batches.join("data_batch_1.bin"), data);
        open(folder, json!({"source": "cifar10", "root": ".", "download": false}));
    });
}

/// CIFAR-10's archive.
pub fn archive(data: &[u8]) {
    in_folder(|folder| {
        write(&folder.join("cifar-10-binary.tar.gz"), data);
        open(folder, json!({"source": "cifar10", "root": ".", "download": false}));
    });
}

/// A picture in a folder of images.
pub fn image(data: &[u8]) {
    in_folder(|folder| {
        let class = folder.join("images/a");
        std::fs::create_dir_all(&class).unwrap();
        write(&class.join("a.png"), data);
        open(folder, json!({"source": "image_folder", "root": "images", "image_size": 8}));
    });
}

/// An adapter's two files: one after the other, with the length of the first in front.
pub fn adapter(data: &[u8]) {
    let Some((length, rest)) = data.split_first_chunk::<2>() else { return };
    let (config, weights) = rest.split_at(usize::from(u16::from_le_bytes(*length)).min(rest.len()));
    in_folder(|folder| {
        write(&folder.join("adapter_config.json"), config);
        write(&folder.join("adapter_model.safetensors"), weights);
        let _ = Adapter::read(folder);
    });
}

/// A file of PyTorch's.
pub fn pytorch(data: &[u8]) {
    in_folder(|folder| {
        let path = folder.join("a.pt");
        write(&path, data);
        let options = ImportOptions { image_size: 8, class_names: Vec::new() };
        let (disk, to) = (Default::default(), folder.join("b.ckpt"));
        let _ = checkpoint::import(&disk, &ARCHITECTURES, &path, &to, &options);
        let same = ("{x*}".to_owned(), vec!["{x*}".to_owned()]);
        let mapping = Mapping { weights: vec![same], ..Mapping::default() };
        let _ = checkpoint::import_mapped(&disk, &ARCHITECTURES, &path, &to, &mapping, &options);
    });
}

fn open(root: &Path, settings: Value) {
    let settings: DatasetSettings = serde_json::from_value(settings).unwrap();
    if let Ok(set) = Dataset::open(&settings, &root.into(), &()) {
        let _ = set.check_images(&());
        for index in set.indices(Split::Train).iter().take(4) {
            let _ = set.image(*index);
        }
    }
}

fn write(path: &Path, data: &[u8]) {
    std::fs::write(path, data).unwrap();
}

/// A folder of its own, in memory where the system has such a place.
fn in_folder(work: impl FnOnce(&Path)) {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    work(folder.unwrap().path());
}
