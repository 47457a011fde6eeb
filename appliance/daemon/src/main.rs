//! The `holdfastd` program.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    daemon::main()
}
