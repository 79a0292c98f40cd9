//! Who may take part, by the flags: with a secret those who hold it, without one those on the same machine.

use std::path::PathBuf;

use libp2p::Multiaddr;
use swarm_types::Admission;

use super::{EntryAddress, wrong};
use crate::{
    NetConfig, NetError,
    admission::{invitation::Invitation, keyring::Source, secret},
    transport::address,
};

/// What admits newcomers, and the nodes to enter by that invitations name.
pub(super) struct Members {
    pub(super) admission: Admission,
    pub(super) secrets: Source,
    pub(super) entries: Vec<EntryAddress>,
}

impl Members {
    pub(super) fn check(config: &NetConfig) -> Result<Self, NetError> {
        let (secrets, entries) = secrets(config)?;
        Ok(Self { admission: admission(&secrets, config.open_swarm)?, secrets, entries })
    }
}

fn secrets(config: &NetConfig) -> Result<(Source, Vec<EntryAddress>), NetError> {
    let file = |path: &Option<PathBuf>| path.clone().filter(|path| !path.as_os_str().is_empty());
    let join = config.join.as_deref().map(str::trim).filter(|line| !line.is_empty());
    match (file(&config.secret_file), join, file(&config.join_file)) {
        (None, None, None) => Ok((Source::Nothing, vec![])),
        (Some(path), None, None) | (None, None, Some(path)) => {
            let entries = secret::read(&path)?.iter().filter_map(invited).collect();
            Ok((Source::File(path), entries))
        }
        (None, Some(line), None) => {
            let invitation: Invitation = line.parse().map_err(|message: String| wrong("--join", message))?;
            let entries = vec![invitation.entry()];
            Ok((Source::Fixed(vec![invitation.secret]), entries))
        }
        (_, Some(_), _) => {
            Err(wrong("--join", "holds a secret already: not with --secret-file or --join-file"))
        }
        (Some(_), None, Some(_)) => {
            Err(wrong("--join-file", "holds a secret already: not with --secret-file"))
        }
    }
}

fn invited(line: &secret::Line) -> Option<EntryAddress> {
    match line {
        secret::Line::Invitation(invitation) => Some(invitation.entry()),
        secret::Line::Secret(_) => None,
    }
}

fn admission(source: &Source, open: bool) -> Result<Admission, NetError> {
    match (source, open) {
        (Source::Nothing, false) => Ok(Admission::Loopback),
        (Source::Nothing, true) => Ok(Admission::Open),
        (_, false) => Ok(Admission::Secret),
        (_, true) => Err(wrong("--open-swarm", "a node with a secret is not open: leave out one of the two")),
    }
}

/// Without a secret, whoever reaches the node is a member: so nobody from elsewhere may.
pub(super) fn stay_on_this_machine(listen: &[Multiaddr], entries: &[EntryAddress]) -> Result<(), NetError> {
    let cure = "give all nodes one secret (`llama-swarm secret new FILE`, then --secret-file FILE), or an invitation \
                (--join-file), or say --open-swarm if everybody who can reach them may take part";
    if let Some(address) = listen.iter().find(|address| !address::is_loopback(address)) {
        return Err(wrong(
            "--listen",
            format!("{address} can be reached by other machines, and there is no secret: {cure}"),
        ));
    }
    let elsewhere = |entry: &&EntryAddress| !entry.addresses.iter().all(address::is_this_machine);
    if let Some(entry) = entries.iter().find(elsewhere) {
        let address = &entry.addresses[0];
        return Err(wrong(
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
    use crate::{Role, Secret, config::Settings, peer};

    fn refused(config: NetConfig) -> &'static str {
        match Settings::check(config, Role::Worker) {
            Err(NetError::Config { setting, .. }) => setting,
            other => panic!("expected a refusal, got {other:?}"),
        }
    }

    fn open_swarm(listen: &str) -> NetConfig {
        NetConfig { listen: vec![listen.into()], open_swarm: true, ..NetConfig::default() }
    }

    #[test]
    fn without_a_secret_a_node_stays_on_its_machine_unless_it_is_told_to_be_open() {
        let alone = Settings::check(NetConfig::default(), Role::Rendezvous).unwrap();
        assert_eq!(alone.admission, Admission::Loopback);
        assert!(alone.listen.iter().all(address::is_loopback), "{:?}", alone.listen);
        for listen in ["/ip4/0.0.0.0/udp/0/quic-v1", "/ip4/10.0.0.1/tcp/1", "/ip6/::/tcp/1"] {
            assert_eq!(
                refused(NetConfig { open_swarm: false, ..open_swarm(listen) }),
                "--listen",
                "{listen}"
            );
            assert_eq!(Settings::check(open_swarm(listen), Role::Worker).unwrap().admission, Admission::Open);
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
        let by_file = NetConfig { secret_file: Some(secrets), ..NetConfig::default() };
        let by_line = NetConfig { join: Some(line), ..NetConfig::default() };
        let by_invitation = NetConfig { join_file: Some(invitations), ..NetConfig::default() };
        for (config, entries) in [(&by_file, 0), (&by_line, 1), (&by_invitation, 1)] {
            let settings = Settings::check(config.clone(), Role::Worker).unwrap();
            assert_eq!((settings.admission, settings.entries.len()), (Admission::Secret, entries));
            assert!(!settings.listen.iter().any(address::is_loopback));
            assert!(
                settings.entries.iter().all(|entry| entry.peer.is_some()),
                "nobody else may answer there"
            );
            assert_eq!(refused(NetConfig { open_swarm: true, ..config.clone() }), "--open-swarm");
        }
        assert_eq!(refused(NetConfig { join: by_line.join.clone(), ..by_file.clone() }), "--join");
        assert_eq!(refused(NetConfig { join_file: by_invitation.join_file, ..by_file }), "--join-file");
        assert_eq!(refused(NetConfig { join: Some("lsw1:nonsense".into()), ..by_line }), "--join");
        let missing = NetConfig { secret_file: Some(folder.path().join("none")), ..NetConfig::default() };
        assert!(matches!(Settings::check(missing, Role::Worker), Err(NetError::Secret { .. })));
    }
}
