"""The dashboard in Chromium: what an operator sees and does, what others are told, keys, widths, colours, and hostile names.

Fixtures of servers are named before those of pages: so at the end a page is closed before its server stops.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import jwt
import pytest
import pytest_asyncio
from fastapi import FastAPI
from playwright.async_api import Page, WebSocket, expect

from aibos_realtime import RealtimeServer, WebSocketAuth
from tests.browser.chromium import Faults
from tests.browser.conftest import MakePage, MakeProcess, MakeServer, Mint, address_of
from tests.browser.dashboard import VIEWS, Dashboard, People, add_queue, be_slow, populate, until_dead
from tests.faults.server_program import SECRET

OPEN = {"permissions": {"*": ["read", "write"]}}
SCRIPT = "<img src=x onerror=\"window.hacked='1'\"><script>window.hacked='2'</script>"


@pytest_asyncio.fixture(loop_scope="session")
async def office(start_server: MakeServer) -> AsyncIterator[tuple[RealtimeServer, People]]:
    """A server with people in it."""
    server = await start_server(authorization=OPEN, prepare=add_queue)
    people = People(server)
    await populate([server], people)
    be_slow(people)
    yield server, people


@pytest_asyncio.fixture(loop_scope="session")
async def board(office: tuple[RealtimeServer, People], page: Page, mint: Mint) -> Dashboard:
    return await Dashboard.open(page, address_of(office[0]), mint("olga", role="operator"))


# — logging in —


async def test_what_is_no_operators_token_gets_a_sentence(server: RealtimeServer, page: Page, mint: Mint, faults: Faults) -> None:
    await page.goto(f"{address_of(server)}/dashboard")
    field, button, note = page.get_by_label("Token of an operator"), page.get_by_role("button", name="Log in"), page.locator("#login-note")
    foreign = WebSocketAuth(jwt_secret="another secret of at least 32 bytes")
    for given, said in (
        ("", "Paste a token first."),
        ("hello", "This is not a token"),
        ("a.b.c", "This is not a token"),
        ("rk_" + "x" * 43, "This is an API key"),
        (jwt.encode({"sub": "olga", "role": "operator", "exp": 1_700_000_000}, SECRET), "The token has expired"),
        (foreign.issue(user_id="olga", role="operator"), "The server does not accept this token"),
        (mint("ann", role="admin"), "This is for operators, and ann has the role admin."),
    ):
        await field.fill(given)
        await button.click()
        await expect(note).to_contain_text(said)
        await expect(button).to_be_enabled()
    await field.fill(f"Bearer {mint('olga', role='operator')} ")
    await button.click()
    await expect(page.locator("h1")).to_have_text("Overview")
    faults[:] = [fault for fault in faults if "4500" not in fault]


async def test_a_link_lets_in_and_leaves_no_token_behind(server: RealtimeServer, page: Page, mint: Mint) -> None:
    token = mint("olga", role="operator")
    board = await Dashboard.open(page, address_of(server), token)
    assert token not in page.url and page.url.endswith("#/overview")
    assert await page.evaluate("localStorage.length") == 0 or token not in str(await page.evaluate("Object.values(localStorage)"))
    await page.reload()
    await board.until_live()
    other = await page.context.new_page()  # another tab has a sessionStorage of its own
    await other.goto(f"{address_of(server)}/dashboard/")
    await expect(other.get_by_role("button", name="Log in")).to_be_visible()
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()


async def test_a_link_lets_in_also_where_the_form_is_shown(server: RealtimeServer, page: Page, mint: Mint) -> None:
    await page.goto(f"{address_of(server)}/dashboard/")
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()
    await Dashboard.open(page, address_of(server), mint("olga", role="operator"))


async def test_a_server_that_takes_other_pages_alone_says_so(start_server: MakeServer, page: Page, mint: Mint) -> None:
    server = await start_server(cors={"origin": ["https://app.example.com"]})
    await page.goto(f"{address_of(server)}/dashboard/")
    await page.clock.install()
    await page.get_by_label("Token of an operator").fill(mint("olga", role="operator"))
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("button", name="Connecting …")).to_be_disabled()
    await page.clock.run_for(11_000)
    await expect(page.locator("#login-note")).to_contain_text("`cors.origin`")


@pytest.mark.parametrize("prefix", ["/realtime", "/one/two"])
async def test_mounted_in_another_app(start_server: MakeServer, page: Page, mint: Mint, prefix: str) -> None:
    def mount(server: RealtimeServer) -> None:
        app = FastAPI()
        app.mount(prefix, server.asgi())
        server.host_app(app, prefix)

    server = await start_server(prepare=mount)
    await page.goto(f"{address_of(server)}{prefix}/dashboard")
    assert page.url == f"{address_of(server)}{prefix}/dashboard/"
    board = await Dashboard.open(page, f"{address_of(server)}{prefix}", mint("olga", role="operator"))
    await expect(board.row("ok").first).to_be_visible()


async def test_a_role_that_is_taken_away_ends_it(server: RealtimeServer, page: Page, mint: Mint) -> None:
    board = await Dashboard.open(page, address_of(server), mint("olga", role="operator"))
    await server.set_role("olga", "user")
    await board.look_again()
    await expect(page.locator("#login-note")).to_contain_text("This is for operators")


async def test_a_token_that_ends(start_server: MakeServer, page: Page, mint: Mint) -> None:
    """The page says so in good time, and asks for another one once the server has closed the connection."""
    server = await start_server(authentication={"jwt_secret": SECRET, "expiry_grace": 0.1, "leeway": 0})
    await Dashboard.open(page, address_of(server), mint("olga", role="operator", expires_in=2))
    await expect(page.locator(".banner.expiry")).to_contain_text("This token ends in")
    await expect(page.locator("#login-note")).to_contain_text("The token has expired")


async def test_a_server_that_goes_and_comes_back(start_process: MakeProcess, page: Page, mint: Mint) -> None:
    server = await start_process()
    board = await Dashboard.open(page, address_of(server), mint("olga", role="operator"))
    node = board.panel("Nodes").locator("tbody a")
    before = await node.get_attribute("href")
    await server.kill()
    await expect(page.locator(".banner.bad")).to_contain_text("The server does not answer")
    await expect(page.locator(".top .badge")).to_have_text("lost")
    await server.start()
    await board.until_live()
    await expect(page.locator(".banner.bad")).to_be_hidden()
    await expect(node).not_to_have_attribute("href", before or "")  # the figures of the new process, not what was left


async def test_a_server_that_is_down_from_the_start(start_process: MakeProcess, page: Page, mint: Mint) -> None:
    server = await start_process()
    await page.goto(f"{address_of(server)}/dashboard/")
    await server.kill()
    await page.get_by_label("Token of an operator").fill(mint("olga", role="operator"))
    await page.get_by_role("button", name="Log in").click()
    await expect(page.locator("#login-note")).to_contain_text("The server does not answer.")
    await server.start()
    await page.get_by_role("button", name="Log in").click()
    await expect(page.locator("h1")).to_have_text("Overview")


# — what is seen —


async def test_the_overview(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    page = board.page
    await expect(page.locator("figure.chart")).to_have_count(8)
    await expect(page.locator("figure.chart canvas")).to_have_count(8)
    for title in ("Connections", "Deliveries out", "Latency", "CPU", "Memory"):
        await expect(page.locator("figure.chart", has=page.get_by_text(title, exact=True)).locator(".value").first).not_to_have_text("–")
    await expect(board.panel("How connections ended")).to_contain_text("going away")
    await expect(board.panel("Slow consumers").locator("tbody tr")).to_have_count(1)
    await expect(board.panel("Nodes").locator("tbody tr")).to_have_count(1)
    await expect(board.panel("Latest acts")).to_contain_text("ben.globex")
    await expect(board.fact("Gaps lost")).to_have_text("0")


async def test_charts_tell_of_the_second_under_the_pointer(board: Dashboard) -> None:
    chart = board.page.locator("figure.chart").nth(2)
    await expect(chart.locator(".value")).not_to_have_text("–")
    await chart.locator(".u-over").hover(position={"x": 40, "y": 20})
    for number in (0, 2, 4):  # in all charts at once
        await expect(board.page.locator("figure.chart").nth(number).locator(".at")).to_have_text(re.compile(r"\d\d:\d\d:\d\d$"))


async def test_figures_for_people(server: RealtimeServer, page: Page) -> None:
    await page.goto(f"{address_of(server)}/dashboard/")
    asked = {
        "count": ([0, 1234567, None], ["0", "1,234,567", "–"]),
        "rate": ([0, 0.25, 3, 9.99, 12345.6], ["0", "0.3", "3", "10.0", "12,346"]),
        "bytes": ([0, 1023, 1536, 88_000_000, 3 * 2**40], ["0 B", "1,023 B", "1.5 KiB", "84 MiB", "3.0 TiB"]),
        "span": (
            [0, 0.0000854, 0.00123, 0.5, 3.21, 59.7, 130, 3600, 11_100, 90_000, -1, None],
            ["0 µs", "85 µs", "1.2 ms", "500 ms", "3.2 s", "1 min", "2 min 10 s", "1 h", "3 h 5 min", "1 d 1 h", "0 µs", "–"],
        ),
        "percent": ([0.004, 0.123, 1.5, None], ["0.4 %", "12 %", "150 %", "–"]),
    }
    for name, (given, expected) in asked.items():
        script = "([name, given]) => import('./format.js').then((format) => given.map((value) => format[name](value)))"
        assert await page.evaluate(script, [name, given]) == expected, name
    assert await page.evaluate("import('./format.js').then(({ago}) => [ago(100, 100.4), ago(100, 104), ago(100, 90), ago(null, 1)])") == [
        "0 s ago", "4 s ago", "0 s ago", "–",
    ]  # fmt: skip


async def test_several_nodes_make_one_picture(server: RealtimeServer, page: Page) -> None:
    """Counts are added up, of what hurts the worst node counts; one that begins anew or misses a second makes no hole and no cliff."""
    await page.goto(f"{address_of(server)}/dashboard/")
    found = await page.evaluate(
        """import('./series.js').then(({Series, last}) => {
            const series = new Series();
            const node = (id, times, connections, events, loopLag) => {
                const none = times.map(() => 0);
                const names = ['rooms', 'messagesIn', 'deliveries', 'bytesIn', 'bytesOut', 'latencyP50', 'latencyP99', 'cpu', 'memory'];
                const rest = Object.fromEntries(names.map((name) => [name, none]));
                return {id, samples: {time: times, connections, events, loopLag, ...rest}};
            };
            const asked = [series.query];
            series.add([node('a', [103.1], [5], [30], [0.1]), node('b', [103.4], [7], [300], [0.4])]);
            asked.push(series.query);
            series.add([
                node('a', [100.1, 101.1, 102.1, 103.1], [2, 3, 4, 5], [0, 10, 20, 30], [0.1, 0.1, 0.1, 0.1]),
                node('b', [100.4, 101.4, 103.4], [7, 7, 7], [900, 920, 5], [0.2, 0.3, 0.4]),
            ]);
            asked.push(series.query);
            const {times, connections, events, loopLag} = series.columns();
            const end = (column) => column.slice(-4);
            const one = end(series.columns('a').connections);
            const four = {times: end(times), connections: end(connections), events: end(events), loopLag: end(loopLag)};
            return {...four, asked, one, last: last(events), length: times.length};
        })"""
    )
    assert found["asked"] == [{"samples": 1}, {"samples": 600, "since": 0}, {"samples": 600, "since": 103}]
    assert (found["times"], found["length"]) == ([100, 101, 102, 103], 60)
    assert found["connections"] == [9, 10, 11, 12] and found["one"] == [2, 3, 4, 5]
    assert found["events"] == [None, pytest.approx(30), pytest.approx(30), pytest.approx(10)]  # b: 20 a second, held, then it has begun anew
    assert found["loopLag"] == [0.2, 0.3, 0.3, 0.4]


async def test_a_node(board: Dashboard) -> None:
    await board.panel("Nodes").locator("tbody a").first.click()
    await expect(board.page.locator(".view.nodes h1")).to_be_visible()
    await expect(board.fact("Messages in / out")).to_be_visible()
    await expect(board.page.locator("figure.chart canvas")).to_have_count(8)
    await board.go("nodes/never")
    await expect(board.page.locator(".trouble")).to_contain_text("This node does not answer")


async def test_rooms_are_searched_and_looked_at(board: Dashboard) -> None:
    await board.go("rooms")
    await expect(board.page.locator("tbody tr")).to_have_count(12)
    await board.page.keyboard.press("/")
    await board.page.keyboard.type("tenant_")
    await expect(board.page.locator("tbody tr")).to_have_count(5)
    assert board.page.url.endswith("#/rooms?prefix=tenant_")
    await board.page.reload()
    await expect(board.page.locator("tbody tr")).to_have_count(5)
    await board.page.get_by_role("link", name="tenant_acme").click()
    await expect(board.heading).to_have_text("tenant_acme")
    await expect(board.fact("Last event")).to_have_text("offset 70")
    await expect(board.panel("Members").locator("tbody tr")).to_have_count(8)


async def test_a_room_that_nobody_is_in_has_its_log(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    await office[0].broadcaster.broadcast_to_room("tenant_empty", "note", 1)
    await board.go("rooms?prefix=tenant_empty")
    await board.page.get_by_role("link", name="Look at the log of tenant_empty").click()
    await expect(board.page.locator("ol.events li")).to_have_count(1)
    await expect(board.page.locator(".heading .badge")).to_have_text("empty")


async def test_the_live_tail_shows_every_event_once(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    server, _ = office
    await board.go("rooms/tenant_acme")
    events = board.page.locator("ol.events li")
    await expect(events).to_have_count(50)
    assert await board.events() == list(range(70, 20, -1))
    for number in range(25):
        await server.broadcaster.broadcast_to_room("tenant_acme", "note", {"n": number})
    await board.look_again()
    await expect(events).to_have_count(75)
    assert await board.events() == list(range(95, 20, -1))
    await board.page.get_by_role("button", name="Older events").click()
    await expect(events).to_have_count(95)
    assert await board.events() == list(range(95, 0, -1))
    await expect(board.page.get_by_role("button", name="Older events")).to_be_hidden()


async def test_the_live_tail_keeps_up_with_a_burst(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    """More than one answer holds, and more than the page keeps: the newest stay, without a gap, and the older ones can be had again."""
    server, _ = office
    await board.go("rooms/tenant_acme")
    events = board.page.locator("ol.events li")
    await expect(events).to_have_count(50)
    for number in range(700):
        await server.broadcaster.broadcast_to_room("tenant_acme", "note", {"n": number})
    await board.look_again()
    await expect(events.first.locator(".offset")).to_have_text("770")
    assert await board.events() == list(range(770, 270, -1))
    await board.page.get_by_role("button", name="Older events").click()
    await expect(events).to_have_count(550)
    assert (await board.events())[-1] == 221


async def test_the_live_tail_is_held_and_goes_on(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    server, _ = office
    await board.go("rooms/tenant_acme")
    events, status = board.page.locator("ol.events li"), board.page.locator(".tail .tools .note")
    await expect(events).to_have_count(50)
    await board.page.get_by_role("button", name="Pause").click()
    await expect(status).to_have_text("paused")
    for number in range(10):
        await server.broadcaster.broadcast_to_room("tenant_acme", "note", {"n": number})
    await board.go("rooms")  # the page is asked of other things meanwhile, and answered: the pause is no accident of timing
    await board.go("rooms/tenant_acme")
    await expect(events).to_have_count(50)
    await board.page.get_by_role("button", name="Pause").click()
    offsets = await board.events()
    await server.broadcaster.broadcast_to_room("tenant_acme", "note", {"n": 11})
    await board.look_again()
    await expect(board.fact("Last event")).to_have_text("offset 81")
    assert await board.events() == offsets
    await board.page.get_by_role("button", name="Go on").click()
    await expect(events).to_have_count(51)


async def test_the_live_tail_is_filtered(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    await board.go("rooms/tenant_acme")
    events = board.page.locator("ol.events li:not(.empty)")
    await expect(events).to_have_count(50)
    await board.page.get_by_label("Filter: event, user, data").fill("inv_120")
    await expect(events).to_have_count(1)
    await events.locator("summary").click()
    await expect(events.locator("pre")).to_contain_text('"invoiceId": "inv_120"')
    await office[0].broadcaster.broadcast_to_room("tenant_acme", "note", {"about": "inv_120"})
    await office[0].broadcaster.broadcast_to_room("tenant_acme", "note", {"about": "inv_999"})
    await board.look_again()
    await expect(board.fact("Last event")).to_have_text("offset 72")
    await expect(events).to_have_count(2)
    await board.page.get_by_label("Filter: event, user, data").fill("nothing like it")
    await expect(board.page.locator("ol.events")).to_have_text("No event fits the filter.")


async def test_a_member_is_kicked_after_a_question(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    _, people = office
    ann = next(client for client in people.clients if client.socket.user and client.socket.user.id == "ann.acme")
    await board.go("rooms/tenant_acme")
    kick = board.page.get_by_role("button", name="Kick ann.acme")
    await kick.click()
    await board.confirm("Cancel")
    await expect(kick).to_be_focused()
    assert "tenant_acme" in (ann.socket.memberships or ())
    await kick.click()
    await board.page.keyboard.press("Escape")
    await expect(board.page.locator("dialog")).to_have_count(0)
    assert "tenant_acme" in (ann.socket.memberships or ())
    await kick.click()
    await board.confirm("Kick")
    await expect(kick).to_have_count(0)
    assert (await ann.receive("room-closed"))["data"]["roomId"] == "tenant_acme"
    await expect(board.page.locator(".toast")).to_contain_text("ann.acme was taken out")
    await board.go("audit")
    await expect(board.row("kick").first).to_contain_text("user:olga")


async def test_connections_are_searched_and_one_is_closed(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    _, people = office
    await board.go("connections?order=outbox")
    await expect(board.page.locator("tbody tr").first).to_contain_text("hana.initech")
    await board.page.get_by_label("User, tenant, address, or id").fill("umbrella")
    await expect(board.page.locator(".heading .note")).to_contain_text("of 35 fit")
    assert "search=umbrella" in board.page.url and "order=outbox" in board.page.url
    ids = {client.socket.user.id for client in people.clients if client.socket.user and client.socket.user.tenant_id == "umbrella"}
    assert {text.split("\t")[0].strip() for text in await board.page.locator("tbody tr td:first-child").all_inner_texts()} <= ids
    await board.page.locator("tbody a").first.click()
    await expect(board.fact("Tenant")).to_have_text("umbrella")
    user = await board.heading.inner_text()
    client = next(one for one in people.clients if one.socket.user and one.socket.user.id == user and not one.socket.closing)
    await board.page.get_by_role("button", name="Disconnect").click()
    await board.confirm("Disconnect")
    await expect(board.page.locator(".heading .badge")).to_have_text("gone")
    assert client.socket.closing or any(one.socket.closing for one in people.clients)


async def test_dead_letters_are_looked_at_and_sent_again(board: Dashboard, office: tuple[RealtimeServer, People]) -> None:
    server, _ = office
    for number in range(3):
        await server.queue.send("receipts", {"to": f"user{number}@example.com"})
    async with asyncio.timeout(5):
        await until_dead(server, "receipts", 3)
    await board.go("queues")
    await expect(board.row("receipts").locator("td[data-tone=bad]")).to_have_text("3")
    await board.page.get_by_role("link", name="receipts").click()
    letters = board.page.locator("ol.letters li:not(.empty)")
    await expect(letters).to_have_count(3)
    await expect(letters.first).to_contain_text("ValueError")
    await letters.first.locator("summary").click()
    await expect(letters.first.locator("pre")).to_contain_text('"to": "user')
    await letters.first.get_by_role("button", name=re.compile("^Send")).click()
    await board.confirm("Send again")
    await expect(board.page.locator(".toast").first).to_have_text("1 sent again.")
    await board.page.get_by_role("button", name="Send all again").click()
    await board.confirm("Send again")
    await expect(board.page.locator(".toast").last).to_have_text(re.compile("[23] sent again."))


# — hostile names —


async def test_a_script_in_a_name_or_an_event_is_text(board: Dashboard, office: tuple[RealtimeServer, People], faults: Faults) -> None:
    server, people = office
    mallory = await people.connect(SCRIPT[:100], "tenant_acme", role="<b>boss</b>", tenant_id="<i>acme</i>", address="203.0.113.9")
    await mallory.request("note", {"text": SCRIPT, "__proto__": {"hacked": 1}}, room="tenant_acme")
    await server.queue.send("receipts", {"to": SCRIPT})
    async with asyncio.timeout(5):
        await until_dead(server, "receipts", 1)
    await board.go("rooms/tenant_acme")
    await expect(board.page.locator("ol.events li").first).to_contain_text("window.hacked")
    await expect(board.panel("Members")).to_contain_text("<img src=x")
    await board.go("connections?search=203.0.113.9")
    await expect(board.page.locator("tbody tr")).to_contain_text("<b>boss</b>")
    await board.page.locator("tbody a").first.click()
    await expect(board.fact("Tenant")).to_have_text("<i>acme</i>")
    mallory.close(1000)
    await board.look_again()
    await expect(board.page.locator(".heading .badge")).to_have_text("gone")
    await board.go("queues/receipts")
    await expect(board.page.locator(".letters .reason").first).to_contain_text("<img src=x")
    await board.go("audit")
    for route in (f"rooms/{SCRIPT}", "nodes/%3Cimg%20src%3Dx%3E", "queues/%3Cscript%3E", "rooms/%E0%A4%A"):
        await board.page.evaluate("route => { location.hash = `#/${encodeURI(route)}` }", route)
        await board.until_live()
    assert await board.page.evaluate("[window.hacked, {}.hacked]") == [None, None]
    assert await board.page.locator("#app img, #app script, #app b:not(.bars b):not(summary b)").count() == 0


# — keys, widths, colours —


async def test_keys(board: Dashboard) -> None:
    page = board.page
    for key, name in (("n", "Nodes"), ("r", "Rooms"), ("c", "Connections"), ("q", "Queues"), ("a", "Audit"), ("o", "Overview")):
        await page.keyboard.press("g")
        await page.keyboard.press(key)
        await expect(board.heading).to_have_text(name)
        await expect(board.heading).to_be_focused()
    await board.go("rooms")
    await expect(page.locator("tbody tr").nth(3)).to_be_visible()
    await page.keyboard.press("/")
    await expect(page.get_by_label("Rooms that begin with …")).to_be_focused()
    await page.keyboard.type("gr")  # in a field keys are letters
    await expect(page.get_by_label("Rooms that begin with …")).to_have_value("gr")
    await page.keyboard.press("Escape")
    await page.get_by_label("Rooms that begin with …").fill("")
    await expect(page.locator("tbody tr").nth(3)).to_be_visible()
    await page.locator("tbody a").first.focus()
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowUp")
    await expect(page.locator("tbody a").nth(1)).to_be_focused()
    room = await page.locator("tbody a").nth(1).inner_text()
    await page.keyboard.press("Enter")
    await expect(board.heading).to_have_text(room)
    await page.keyboard.press("Escape")
    await expect(board.heading).to_have_text("Rooms")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog")).to_contain_text("from row to row")
    await page.keyboard.press("Escape")
    await expect(page.get_by_role("dialog")).to_have_count(0)


async def test_a_search_that_ends_after_its_view_was_left(office: tuple[RealtimeServer, People], page: Page, mint: Mint) -> None:
    """It waits a moment for the next key; by then the address may be another view's, and has to stay."""
    board = await Dashboard.open(page, address_of(office[0]), mint("olga", role="operator"), "rooms")
    await page.clock.install()
    await page.get_by_label("Rooms that begin with …").fill("ten")
    await board.go("rooms/tenant_acme")
    await page.clock.run_for(2_000)
    assert page.url.endswith("#/rooms/tenant_acme")
    await page.keyboard.press("Escape")
    await expect(board.heading).to_have_text("Rooms")


