//! The diffusion process: what the network is asked to learn, and how images come out of it.

pub mod edm;
mod sampler;

pub use edm::Edm;
pub use sampler::{Churn, Guided, Method, Sampler, Step};
