//! The program `mailferry`. All of it is in the library: what is async is compiled where it is run, and would be compiled
//! a second time here.

use std::process::ExitCode;

fn main() -> ExitCode {
    mailferry::command_line::main()
}
