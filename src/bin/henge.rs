//! The member, and what stands before it: parse, build, run.

use henge::{
    config::{self, Config, Invocation, LogSettings},
    process,
};
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    start().unwrap_or_else(|mistakes| {
        for mistake in mistakes {
            eprintln!("henge: {mistake}");
        }
        eprintln!("Try 'henge --help'.");
        ExitCode::from(config::failing_code_of_own())
    })
}

fn start() -> Result<ExitCode, Vec<String>> {
    let log = |settings: &LogSettings| config::init_log(settings).map_err(|mistake| vec![mistake]);
    Ok(match config::parse_own()? {
        Invocation::Run { settings, mut warnings } => {
            let config = Config::from_settings(&settings, &mut warnings)?;
            log(&config.log)?;
            process::run(config, &warnings)
        }
        Invocation::Proxy { config, warnings } => log(&config.log).map(|()| process::run_proxy(*config, &warnings))?,
        Invocation::Gateway { config, warnings } => {
            log(&config.log).map(|()| process::run_gateway(config, &warnings))?
        }
        Invocation::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
    })
}
