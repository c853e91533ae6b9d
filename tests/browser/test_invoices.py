"""The accounting example as its users see it: two tenants in their browser windows, and a server that is killed while they work."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from playwright.async_api import Page, expect

from examples.invoices.store import SEED_PASSWORD
from tests.browser.accessibility import violations
from tests.browser.chromium import ROOT, Faults
from tests.browser.conftest import MakePage, MakeProcess, address_of
from tests.browser.windows import Window
from tests.faults.processes import Server
from tests.faults.server_program import SECRET

EVENTS = ("invoice.created", "invoice.approved", "invoice.sent", "payment.processed")
PICTURE = ROOT / "docs" / "tutorials" / "pictures" / "invoices.png"
PHONE = {"width": 360, "height": 740}


@pytest_asyncio.fixture(loop_scope="session")
async def service(start_process: MakeProcess, tmp_path: Path) -> Server:
    return await start_process(program="tests.browser.invoices_program", database=str(tmp_path / "invoices.db"), jwt_secret=SECRET)


class Books:
    """What the service itself says, over HTTP, in the name of one user."""

    def __init__(self, http: httpx.AsyncClient, room: str) -> None:
        self.http = http
        self.room = room

    async def invoices(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.http.get("/invoices")).json()
        return found

    async def create(self, customer: str, amount: int = 1000) -> str:
        answer = await self.http.post("/invoices", json={"customer": customer, "amount": amount, "currency": "EUR"})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["invoiceId"])


@pytest_asyncio.fixture(loop_scope="session")
async def books(service: Server) -> AsyncIterator[dict[str, Books]]:
    """By user: somebody of each tenant who has no window open."""
    async with AsyncExitStack() as stack:
        found = {}
        for user in ("ben", "vic"):
            http = await stack.enter_async_context(httpx.AsyncClient(base_url=address_of(service), trust_env=False))
            answer = (await http.post("/login", json={"user": user, "password": SEED_PASSWORD})).json()
            http.headers["Authorization"] = f"Bearer {answer['token']}"
            found[user] = Books(http, answer["room"])
        yield found


@pytest.mark.timeout(90)
async def test_two_tenants_work_while_the_server_is_killed(new_page: MakePage, service: Server, books: dict[str, Books]) -> None:
    ann, ben, uma = [await Window.open(await new_page(), address_of(service), user) for user in ("ann", "ben", "uma")]
    await ann.sees("ann", "ben")
    await ben.sees("ann", "ben")
    await uma.sees("uma")

    # An invoice appears at once in the other window, which is asked to approve it.
    await ben.create("Acme Trading", "1,250.50")
    await ann.shows("Acme Trading", "draft", "EUR 1,250.50")
    await ann.toast("ben asks you to approve the invoice for Acme Trading").get_by_role("button", name="Approve").click()
    await ben.shows("Acme Trading", "approved")
    await expect(ben.toast("Your invoice for Acme Trading was approved.")).to_be_visible()
    await ben.send("Acme Trading")
    await ann.pay("Acme Trading", "1000")
    await ben.shows("Acme Trading", "sent", "EUR 250.50")
    await expect(ben.toast("ann took EUR 1,000.00 for the invoice for Acme Trading")).to_be_visible()
    await uma.create("Zenith", "99", "USD")
    await uma.shows("Zenith", "draft", "USD 99.00")

    # The plug is pulled, with a payment under way that may or may not be in.
    await ben.page.evaluate("() => { window.neverReloaded = true; }")
    await ben.row("Acme Trading").get_by_role("button", name="Take payment").click()
    paying = asyncio.ensure_future(ben.page.locator("#pay-form").get_by_role("button", name="Record payment").click())
    await service.kill()
    await paying
    for window in (ann, ben, uma):
        await window.until_lost()
    await expect(ann.page.locator("#notice")).to_contain_text("No connection since")

    # It is back; before the windows are, others have worked on.
    await service.start()
    for number in range(8):
        await books["ben"].create(f"Buyer {number}")
        await books["vic"].create(f"Other {number}")
    for window in (ann, ben, uma):
        await window.until_live()
    if await ben.page.locator("#pay-dialog[open]").count():  # no answer came: once more, which is the same payment
        await ben.page.locator("#pay-form").get_by_role("button", name="Record payment").click()
    await ann.shows("Acme Trading", "paid", "EUR 0.00")
    await ann.create("Last of 123", "1")
    await uma.create("Last of 456", "1")
    for window in (ann, ben):
        await window.shows("Last of 123", "draft")
        await window.sees("ann", "ben")
    await uma.sees("uma")

    await check_windows([ann, ben], books["ben"], others="Zenith Other Last_of_456")
    await check_windows([uma], books["vic"], others="Acme Buyer Last_of_123")
    assert await ben.page.evaluate("() => window.neverReloaded")


async def check_windows(windows: list[Window], books: Books, others: str) -> None:
    """Each window shows what the service has, every event of it once, in order; and no word of the other tenant."""
    kept = [(invoice["invoiceId"], invoice["status"]) for invoice in await books.invoices()]
    history = [event["id"] for event in await read_history(windows[0], books.room) if event["event"] in EVENTS]
    for window in windows:
        assert [(row["invoiceId"], row["status"]) for row in await window.rows()] == kept[::-1]
        assert await window.heard(books.room, *EVENTS) == history, "missed, doubled or out of order"
        assert await window.feed() == history[::-1]
        text = await window.text()
        assert [word for word in others.split() if word.replace("_", " ") in text] == []


async def read_history(window: Window, room: str) -> list[dict[str, Any]]:
    """What the room's log has, asked with a client of its own."""
    script = """async ([room]) => {
        const { RealtimeClient } = await import("/realtime/client.js");
        const client = new RealtimeClient({ url: "/realtime/ws", token: JSON.parse(sessionStorage.getItem("me")).token });
        await client.connect();
        const { events } = await client.history(room, { limit: 100 });
        await client.close();
        return events.map(({ id, event }) => ({ id, event }));
    }"""
    found: list[dict[str, Any]] = await window.page.evaluate(script, [room])
    return found


