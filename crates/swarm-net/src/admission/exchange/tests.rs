//! Both sides of the exchange, and those who try to get by without the secret.

use futures::FutureExt;
use tokio::io::{DuplexStream, duplex};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};

use super::*;
use crate::{
    Secret,
    admission::keyring::{Keyring, Source},
};

fn keys(secrets: &[&Secret]) -> Keys {
    let secrets: Vec<_> = secrets.iter().map(|secret| (*secret).clone()).collect();
    let source = if secrets.is_empty() { Source::Nothing } else { Source::Fixed(secrets) };
    Keyring::new("c", source).unwrap().keys()
}

fn node(role: Role, keys: &Keys) -> Own {
    node_of("c", role, keys)
}

fn node_of(cluster: &str, role: Role, keys: &Keys) -> Own {
    Own { peer: PeerId::random(), role, protocol: protocol(cluster).unwrap(), keys: keys.clone() }
}

fn pair() -> (Compat<DuplexStream>, Compat<DuplexStream>) {
    let (one, other) = duplex(1024);
    (one.compat(), other.compat())
}

/// What either side makes of the other, the dialer first.
async fn meet(dialer: &Own, listener: &Own) -> (Result<Proof, NotAdmitted>, Result<Proof, NotAdmitted>) {
    let (near, far) = pair();
    tokio::join!(dial(near, dialer, listener.peer), listen(far, listener, dialer.peer))
}

#[tokio::test]
async fn who_holds_the_secret_is_admitted_in_the_role_that_it_has() {
    let secret = Secret::generate();
    for keys in [keys(&[&secret]), keys(&[])] {
        let (worker, gateway) = (node(Role::Worker, &keys), node(Role::Gateway, &keys));
        let (of_gateway, of_worker) = meet(&worker, &gateway).await;
        assert_eq!((of_gateway.unwrap().role, of_worker.unwrap().role), (Role::Gateway, Role::Worker));
    }
}

#[tokio::test]
async fn who_does_not_is_not_and_both_can_tell() {
    let (ours, theirs) = (Secret::generate(), Secret::generate());
    for other in [keys(&[&theirs]), keys(&[])] {
        let (member, stranger) = (node(Role::Worker, &keys(&[&ours])), node(Role::Worker, &other));
        for (dialer, listener) in [(&member, &stranger), (&stranger, &member)] {
            let (of_listener, of_dialer) = meet(dialer, listener).await;
            assert!(matches!(of_listener, Err(NotAdmitted::WrongSecret)), "{of_listener:?}");
            assert!(matches!(of_dialer, Err(NotAdmitted::Left)), "it was given no proof: {of_dialer:?}");
        }
    }
    let keys = keys(&[&ours]);
    let (of_listener, of_dialer) = meet(&node(Role::Worker, &keys), &node_of("d", Role::Worker, &keys)).await;
    assert!(matches!(of_listener, Err(NotAdmitted::Foreign)), "{of_listener:?}");
    assert!(matches!(of_dialer, Err(NotAdmitted::Foreign)), "{of_dialer:?}");
}

#[tokio::test]
async fn a_rotation_goes_on_step_by_step_and_the_old_secret_is_worth_nothing_after_it() {
    let (old, new) = (Secret::generate(), Secret::generate());
    let steps = [vec![&old], vec![&old, &new], vec![&new, &old], vec![&new]];
    for (one, other) in steps.iter().zip(&steps[1..]) {
        for (dialer, listener) in [(one, other), (other, one)] {
            let (dialer, listener) = (node(Role::Worker, &keys(dialer)), node(Role::Worker, &keys(listener)));
            let (of_listener, of_dialer) = meet(&dialer, &listener).await;
            assert!(of_listener.is_ok() && of_dialer.is_ok(), "{of_listener:?} {of_dialer:?}");
        }
    }
    let (late, ahead) = (node(Role::Worker, &keys(&[&old])), node(Role::Worker, &keys(&[&new])));
    let (of_ahead, of_late) = meet(&late, &ahead).await;
    assert!(of_ahead.is_err() && of_late.is_err());
}

/// Says to a listener what it likes, as raw bytes, and gives what that answers in all.
async fn say(listener: &Own, as_peer: PeerId, bytes: &[u8]) -> (Result<Proof, NotAdmitted>, Vec<u8>) {
    let (mut near, far) = pair();
    let mut heard = vec![];
    let speak = async {
        // It may have heard enough.
        let _ = near.write_all(bytes).await;
        let _ = near.close().await;
        near.read_to_end(&mut heard).await.unwrap();
    };
    let (verdict, ()) = tokio::join!(listen(far, listener, as_peer), speak);
    (verdict, heard)
}

/// What a member sends when it dials a listener: all the bytes of one good exchange.
async fn recorded(member: &Own, listener: &Own) -> Vec<u8> {
    let ((near, mut tap_near), (mut tap_far, far)) = (pair(), pair());
    let mut sent = vec![];
    let wire = async {
        let (mut up, mut down) = ([0; 1024], [0; 1024]);
        loop {
            tokio::select! {
                count = tap_near.read(&mut up) => match count.unwrap() {
                    0 => break,
                    count => {
                        sent.extend_from_slice(&up[..count]);
                        tap_far.write_all(&up[..count]).await.unwrap();
                    }
                },
                count = tap_far.read(&mut down) => match count.unwrap() {
                    0 => break,
                    count => tap_near.write_all(&down[..count]).await.unwrap(),
                },
            }
        }
    };
    let ends = async { tokio::join!(dial(near, member, listener.peer), listen(far, listener, member.peer)) };
    let ((of_listener, of_dialer), ()) = tokio::join!(ends, wire);
    assert!(of_listener.is_ok() && of_dialer.is_ok(), "{of_listener:?} {of_dialer:?}");
    sent
}

