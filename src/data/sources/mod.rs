//! The data sources: one file each, and the list of them in `registry.rs`.

mod cifar;
mod cifar_class_names;
mod colour;
mod image_folder;
mod imagenette;
pub(crate) mod registry;
mod shapes;
mod signed_distance;
mod synthetic;
mod trees;