async def test_light_and_dark(server: RealtimeServer, new_page: MakePage, mint: Mint) -> None:
    page = await new_page(color_scheme="dark")
    board = await Dashboard.open(page, address_of(server), mint("olga", role="operator"))
    dark = await page.evaluate("getComputedStyle(document.body).backgroundColor")
    await page.keyboard.press("t")
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    await page.reload()
    await board.until_live()
    assert await page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


async def view_routes(board: Dashboard, office: tuple[RealtimeServer, People]) -> list[str]:
    """The address of every view, the single things included."""
    server, people = office
    return [*VIEWS, f"nodes/{server._operation.figures._id}", "rooms/tenant_acme", f"connections/{people.clients[7].socket.id}", "queues/receipts"]


async def test_a_phone_has_no_sideways_scrolling(office: tuple[RealtimeServer, People], new_page: MakePage, mint: Mint) -> None:
    page = await new_page(viewport={"width": 360, "height": 740}, has_touch=True, is_mobile=True)
    board = await Dashboard.open(page, address_of(office[0]), mint("olga", role="operator"))
    for route in await view_routes(board, office):
        await board.go(route)
        await until_filled(board, route)
        width = await page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert width[0] <= 360 and width[1] == 360, (route, width)


async def until_filled(board: Dashboard, route: str) -> None:
    """Until what a view asks for is there."""
    waited_for = {
        "overview": "figure.chart canvas", "nodes": "tbody tr, figure.chart canvas", "rooms": "tbody tr, ol.events li", "connections": "tbody tr",
        "queues": "tbody tr, ol.letters li", "audit": "tbody tr",
    }  # fmt: skip
    await expect(board.page.locator(waited_for[route.split("/")[0].split("?")[0]]).first).to_be_visible()