#[tokio::test]
async fn a_recorded_exchange_is_worth_nothing_later() {
    let keys = keys(&[&Secret::generate()]);
    let (member, listener) = (node(Role::Worker, &keys), node(Role::Worker, &keys));
    let sent = recorded(&member, &listener).await;
    // Even by the same peer, which only its own key could be.
    let (verdict, heard) = say(&listener, member.peer, &sent).await;
    assert!(matches!(verdict, Err(NotAdmitted::WrongSecret)), "{verdict:?}");
    assert_eq!(heard.last(), Some(&REFUSED), "and it is told so");
}

/// A stranger with a connection to each of two members hands every byte of one to the other.
#[tokio::test]
async fn an_exchange_that_is_passed_on_admits_nobody() {
    let keys = keys(&[&Secret::generate()]);
    let (dialer, listener, between) =
        (node(Role::Worker, &keys), node(Role::Worker, &keys), PeerId::random());
    let ((near, tap_near), (tap_far, far)) = (pair(), pair());
    let mut taps = (tap_near.into_inner(), tap_far.into_inner());
    let relay = tokio::io::copy_bidirectional(&mut taps.0, &mut taps.1).fuse();
    let ends = async { tokio::join!(dial(near, &dialer, between), listen(far, &listener, between)) };
    tokio::pin!(relay);
    let (of_listener, of_dialer) = tokio::select! {
        ends = ends => ends,
        ended = &mut relay => panic!("the relay ended first: {ended:?}"),
    };
    assert!(matches!(of_listener, Err(NotAdmitted::WrongSecret)), "{of_listener:?}");
    assert!(of_dialer.is_err(), "{of_dialer:?}");
}

/// A stranger without the secret gives a member's own words back to it, on a second connection or the same one.
#[tokio::test]
async fn a_members_own_proof_is_no_good_against_it() {
    let keys = keys(&[&Secret::generate()]);
    let member = node(Role::Worker, &keys);
    let stranger = PeerId::random();
    // It listens: the member dials it, and it repeats what it hears.
    let (near, far) = pair();
    let echo = async {
        let (_, mut io) = listener_select_proto(far, [member.protocol.clone()]).await.unwrap();
        let mut hello = [0; HELLO];
        io.read_exact(&mut hello).await.unwrap();
        io.write_all(&[&hello[..], &[0; PROOF]].concat()).await.unwrap();
        io.flush().await.unwrap();
        io.read(&mut [0]).await
    };
    let (verdict, _) = tokio::join!(dial(near, &member, stranger), echo);
    assert!(matches!(verdict, Err(NotAdmitted::WrongSecret)), "{verdict:?}");
    // It dials: the member's proof as a listener is given back as the dialer's.
    let (mut near, far) = pair();
    let reflect = async {
        let (_, mut io) =
            dialer_select_proto(&mut near, [member.protocol.clone()], Version::V1).await.unwrap();
        io.write_all(&hello(Role::Worker)).await.unwrap();
        io.flush().await.unwrap();
        let mut answer = [0; HELLO + PROOF];
        io.read_exact(&mut answer).await.unwrap();
        io.write_all(&answer[HELLO..]).await.unwrap();
        io.flush().await.unwrap();
        let mut verdict = [TAKEN];
        io.read_exact(&mut verdict).await.unwrap();
        verdict
    };
    let (verdict, told) = tokio::join!(listen(far, &member, stranger), reflect);
    assert!(matches!(verdict, Err(NotAdmitted::WrongSecret)), "{verdict:?}");
    assert_eq!(told, [REFUSED]);
}

#[tokio::test]
async fn a_role_cannot_be_changed_on_the_way() {
    let keys = keys(&[&Secret::generate()]);
    let (member, listener) = (node(Role::Worker, &keys), node(Role::Worker, &keys));
    let round = |dialers: &[u8]| {
        let listeners = hello(Role::Worker);
        let round = Round { dialer: member.peer, listener: listener.peer, dialers, listeners: &listeners };
        round.message(Side::Dialer)
    };
    let mut hello = hello(Role::Worker);
    let before = round(&hello);
    hello[NONCE] = Role::Gateway.code();
    assert_ne!(before[..before.len() - HELLO], round(&hello)[..before.len() - HELLO]);
    let unknown = [hello[0], 99];
    assert!(matches!(role(&unknown), Err(NotAdmitted::Protocol(_))));
}

#[tokio::test]
async fn nonsense_is_refused() {
    let listener = node(Role::Worker, &keys(&[&Secret::generate()]));
    let line = |text: &str| [&[u8::try_from(text.len() + 1).unwrap()], text.as_bytes(), b"\n"].concat();
    let start = [line("/multistream/1.0.0"), line(listener.protocol.as_ref())].concat();
    let long = [start.clone(), vec![7; 4096]].concat();
    for bytes in [&b""[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 64], &start, &start[..30], &long] {
        let (verdict, _) = say(&listener, PeerId::random(), bytes).await;
        assert!(verdict.is_err(), "{bytes:?}");
    }
}
