//! The member: parse, build, run.

use henge::{
    config::{self, Config, Invocation},
    process,
};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let (settings, mut warnings) = match config::parse(std::env::args().skip(1), std::env::vars()) {
        Ok(Invocation::Run { settings, warnings }) => (settings, warnings),
        Ok(Invocation::Print(text)) => {
            print!("{text}");
            return ExitCode::SUCCESS;
        }
        Err(mistakes) => return complain(&mistakes),
    };
    let config = match Config::from_settings(&settings, &mut warnings) {
        Ok(config) => config,
        Err(mistakes) => return complain(&mistakes),
    };
    if let Err(mistake) = config::init_log(&config) {
        return complain(&[mistake]);
    }
    process::run(config, &warnings)
}

fn complain(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        eprintln!("henge: {mistake}");
    }
    eprintln!("Try 'henge --help'.");
    ExitCode::FAILURE
}
