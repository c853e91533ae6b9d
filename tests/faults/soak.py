"""The long run: three nodes, Redis, PostgreSQL and workers under load, and every few seconds something of them fails, drawn by the seed.

Then a quiet time, and the verdict: nothing lost, doubled, out of order or passed over in silence, the store is the log is what was read; every
message of the queue had its effect; everybody who is there is named; no traceback, no secret; nodes hold no more memory than in the beginning.

python -m tests.faults.soak --minutes 30 --seed 1
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import tempfile
import time
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from aibos_realtime import RealtimeError
from tests.arguments import amount
from tests.faults.clients import pause
from tests.faults.load import Load
from tests.faults.nemesis import KINDS, Fault, Nemesis, draw, kinds_for
from tests.faults.node_proof import CLIENTS
from tests.faults.processes import MAX_LINES, Zygote
from tests.faults.redis_data import until_drained
from tests.faults.rows import read_rows
from tests.faults.soak_guests import Guests
from tests.faults.soak_judge import check_rooms, judge_felt, judge_words, measure, read_moments, rows_of
from tests.faults.soak_memory import Memory
from tests.faults.soak_outbox import Application
from tests.faults.soak_outcome import ENOUGH_HISTORY, Outcome, Setting
from tests.faults.soak_site import Site, running_site
from tests.faults.soak_work import Senders, make_ledger

LEDGER_FILE = "ledger.db"


class Ear(logging.Handler):
    """Keeps what the clients of this process say, instead of showing it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if len(self.lines) < MAX_LINES:
            self.lines += self.format(record).splitlines()


@contextmanager
def _listening() -> Iterator[Ear]:
    """To everything that is logged here, which is many lost connections, and no news."""
    ear, root = Ear(), logging.getLogger()
    kept, level = root.handlers[:], root.level
    root.handlers[:] = [ear]
    root.setLevel(logging.INFO)
    try:
        yield ear
    finally:
        root.handlers[:] = kept
        root.setLevel(level)


async def prove(zygote: Zygote, folder: Path, setting: Setting, tell: Callable[[str], None]) -> Outcome:
    """One run. `folder`: an empty one, for journals and logs. `tell`: called with each piece of progress."""
    began = time.monotonic()
    ledger = folder / LEDGER_FILE
    make_ledger(ledger)
    plans = draw(
        setting.seed, setting.minutes * 60, interval=setting.interval, longest=setting.longest, kinds=setting.kinds or kinds_for(setting.store)
    )
    complaints: list[str] = []
    with _listening() as ear:
        async with running_site(zygote, folder, setting.store, ledger, setting.history, setting.queue) as site:
            load = _load(folder, site, setting)

            def note(fault: Fault) -> None:
                plan = fault.plan
                words = f"{time.monotonic() - began:7.1f} s  {plan.kind}, {plan.number}, {fault.healed - fault.began:.1f} s"
                tell(f"{words}; acknowledged {load.acknowledged}, refused {load.errors.total()}")

            nemesis = Nemesis(site, note)
            async with load, _watching(site) as memory, _company(site, folder, load.rooms, setting) as company:
                await load.until_flowing(3)
                await load.until_everywhere()
                await pause(min(10.0, setting.quiet))
                memory.note_beginning()
                await nemesis.run(plans)
                tell("the last fault is over")
                await pause(setting.quiet)
                complaints += await _attempt(load.until_everywhere(), company.end(), load.settle(), until_drained(site.redis))
                memory.note_end()
                presence, wrong = await company.guests.until_right()
                effects = await company.senders.drain()
                complaints += [*company.complaints, *wrong, *effects.complaints]
                tell("reading the log")
                log = await load.read_log()
                complaints += await company.application.judge(log)
            complaints += await _attempt(*(node.terminate() for node in site.nodes))
            store = await read_rows(site.database)
            lines = site.lines | {"clients": ear.lines}
    (folder / "clients.log").write_text("\n".join(ear.lines))
    moments = read_moments(folder, load.rooms)
    felt = measure(nemesis.faults, moments, len(site.nodes))
    verdict = check_rooms(folder, load.rooms, log, store, may_announce=setting.may_tell)
    complaints += judge_felt(felt, setting.within) + judge_words(lines) + memory.complaints
    complaints += [] if verdict.is_clean else [str(verdict)]
    told = verdict.counts["told of a gap"]
    if told and not setting.may_tell:
        complaints.append(f"subscribers were told {told} times of a gap, though nothing that could make one had failed")
    return Outcome(
        setting, verdict, rows_of(felt), effects, memory, company.application.committed, presence, time.monotonic() - began, company.guests.visits,
        sum(node.failed_starts for node in site.nodes), max((wait for one in load.publishers if not one.gives_up for wait in one.waits), default=0.0),
        complaints,
    )  # fmt: skip


