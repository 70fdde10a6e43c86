//! auth, user, role: who may do what.

use super::{
    failure::Failure,
    global::Global,
    output::{Answer, Printer},
    password, system,
};
use crate::{
    client::{Client, DeleteOptions, Error},
    go,
    pb::authpb::{Permission, permission::Type},
    types,
};
use bytes::Bytes;
use std::io::BufRead;

const ROOT: &str = "root";

/// Whether permissions are enforced.
#[derive(clap::Subcommand, Debug)]
pub enum Auth {
    /// Enables authentication
    Enable {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Disables authentication
    Disable {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Returns authentication status
    Status {
        #[arg(hide = true)]
        more: Vec<String>,
    },
}

/// Users.
#[derive(clap::Subcommand, Debug)]
pub enum User {
    /// Adds a new user
    Add {
        /// The name, or name:password
        #[arg(value_name = "USER")]
        name: Vec<String>,
        /// Ask for the password twice; false: read the first word of standard input
        #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
            action = clap::ArgAction::Set, value_parser = go::boolean)]
        interactive: bool,
        /// The password
        #[arg(long, default_value = "", hide_default_value = true)]
        new_user_password: String,
        /// Create a user without password (certificates only)
        #[arg(long)]
        no_password: bool,
    },
    /// Deletes a user
    Delete {
        /// The user
        #[arg(value_name = "USER")]
        name: Vec<String>,
    },
    /// Gets detailed information of a user
    Get {
        /// The user
        #[arg(value_name = "USER")]
        name: Vec<String>,
        /// Show permissions of roles granted to the user
        #[arg(long)]
        detail: bool,
    },
    /// Lists all users
    List {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Changes password of user
    Passwd {
        /// The user
        #[arg(value_name = "USER")]
        name: Vec<String>,
        /// Ask for the password twice; false: read the first word of standard input
        #[arg(long, default_value = "true", num_args = 0..=1, require_equals = true, default_missing_value = "true",
            action = clap::ArgAction::Set, value_parser = go::boolean)]
        interactive: bool,
    },
    /// Grants a role to a user
    GrantRole {
        /// User and role
        #[arg(value_name = "USER ROLE")]
        words: Vec<String>,
    },
    /// Revokes a role from a user
    RevokeRole {
        /// User and role
        #[arg(value_name = "USER ROLE")]
        words: Vec<String>,
    },
}

/// Roles.
#[derive(clap::Subcommand, Debug)]
pub enum Role {
    /// Adds a new role
    Add {
        /// The role
        #[arg(value_name = "ROLE")]
        name: Vec<String>,
    },
    /// Deletes a role
    Delete {
        /// The role
        #[arg(value_name = "ROLE")]
        name: Vec<String>,
    },
    /// Gets detailed information of a role
    Get {
        /// The role
        #[arg(value_name = "ROLE")]
        name: Vec<String>,
    },
    /// Lists all roles
    List {
        #[arg(hide = true)]
        more: Vec<String>,
    },
    /// Grants a key to a role
    GrantPermission {
        /// Role, read, write or readwrite, key, and where a range ends
        #[arg(value_name = "ROLE TYPE KEY [ENDKEY]")]
        words: Vec<String>,
        #[command(flatten)]
        range: Range,
    },
    /// Revokes a key from a role
    RevokePermission {
        /// Role, key, and where a range ends
        #[arg(value_name = "ROLE KEY [ENDKEY]")]
        words: Vec<String>,
        #[command(flatten)]
        range: Range,
    },
}

/// Which keys a permission is about.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Range {
    /// All keys with this prefix
    #[arg(long)]
    prefix: bool,
    /// All keys that are greater than or equal to the given key, compared by bytes
    #[arg(long)]
    from_key: bool,
}

pub async fn auth(global: &Global, command: Auth) -> Result<(), Failure> {
    match command {
        Auth::Enable { more } => {
            none(&more, "auth enable command does not accept any arguments")?;
            enable(&global.client().await?).await?;
            println!("Authentication Enabled");
        }
        Auth::Disable { more } => {
            none(&more, "auth disable command does not accept any arguments")?;
            global.client().await?.auth_disable().await?;
            println!("Authentication Disabled");
        }
        Auth::Status { more } => {
            none(&more, "auth status command does not accept any arguments")?;
            let answer = global.client().await?.auth_status().await?;
            global.printer()?.print(&Answer::AuthStatus(answer))?;
        }
    }
    Ok(())
}

