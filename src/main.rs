//! CLI in, exit code out.

use std::process::ExitCode;

use flagstone_engine::allocator::{self, Allocator};

#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    allocator::stay_on_small_pages();
    flagstone::cli::main()
}