def _load(folder: Path, site: Site, setting: Setting) -> Load:
    publishers: dict[str, Any] = {"serial": 3, "pipelined": 2, "careless": 1}
    pace = (sum(publishers.values()) + len(site.nodes)) / setting.rate
    return Load(
        folder, site.client_urls, direct=site.direct_urls, seed=setting.seed, rooms=setting.rooms, subscribers=2, wanderers=2, pace=pace,
        **publishers, **CLIENTS,
    )  # fmt: skip


@asynccontextmanager
async def _watching(site: Site) -> AsyncIterator[Memory]:
    memory = Memory(site.nodes)
    task = asyncio.create_task(memory.run())
    try:
        yield memory
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


class Company:
    """Who else is there beside the load: senders to the queue, guests, an application."""

    def __init__(self, site: Site, folder: Path, rooms: list[str], setting: Setting) -> None:
        self.senders = Senders(site.queue_url, folder / LEDGER_FILE, rate=setting.sends, seed=setting.seed)
        self.guests = Guests(site.client_urls, site.direct_urls, count=8, seed=setting.seed)
        self.application = Application(site.database, folder, rooms, rate=setting.sends / 2, seed=setting.seed)
        self.complaints: list[str] = []
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(one.run(self._stop)) for one in (self.senders, self.guests, self.application)]

    async def end(self) -> None:
        """All of them, in an orderly way. Raises what any of them could not bear, and `TimeoutError`."""
        self._stop.set()
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)
        self.complaints += await self.application.drain()

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(self.guests.close(), self.senders.close(), self.application.close())


@asynccontextmanager
async def _company(site: Site, folder: Path, rooms: list[str], setting: Setting) -> AsyncIterator[Company]:
    async with AsyncExitStack() as life:
        company = Company(site, folder, rooms, setting)
        life.push_async_callback(company.close)
        company.start()
        yield company


async def _attempt(*steps: Any) -> list[str]:
    """Each step, one after the other; what did not come about."""
    found = []
    for step in steps:
        try:
            await step
        except (AssertionError, TimeoutError, RealtimeError, ExceptionGroup) as error:
            found.append(f"at the end: {error!r}")
    return found


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=amount, default=30.0, help="of faults; the quiet time and the verdict come on top")
    parser.add_argument("--seed", type=int, default=1, help="of everything that chance decides")
    parser.add_argument("--store", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--queue", choices=("redis", "store"), default="redis", help="where the queue is")
    parser.add_argument("--interval", type=amount, default=5.0, help="seconds from one fault to the next")
    parser.add_argument("--longest", type=amount, default=9.0, help="seconds of the longest fault")
    parser.add_argument("--quiet", type=float, default=60.0, help="seconds without faults at the end")
    parser.add_argument("--rate", type=amount, default=120.0, help="publishes a second")
    parser.add_argument("--history", type=int, default=ENOUGH_HISTORY, help="events of a room that Redis keeps; with fewer, gaps may be told")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=[], metavar="KIND", help="these faults; one of: " + ", ".join(KINDS))
    parser.add_argument("--folder", type=Path, help="where journals and outputs go, and stay; default: a temporary one")
    parser.add_argument("--json", type=Path, help="a file for the figures")
    given = parser.parse_args()
    setting = Setting(
        given.minutes, given.seed, given.store, given.queue, given.interval, given.longest, given.quiet, given.rate,
        history=given.history, kinds=given.only,
    )  # fmt: skip
    zygote = Zygote()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            parser.error("--folder: it is not empty, and journals of two runs would be judged as one")
        try:
            outcome = asyncio.run(prove(zygote, folder, setting, lambda words: print(words, flush=True)))
        finally:
            zygote.close()
    text = json.dumps(outcome.to_json(), indent=1)
    leaks = judge_words({"the soak": [*str(outcome).splitlines(), *text.splitlines()]})
    if given.json is not None:
        given.json.write_text(text)
    print(outcome)
    print("\n".join(leaks))
    sys.exit(1 if outcome.complaints or leaks else 0)


if __name__ == "__main__":
    main()
