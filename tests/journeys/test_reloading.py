"""A changed configuration comes into use while calls are served: by the file alone, or by SIGHUP; no call fails."""

from __future__ import annotations

import asyncio
import signal

import pytest

from fakes import fleet, hearing, scripts
from fakes.gateway import Gateway, StartGateway
from fakes.hearing import WAYS, Way
from fakes.upstream import FakeUpstream, Tap

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHOLE: Way = ("openai", False)
STREAM: Way = ("openai", True)


def configured(base_url: str, sent_model: str) -> str:
    """Return a configuration whose model `m` is one of the upstream's."""
    return fleet.upstream("a", base_url) + fleet.model("m", [fleet.target("a", sent_model)])


def rewrite(gateway: Gateway, config: str) -> None:
    """Change the configuration as editors do: whole, by a new file in the place of the old one."""
    new = gateway.directory / "chatgate.toml.new"
    new.write_text(config)
    new.replace(gateway.directory / "chatgate.toml")


async def test_a_changed_file_comes_into_use_by_itself(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """Calls go where the new configuration says, and a stream that has begun ends as it began."""
    gateway = await start_gateway({"ROUTE": "api"}, configured(upstream.base_url, "before"))
    tap = Tap()
    upstream.on_model("before", scripts.stream(scripts.text_events("slow but sure"), tap=tap))
    slow = asyncio.create_task(hearing.ask(gateway.port, STREAM, "Hi", "m"))
    await upstream.called()
    rewrite(gateway, configured(upstream.base_url, "after"))
    await gateway.logged("reloaded")
    assert [(await hearing.ask(gateway.port, way, "Hi", "m")).text for way in WAYS] == ["Hi"] * len(WAYS)
    assert {call.json()["model"] for call in upstream.calls[1:]} == {"after"}
    tap.let(10)
    heard = await slow
    assert (heard.text, heard.is_whole, heard.model) == ("slow but sure", True, "before")


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_no_call_fails_while_the_configuration_changes(
    upstream: FakeUpstream, start_gateway: StartGateway, workers: str
) -> None:
    """Callers go on asking through twenty changes, each by SIGHUP, and every one of them is served."""
    environment = {"ROUTE": "api", "CHATGATE_WORKERS": workers}
    gateway = await start_gateway(environment, configured(upstream.base_url, "model-0"))
    is_over = asyncio.Event()

    async def keep_asking(way: Way) -> list[str]:
        texts = []
        while not is_over.is_set():
            texts.append((await hearing.ask(gateway.port, way, "Hi", "m")).text)
        return texts

    callers = [asyncio.create_task(keep_asking(way)) for way in WAYS * 2]
    for number in range(1, 21):
        rewrite(gateway, configured(upstream.base_url, f"model-{number}"))
        gateway.process.send_signal(signal.SIGHUP)
        await gateway.logged("reloaded", number * int(workers))
    is_over.set()
    texts = [text for caller in callers for text in await caller]
    assert len(texts) >= 20
    assert set(texts) == {"Hi"}
    await hearing.ask(gateway.port, WHOLE, "Hi", "m")
    assert upstream.calls[-1].json()["model"] == "model-20"


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ("[[models]\n", "chatgate.toml"),
        ('[[models]]\nname = "m"\ntargets = [{upstream = "nobody", model = "x"}]\n', "nobody"),
        ("[access]\nanonymus = false\n", "anonymus"),
    ],
)
async def test_a_bad_configuration_changes_nothing_and_says_why(
    upstream: FakeUpstream, start_gateway: StartGateway, config: str, problem: str
) -> None:
    """The old configuration goes on, the log names the problem, and the metrics tell until it is mended."""
    good = configured(upstream.base_url, "before")
    gateway = await start_gateway({"ROUTE": "api"}, good)
    rewrite(gateway, good + config)
    gateway.process.send_signal(signal.SIGHUP)
    (line,) = await gateway.logged("reload_failed")
    assert problem in line["problem"]
    assert line["level"] == "error"
    assert (await hearing.ask(gateway.port, WHOLE, "Hi", "m")).text == "Hi"
    assert upstream.calls[-1].json()["model"] == "before"
    assert await gateway.metric("chatgate_reload_failed") == 1
    rewrite(gateway, good)
    gateway.process.send_signal(signal.SIGHUP)
    await gateway.logged("reloaded")
    assert await gateway.metric("chatgate_reload_failed") == 0


async def test_what_needs_a_restart_is_named(upstream: FakeUpstream, start_gateway: StartGateway) -> None:
    """The rest of the new configuration comes into use all the same."""
    gateway = await start_gateway({"ROUTE": "api"}, configured(upstream.base_url, "before"))
    rewrite(gateway, '[ledger]\ndurability = "power"\n' + configured(upstream.base_url, "after"))
    (line,) = await gateway.logged("reloaded")
    assert line["needs_restart"] == "ledger.durability"
    await hearing.ask(gateway.port, WHOLE, "Hi", "m")
    assert upstream.calls[-1].json()["model"] == "after"
