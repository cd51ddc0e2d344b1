//! Data sets from the outside: archives that the tests make, servers on the loopback address,
//! folders of images.

mod checked;
mod cifar;
mod download;
mod folder;
mod golden;
mod groups;
mod imagenette;
mod layout;
mod loader;
mod made;
mod parquet;
mod random_trees;
mod shapes;
mod survey;
mod unpack;
mod zipped;
