"""The accounting example, through its port and the real client: once on the server's own port, once under plain uvicorn.

At the end: what is announced is what was committed, though the process is killed in between.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI

from aibos_realtime import Event, PermissionDenied, RealtimeClient, RealtimeError, RealtimeServer, ValidationError
from aibos_realtime.cli.loading import load_server
from examples.invoices.app import create_app
from examples.invoices.store import SEED_PASSWORD

NEW = {"customer": "Acme", "amount": 1000, "currency": "USD"}
EVENTS = ("invoice.created", "invoice.approved", "invoice.sent", "payment.processed")
PATIENCE = 5.0
SECRET = "only for these tests, of 32 bytes or more"


class Person:
    """Somebody who is logged in: requests over HTTP, and a client in the room of his tenant that writes down what it hears."""

    def __init__(self, http: httpx.AsyncClient, client: RealtimeClient, room: str) -> None:
        self.http = http
        self.client = client
        self.room = room
        self.heard: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        for name in (*EVENTS, "approval.requested", "notification"):
            client.on(name, self._listener(name))

    def _listener(self, name: str) -> Any:
        return lambda data, event: self.heard.put_nowait((name, data))

    async def hear(self) -> tuple[str, Any]:
        async with asyncio.timeout(PATIENCE):
            return await self.heard.get()

    async def hear_of(self, name: str) -> Any:
        """The data of the next event of this name; what comes before it is passed over."""
        while True:
            heard, data = await self.hear()
            if heard == name:
                return data

    async def post(self, path: str, data: Any = None, *, status: int = 200) -> Any:
        answer = await self.http.post(path, json=data)
        assert answer.status_code == status, answer.text
        return answer.json()

    async def create(self) -> str:
        return str((await self.post("/invoices", NEW, status=201))["invoiceId"])


class Town:
    """A running service; `log_in` makes a person, `leave` is called at the end."""

    def __init__(self, address: str, stack: AsyncExitStack) -> None:
        self.address = address
        self._stack = stack

    async def log_in(self, user: str) -> Person:
        http = await self._stack.enter_async_context(httpx.AsyncClient(base_url=f"http://{self.address}", trust_env=False))
        answer = await http.post("/login", json={"user": user, "password": SEED_PASSWORD})
        assert answer.status_code == 200, answer.text
        http.headers["Authorization"] = f"Bearer {answer.json()['token']}"
        client = await self._stack.enter_async_context(RealtimeClient(f"ws://{self.address}/realtime/ws", token=answer.json()["token"]))
        person = Person(http, client, answer.json()["room"])
        await client.join_room(person.room)
        return person


@asynccontextmanager
async def on_own_port(app: FastAPI) -> AsyncIterator[str]:
    """As `aibos-realtime serve` does it: HTTP and the fast path on one port."""
    server: RealtimeServer = app.state.server
    server.host_app(app, "/realtime")
    server.listen_on(host="127.0.0.1", port=0)
    async with server:
        yield f"127.0.0.1:{server.port}"


@asynccontextmanager
async def under_uvicorn(app: FastAPI) -> AsyncIterator[str]:
    """Mounted in somebody else's server."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="websockets-sansio", lifespan="on"))
        serving = asyncio.create_task(server._serve([listening]))  # without `serve`, which takes over the signals of the test run
        try:
            yield f"127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await serving


@pytest.fixture(params=[on_own_port, under_uvicorn], ids=["own port", "uvicorn"])
async def town(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Town]:
    app = create_app(database=tmp_path / "invoices.db", jwt_secret=SECRET)
    async with request.param(app) as address, AsyncExitStack() as stack:
        yield Town(address, stack)


async def test_what_one_does_over_http_everybody_of_the_tenant_hears_in_order(town: Town) -> None:
    ann, ben, eve, uma = [await town.log_in(user) for user in ("ann", "ben", "eve", "uma")]
    first = await ben.create()
    second = await ben.create()
    await ann.post(f"/invoices/{first}/approve")
    await ben.post(f"/invoices/{first}/send")
    await ben.post(f"/invoices/{first}/payments", {"id": "pay_1", "amount": 400}, status=201)
    await ben.post(f"/invoices/{first}/payments", {"id": "pay_2", "amount": 600}, status=201)

    expected = [("invoice.created", first), ("invoice.created", second), ("invoice.approved", first), ("invoice.sent", first)]
    expected += [("payment.processed", first)] * 2
    heard: dict[str, list[tuple[str, Any]]] = {}
    for person in (ann, ben, eve):
        mine: list[tuple[str, Any]] = []
        heard[(person.client.user or {})["id"]] = mine
        while sum(name in EVENTS for name, _ in mine) < len(expected):
            mine.append(await person.hear())
        assert [(name, data["invoiceId"]) for name, data in mine if name in EVENTS] == expected
    assert [data["openAmount"] for name, data in heard["eve"] if name == "payment.processed"] == [600, 0]
    # Nothing of it went to the other tenant: what is said there next is the first that is heard there.
    other = (await uma.post("/invoices", NEW, status=201))["invoiceId"]
    name, data = await uma.hear()
    assert (name, data["invoiceId"]) == ("invoice.created", other)


