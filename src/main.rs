//! The program `pipe`: the command line over all stage kinds and architectures of the product.

// What comes from outside must not be able to end the program.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::todo,
        clippy::unimplemented
    )
)]

mod allocator;

fn main() {
    allocator::keep_memory();
    let architectures = burn_pipe::Architectures::builtin();
    burn_pipe::main_with(burn_pipe::kinds(&architectures), architectures);
}
