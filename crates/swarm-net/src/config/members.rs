//! Who may take part, by the flags: with a secret those who hold it, without one those on the same machine.

use std::path::PathBuf;

use clap::builder::{OsStringValueParser, TypedValueParser};
use libp2p::Multiaddr;
use swarm_types::Admission;

use crate::{
    NetError,
    admission::{
        invitation::Invitation,
        keyring::Source,
        secret_file::{self, Line},
    },
    entry_address::EntryAddress,
    transport::address,
};

/// Who may take part.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct MemberConfig {
    /// File with the swarm's secret, which all its nodes hold and nobody else: `llama-swarm secret new` makes one. Of
    /// several, one a line, the first proves and all are accepted. Read again when it changes.
    #[arg(long, env = "LLAMA_SWARM_SECRET_FILE", value_name = "FILE", value_parser = file())]
    pub secret_file: Option<PathBuf>,

    /// An invitation by `llama-swarm invite`: the node to enter by and the secret, in place of --rendezvous and
    /// --secret-file. Other users of the machine may see the command line: prefer --join-file.
    #[arg(long, env = "LLAMA_SWARM_JOIN", value_name = "LINE", hide_env_values = true)]
    pub join: Option<String>,

    /// File with an invitation, or one a line. Read again when it changes.
    #[arg(long, env = "LLAMA_SWARM_JOIN_FILE", value_name = "FILE", value_parser = file())]
    pub join_file: Option<PathBuf>,

    /// Do without a secret although other machines can reach this node: whoever reaches it is a member, reads what
    /// passes through and can forge answers.
    #[arg(long, env = "LLAMA_SWARM_OPEN_SWARM")]
    pub open_swarm: bool,
}

/// A path, also an empty one: an environment variable that is set to nothing names no file.
pub(super) fn file() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// What admits newcomers, and the nodes to enter by that invitations name.
pub(super) struct Members {
    pub(super) admission: Admission,
    pub(super) secrets: Source,
    pub(super) entries: Vec<EntryAddress>,
}

impl Members {
    pub(super) fn check(config: &MemberConfig) -> Result<Self, NetError> {
        let (secrets, entries) = secrets(config)?;
        Ok(Self { admission: admission(&secrets, config.open_swarm)?, secrets, entries })
    }
}

fn secrets(config: &MemberConfig) -> Result<(Source, Vec<EntryAddress>), NetError> {
    let file = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let join = config.join.as_deref().map(str::trim).filter(|line| !line.is_empty());
    match (file(&config.secret_file), join, file(&config.join_file)) {
        (None, None, None) => Ok((Source::Nothing, vec![])),
        (Some(path), None, None) | (None, None, Some(path)) => {
            let entries = secret_file::read(&path)?.iter().filter_map(invited).collect();
            Ok((Source::File(path), entries))
        }
        (None, Some(line), None) => {
            let invitation: Invitation =
                line.parse().map_err(|message: String| NetError::config("--join", message))?;
            let entries = vec![invitation.entry()];
            Ok((Source::Fixed(vec![invitation.secret]), entries))
        }
        (_, Some(_), _) => {
            Err(NetError::config("--join", "holds a secret already: not with --secret-file or --join-file"))
        }
        (Some(_), None, Some(_)) => {
            Err(NetError::config("--join-file", "holds a secret already: not with --secret-file"))
        }
    }
}

fn invited(line: &Line) -> Option<EntryAddress> {
    match line {
        Line::Invitation(invitation) => Some(invitation.entry()),
        Line::Secret(_) => None,
    }
}

fn admission(source: &Source, open: bool) -> Result<Admission, NetError> {
    match (source, open) {
        (Source::Nothing, false) => Ok(Admission::Loopback),
        (Source::Nothing, true) => Ok(Admission::Open),
        (_, false) => Ok(Admission::Secret),
        (_, true) => Err(NetError::config(
            "--open-swarm",
            "a node with a secret is not open: leave out one of the two",
        )),
    }
}

