//! Data sets from the outside: archives that the tests make, servers on the loopback address, folders of images.

mod cifar;
mod download;
mod folder;
mod golden;
mod imagenette;
mod loader;
mod made;
mod shapes;
mod unpack;
