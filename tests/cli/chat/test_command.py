"""The command as a shell runs it: one question, its output and its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

from fakes.scripts import chunk, error_body, event, stream, text_events, whole
from fakes.upstream import FakeUpstream

RUN = "from chatgate.cli.chat import chat; chat()"


class Shell:
    """Runs the command against an upstream, with nothing of this process's environment but the path."""

    def __init__(self, upstream: FakeUpstream, home: Path) -> None:
        """Name the upstream by environment variables."""
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "CHATGATE_URL": upstream.base_url,
            "CHATGATE_KEY": "sk-test-1",
        }

    async def start(self, *arguments: str) -> asyncio.subprocess.Process:
        """Start it with pipes."""
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            sys.executable, "-c", RUN, *arguments, env=self.environment, stdin=pipe, stdout=pipe, stderr=pipe
        )

    async def run(self, *arguments: str, piped: bytes = b"") -> tuple[int | None, bytes, str]:
        """Run it to its end; return the exit code, stdout and stderr."""
        process = await self.start(*arguments)
        async with asyncio.timeout(20):
            stdout, stderr = await process.communicate(piped)
        return process.returncode, stdout, stderr.decode()


async def test_a_question_as_argument_prints_the_answer_only(tmp_path: Path) -> None:
    """Address and key come from the environment, the model from the server's list; stdout is the answer."""
    async with FakeUpstream("sk-test-1") as upstream:
        assert await Shell(upstream, tmp_path).run("hello ✓ there") == (0, "hello ✓ there\n".encode(), "")
        assert (await upstream.last_call()).json()["model"] == "gpt-fake-large"


async def test_piped_text_is_the_question(tmp_path: Path) -> None:
    """Text from a pipe is asked whole, without its last line end; what is no UTF-8 is replaced."""
    async with FakeUpstream() as upstream:
        ended = await Shell(upstream, tmp_path).run("--model", "m", piped=b"  one\ntwo \xff\n")
        assert ended == (0, "  one\ntwo \ufffd\n".encode(), "")


async def test_piped_text_follows_the_argument(tmp_path: Path) -> None:
    """With both, the piped text is the context of the question; the options reach the server."""
    async with FakeUpstream() as upstream:
        options = ("--model", "m", "--system", "be brief", "--max-tokens", "9")
        code, stdout, _ = await Shell(upstream, tmp_path).run(*options, "explain", piped=b"some code\n")
        assert (code, stdout) == (0, b"explain\n\nsome code\n")
        asked = (await upstream.last_call()).json()
        assert (asked["messages"][0], asked["max_tokens"]) == ({"role": "system", "content": "be brief"}, 9)


async def test_the_plain_api_is_asked_with_a_plain_url(tmp_path: Path) -> None:
    """Another path speaks the plain API, lists no models, and names none."""
    success = event({"code": 200, "msg": "success", "data": {"response": "Hello"}})
    async with FakeUpstream() as upstream:
        upstream.queue(stream([event({"delta": "Hel"}), event({"delta": "lo"})], end=success))
        shell = Shell(upstream, tmp_path)
        assert await shell.run("--url", f"http://127.0.0.1:{upstream.port}/api", "hi") == (0, b"Hello\n", "")
        assert len(upstream.calls) == 1
        assert "model" not in upstream.calls[0].json()


async def test_a_failure_goes_to_stderr(tmp_path: Path) -> None:
    """Without an answer stdout stays empty and the exit code is 1."""
    async with FakeUpstream() as upstream:
        upstream.queue(whole(error_body("slow \x1b[2Jdown"), 429, [("Retry-After", "3")]))
        ended = await Shell(upstream, tmp_path).run("--model", "m", "hi")
        assert ended == (1, b"", "Error: slow [2Jdown (try again in 3 s)\n")


async def test_a_broken_stream_is_a_failure_after_what_was_said(tmp_path: Path) -> None:
    """The part that came is printed, its line ended, and the exit code is 1."""
    async with FakeUpstream() as upstream:
        upstream.queue(stream([event(chunk({"content": "half"})), event(error_body("it broke"))], end=b""))
        assert await Shell(upstream, tmp_path).run("--model", "m", "hi") == (1, b"half\n", "Error: it broke\n")


