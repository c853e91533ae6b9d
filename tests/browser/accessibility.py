"""What axe finds in a page: the rules of accessibility that a program can check."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from playwright.async_api import Page


async def violations(page: Page) -> list[str]:
    """One sentence for each thing that axe objects to. The page needs a context with `bypass_csp=True`."""
    if not await page.evaluate("() => 'axe' in window"):
        await page.add_script_tag(content=read_axe())
    found = await page.evaluate("axe.run({resultTypes: ['violations']}).then(results => results.violations)")
    return [f"{one['id']}: {one['help']}: {node['html'][:160]}: {node['failureSummary'][-160:]}" for one in found for node in one["nodes"]]


def read_axe() -> str:
    (script,) = Path(str(files("axe_playwright_python"))).rglob("axe.min.js")
    return script.read_text()