async def test_a_viewer_looks_and_a_wrong_password_is_told(page: Page, service: Server, books: dict[str, Books]) -> None:
    await books["ben"].create("Acme")
    await page.goto(address_of(service))
    await page.get_by_label("User").fill("eve")
    await page.get_by_label("Password").fill("wrong")
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert").filter(has_text="The user or the password is wrong.")).to_be_visible()
    await page.get_by_label("Password").fill(SEED_PASSWORD)
    await page.get_by_role("button", name="Log in").click()
    eve = Window(page, "eve")
    await eve.shows("Acme", "draft")
    await expect(page.get_by_role("button", name="New invoice")).to_be_hidden()
    await expect(eve.row("Acme").get_by_role("button")).to_have_count(0)


async def test_markup_in_a_name_is_text(page: Page, service: Server, books: dict[str, Books], faults: Faults) -> None:
    name = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    ann = await Window.open(page, address_of(service), "ann")
    page.on("dialog", lambda dialog: faults.append(f"dialog: {dialog.message}"))
    await books["ben"].create(name)
    await ann.shows(name, "draft")
    await expect(ann.toast(name)).to_be_visible()
    assert await page.locator("#book img, #book script, .toast img").count() == 0


async def test_on_a_phone_nothing_is_wider_than_the_screen(new_page: MakePage, service: Server, books: dict[str, Books]) -> None:
    await books["ben"].create("A customer with rather a long name, Ltd. & Sons of Somewhere-upon-Water", 10**12)
    page = await new_page(viewport=PHONE, is_mobile=True, has_touch=True)
    await page.goto(address_of(service))
    assert await width_of(page) <= PHONE["width"]
    ann = await Window.open(page, address_of(service), "ann")
    await ann.approve("A customer")
    await ann.shows("A customer", "approved")
    assert await width_of(page) <= PHONE["width"]


async def width_of(page: Page) -> int:
    found: int = await page.evaluate("() => document.documentElement.scrollWidth")
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_nothing_that_axe_finds(new_page: MakePage, service: Server, books: dict[str, Books], scheme: Any) -> None:
    page = await new_page(color_scheme=scheme, reduced_motion="reduce", bypass_csp=True)
    await page.goto(address_of(service))
    assert await violations(page) == []
    ann = await Window.open(page, address_of(service), "ann")
    for customer in ("First", "Second", "Third"):
        await books["ben"].create(customer)
        await ann.shows(customer, "draft")
    for customer in ("First", "Second"):
        await ann.approve(customer)
        await ann.shows(customer, "approved")
    await ann.send("First")
    await ann.shows("First", "sent")
    await ann.create("Second of mine", "nothing")
    assert await violations(page) == []
    await page.keyboard.press("Escape")
    await ann.pay("First", "10")
    await ann.shows("First", "paid")
    assert await violations(page) == []