/// As etcdctl does: the user root gets the role root if it has none.
async fn enable(client: &Client) -> Result<(), Error> {
    match client.auth_enable().await {
        Err(error) if error.is(&types::Error::RootRoleNotExist) => {
            client.role_add(ROOT).await?;
            client.user_grant_role(ROOT, ROOT).await?;
            client.auth_enable().await.map(drop)
        }
        enabled => enabled.map(drop),
    }
}

pub async fn user(global: &Global, command: User) -> Result<(), Failure> {
    let printer = global.printer()?;
    let change = |text: String, header| printer.print(&Answer::AuthChange(text, header));
    match command {
        User::Add { name, interactive, new_user_password, no_password } => {
            let given = one(&name, "user add command requires user name as its argument")?;
            if no_password {
                let answer = global.client().await?.user_add_without_password(given).await?;
                return change(format!("User {given} created"), answer.header);
            }
            let (name, password) = match given.split_once(':') {
                _ if !new_user_password.is_empty() => (given, new_user_password),
                Some(("", _)) => return Err(Failure::args("empty user name is not allowed")),
                Some((name, password)) => (name, password.to_owned()),
                None => (given, new_password(given, interactive)?),
            };
            let answer = global.client().await?.user_add(name, &password).await?;
            change(format!("User {name} created"), answer.header)
        }
        User::Delete { name } => {
            let name = one(&name, "user delete command requires user name as its argument")?;
            let answer = global.client().await?.user_delete(name).await?;
            change(format!("User {name} deleted"), answer.header)
        }
        User::Get { name, detail } => {
            let name = one(&name, "user get command requires user name as its argument")?;
            get(&global.client().await?, name, detail, printer).await
        }
        User::List { more } => {
            none(&more, "user list command requires no arguments")?;
            printer.print(&Answer::UserList(global.client().await?.user_list().await?))
        }
        User::Passwd { name, interactive } => {
            let name = one(&name, "user passwd command requires user name as its argument")?;
            let password = new_password(name, interactive)?;
            let answer = global.client().await?.user_change_password(name, &password).await?;
            change("Password updated".to_owned(), answer.header)
        }
        User::GrantRole { words } => {
            let [user, role] = &words[..] else {
                return Err(Failure::args("user grant command requires user name and role name as its argument"));
            };
            let answer = global.client().await?.user_grant_role(user, role).await?;
            change(format!("Role {role} is granted to user {user}"), answer.header)
        }
        User::RevokeRole { words } => {
            let [user, role] = &words[..] else {
                return Err(Failure::args("user revoke-role requires user name and role name as its argument"));
            };
            let answer = global.client().await?.user_revoke_role(user, role).await?;
            change(format!("Role {role} is revoked from user {user}"), answer.header)
        }
    }
}

async fn get(client: &Client, name: &str, detail: bool, printer: Printer) -> Result<(), Failure> {
    let answer = client.user_get(name).await?;
    if !detail {
        return printer.print(&Answer::UserGet(name.to_owned(), answer));
    }
    println!("User: {name}");
    for role in answer.roles {
        println!();
        let answer = client.role_get(&role).await?;
        printer.print(&Answer::RoleGet(role, answer))?;
    }
    Ok(())
}

pub async fn role(global: &Global, command: Role) -> Result<(), Failure> {
    let printer = global.printer()?;
    let change = |text: String, header| printer.print(&Answer::AuthChange(text, header));
    match command {
        Role::Add { name } => {
            let name = one(&name, "role add command requires role name as its argument")?;
            let answer = global.client().await?.role_add(name).await?;
            change(format!("Role {name} created"), answer.header)
        }
        Role::Delete { name } => {
            let name = one(&name, "role delete command requires role name as its argument")?;
            let answer = global.client().await?.role_delete(name).await?;
            change(format!("Role {name} deleted"), answer.header)
        }
        Role::Get { name } => {
            let name = one(&name, "role get command requires role name as its argument")?;
            let answer = global.client().await?.role_get(name).await?;
            printer.print(&Answer::RoleGet(name.to_owned(), answer))
        }
        Role::List { more } => {
            none(&more, "role list command requires no arguments")?;
            printer.print(&Answer::RoleList(global.client().await?.role_list().await?))
        }
        Role::GrantPermission { words, range } => {
            let [role, kind, keys @ ..] = &words[..] else { return Err(too_few_to_grant()) };
            let [key, end @ ..] = keys else { return Err(too_few_to_grant()) };
            let perm_type = kind_of(kind)?.into();
            let (key, range_end) = range.of(key, end.first())?;
            let permission = Permission { perm_type, key, range_end };
            let answer = global.client().await?.role_grant_permission(role, permission).await?;
            change(format!("Role {role} updated"), answer.header)
        }
        Role::RevokePermission { words, range } => {
            let [role, key, end @ ..] = &words[..] else {
                let text = "role revoke-permission command requires role name and key [endkey] as its argument";
                return Err(Failure::args(text));
            };
            let (from, to) = range.of(key, end.first())?;
            let what = match &to[..] {
                [] => format!("key {key}"),
                [0] => format!("range [{key}, <open ended>"),
                to => format!("range [{key}, {})", String::from_utf8_lossy(to)),
            };
            let answer = global.client().await?.role_revoke_permission(role, from, to).await?;
            change(format!("Permission of {what} is revoked from role {role}"), answer.header)
        }
    }
}

