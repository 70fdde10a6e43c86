//! member list, add, remove, update, promote; replace has a file of its own.

use super::{
    failure::Failure,
    global::Global,
    output::{Answer, Format, Printer},
    replace,
};
use crate::{
    go::{self, quote},
    pb::etcdserverpb::{Member, MemberAddResponse},
};

/// Member commands.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Lists all members in the cluster
    List {
        /// Linearizable(l) or Serializable(s)
        #[arg(long, default_value = "l")]
        consistency: String,
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Adds a member into the cluster
    Add(Add),
    /// Removes a member from the cluster
    Remove {
        #[arg(value_name = "MEMBER-ID")]
        rest: Vec<String>,
    },
    /// Updates a member in the cluster
    Update {
        #[arg(value_name = "MEMBER-ID")]
        rest: Vec<String>,
        /// Comma separated peer URLs for the updated member
        #[arg(long, default_value = "", hide_default_value = true)]
        peer_urls: String,
    },
    /// Promotes a non-voting member in the cluster
    Promote {
        #[arg(value_name = "MEMBER-ID")]
        rest: Vec<String>,
    },
    /// Replaces a member by a new one, step by step; run it again to go on after an interruption
    Replace(replace::Args),
}

/// How to add a member.
#[derive(clap::Args, Debug)]
pub struct Add {
    #[arg(value_name = "MEMBER-NAME")]
    rest: Vec<String>,
    /// Comma separated peer URLs for the new member
    #[arg(long, default_value = "", hide_default_value = true)]
    peer_urls: String,
    /// The new member gets no vote yet
    #[arg(long)]
    learner: bool,
    /// Wait until the new learner has started and caught up, then give it a vote
    #[arg(long, requires = "learner")]
    auto_promote: bool,
    /// How long to wait for it
    #[arg(long, default_value = "1h", value_parser = crate::go::duration)]
    wait: std::time::Duration,
}

pub async fn run(global: &Global, command: Command) -> Result<(), Failure> {
    match command {
        Command::List { consistency, .. } => list(global, &consistency).await,
        Command::Add(args) => add(global, args).await,
        Command::Remove { rest } => {
            let (id, printer) = (only_id(&rest)?, global.printer()?.for_changes()?);
            printer.print(&Answer::MemberRemove(id, global.client().await?.member_remove(id).await?))
        }
        Command::Update { rest, peer_urls } => {
            let id = only_id(&rest)?;
            let (urls, printer) = (given_urls(&peer_urls)?, global.printer()?.for_changes()?);
            printer.print(&Answer::MemberUpdate(id, global.client().await?.member_update(id, urls).await?))
        }
        Command::Promote { rest } => {
            let (id, printer) = (only_id(&rest)?, global.printer()?.for_changes()?);
            printer.print(&Answer::MemberPromote(id, global.client().await?.member_promote(id).await?))
        }
        Command::Replace(args) => replace::run(global, args).await,
    }
}

async fn list(global: &Global, consistency: &str) -> Result<(), Failure> {
    let linearizable = match consistency {
        "l" => true,
        "s" => false,
        other => return Err(Failure::unsupported(format!("unknown consistency flag {other:?}"))),
    };
    let answer = global.client().await?.member_list(linearizable).await?;
    global.printer()?.print(&Answer::Members(answer))
}

async fn add(global: &Global, args: Add) -> Result<(), Failure> {
    let name = only_name(&args.rest)?;
    let (urls, printer) = (given_urls(&args.peer_urls)?, global.printer()?.for_changes()?);
    let client = global.client().await?;
    let answer = match args.learner {
        true => client.member_add_as_learner(urls).await?,
        false => client.member_add(urls).await?,
    };
    let id = answer.member.as_ref().map_or(0, |member| member.id);
    print_added(printer, name, &args.peer_urls, answer)?;
    if args.auto_promote {
        replace::promote_when_ready(global, &client, id, args.wait).await?;
    }
    Ok(())
}

/// The answer, and in the simple format how to start the new member.
fn print_added(printer: Printer, name: &str, peer_urls: &str, answer: MemberAddResponse) -> Result<(), Failure> {
    let id = answer.member.as_ref().map_or(0, |member| member.id);
    let start = how_to_start(name, id, peer_urls, &answer.members);
    printer.print(&Answer::MemberAdd(answer))?;
    if printer.format == Format::Simple {
        print!("\n{start}");
    }
    Ok(())
}

