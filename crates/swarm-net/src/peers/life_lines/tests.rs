//! Life lines, case by case.

use super::*;

fn two_peers() -> (PeerId, PeerId) {
    (PeerId::random(), PeerId::random())
}

fn connection(number: usize) -> ConnectionId {
    ConnectionId::new_unchecked(number)
}

/// Who watches another, with a line that is due.
fn dialler() -> (LifeLines, PeerId, Instant) {
    let ((me, peer), now) = (two_peers(), Instant::now());
    let mut lines = LifeLines::new(me);
    lines.want(peer, now);
    (lines, peer, now + EARLIEST + SPREAD)
}

#[test]
fn who_watches_dials_once_and_not_at_once() {
    let ((me, peer), start) = (two_peers(), Instant::now());
    let mut lines = LifeLines::new(me);
    lines.want(peer, start);
    assert_eq!(lines.due(|_| true, start + EARLIEST - Duration::from_millis(1)), []);
    let later = start + EARLIEST + SPREAD;
    assert_eq!(lines.due(|_| false, later), [], "the peer watches this node, or nobody");
    assert_eq!(lines.due(|watched| *watched == peer, later), [peer]);
    lines.dialling(&peer, connection(1), later);
    lines.want(peer, later);
    assert_eq!(
        lines.due(|_| true, later + LONGEST_PAUSE),
        [],
        "a second connection by QUIC begins nothing again"
    );
    assert!(lines.opened(&peer, later));
    assert_eq!(lines.due(|_| true, later + LONGEST_PAUSE), []);
}

#[test]
fn a_mesh_does_not_dial_at_the_same_moment() {
    let me = PeerId::random();
    let moments: std::collections::BTreeSet<_> = (0..64).map(|_| moment(&me, &PeerId::random())).collect();
    assert!(moments.len() > 32, "{moments:?}");
    assert!(moments.iter().all(|at| (EARLIEST..EARLIEST + SPREAD).contains(at)), "{moments:?}");
}

#[test]
fn a_closed_port_is_tried_less_and_less_often() {
    let (mut lines, peer, mut now) = dialler();
    let (end, mut attempts) = (now + Duration::from_secs(3600), 0);
    while now < end {
        for peer in lines.due(|_| true, now) {
            attempts += 1;
            lines.dialling(&peer, connection(attempts), now);
            assert!(!lines.failed(connection(0), now), "that one was for something else");
            assert!(lines.failed(connection(attempts), now));
        }
        now += Duration::from_secs(1);
    }
    assert!((15..25).contains(&attempts), "{attempts} attempts in an hour");
    lines.unreachable(&peer, now);
    assert_eq!(lines.due(|_| true, now + LONGEST_PAUSE), [peer], "and never given up");
}

#[test]
fn who_listens_somewhere_else_is_tried_again_soon() {
    let (mut lines, peer, now) = dialler();
    let told = |port| ["/ip4/10.0.0.1/udp/1/quic-v1", port].map(|text| text.parse().unwrap());
    lines.unreachable(&peer, now);
    lines.unreachable(&peer, now);
    lines.told(&peer, &told("/ip4/10.0.0.1/tcp/1"), now);
    assert_eq!(lines.addresses(&peer), told("/ip4/10.0.0.1/tcp/1")[1..]);
    assert_eq!(lines.due(|_| true, now + EARLIEST + SPREAD), [peer]);
    lines.unreachable(&peer, now);
    lines.told(&peer, &told("/ip4/10.0.0.1/tcp/1"), now);
    assert_eq!(lines.due(|_| true, now + EARLIEST + SPREAD), [], "that is nothing new");
    lines.dialling(&peer, connection(1), now);
    lines.told(&peer, &told("/ip4/10.0.0.1/tcp/2"), now);
    assert_eq!(lines.due(|_| true, now + LONGEST_PAUSE), [], "one dial at a time");
}

