//! The `edge-gateway` program; everything is in the library.

fn main() -> std::process::ExitCode {
    edge_gateway::cli::main()
}
