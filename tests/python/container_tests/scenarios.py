"""The scenarios, in their order."""

from container_tests.alone import one_container_serves_alone, without_pip_the_default_model_says_what_to_do
from container_tests.answers import a_worker_lost_in_an_answer, the_model_answers
from container_tests.losses import a_cut_network, a_killed_worker
from container_tests.notices import images_carry_notices
from container_tests.strangers import a_node_without_the_secret, who_has_no_key, who_has_another_secret
from container_tests.swarm import NODES, WORKERS, transports
from container_tests.traces import the_collector_shows_one_trace
from observing import SHARDS
from running import docker, note, wait_until


def everybody_sees_all(scene):
    for watch in scene.observers.inside.values():
        watch.wait(lambda seen: True, "any status")
    inside = scene.observers.inside
    scene.peers = [{inside[worker].last().peer} for worker in WORKERS]
    scene.wait_whole()
    scene.report.check(len(set.union(*scene.peers)) == SHARDS, "ten nodes see 8 shards, one LOADED worker each")
    note(f"connections to workers: {transports(scene)}")


def all_are_healthy(scene):
    state = "{{.State.Health.Status}}"
    ids = scene.containers.values()
    wait_until(
        lambda: set(docker("inspect", "--format", state, *ids).split()) == {"healthy"},
        "all ten containers are healthy",
        NODES,
    )
    scene.report.check(True, "Docker calls all ten containers healthy")


SCENARIOS = (
    images_carry_notices,
    everybody_sees_all,
    the_model_answers,
    all_are_healthy,
    the_collector_shows_one_trace,
    who_has_no_key,
    a_node_without_the_secret,
    who_has_another_secret,
    one_container_serves_alone,
    without_pip_the_default_model_says_what_to_do,
    a_killed_worker,
    a_cut_network,
    a_worker_lost_in_an_answer,
)
