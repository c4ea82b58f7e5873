"""Moving in: what `chatgate import` writes serves the callers of the old gateway, with keys that may as much."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from chatgate.cli import main
from cli.one_api_databases import ONE_API, make
from fakes import http_client as http
from fakes.gateway import StartGateway
from fakes.upstream import FakeUpstream

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_gateway_goes_on_where_one_api_stopped(
    upstream: FakeUpstream, start_gateway: StartGateway, tmp_path: Path
) -> None:
    """Calls reach the same channel under the same name with the same provider's key; strangers stay out."""
    old = make(
        tmp_path / "one-api.db",
        ONE_API,
        {
            "channels": [
                {"type": 50, "name": "主", "key": "sk-test-channel", "base_url": upstream.base_url, "models": "gpt-old"}
                | {"model_mapping": '{"gpt-old": "gpt-fake-small"}'}
            ],
            "users": [{"id": 1, "username": "anna", "password": "x", "quota": 10**15}],
            "tokens": [
                {"user_id": 1, "name": "laptop", "key": "old-1", "unlimited_quota": 1, "models": "gpt-old,demo/echo"},
                {"user_id": 1, "name": "empty", "key": "old-2", "remain_quota": 0, "status": 4},
                {"user_id": 1, "name": "off", "key": "old-3", "unlimited_quota": 1, "status": 2},
            ],
        },
    )
    data = ["--data", str(tmp_path / "data")]
    said = CliRunner().invoke(main, ["import", "one-api", str(old), "--inline-keys", "--json", *data, "--dry-run"])
    assert said.exit_code == 0, said.output
    # Its balances are in dollars, so that a price is needed.
    price = '[[prices]]\nmodel = "gpt-old"\ninput_usd_per_million = "1"\noutput_usd_per_million = "1"\n'
    gateway = await start_gateway(config=json.loads(said.stdout)["config"] + price)
    data = ["--data", str(gateway.directory / "data")]
    said = CliRunner().invoke(main, ["import", "one-api", str(old), "--inline-keys", "--json", *data])
    assert said.exit_code == 0, said.output
    keys = {key["name"]: [http.bearer(key["key"])] for key in json.loads(said.stdout)["keys"]}

    async def status(headers: http.Headers, model: str = "gpt-old") -> int:
        return (await http.post_json(gateway.port, "/v1/chat/completions", http.chat("Hi", model), headers)).status

    assert await status(keys["laptop"]) == 200
    (call,) = upstream.calls
    assert (call.header("authorization"), call.json()["model"]) == ("Bearer sk-test-channel", "gpt-fake-small")
    assert await status(keys["laptop"], "demo/story") == 403
    assert await status(keys["empty"]) == 429
    assert await status(keys["off"]) == await status([]) == await status([http.bearer("sk-old-1")]) == 401
    assert len(upstream.calls) == 1
