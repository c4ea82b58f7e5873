"""What every test may ask for: a fake upstream, a running gateway, and a way to say loudly what was not tried.

Both are shared by the tests of one file, since a process takes a while to start; the upstream's log is emptied before
each test. A file that uses them runs its tests in one loop: `pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from __future__ import annotations

import collections
import contextlib
from collections.abc import AsyncIterator

import hypothesis
import pytest
import pytest_asyncio

from fakes.gateway import StartGateway
from fakes.upstream import FakeUpstream

# An example that takes long on a busy machine is no failure. All else stays as hypothesis chooses it, here or in CI.
hypothesis.settings.register_profile("patient", hypothesis.settings.default, deadline=None)
hypothesis.settings.load_profile("patient")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def upstream_of_file() -> AsyncIterator[FakeUpstream]:
    """Run a fake upstream for the tests of a file; for other fixtures of that scope."""
    async with FakeUpstream() as upstream:
        yield upstream


@pytest.fixture
def upstream(upstream_of_file: FakeUpstream) -> FakeUpstream:
    """Return the file's fake upstream with an empty log."""
    upstream_of_file.forget()
    return upstream_of_file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other_of_file() -> AsyncIterator[FakeUpstream]:
    """Run a second upstream for the tests of a file; for other fixtures of that scope."""
    async with FakeUpstream() as other:
        yield other


@pytest.fixture
def other(other_of_file: FakeUpstream) -> FakeUpstream:
    """Return the file's second upstream with an empty log."""
    other_of_file.forget()
    return other_of_file


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def start_gateway() -> AsyncIterator[StartGateway]:
    """Return what starts gateways for the tests of a file."""
    async with contextlib.AsyncExitStack() as stack:
        yield StartGateway(stack)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was not run and why: a test that is skipped in silence is taken for one that passed."""
    reasons = collections.Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    for (where, why), tests in reasons.items():
        terminalreporter.write_line(f"NOT RUN: {tests} of {where}: {why}", red=True, bold=True)


def _reason(report: pytest.TestReport | pytest.CollectReport) -> tuple[str, str]:
    why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return report.nodeid.partition("::")[0], why.removeprefix("Skipped: ")
