"""Which engine a host will run: every wish against every host."""

import pytest

from airgap.errors import HostUnsuitable, UsageError
from airgap.kinds.site import EngineFacts, HostFacts
from airgap.offline.decide import decide
from tests.fakes import AMD64


def facts(version: str = "", *, ours: bool = False, idle: str = "") -> HostFacts:
    engine = EngineFacts(version=version, api="1.41", store="classic", data_root="/var/lib/docker", ours=ours, cli="docker")
    return HostFacts(
        platform=AMD64, kernel=(5, 10), systemd=252, engine=engine if version else None, foreign_containerd=False, idle_engine=idle,
        homes={"root": "/root"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("host", "carried", "replace", "words"),
    [
        (facts(), "28.5.2", True, "engine 28.5.2 is installed"),
        (facts(), "", False, "no engine here, and none in the bundle"),
        (facts(idle="/usr/bin/dockerd"), "28.5.2", False, "/usr/bin/dockerd is an engine that does not answer"),
        (facts("20.10.24"), "28.5.2", False, "good enough: kept"),
        (facts("19.03.15"), "28.5.2", False, "good enough: kept"),
        (facts("18.09.6"), "28.5.2", False, "good enough: kept"),
        (facts("18.06.3-ce"), "28.5.2", True, "too old for buildx"),
        (facts("18.06.3-ce"), "", False, "the bundle holds none"),
        (facts("28.5.2", ours=True), "28.5.2", True, "stays"),
        (facts("26.1.5", ours=True), "28.5.2", True, "gives way to 28.5.2"),
        (facts("26.1.5", ours=True), "", False, "kept; the bundle holds none"),
    ],
)
def test_auto_keeps_what_is_good_enough_and_says_why(host: HostFacts, carried: str, replace: bool, words: str):
    decision = decide("auto", host, carried=carried)
    assert decision.replace is replace
    assert words in decision.text


def test_keep_keeps_and_replace_replaces():
    assert decide("keep", facts("20.10.24"), carried="28.5.2").replace is False
    assert decide("replace", facts("20.10.24"), carried="28.5.2").replace is True
    assert decide("replace", facts(idle="/usr/bin/dockerd"), carried="28.5.2").replace is True


def test_what_is_not_there_can_neither_be_kept_nor_installed():
    with pytest.raises(HostUnsuitable, match="none to keep"):
        decide("keep", facts(), carried="28.5.2")
    with pytest.raises(UsageError, match="holds no engine"):
        decide("replace", facts("20.10.24"), carried="")


@pytest.mark.parametrize("wish", ["auto", "keep", "replace"])
def test_a_run_that_is_not_about_the_engine_leaves_it_alone(wish: str):
    assert decide(wish, facts(), carried="28.5.2", wanted=False).replace is False
