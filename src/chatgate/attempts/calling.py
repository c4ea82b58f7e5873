"""The tries of one call, until an answer begins: retries, fallbacks, the waits between them, and hedges.

Owns when another try is made; where it goes is the plan's to say, and what came of it the attempt's.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from chatgate.attempts.attempt import Attempt
from chatgate.protocols import openai_chat
from chatgate.routing.affinity import Conversations
from chatgate.routing.hedging import FirstTokenTimes, HedgeShare
from chatgate.routing.plan import Plan
from chatgate.vocabulary.errors import GateError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from chatgate.attempts.attempt import Dialect, Trying
    from chatgate.attempts.stages import Admitted
    from chatgate.routing.candidates import Candidate
    from chatgate.vocabulary.chat import ChatCall

_LEADING_ROLES = frozenset({"system", "developer"})


class _Try(Protocol):
    """One more try, at a candidate."""

    def __call__(self, candidate: Candidate, left_seconds: float | None) -> Coroutine[None, None, Attempt]:
        """Make it."""


class Calling:
    """Calls upstreams until one answers. One for the whole gateway."""

    def __init__(  # noqa: PLR0913 - the composition root hands over every setting by its name
        self,
        trying: Trying,
        conversations: Conversations,
        *,
        max_retries: int,
        rescues: bool,
        total_seconds: float,
        hedging_share: float,
        clock: Callable[[], float],
        random: Callable[[], float],
        sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
    ) -> None:
        """`rescues` says that streams which break are to be gone on with.

        `hedging_share` is how many second calls there may be for each call, 0 for none; `clock` is monotonic.
        """
        self.trying = trying
        self.rescues = rescues
        self._max_retries = max_retries
        self._total_seconds = total_seconds
        self._clock = clock
        self._random = random
        self._sleep = sleep
        self._conversations = conversations
        self._hedges = HedgeShare(hedging_share) if hedging_share else None
        self._times: dict[tuple[str, bool], FirstTokenTimes] = {}

    def plan(self, admitted: Admitted) -> Plan:
        """Return the way of a call, which has chosen its first candidate. Raises `Overloaded` when there is none."""
        route = admitted.route
        only = route.only
        give_up_at = admitted.decoded.identified.envelope.arrived_at + self._total_seconds
        if only is not None and only.is_free():  # There is nothing to choose.
            if only.upstream.budget.owed:
                only.upstream.budget.note_call()
            return Plan(route, only, self._max_retries, give_up_at, self._random)
        now = self._clock()
        if only is not None:
            return Plan.begin(route, now, max_retries=self._max_retries, give_up_at=give_up_at, random=self._random)
        conversation, is_continued = _conversation_of(route.name, admitted.decoded.asked.chat)
        plan = Plan.begin(
            route,
            now,
            max_retries=self._max_retries,
            give_up_at=give_up_at,
            random=self._random,
            remembered=self._conversations.remembered(conversation, now) if is_continued else None,
        )
        self._conversations.remember(conversation, plan.candidate, now)
        return plan

    async def whole(self, admitted: Admitted, dialect: Dialect, plan: Plan) -> Attempt:
        """Return a whole answer. Raises the `GateError` that is left when nothing else can be tried."""
        wait_seconds: float | None = None
        if self._hedges is None:
            try:  # As nearly always, one is enough.
                return await self.trying.whole(admitted, dialect, 1, plan.candidate, None)
            except GateError as error:
                wait_seconds = plan.after(error, self._clock())

        def make(candidate: Candidate, left_seconds: float | None) -> Coroutine[None, None, Attempt]:
            return self.trying.whole(admitted, dialect, plan.attempts, candidate, left_seconds)

        return await self._until_answered(admitted, plan, make, wait_seconds)

    async def stream(self, admitted: Admitted, dialect: Dialect, plan: Plan) -> Attempt:
        """Return a stream that has said its first word. Raises as `whole` does."""
        wait_seconds: float | None = None
        if self._hedges is None:
            can_wait = plan.route.is_last or not plan.can_go_elsewhere(self._clock())
            try:  # As nearly always, one is enough.
                return await self.trying.stream(admitted, dialect, 1, plan.candidate, None, can_wait=can_wait)
            except GateError as error:
                wait_seconds = plan.after(error, self._clock())

        def make(candidate: Candidate, left_seconds: float | None) -> Coroutine[None, None, Attempt]:
            can_wait = not plan.can_go_elsewhere(self._clock())
            return self.trying.stream(admitted, dialect, plan.attempts, candidate, left_seconds, can_wait=can_wait)

        return await self._until_answered(admitted, plan, make, wait_seconds)

    async def wait(self, seconds: float) -> None:
        """Wait between two tries."""
        if seconds:
            await self._sleep(seconds)

    async def _until_answered(
        self, admitted: Admitted, plan: Plan, make: _Try, wait_seconds: float | None = None
    ) -> Attempt:
        """Make one try after another, the first of them after `wait_seconds` where another one has failed before."""
        left_seconds: float | None = None
        while True:
            if wait_seconds is not None:
                await self.wait(wait_seconds)
                left_seconds = plan.left_seconds(self._clock())
            try:
                if self._hedges is None:
                    attempt = await make(plan.candidate, left_seconds)
                else:
                    attempt = await self._hedged(admitted, plan, make, left_seconds)
            except GateError as error:
                wait_seconds = plan.after(error, self._clock())
            else:
                if plan.attempts > 1:
                    self._remember(admitted, plan)
                return attempt

    def _remember(self, admitted: Admitted, plan: Plan) -> None:
        """Have the conversation go on where it was answered, if that was not where it was sent first."""
        route = admitted.route
        if len(route.candidates) > 1 and plan.candidate in route.candidates:
            conversation, _ = _conversation_of(route.name, admitted.decoded.asked.chat)
            self._conversations.remember(conversation, plan.candidate, self._clock())

    async def _hedged(self, admitted: Admitted, plan: Plan, make: _Try, left_seconds: float | None) -> Attempt:
        """Make a try, and a second one beside it when the first takes longer than nearly all have taken."""
        assert self._hedges is not None  # noqa: S101 - narrows for the type checker; the caller has looked
        self._hedges.note_call()
        times = self._times_of(admitted)
        began_at = self._clock()
        tries = {asyncio.create_task(make(plan.candidate, left_seconds)): (plan.candidate, plan.attempts)}
        try:
            done, waiting = await asyncio.wait(tries, timeout=times.p95())
            now = self._clock()
            if waiting and plan.has_other(now) and self._hedges.try_take() and (other := plan.other(now)):
                plan.go_besides(other)
                tries[asyncio.create_task(make(other, left_seconds))] = other, plan.attempts
            failure: BaseException | None = None
            while True:
                for each in done:
                    failure = each.exception() or failure
                    if each.exception() is None:
                        plan.candidate, _ = tries.pop(each)
                        times.note(self._clock() - began_at)
                        self._note_losers(admitted, tries)
                        return each.result()
                waiting = {each for each in tries if not each.done()}
                if not waiting:
                    assert failure is not None  # noqa: S101 - all have ended, and none well
                    raise failure
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in tries:
                each.add_done_callback(self._end_loser)
                each.cancel()

    @staticmethod
    def _note_losers(admitted: Admitted, tries: Mapping[asyncio.Task[Attempt], tuple[Candidate, int]]) -> None:
        """Tell the book of tries that are given up because another one was faster."""
        for each, (_, serial) in tries.items():
            if not each.done() or not (each.cancelled() or each.exception()):
                admitted.entry.fail(serial, "hedged", abandoned=True, sent_bytes=admitted.body_bytes)

    def _end_loser(self, task: asyncio.Future[Attempt]) -> None:
        """Free what a try holds that came second, and look at its error, so that nobody misses that."""
        if not task.cancelled() and task.exception() is None:
            self.trying.give_up(task.result())

    def _times_of(self, admitted: Admitted) -> FirstTokenTimes:
        """Return how long a model takes to begin, whole answers apart from streams."""
        key = (admitted.route.name, admitted.decoded.asked.chat.stream)
        times = self._times.get(key)
        if times is None:
            times = self._times[key] = FirstTokenTimes()
        return times


def _conversation_of(model: str, chat: ChatCall) -> tuple[int, bool]:
    """Return what a conversation is known by, its system text and first question, and whether it has gone on since."""
    opening: list[bytes | str] = [model]
    turns = chat.turns or chat.messages if chat.document is None else openai_chat.turns_of(chat.document)
    for turn in turns:
        opening.append(turn.content if isinstance(turn.content, str) else bytes(turn.content))
        if turn.role not in _LEADING_ROLES:
            break
    return hash(tuple(opening)), any(turn.role == "assistant" for turn in turns)