/// The variables that member `id` of `members` is to be started with.
pub fn how_to_start(name: &str, id: u64, peer_urls: &str, members: &[Member]) -> String {
    let pairs = members.iter().flat_map(|member| {
        let name = if member.id == id { name } else { &member.name };
        member.peer_ur_ls.iter().map(move |url| format!("{name}={url}"))
    });
    let cluster = pairs.collect::<Vec<_>>().join(",");
    let quoted = |text: &str| quote(text.as_bytes());
    format!(
        "ETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quoted(name),
        quoted(&cluster),
        quoted(peer_urls)
    )
}

fn only_name(rest: &[String]) -> Result<&str, Failure> {
    match rest {
        [] => Err(Failure::args("member name not provided")),
        [name] => Ok(name),
        more => {
            let urls = more.iter().filter(|word| word.to_lowercase().starts_with("http"));
            let hints = urls.map(|url| format!(", did you mean --peer-urls={url}")).collect::<String>();
            Err(Failure::args(format!("too many arguments{hints}")))
        }
    }
}

fn only_id(rest: &[String]) -> Result<u64, Failure> {
    let [text] = rest else { return Err(Failure::args("member ID is not provided")) };
    id(text).map_err(|failure| failure.map(|why| format!("bad member ID arg ({why}), expecting ID in Hex")))
}

/// The id of a member, which etcdctl reads with Go's library and its complaints.
pub fn id(text: &str) -> Result<u64, Failure> {
    go::uint_of(text, 16).map_err(Failure::args)
}

/// Splits and checks a list of peer URLs, as Go's client does before it sends them.
pub fn given_urls(text: &str) -> Result<Vec<String>, Failure> {
    if text.is_empty() {
        return Err(Failure::args("member peer urls not provided"));
    }
    let urls = text.split(',').map(str::trim);
    urls.map(|url| checked_url(url).map(|()| url.to_owned()).map_err(Failure::error)).collect()
}

fn checked_url(url: &str) -> Result<(), String> {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", ""));
    match scheme {
        "unix" | "unixs" => Ok(()),
        "http" | "https" => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let port = host.rsplit_once(':').map(|(_, port)| port);
            if port.is_none_or(|port| port.parse::<u16>().is_err()) {
                return Err(format!("URL address does not have the form \"host:port\": {url}"));
            }
            if path.is_empty() { Ok(()) } else { Err(format!("URL must not contain a path: {url}")) }
        }
        _ => Err(format!("URL scheme must be http, https, unix, or unixs: {url}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_refused_as_go_does() {
        assert_eq!(id("8e9e05c52164694d"), Ok(0x8e9e05c52164694d));
        let text = |word| id(word).expect_err("no id").text().to_owned();
        assert_eq!(text("zz"), "strconv.ParseUint: parsing \"zz\": invalid syntax");
        assert_eq!(text("+1"), "strconv.ParseUint: parsing \"+1\": invalid syntax");
        assert_eq!(text("1ffffffffffffffff"), "strconv.ParseUint: parsing \"1ffffffffffffffff\": value out of range");
    }

    #[test]
    fn urls_are_checked_before_they_are_sent() {
        assert_eq!(given_urls("http://a:1, unix:///x").expect("good ones"), ["http://a:1", "unix:///x"]);
        let text = |url| given_urls(url).expect_err("a bad one").text().to_owned();
        assert_eq!(text("x"), "URL scheme must be http, https, unix, or unixs: x");
        assert_eq!(text("http://a"), "URL address does not have the form \"host:port\": http://a");
        assert_eq!(text("http://a:1/x"), "URL must not contain a path: http://a:1/x");
        assert_eq!(text(""), "member peer urls not provided");
    }

    #[test]
    fn a_new_member_is_told_all_members_and_its_own_name() {
        let old = Member { id: 1, name: "a".into(), peer_ur_ls: vec!["http://a:1".into()], ..Member::default() };
        let new = Member { id: 2, peer_ur_ls: vec!["http://b:1".into(), "http://b:2".into()], ..Member::default() };
        let text = how_to_start("b", 2, "http://b:1,http://b:2", &[old, new]);
        let lines = [
            "ETCD_NAME=\"b\"",
            "ETCD_INITIAL_CLUSTER=\"a=http://a:1,b=http://b:1,b=http://b:2\"",
            "ETCD_INITIAL_ADVERTISE_PEER_URLS=\"http://b:1,http://b:2\"",
            "ETCD_INITIAL_CLUSTER_STATE=\"existing\"",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), lines);
    }
}
