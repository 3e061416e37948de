//! The `ext-authz` binary: arguments in, exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    ext_authz::cli::main()
}
