//! Completion scripts and manual pages of `henge`, made from the tables of flags.

use super::{
    parse::{argument, member},
    proxy::Program,
};
use clap::{Arg, Command, ValueHint};
use clap_complete::Shell;

/// What `henge completion SHELL` or `henge man [PROGRAM]` print; `None` if `words` ask for neither.
pub(super) fn asked(words: &[&str]) -> Option<Result<String, Vec<String>>> {
    let (first, rest) = words.split_first()?;
    match *first {
        "completion" => Some(match rest {
            ["bash"] => Ok(script(Shell::Bash)),
            ["zsh"] => Ok(script(Shell::Zsh)),
            ["fish"] => Ok(script(Shell::Fish)),
            ["powershell"] => Ok(script(Shell::PowerShell)),
            _ => Err(vec!["it is `henge completion bash`, or zsh, fish or powershell".to_owned()]),
        }),
        "man" => Some(match rest {
            [] => page(with_programs()),
            [program] => match Program::named(program) {
                Some(program) => page(program.whole().name(program.page())),
                None => Err(vec![format!("there is no program {program:?}: proxy, grpc-proxy or gateway")]),
            },
            _ => Err(vec!["it is `henge man`, or `henge man proxy`, grpc-proxy or gateway".to_owned()]),
        }),
        _ => None,
    }
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut with_programs(), "henge", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

fn page(command: Command) -> Result<String, Vec<String>> {
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command).source(concat!("henge ", env!("CARGO_PKG_VERSION")));
    man.render(&mut page).map_err(|error| vec![error.to_string()])?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// The member's flags, and what else the first word may say.
fn with_programs() -> Command {
    let shells = Arg::new("SHELL").value_parser(["bash", "zsh", "fish", "powershell"]);
    let programs = Arg::new("PROGRAM").value_parser(["proxy", "grpc-proxy", "gateway"]);
    with_hints(member())
        .subcommand(Program::Proxy.whole().name("proxy"))
        .subcommand(
            Command::new("grpc-proxy")
                .about("A proxy with etcd's flags")
                .subcommand(Program::GrpcProxy.whole().name("start")),
        )
        .subcommand(Program::Gateway.whole().name("gateway"))
        .subcommand(Command::new("completion").about("Prints a completion script for a shell").arg(shells))
        .subcommand(Command::new("man").about("Prints a manual page").arg(programs))
}

/// Lets shells offer files and folders where that is what a flag takes.
fn with_hints(command: Command) -> Command {
    command.mut_args(|arg| match arg.get_id().as_str() {
        name if name.ends_with("-dir") => arg.value_hint(ValueHint::DirPath),
        name if name.ends_with("-file") => arg.value_hint(ValueHint::FilePath),
        _ => arg,
    })
}

impl Program {
    /// The command with its flags.
    pub(super) fn whole(self) -> Command {
        with_hints(self.command().args(self.flags().iter().map(argument)))
    }

    /// The name of its manual page.
    fn page(self) -> &'static str {
        match self {
            Program::Proxy => "henge-proxy",
            Program::GrpcProxy => "henge-grpc-proxy",
            Program::Gateway => "henge-gateway",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::FLAGS, *};

    #[test]
    fn each_shell_is_offered_every_flag() {
        for shell in ["bash", "zsh", "fish", "powershell"] {
            let script = asked(&["completion", shell]).expect("it is asked for").expect("a script");
            let missing = FLAGS.iter().filter(|flag| !script.contains(flag.name)).map(|flag| flag.name);
            assert_eq!(missing.collect::<Vec<_>>(), [""; 0], "{shell}");
            assert!(script.contains("cache-prefix") && script.contains("grpc-proxy"), "{shell}");
        }
        assert!(asked(&["completion"]).expect("it is asked for").is_err());
        assert!(asked(&["completion", "tcsh"]).expect("it is asked for").is_err());
        assert!(asked(&["--name=a"]).is_none() && asked(&[]).is_none());
    }

    #[test]
    fn each_program_has_a_page() {
        let page = |words: &[&str]| asked(words).expect("it is asked for").expect("a page");
        let member = page(&["man"]);
        assert!(member.contains(".TH henge 1") && member.contains("auto\\-compaction\\-retention"), "{member}");
        assert!(member.contains("henge\\-proxy(1)") || member.contains("henge-proxy(1)"), "{member}");
        assert!(page(&["man", "proxy"]).contains(".TH henge-proxy 1"));
        assert!(page(&["man", "gateway"]).contains("listen\\-addr"));
        assert!(asked(&["man", "nothing"]).expect("it is asked for").is_err());
    }
}
