//! The `provisioning` binary; everything is in the library.

fn main() -> std::process::ExitCode {
    provisioning::run(std::env::args_os())
}