/// Without a secret, whoever reaches the node is a member: so nobody from elsewhere may.
pub(super) fn stay_on_this_machine(listen: &[Multiaddr], entries: &[EntryAddress]) -> Result<(), NetError> {
    let cure = "give all nodes one secret (`llama-swarm secret new FILE`, then --secret-file FILE), or an invitation \
                (--join-file), or say --open-swarm if everybody who can reach them may take part";
    if let Some(address) = listen.iter().find(|address| !address::is_loopback(address)) {
        return Err(NetError::config(
            "--listen",
            format!("{address} can be reached by other machines, and there is no secret: {cure}"),
        ));
    }
    let elsewhere = |entry: &&EntryAddress| !entry.addresses.iter().all(address::is_this_machine);
    if let Some(entry) = entries.iter().find(elsewhere) {
        let address = &entry.addresses[0];
        return Err(NetError::config(
            "--rendezvous",
            format!("{address} is another machine, and there is no secret: {cure}"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::{NetConfig, Role, Secret, config::Settings, peer};

    fn refused(config: NetConfig) -> &'static str {
        match Settings::check(config, Role::Worker) {
            Err(NetError::Config { setting, .. }) => setting,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn config(members: MemberConfig) -> NetConfig {
        NetConfig { members, ..NetConfig::default() }
    }

    fn listening(listen: &str, open_swarm: bool) -> NetConfig {
        let members = MemberConfig { open_swarm, ..MemberConfig::default() };
        NetConfig { listen: vec![listen.into()], ..config(members) }
    }

    /// As an environment variable that is set to nothing gives it, which compose files cannot leave out.
    #[test]
    fn an_empty_path_is_no_file() {
        #[derive(clap::Parser)]
        struct Cli {
            #[command(flatten)]
            net: NetConfig,
        }
        let flags = ["--secret-file", "--join-file", "--identity"];
        let given = flags.into_iter().flat_map(|flag| [flag, ""]);
        let net = <Cli as clap::Parser>::parse_from(["node"].into_iter().chain(given)).net;
        assert_eq!(Settings::check(net, Role::Worker).unwrap().admission, Admission::Loopback);
    }

    #[test]
    fn without_a_secret_a_node_stays_on_its_machine_unless_it_is_told_to_be_open() {
        let alone = Settings::check(NetConfig::default(), Role::Rendezvous).unwrap();
        assert_eq!(alone.admission, Admission::Loopback);
        assert!(alone.listen.iter().all(address::is_loopback), "{:?}", alone.listen);
        for listen in ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip6/::/tcp/1"] {
            assert_eq!(refused(listening(listen, false)), "--listen", "{listen}");
            let open = Settings::check(listening(listen, true), Role::Worker).unwrap();
            assert_eq!(open.admission, Admission::Open);
        }
        let entering = |by: &str| NetConfig { rendezvous: vec![by.into()], ..NetConfig::default() };
        for near in ["localhost:1", "127.0.0.1:1", "[::1]:1", "/dns4/localhost/tcp/1"] {
            assert!(Settings::check(entering(near), Role::Worker).is_ok(), "{near}");
        }
        for far in ["rendezvous.lan:4001", "10.0.0.1:4001", "/dns4/localhost.evil/tcp/1"] {
            assert_eq!(refused(entering(far)), "--rendezvous", "{far}");
        }
    }

    #[test]
    fn a_secret_or_an_invitation_lets_a_node_listen_everywhere() {
        let folder = tempfile::tempdir().unwrap();
        let (secrets, invitations) = (folder.path().join("secret"), folder.path().join("invitation"));
        let (secret, node) = (Secret::generate(), peer::node_id(&libp2p::PeerId::random()));
        secret.create(&secrets).unwrap();
        let line = Invitation::new("rendezvous.lan:4001", &node, secret).unwrap().reveal();
        fs::write(&invitations, format!("{line}\n")).unwrap();
        let by_file = MemberConfig { secret_file: Some(secrets), ..MemberConfig::default() };
        let by_line = MemberConfig { join: Some(line), ..MemberConfig::default() };
        let by_invitation = MemberConfig { join_file: Some(invitations), ..MemberConfig::default() };
        for (one, entries) in [(&by_file, 0), (&by_line, 1), (&by_invitation, 1)] {
            let settings = Settings::check(config(one.clone()), Role::Worker).unwrap();
            assert_eq!((settings.admission, settings.entries.len()), (Admission::Secret, entries));
            assert!(!settings.listen.iter().any(address::is_loopback));
            let pinned = settings.entries.iter().all(|entry| entry.peer.is_some());
            assert!(pinned, "nobody else may answer there");
            let open_too = MemberConfig { open_swarm: true, ..one.clone() };
            assert_eq!(refused(config(open_too)), "--open-swarm");
        }
        let line_too = MemberConfig { join: by_line.join.clone(), ..by_file.clone() };
        assert_eq!(refused(config(line_too)), "--join");
        let invitation_too = MemberConfig { join_file: by_invitation.join_file, ..by_file };
        assert_eq!(refused(config(invitation_too)), "--join-file");
        let nonsense = MemberConfig { join: Some("lsw1:nonsense".into()), ..MemberConfig::default() };
        assert_eq!(refused(config(nonsense)), "--join");
        let missing = folder.path().join("none");
        let missing = config(MemberConfig { secret_file: Some(missing), ..MemberConfig::default() });
        assert!(matches!(Settings::check(missing, Role::Worker), Err(NetError::Secret { .. })));
    }
}