async def test_only_who_may_approve_is_asked_to(town: Town) -> None:
    ann, ben = await town.log_in("ann"), await town.log_in("ben")
    first = await ben.create()
    assert [await ann.hear(), await ann.hear()][1] == ("approval.requested", {"invoiceId": first})
    second = await ann.create()  # her own: she is not asked
    await ben.post(f"/invoices/{second}/payments", {"id": "x", "amount": 1}, status=409)
    await ann.post(f"/invoices/{first}/approve")
    assert [(await ann.hear())[0] for _ in range(2)] == ["invoice.created", "invoice.approved"]
    assert [(await ben.hear())[0] for _ in range(3)] == ["invoice.created", "invoice.created", "invoice.approved"]


async def test_approving_over_the_connection_tells_the_creator_so(town: Town) -> None:
    ann, ben = await town.log_in("ann"), await town.log_in("ben")
    invoice = await ben.create()
    answer = await ann.client.send_message("invoice.approve", {"invoiceId": invoice})
    assert (answer["invoiceId"], answer["status"]) == (invoice, "approved")
    heard = dict([await ben.hear() for _ in range(3)])
    assert heard["invoice.approved"] == {"invoiceId": invoice, "approvedBy": "ann"}
    assert heard["notification"] == {"type": "info", "message": "Your invoice for Acme was approved.", "invoiceId": invoice}


async def test_roles_are_obeyed_on_both_ways(town: Town) -> None:
    ann, ben, eve, uma = [await town.log_in(user) for user in ("ann", "ben", "eve", "uma")]
    invoice = await ben.create()
    assert (await eve.http.get(f"/invoices/{invoice}")).json()["status"] == "draft"
    assert (await eve.post("/invoices", NEW, status=403))["code"] == "not_allowed"
    await ben.post(f"/invoices/{invoice}/approve", status=403)
    with pytest.raises(PermissionDenied, match="The role accountant may not approve an invoice"):
        await ben.client.send_message("invoice.approve", {"invoiceId": invoice})
    own = await ann.create()
    with pytest.raises(PermissionDenied, match="Nobody approves an invoice of his own"):
        await ann.client.send_message("invoice.approve", {"invoiceId": own})
    with pytest.raises(RealtimeError) as unseen:
        await uma.client.send_message("invoice.approve", {"invoiceId": invoice})
    assert unseen.value.code == "invoice_not_found"
    with pytest.raises(ValidationError) as malformed:
        await ann.client.send_message("invoice.approve", {"invoice": invoice})
    assert malformed.value.errors == [{"path": "$", "message": "Object missing required field invoiceId"}]


async def test_tenants_see_nothing_of_one_another(town: Town) -> None:
    ben, uma = await town.log_in("ben"), await town.log_in("uma")
    invoice = await ben.create()
    assert (await uma.http.get("/invoices")).json() == []
    assert (await uma.http.get(f"/invoices/{invoice}")).status_code == 404
    await uma.post(f"/invoices/{invoice}/approve", status=404)
    for attempt in (uma.client.join_room, uma.client.history, uma.client.presence):
        with pytest.raises(PermissionDenied):
            await attempt(ben.room)


async def test_no_client_can_say_that_an_invoice_was_paid(town: Town) -> None:
    ann = await town.log_in("ann")
    with pytest.raises(PermissionDenied):
        await ann.client.send_message("payment.processed", {"invoiceId": "inv_1"}, room=ann.room)


async def test_the_steps_have_one_order(town: Town) -> None:
    ann, ben = await town.log_in("ann"), await town.log_in("ben")
    invoice = await ben.create()
    assert (await ben.post(f"/invoices/{invoice}/send", status=409))["message"] == "An invoice that is draft cannot become sent."
    await ann.post(f"/invoices/{invoice}/approve")
    await ann.post(f"/invoices/{invoice}/approve", status=409)
    await ben.post(f"/invoices/{invoice}/payments", {"id": "pay_1", "amount": 1000}, status=409)
    await ben.post(f"/invoices/{invoice}/send")
    assert (await ben.post(f"/invoices/{invoice}/payments", {"id": "pay_1", "amount": 1000}, status=201))["status"] == "paid"
    await ben.post(f"/invoices/{invoice}/payments", {"id": "pay_2", "amount": 1}, status=409)
    await ben.hear_of("payment.processed")
    page = await ben.client.history(ben.room)
    assert [event.event for event in page.events if event.event in EVENTS] == list(EVENTS)


async def test_a_repeated_payment_is_one_and_its_id_belongs_to_its_invoice(town: Town) -> None:
    ann, ben = await town.log_in("ann"), await town.log_in("ben")
    first, second = await ben.create(), await ben.create()
    for invoice in (first, second):
        await ann.post(f"/invoices/{invoice}/approve")
        await ben.post(f"/invoices/{invoice}/send")
        await ben.post(f"/invoices/{invoice}/payments", {"id": "pay_1", "amount": 400}, status=201)
    await ben.post(f"/invoices/{first}/payments", {"id": "pay_2", "amount": 500}, status=201)
    assert (await ben.post(f"/invoices/{first}/payments", {"id": "pay_1", "amount": 400}, status=201))["openAmount"] == 100
    assert (await ben.post(f"/invoices/{first}/payments", {"id": "pay_1", "amount": 50}, status=409))["code"] == "conflict"
    for _ in range(3):
        await ben.hear_of("payment.processed")
    page = await ben.client.history(ben.room)
    paid = [(event.data["invoiceId"], event.data["paymentId"]) for event in page.events if event.event == "payment.processed"]
    assert paid == [(first, "pay_1"), (second, "pay_1"), (first, "pay_2")]