@pytest.mark.timeout(90)
@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_that_axe_finds(office: tuple[RealtimeServer, People], new_page: MakePage, mint: Mint, scheme: Any) -> None:
    axe = find_axe().read_text()
    page = await new_page(color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    await page.goto(f"{address_of(office[0])}/dashboard/")
    await page.add_script_tag(content=axe)
    assert await violations(page) == []  # the log-in form
    board = await Dashboard.open(page, address_of(office[0]), mint("olga", role="operator"))
    await page.reload()
    await board.until_live()
    await page.add_script_tag(content=axe)
    for route in await view_routes(board, office):
        await board.go(route)
        await until_filled(board, route)
        assert await violations(page) == [], route
    await board.go("rooms/tenant_acme")
    await page.get_by_role("button", name=re.compile("^Kick")).first.click()
    assert await violations(page) == []
    await board.confirm("Cancel")


async def violations(page: Page) -> list[str]:
    found = await page.evaluate("axe.run({resultTypes: ['violations']}).then(results => results.violations)")
    return [f"{one['id']}: {one['help']}: {node['html'][:160]}: {node['failureSummary'][-160:]}" for one in found for node in one["nodes"][:4]]


def find_axe() -> Path:
    (found,) = Path(str(files("axe_playwright_python"))).rglob("axe.min.js")
    return found


# — what it costs, and where from —


async def test_it_asks_for_nothing_while_it_is_hidden_and_goes_on_after(office: tuple[RealtimeServer, People], page: Page, mint: Mint) -> None:
    sent: list[str] = []
    page.on("websocket", lambda socket: socket.on("framesent", lambda frame: sent.append(str(frame))))
    await page.clock.install()
    board = await Dashboard.open(page, address_of(office[0]), mint("olga", role="operator"))
    await expect(page.locator("figure.chart canvas")).to_have_count(8)
    await page.evaluate(
        "Object.defineProperty(document, 'hidden', {get: () => window.away, configurable: true}); window.away = true;"
        "document.dispatchEvent(new Event('visibilitychange'))"
    )
    await page.clock.run_for(3_000)
    before = sum("realtime." in frame for frame in sent)
    await page.clock.run_for(20_000)
    assert sum("realtime." in frame for frame in sent) == before
    await page.evaluate("window.away = false; document.dispatchEvent(new Event('visibilitychange'))")
    async with asyncio.timeout(5):
        while sum("realtime." in frame for frame in sent) == before:
            await board.until_live()


async def test_everything_comes_from_the_server_itself(office: tuple[RealtimeServer, People], page: Page, mint: Mint) -> None:
    """No other host is asked for anything: it works without a network."""
    asked: list[str] = []
    sockets: list[WebSocket] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: sockets.append(socket))
    board = await Dashboard.open(page, address_of(office[0]), mint("olga", role="operator"))
    for route in await view_routes(board, office):
        await board.go(route)
        await until_filled(board, route)
    address = address_of(office[0])
    assert asked and [url for url in asked if not url.startswith(f"{address}/")] == []
    assert [socket.url for socket in sockets] == [f"{address.replace('http', 'ws', 1)}/ws"]
