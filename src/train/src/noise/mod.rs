//! The diffusion process: what the network is asked to learn.

pub mod edm;

pub use edm::Edm;
