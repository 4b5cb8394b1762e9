//! The `edge-gateway` program; everything is in the library.

use tikv_jemallocator::Jemalloc;

/// Millions of answers, long and short, kept and not: after six minutes of them the C library's allocator held 164 MB
/// for 80 MB in use, and more each minute, and this one 107.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> std::process::ExitCode {
    edge_gateway::cli::main()
}
