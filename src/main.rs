//! CLI in, exit code out.

use std::process::ExitCode;

use flagstone_engine::allocator::Allocator;

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    flagstone::cli::main()
}
