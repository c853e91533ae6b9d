"""All clients of one process: they are opened, told to send at their turns, and watched until the last event is there.

What it measures is real time, so no clock is passed in. A rate holds whatever the server does: what is due is sent, and its time counts from the
moment that it was due. So a server that pauses cannot make its pause disappear by keeping the next message from being sent (coordinated omission).
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import Coroutine
from pathlib import Path
from time import monotonic

from .client import Client, Content
from .connection import Inbox, Refused
from .judge import to_record
from .opening import Opening
from .pace import Alarm, turns
from .plan import Opened, Plan, Progress, Report, Scenario
from .tally import Tally

DRAIN, QUIET, LONGEST_QUIET = 10.0, 0.5, 2.0
"""Seconds at most for the last answers and events; without one, where all are there that are known of, and where some are missing."""
AHEAD = 16
"""Events that a member may be behind before those who send as fast as they can wait for him."""
BATCH = 256
"""Messages that are sent before the loop may read again."""
LEAVING = 100
"""Clients that leave at the same time."""
GOODBYE = 2.0
"""Seconds for the server to end the connections."""


class Fleet:
    """See the module. Made in a running loop."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.tally = Tally(plan.base, plan.rooms)
        self._inbox = Inbox(plan.codec, plan.run)
        content = Content(plan.run, plan.payload, plan.data)
        self._clients = [Client(one, plan.rooms, plan.event, content, self._inbox, self.tally) for one in plan.clients]
        for client in self._clients:
            client.lost_by = self._lost
        self._opening = Opening(plan.place, plan.first, self.tally)
        self._opening_seconds = self._seconds = self._cpu = 0.0
        self._ends_at = 0
        self._is_sending = self._is_stopped = False
        self._work: asyncio.Future[None] | None = None
        self._returning: set[asyncio.Task[None]] = set()

    async def open(self) -> Opened:
        """Have all clients in, which `connect` does later."""
        if self.plan.scenario is Scenario.CONNECT:
            return Opened()
        begun = monotonic()
        try:
            await self._until_stopped(self._opening.open_all(self._clients))
        except Refused as refused:
            return Opened(str(refused), refused.kind)
        finally:
            self._opening_seconds = monotonic() - begun
        return Opened()

    async def run(self, at: int) -> None:
        """From this moment on (microseconds) for as long as planned, or until `stop`; then wait for what is on the way."""
        self._ends_at = at + round(self.plan.duration * 1e6)
        cpu = _cpu_seconds()
        self._is_sending = True
        try:
            await self._until_stopped(self._do(at))
        finally:
            self._is_sending = False
            self._seconds, self._cpu = max(0.0, self.tally.now() - at) / 1e6, _cpu_seconds() - cpu
        if self.plan.scenario in (Scenario.FANOUT, Scenario.REQUEST):
            await self._drain()

    def stop(self) -> None:
        """End early."""
        self._is_stopped = True
        if self._work is not None:
            self._work.cancel()

    async def close(self) -> None:
        """Let everybody go, not all at once, which a server would feel; and wait for it to end the connections, a moment."""
        self._is_stopped = True
        for task in self._returning:
            task.cancel()
        await asyncio.gather(*self._returning, return_exceptions=True)
        for number, client in enumerate(self._clients, 1):
            client.close()
            if number % LEAVING == 0:
                await asyncio.sleep(0.01)
        for _ in range(round(GOODBYE / 0.02)):
            if all(client.is_gone for client in self._clients):
                break
            await asyncio.sleep(0.02)
        for client in self._clients:
            client.abort()

    async def _until_stopped(self, work: Coroutine[None, None, None]) -> None:
        self._work = asyncio.ensure_future(work)
        if self._is_stopped:
            self._work.cancel()
        await asyncio.wait([self._work])
        if not self._work.cancelled():
            self._work.result()

    def _lost(self, client: Client, may_return: bool) -> None:
        if may_return and not self._is_stopped:
            task = asyncio.ensure_future(self._bring_back(client))
            self._returning.add(task)
            task.add_done_callback(self._returning.discard)

    async def _bring_back(self, client: Client) -> None:
        await self._opening.bring_back(client)
        if client.next_turn is not None:
            client.next_turn(client, 0.0)

    # — sending —

    async def _do(self, at: int) -> None:
        plan = self.plan
        if plan.scenario is Scenario.CONNECT:
            dues = [at + round((plan.first + number * plan.every) * 1e6 / plan.rate) if plan.rate else at for number in range(len(self._clients))]
            await self._opening.open_at_turns(list(zip(dues, self._clients, strict=True)), self._ends_at)
            self._opening_seconds = max(0.0, self.tally.now() - at) / 1e6
            return
        if plan.scenario is not Scenario.IDLE:
            found = [(client.plan.sender, client) for client in self._clients if client.plan.sender is not None]
            senders = sorted(found, key=lambda one: one[0])
            await (self._send_at_rate(senders, at) if plan.rate else self._send_as_answered(senders, at))
        await asyncio.sleep(max(0.0, (self._ends_at - self.tally.now()) / 1e6))

    async def _send_at_rate(self, senders: list[tuple[int, Client]], at: int) -> None:
        if not senders:
            return
        tally, sent = self.tally, 0
        with Alarm() as alarm:
            for due, client in turns(senders, self.plan.senders, self.plan.rate, at):
                if due >= self._ends_at:
                    return
                if tally.now() < due:
                    await alarm.wait_until(tally.moment(due))
                elif (sent := sent + 1) % BATCH == 0:
                    await asyncio.sleep(0)
                tally.late.record(tally.now() - due)
                self._send(client, due)

    async def _send_as_answered(self, senders: list[tuple[int, Client]], at: int) -> None:
        with Alarm() as alarm:
            await alarm.wait_until(self.tally.moment(at))
        for _, client in senders:
            client.next_turn = self._next
            self._send(client, self.tally.now())

    def _next(self, client: Client, after: float) -> None:
        """An answer has come: send the next one, once the members of this process have caught up."""
        if not self._is_sending or not client.is_open:
            return
        if after or any(self.tally.is_behind(one.room, AHEAD) for one in client.rooms):
            asyncio.get_running_loop().call_later(after or 0.002, self._next, client, 0.0)
        else:
            self._send(client, self.tally.now())

    def _send(self, client: Client, due: int) -> None:
        if not client.is_open:
            self.tally.unsent += 1
            return
        self.tally.sent += 1
        if self.plan.scenario is Scenario.FANOUT:
            client.publish(due, self.plan.senders)
        else:
            client.request(due)

    async def _drain(self) -> None:
        """Until every answer and event that this process knows of is there and nothing more comes, or it is hopeless."""
        tally, begun = self.tally, monotonic()
        before, quiet_since = -1, begun
        while (now := monotonic()) - begun < DRAIN:
            seen = tally.delivered + tally.answered + sum(tally.errors.values())
            if seen != before:
                before, quiet_since = seen, now
            is_done = not any(client.unanswered for client in self._clients) and not any(tally.is_behind(room, 0) for room in self.plan.rooms)
            if now - quiet_since >= (QUIET if is_done else LONGEST_QUIET):
                return
            await asyncio.sleep(0.05)

    # — telling —

    def progress(self) -> Progress:
        tally = self.tally
        measured = {Scenario.FANOUT: tally.delivery, Scenario.REQUEST: tally.answer}.get(self.plan.scenario, tally.opening)
        failed = sum(tally.errors.values()) + sum(tally.closes.values())
        waiting_for = self._opening.waiting_for
        return Progress(tally.opened, tally.sent, tally.answered, tally.delivered, failed, waiting_for, measured.to_record())

    def report(self) -> Report:
        """At the end: what has no answer by now counts as unanswered."""
        tally = self.tally
        present = sum(client.is_open for client in self._clients)
        for client in self._clients:
            client.forget_unanswered()
        rooms = {}
        for number, room in enumerate(self.plan.rooms):
            published, receptions = tally.published[room], tally.receptions[room]
            if receptions or published.count or published.unknown:
                rooms[number] = to_record(published, [(one, presence.is_open) for one, presence in receptions])
        return Report(
            tally.opened, present, self._opening_seconds, self._seconds, self._cpu, _memory(), tally.sent, tally.answered, tally.unanswered,
            tally.unsent, self._inbox.bytes_received, tally.reconnects, tally.resyncs, dict(tally.errors), dict(tally.closes), dict(tally.refusals),
            tally.words, tally.opening.to_record(), tally.answer.to_record(), tally.delivery.to_record(), tally.late.to_record(), rooms,
        )  # fmt: skip


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _memory() -> int:
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except (OSError, ValueError, IndexError):
        return 0