@pytest.mark.skipif(not os.environ.get("PICTURES"), reason="writes files of the docs: asked for by PICTURES=1")
async def test_picture(new_page: MakePage, service: Server) -> None:
    size = {"width": 1180, "height": 640}
    ben, ann = [await Window.open(await new_page(viewport=size, reduced_motion="reduce"), address_of(service), user) for user in ("ben", "ann")]
    for customer, amount, currency in (("Acme Trading", "1250.50", "EUR"), ("Harbour Light", "980", "USD"), ("Kawasaki Print", "450000", "JPY")):
        await ben.create(customer, amount, currency)
        await ann.shows(customer, "draft")
    for customer in ("Acme Trading", "Harbour Light"):
        await ann.approve(customer)
        await ben.shows(customer, "approved")
        await ben.send(customer)
        await ben.shows(customer, "sent")
    await ann.pay("Acme Trading", "1000")
    await ben.shows("Acme Trading", "sent", "EUR 250.50")
    PICTURE.parent.mkdir(exist_ok=True)
    assert len(await ben.page.screenshot(path=PICTURE)) <= 150_000


async def test_wrong_amounts_are_told_in_the_dialog(page: Page, service: Server) -> None:
    ben = await Window.open(page, address_of(service), "ben")
    await ben.create("Acme", "ten")
    error = page.locator("#new-form .error")
    await expect(error).to_have_text("Write an amount such as 1234.50.")
    for amount, said in (("1.234", "EUR has 2 places after the point."), ("0", "The amount must be more than nothing.")):
        await page.locator("#new-form").get_by_label("Amount").fill(amount)
        await page.locator("#new-form").get_by_role("button", name="Create").click()
        await expect(error).to_have_text(said)
    await page.locator("#new-form").get_by_label("Amount").fill("12.5")
    await page.locator("#new-form").get_by_role("button", name="Create").click()
    await ben.shows("Acme", "draft", "EUR 12.50")


async def test_a_reload_and_a_log_out(page: Page, service: Server, books: dict[str, Books]) -> None:
    await books["ben"].create("Acme")
    ann = await Window.open(page, address_of(service), "ann")
    await page.reload()
    await ann.until_live()
    await ann.shows("Acme", "draft")
    await page.get_by_role("button", name="Log out").click()
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()
    assert "Acme" not in await page.content()
    await page.reload()
    await expect(page.get_by_role("button", name="Log in")).to_be_visible()


AMOUNTS = {"1,234.5": 123450, "1'234.56": 123456, "1 234,5": 123450, "12,34": 1234, "0.07": 7, "1234567": 123456700, "1,234,567.89": 123456789}


async def test_amounts_are_read_as_people_write_them(page: Page, service: Server) -> None:
    await page.goto(address_of(service))
    script = """async ([texts, currency]) => {
        const { readMoney, editMoney } = await import("/money.js");
        return texts.map((text) => { try { return readMoney(text, currency); } catch ({ message }) { return message; } });
    }"""
    assert await page.evaluate(script, [list(AMOUNTS), "EUR"]) == list(AMOUNTS.values())
    assert await page.evaluate(script, [["450000", "450,000"], "JPY"]) == [450_000, 450_000]
    for text in ("", "-1", "1e3", "1.2.3", "0", "0.001", "ten", "NaN", "9" * 30):
        (said,) = await page.evaluate(script, [[text], "EUR"])
        assert isinstance(said, str) and said.endswith("."), text


async def test_the_book_is_the_same_in_whatever_order_things_are_told(page: Page, service: Server) -> None:
    """The list may have been read before any of the events, or after all of them; and it comes between any two of them."""
    await page.goto(address_of(service))
    created = {"invoiceId": "a", "customer": "Acme", "amount": 10, "openAmount": 10, "currency": "EUR", "status": "draft", "createdBy": "ben"}
    events = [["invoice.created", created], ["invoice.approved", {"invoiceId": "a"}], ["invoice.sent", {"invoiceId": "a"}]]
    events += [["payment.processed", {"invoiceId": "a", "openAmount": rest}] for rest in (6, 0)]
    script = """async ([events, created, states]) => {
        const { Book } = await import("/book.js");
        const ends = new Set();
        for (const state of states) for (let before = 0; before <= events.length; before++) {
            const book = new Book();
            for (const [name, data] of events.slice(0, before)) book.apply(name, data);
            book.load([{ ...created, ...state }]);
            for (const [name, data] of events.slice(before)) book.apply(name, data);
            ends.add(JSON.stringify(book.list(), Object.keys(created)));
        }
        return [...ends];
    }"""
    states = [{}, {"status": "approved"}, {"status": "sent"}, {"status": "sent", "openAmount": 6}, {"status": "paid", "openAmount": 0}]
    (end,) = await page.evaluate(script, [events, created, states])
    assert json.loads(end) == [created | {"status": "paid", "openAmount": 0}]