#[test]
fn a_line_that_was_cut_is_made_again_soon_and_one_that_is_cut_again_later() {
    let (mut lines, peer, mut now) = dialler();
    for _ in 0..3 {
        lines.opened(&peer, now);
        now += STEADY;
        lines.ended(&peer, now);
        now += EARLIEST + SPREAD;
        assert_eq!(lines.due(|_| true, now), [peer], "there was no trouble before");
    }
    lines.opened(&peer, now);
    lines.ended(&peer, now);
    assert_eq!(lines.due(|_| true, now + EARLIEST + SPREAD), [], "it is cut whenever it is made");
    assert_eq!(lines.due(|_| true, now + FIRST_PAUSE), [peer]);
}

#[test]
fn lines_have_a_bound_whoever_dials() {
    let now = Instant::now();
    let mut lines = LifeLines::new(PeerId::random());
    let peers: Vec<_> = (0..4 * MAX_LINES).map(|_| PeerId::random()).collect();
    for peer in &peers {
        lines.want(*peer, now);
    }
    let mut opened = 0;
    for (number, peer) in peers.iter().enumerate() {
        if lines.opened(peer, now) {
            opened += 1;
        } else {
            lines.ended(peer, now);
        }
        assert!(lines.opened(&peers[0], now), "who has one keeps it: {number}");
    }
    assert_eq!(opened, MAX_LINES);
    assert_eq!(lines.due(|_| true, now + LONGEST_PAUSE), []);
}

#[test]
fn patience_grows_with_the_way_and_has_bounds() {
    let millis = Duration::from_millis;
    for (round_trip, expected) in [(None, 60), (Some(1), 60), (Some(50), 300), (Some(400), 1000)] {
        assert_eq!(patience(round_trip.map(millis)), millis(expected), "{round_trip:?}");
    }
}

#[test]
fn only_an_address_that_must_lead_to_the_peer_is_asked() {
    let parsed = |text: &str| text.parse::<Multiaddr>().unwrap();
    let told =
        ["/ip4/10.0.0.1/udp/1/quic-v1", "/ip4/10.0.0.1/tcp/4001", "/ip4/192.168.0.1/tcp/4001"].map(parsed);
    let cases = [
        // This node had dialled there.
        ("/ip4/10.0.0.9/tcp/7", true, vec!["10.0.0.9:7"]),
        ("/ip4/10.0.0.1/tcp/50000", false, vec!["10.0.0.1:4001"]),
        // Behind an address that is not its own.
        ("/ip4/203.0.113.7/tcp/50000", false, vec![]),
        ("/ip4/10.0.0.1/udp/1/quic-v1", true, vec!["10.0.0.1:4001"]),
        ("/dns4/host/tcp/4001", true, vec![]),
    ];
    for (remote, dialled, expected) in cases {
        let asked = where_to_ask(&parsed(remote), dialled, &told);
        let expected: Vec<SocketAddr> = expected.iter().map(|text| text.parse().unwrap()).collect();
        assert_eq!(asked, expected, "{remote}");
    }
    let loopback = [parsed("/ip4/127.0.1.3/tcp/4001")];
    assert_eq!(where_to_ask(&parsed("/ip4/127.0.0.1/tcp/9"), false, &loopback).len(), 1);
}

#[test]
fn a_line_that_is_not_there_is_made_whatever_was_heard_of_it() {
    let (mut lines, peer, now) = dialler();
    lines.opened(&peer, now);
    lines.has_none(&peer, now);
    assert_eq!(lines.due(|_| true, now + EARLIEST + SPREAD), [peer], "its end was not heard");
    lines.dialling(&peer, connection(1), now);
    lines.has_none(&peer, now + DIAL_WITHIN / 2);
    assert_eq!(lines.due(|_| true, now + DIAL_WITHIN / 2), [], "it may still come");
    lines.has_none(&peer, now + DIAL_WITHIN);
    assert_eq!(lines.due(|_| true, now + DIAL_WITHIN + FIRST_PAUSE * 2), [peer]);
}
