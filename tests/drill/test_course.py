"""Where the calls for a model can lead."""

from __future__ import annotations

from pathlib import Path

from chatgate.drill.course import Place, courses
from chatgate.settings import Settings
from drill.conftest import settings_of

MANY = """
[[upstreams]]
name = "a"
base_url = "https://a.example/v1"
api_keys = ["sk-test-1", "sk-test-2"]
[[upstreams]]
name = "b"
base_url = "https://b.example/v1"
[[models]]
name = "big"
targets = [{ upstream = "b", priority = 1 }, { upstream = "a", model = "big-2", context_tokens = 10 }]
fallbacks = ["small", "demo/echo"]
[[models]]
name = "small"
targets = [{ upstream = "b", model = "big" }, { upstream = "b" }]
fallbacks = ["last-*"]
[[models]]
name = "last"
targets = [{ upstream = "a" }]
[[models]]
name = "open/*"
targets = [{ upstream = "a", model = "*-instruct" }, { upstream = "b" }]
"""


def test_places_come_in_the_order_of_preference(tmp_path: Path) -> None:
    """Keys, priorities, fallbacks of fallbacks and wildcards are followed, and every place is named once."""
    settings = settings_of(MANY.replace('"last-*"', '"last"'), tmp_path)
    big, small, last, wild = courses(settings, "unused")
    assert big.asked_model == "big"
    assert big.places == (
        Place("a", 1, "big-2", is_own=True, context_tokens=10),
        Place("a", 2, "big-2", is_own=True, context_tokens=10),
        Place("b", 1, "big", is_own=True),
        Place("b", 1, "small", is_own=False),
        Place("a", 1, "last", is_own=False),
        Place("a", 2, "last", is_own=False),
    )
    assert [str(place) for place in small.places] == ["b/big", "b/small", "a/last", "a/last"]
    assert last.sites == ("a/last",)
    assert wild.asked_model == "open/drill"
    assert wild.sites == ("a/drill-instruct", "b/open/drill")


def test_an_open_configuration_is_drilled_with_the_plain_model(tmp_path: Path) -> None:
    """Where any name goes to the first upstream, one name is enough."""
    settings: Settings = settings_of(MANY.partition("[[models]]")[0], tmp_path)
    (course,) = courses(settings, "plain")
    assert course.places == (Place("a", 1, "plain", is_own=True), Place("a", 2, "plain", is_own=True))