async def test_what_is_piped_on_is_the_answer_to_the_byte(tmp_path: Path) -> None:
    """Only terminals are protected; an answer that ends its line gets no second end."""
    async with FakeUpstream() as upstream:
        upstream.queue(stream(text_events("\x1b[31mred\n")))
        assert await Shell(upstream, tmp_path).run("--model", "m", "hi") == (0, b"\x1b[31mred\n", "")


async def test_an_answer_cut_by_the_limit_says_so_on_stderr(tmp_path: Path) -> None:
    """The answer is printed, the note does not mix with it."""
    async with FakeUpstream() as upstream:
        upstream.queue(stream([event(chunk({"content": "half"})), event(chunk({}, finish="length"))]))
        code, stdout, stderr = await Shell(upstream, tmp_path).run("--model", "m", "hi")
        assert (code, stdout) == (0, b"half\n")
        assert "--max-tokens" in stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("",),
        ("--url", "localhost:5000", "hi"),
        ("--key", "sk-test\r\nx: y", "hi"),
        ("--max-tokens", "0", "hi"),
        ("--nope",),
        ("two", "words"),
    ],
)
async def test_wrong_usage_is_told_before_anything_is_sent(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """No question, bad options: exit code 2, and the server is not asked."""
    async with FakeUpstream() as upstream:
        code, stdout, stderr = await Shell(upstream, tmp_path).run(*arguments)
        assert (code, stdout, upstream.calls) == (2, b"", [])
        assert "Error: " in stderr


async def test_ctrl_c_ends_a_single_question(tmp_path: Path) -> None:
    """The exit code is 130, the server sees the client leave, and there is no traceback."""
    async with FakeUpstream() as upstream:
        upstream.queue(stream([event(chunk({"content": "half"}))], end=b"", close=False, then="hang"))
        process = await Shell(upstream, tmp_path).start("--model", "m", "hi")
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        async with asyncio.timeout(20):
            assert await process.stdout.readexactly(4) == b"half"
            process.send_signal(signal.SIGINT)
            _, stderr = await process.communicate()
        assert (process.returncode, stderr) == (130, b"\n")
        assert (await upstream.last_call()).ended == "gateway_left"


async def test_a_reader_that_leaves_ends_it_quietly(tmp_path: Path) -> None:
    """`chatgate chat … | head -1` shows no traceback, and the server's stream is closed."""
    async with FakeUpstream() as upstream:
        upstream.queue(stream([event(chunk({"content": "line\n"}))] * 5000, end=b"", close=False, then="hang"))
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -c '{RUN}' --model m hi </dev/null | head -1",
            env=Shell(upstream, tmp_path).environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            assert await process.communicate() == (b"line\n", b"")
        assert (await upstream.last_call()).ended == "gateway_left"


async def test_a_closed_stdin_is_no_question(tmp_path: Path) -> None:
    """Started without any stdin, the argument alone is asked."""
    async with FakeUpstream() as upstream:
        process = await asyncio.create_subprocess_shell(
            f"{sys.executable} -c '{RUN}' --model m hi <&-",
            env=Shell(upstream, tmp_path).environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            assert await process.communicate() == (b"hi\n", b"")


async def test_a_single_question_does_not_load_the_prompt(tmp_path: Path) -> None:
    """prompt_toolkit, which takes most of the start-up time, is only loaded for a dialogue."""
    run = (
        "import sys; from chatgate.cli.chat import chat; chat(standalone_mode=False); "
        "print('prompt_toolkit' in sys.modules)"
    )
    async with FakeUpstream() as upstream:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", run, "--model", "m", "hi"),
            env=Shell(upstream, tmp_path).environment,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
        )
        async with asyncio.timeout(20):
            assert (await process.communicate())[0] == b"hi\nFalse\n"
