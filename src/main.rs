//! The `assent` program.

use std::process::ExitCode;

use assent::cli::{Cli, Exit, run};
use assent::memory::WipingAllocator;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli).into(),
        Err(help) if !help.use_stderr() => {
            let _ = help.print();
            Exit::Ok.into()
        }
        Err(mistake) => {
            let _ = mistake.print();
            Exit::Usage.into()
        }
    }
}