def test_the_command_line_finds_the_server_in_the_app() -> None:
    server, path = load_server("examples.invoices.app:app")
    assert isinstance(server, RealtimeServer) and path == "/realtime"


async def test_a_wrong_password_or_no_token_gets_401(town: Town) -> None:
    async with httpx.AsyncClient(base_url=f"http://{town.address}", trust_env=False) as http:
        for given in ({"user": "ann", "password": "wrong"}, {"user": "nobody", "password": SEED_PASSWORD}):
            assert (await http.post("/login", json=given)).status_code == 401
        assert (await http.get("/invoices")).status_code == 401
        assert (await http.get("/realtime/health")).json() == {"status": "ok"}


async def test_the_page_comes_with_a_strict_policy_and_with_its_client(town: Town) -> None:
    async with httpx.AsyncClient(base_url=f"http://{town.address}", trust_env=False) as http:
        page = await http.get("/")
        assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
        policy = page.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy
        for name in ("app.js", "realtime/client.js", *re.findall(r'(?:from|href=)[ "]+([\w./-]+\.(?:js|css|svg))"', page.text)):
            file = await http.get(f"/{name}")
            assert file.status_code == 200 and file.headers["x-content-type-options"] == "nosniff", name
        for path in ("/app.py", "/../app.py", "/%2e%2e/app.py", "/web/app.js"):
            assert (await http.get(path)).status_code == 404


async def test_who_was_away_recovers_what_was_posted_meanwhile(town: Town) -> None:
    ann, ben = await town.log_in("ann"), await town.log_in("ben")
    first = await ben.create()
    await ann.hear_of("approval.requested")
    before = ann.client.position(ann.room)
    await ann.client.leave_room(ann.room)
    second = await ben.create()
    recovered: list[Event] = []
    ann.client.on("invoice.created", lambda data, event: recovered.append(event))
    state = await ann.client.join_room(ann.room, recover=before)
    assert state.recovered is True
    third = await ben.create()
    while not any(event.data["invoiceId"] == third for event in recovered):
        await ann.hear()
    missed = [event.data["invoiceId"] for event in recovered]
    assert missed[-2:] == [second, third] and set(missed) <= {first, second, third}


CREATE_AND_DIE = """
import asyncio, os, signal, sys
from sqlalchemy import event
from sqlalchemy.orm import Session
from examples.invoices.app import create_app
from examples.invoices.domain import Actor, Role

async def main(database, moment, secret):
    app = create_app(database=database, jwt_secret=secret)
    async with app.router.lifespan_context(app):
        event.listen(Session, moment, lambda session: os.kill(os.getpid(), signal.SIGKILL))
        await app.state.ledger.create(Actor("ben", "123", Role.ACCOUNTANT), customer="Acme", amount=1000, currency="USD")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.mark.parametrize(("moment", "invoices"), [("before_commit", 0), ("after_commit", 1)])
async def test_a_process_that_dies_announces_what_it_committed_and_nothing_else(moment: str, invoices: int, tmp_path: Path) -> None:
    """Killed with both inserts done and the commit not begun, and with the commit done and the relay not begun."""
    database = tmp_path / "invoices.db"
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(root / "src"), str(root)])}
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", CREATE_AND_DIE, str(database), moment, SECRET, env=environment)
    async with asyncio.timeout(20):
        assert await child.wait() == -signal.SIGKILL
    app = create_app(database=database, jwt_secret=SECRET)
    async with on_own_port(app) as address, AsyncExitStack() as stack:
        ben = await Town(address, stack).log_in("ben")
        kept = [invoice["invoiceId"] for invoice in (await ben.http.get("/invoices")).json()]
        assert len(kept) == invoices
        last = await ben.create()
        while (await ben.hear_of("invoice.created"))["invoiceId"] != last:
            pass
        page = await ben.client.history(ben.room)
        assert [event.data["invoiceId"] for event in page.events if event.event == "invoice.created"] == [*kept, last]


async def test_what_was_rolled_back_is_never_announced(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The invoice and its first event are in the transaction already when the second event fails."""
    ann, ben = await town.log_in("ann"), await town.log_in("ben")
    with monkeypatch.context() as broken:
        broken.setattr("examples.invoices.ledger.where", lambda **conditions: lambda user: True)
        assert (await ben.http.post("/invoices", json=NEW)).status_code == 500
    assert (await ben.http.get("/invoices")).json() == []
    invoice = await ben.create()
    assert (await ann.hear_of("invoice.created"))["invoiceId"] == invoice
