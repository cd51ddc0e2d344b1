//! The diffusion process: what the network is asked to learn, and how images come out of it.

mod denoising;
mod objective;
#[cfg(test)]
mod objective_tests;
mod sampler;

pub use objective::{InvalidObjective, Objective, ObjectiveKind, Scaling, Times};
pub use sampler::{Churn, Guided, Method, Sampler, Step};
