"""The commands of docs/how-to/operate-over-http.md, run against a server, and their answers compared with those on the page."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime.testing.server import MemoryServer
from tests.test_docs import Block, read_blocks
from tests.unit.admin.api.rig import KEY, running

PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "operate-over-http.md"
BLOCKS = read_blocks(PAGE)


def shape(value: Any) -> Any:
    """What an answer consists of, whatever ids and positions are in it."""
    if isinstance(value, dict):
        return {name: shape(one) for name, one in value.items()}
    return [shape(one) for one in value] if isinstance(value, list) else type(value).__name__


async def run(block: Block, url: str) -> str:
    process = await asyncio.create_subprocess_exec(
        "sh", "-e", "-c", block.code, env=os.environ | {"URL": url, "KEY": KEY, "NO_PROXY": "*"}, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, complaint = await process.communicate()
    assert process.returncode == 0, f"{block.where}: {out.decode()} {complaint.decode()}"
    return out.decode()


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
async def test_the_commands_of_the_page_do_what_it_says() -> None:
    async with running() as rig:
        net = MemoryServer(rig.server)
        ann = await net.connect("ann", tenant_id="123")
        await ann.request("join-room", "tenant_123")
        await rig.server.queue.send("invoices", 1)
        for number, block in enumerate(BLOCKS):
            if block.language != "bash" or "no-run" in block.marks:
                continue
            said = await run(block, rig.base)
            told = BLOCKS[number + 1]
            if told.language == "json":
                assert shape(json.loads(said)) == shape(json.loads(told.code)), block.where
        assert await ann.closed() == 4503
        assert (await rig.ask("GET", "/rooms/tenant_123/history")).json()["events"][0]["data"]["invoiceId"] == "4711"