fn too_few_to_grant() -> Failure {
    Failure::args("role grant command requires role name, permission type, and key [endkey] as its argument")
}

fn kind_of(word: &str) -> Result<Type, Failure> {
    match word.to_uppercase().as_str() {
        "READ" => Ok(Type::Read),
        "WRITE" => Ok(Type::Write),
        "READWRITE" => Ok(Type::Readwrite),
        _ => Err(Failure::args(format!("invalid permission type: {word}"))),
    }
}

impl Range {
    /// Key and end as they are sent.
    fn of(self, key: &str, end: Option<&String>) -> Result<(Bytes, Bytes), Failure> {
        const ZERO: Bytes = Bytes::from_static(&[0]);
        if self.prefix && self.from_key {
            return Err(Failure::args("--from-key and --prefix flags are mutually exclusive"));
        }
        if key.is_empty() {
            // No key is empty: what begins there begins at the lowest.
            return Ok((ZERO, if self.prefix || self.from_key { ZERO } else { Bytes::new() }));
        }
        let range_end = match end {
            Some(_) if self.prefix => return Err(Failure::args("unexpected endkey argument with --prefix flag")),
            Some(_) if self.from_key => return Err(Failure::args("unexpected endkey argument with --from-key flag")),
            Some(end) => Bytes::from(end.clone()),
            None if self.prefix => DeleteOptions::prefix(key).range_end,
            None if self.from_key => ZERO,
            None => Bytes::new(),
        };
        Ok((Bytes::copy_from_slice(key.as_bytes()), range_end))
    }
}

/// A new password: asked for twice, or the first word of standard input.
fn new_password(name: &str, interactive: bool) -> Result<String, Failure> {
    if !interactive {
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line).map_err(Failure::io)?;
        return Ok(line.split_whitespace().next().unwrap_or_default().to_owned());
    }
    let ask = |prompt: String| {
        let typed = password::ask(&prompt);
        typed.map_err(|error| Failure::args(format!("failed to ask password: {}", system::cause(&error))))
    };
    let first = ask(format!("Password of {name}: "))?;
    if first.is_empty() {
        return Err(Failure::args("empty password"));
    }
    match first == ask(format!("Type password of {name} again for confirmation: "))? {
        true => Ok(first),
        false => Err(Failure::args("given passwords are different")),
    }
}

fn one<'a>(words: &'a [String], complaint: &str) -> Result<&'a str, Failure> {
    match words {
        [word] => Ok(word),
        _ => Err(Failure::args(complaint)),
    }
}

fn none(words: &[String], complaint: &str) -> Result<(), Failure> {
    if words.is_empty() { Ok(()) } else { Err(Failure::args(complaint)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_permissions_are_spelled_as_in_etcdctl() {
        let of = |prefix, from_key, key: &str, end: Option<&str>| {
            let end = end.map(str::to_owned);
            Range { prefix, from_key }.of(key, end.as_ref()).map_err(|failure| failure.text().to_owned())
        };
        let pair = |key: &'static str, end: &'static str| Ok((Bytes::from(key), Bytes::from(end)));
        assert_eq!(of(false, false, "a", None), pair("a", ""));
        assert_eq!(of(false, false, "a", Some("c")), pair("a", "c"));
        assert_eq!(of(true, false, "a", None), pair("a", "b"));
        assert_eq!(of(false, true, "a", None), pair("a", "\0"));
        assert_eq!(of(true, false, "", None), pair("\0", "\0"));
        assert_eq!(of(false, false, "", None), pair("\0", ""));
        assert!(of(true, true, "a", None).unwrap_err().contains("mutually exclusive"));
        assert!(of(true, false, "a", Some("c")).unwrap_err().contains("--prefix"));
        assert!(of(false, true, "a", Some("c")).unwrap_err().contains("--from-key"));
    }
}
