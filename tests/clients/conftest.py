"""What tests of clients share: two providers of different protocols behind one gateway, and a home for programs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from clients import answering, running
from clients.far import CONFIG, Far
from clients.running import Home
from fakes.gateway import StartGateway
from fakes.upstream import FakeUpstream


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def far_of_file(upstream_of_file: FakeUpstream, start_gateway: StartGateway) -> AsyncIterator[Far]:
    """Run all three for the tests of a file."""
    async with FakeUpstream() as claude:
        config = CONFIG.format(chat=upstream_of_file.base_url, claude=claude.base_url)
        yield Far(await start_gateway(config=config), upstream_of_file, claude)


@pytest.fixture
def far(far_of_file: Far) -> Far:
    """Return them with empty logs."""
    for upstream in (far_of_file.chat, far_of_file.claude):
        upstream.forget()
    far_of_file.chat.on_model("gpt-far", answering.chat)
    far_of_file.claude.on_model("claude-far", answering.claude)
    return far_of_file


@pytest_asyncio.fixture(loop_scope="module")
async def home(tmp_path: Path) -> AsyncIterator[Home]:
    """Return a home for a program."""
    async with running.home(tmp_path) as made:
        yield made
