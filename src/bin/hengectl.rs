//! The command line client; see `henge::ctl`.

fn main() -> std::process::ExitCode {
    henge::ctl::main()
}
