//! Generations that come while the swarm is not whole.

use super::*;

#[tokio::test]
async fn who_comes_while_a_shard_is_away_waits_for_it_as_long_as_a_running_generation() {
    let fakes = FakeSwarm::start(&[&["a"], &["b"]], []).await;
    let config = GenerationConfig { recovery_timeout: Duration::from_millis(400), ..config() };
    let generator = Arc::new(generator(&fakes, config));
    fakes.set_state("b", ReplicaState::Offline);
    let asked = generator.clone();
    let waiting = tokio::spawn(async move { asked.start(request(6, 3)).await });
    let mut running = fakes.open_sessions();
    while generator.running() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(*running.borrow_and_update(), 0);
    fakes.set_state("b", ReplicaState::Loaded);
    let stream = timeout(BOUND, waiting).await.expect("in time").expect("no panic").expect("begins");
    continued_to_the_end(&finish(stream).await, 6, 3);

    fakes.set_state("b", ReplicaState::Offline);
    let refused = timeout(BOUND, generator.start(request(6, 3))).await.expect("in time").err();
    let message = refused.expect("refused").to_string();
    assert_eq!(message, "the swarm is not ready: shard 1 has no worker, also after 0.4 s");
    tokio::time::sleep(Duration::from_millis(400)).await;
    let long_gone = timeout(BOUND, generator.start(request(6, 3))).await.expect("in time").err();
    assert_eq!(long_gone.expect("refused").to_string(), "the swarm is not ready: shard 1 has no worker");
}
