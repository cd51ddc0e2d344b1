//! The program `pipe`: the command line over all stage kinds of the product.

mod allocator;

fn main() {
    allocator::keep_memory();
    burn_pipe::main_with(burn_pipe::kinds());
}
