"""Windows on the invoices example: somebody who is logged in, what he sees, and what he clicks."""

from __future__ import annotations

from playwright.async_api import Locator, Page, Route, expect

RECORDING = """
export * from "./client.js?unchanged";
import { RealtimeClient as Plain } from "./client.js?unchanged";

window.heard = [];
export class RealtimeClient extends Plain {
  constructor(options) {
    super(options);
    const on = this.on.bind(this);
    this.on = (name, callback) =>
      on(name, (data, event) => {
        if (event?.id) window.heard.push({ name, id: event.id, room: event.room });
        return callback(data, event);
      });
  }
}
"""
"""Stands between the page and its client, and writes down what each callback gets: the page itself would not show an event twice."""


class Window:
    """One person's browser window."""

    def __init__(self, page: Page, user: str) -> None:
        self.page = page
        self.user = user

    @classmethod
    async def open(cls, page: Page, address: str, user: str) -> Window:
        """Log in by the button, and wait until the page is live and shows the user as present."""
        window = cls(page, user)
        await page.route("**/realtime/client.js", _record)
        await page.goto(address)
        await page.locator(f"[data-user={user}]").first.click()
        await window.until_live()
        await expect(page.locator(f"#people [data-user={user}]")).to_be_visible()
        return window

    async def until_live(self) -> None:
        await expect(self.page.locator("#connection")).to_have_attribute("data-state", "connected")

    async def until_lost(self) -> None:
        await expect(self.page.locator("#connection")).not_to_have_attribute("data-state", "connected")

    # — what he does —

    async def create(self, customer: str, amount: str, currency: str = "EUR") -> None:
        await self.page.get_by_role("button", name="New invoice").click()
        form = self.page.locator("#new-form")
        await form.get_by_label("Customer").fill(customer)
        await form.get_by_label("Amount").fill(amount)
        await form.get_by_label("Currency").select_option(currency)
        await form.get_by_role("button", name="Create").click()

    async def approve(self, customer: str) -> None:
        await self.row(customer).get_by_role("button", name="Approve").click()

    async def send(self, customer: str) -> None:
        await self.row(customer).get_by_role("button", name="Send").click()

    async def pay(self, customer: str, amount: str) -> None:
        await self.row(customer).get_by_role("button", name="Take payment").click()
        form = self.page.locator("#pay-form")
        await form.get_by_label("Amount").fill(amount)
        await form.get_by_role("button", name="Record payment").click()

    # — what he sees —

    def row(self, customer: str) -> Locator:
        return self.page.locator("#invoices tbody tr").filter(has=self.page.locator("td.customer", has_text=customer))

    def toast(self, text: str) -> Locator:
        return self.page.locator(".toast", has_text=text)

    async def shows(self, customer: str, status: str, open_amount: str | None = None) -> None:
        """Wait until the list shows this invoice, once, in this state."""
        await expect(self.row(customer)).to_have_count(1)
        await expect(self.row(customer).locator(".status")).to_have_text(status)
        if open_amount is not None:
            await expect(self.row(customer).locator(".open")).to_have_text(open_amount)

    async def sees(self, *users: str) -> None:
        """Wait until exactly these are shown as present."""
        people = self.page.locator("#people [data-user]")
        await expect(people).to_have_count(len(users))
        assert sorted([await person.get_attribute("data-user") or "" for person in await people.all()]) == sorted(users)

    async def rows(self) -> list[dict[str, str]]:
        """The list, as it stands."""
        script = """rows => rows.map(row => ({invoiceId: row.dataset.invoice, customer: row.querySelector(".customer").textContent,
            status: row.querySelector(".status").textContent, open: row.querySelector(".open").textContent}))"""
        found: list[dict[str, str]] = await self.page.locator("#invoices tbody tr").evaluate_all(script)
        return found

    async def feed(self) -> list[str]:
        """The ids of the events under "Activity", newest first."""
        found: list[str] = await self.page.locator("#feed li").evaluate_all("entries => entries.map(entry => entry.dataset.event)")
        return found

    async def heard(self, room: str, *names: str) -> list[str]:
        """The ids of the events of a room that came to the page's callbacks, in the order in which they came, since the page was loaded."""
        script = "([room, names]) => heard.filter((event) => event.room === room && names.includes(event.name)).map(({ id }) => id)"
        found: list[str] = await self.page.evaluate(script, [room, names])
        return found

    async def text(self) -> str:
        return await self.page.locator("body").inner_text()


async def _record(route: Route) -> None:
    await route.fulfill(body=RECORDING, content_type="text/javascript")
