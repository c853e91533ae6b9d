"""Nodes and the audit log over HTTP."""

from __future__ import annotations

import pytest

from aibos_realtime import __version__
from tests.unit.admin.api.rig import Rig, check_problem


async def test_a_server_alone_is_one_node(rig: Rig) -> None:
    (node,) = (await rig.ask("GET", "/nodes")).json()["nodes"]
    assert (node["state"], node["version"], node["connections"], node["samples"]) == ("ok", __version__, 0, [])
    assert "maxConnections" in node


@pytest.mark.parametrize("query", ["samples=-1", "samples=1001", "since=nan", "since=inf", "since=-1", "limit=3"])
async def test_what_is_no_query(rig: Rig, query: str) -> None:
    check_problem(await rig.ask("GET", f"/nodes?{query}"), 422, "validation_failed")


async def test_acts_by_user_and_number(rig: Rig) -> None:
    for user in ("ann", "bob", "ann"):
        await rig.ask("POST", "/role", {"userId": user, "role": "user"})
    acts = (await rig.ask("GET", "/acts?userId=ann")).json()["acts"]
    assert [(act["act"], act["userId"], act["by"][:4]) for act in acts] == [("role", "ann", "key:")] * 2
    assert len((await rig.ask("GET", "/acts?limit=1")).json()["acts"]) == 1
    check_problem(await rig.ask("GET", "/acts?limit=0"), 422, "validation_failed")
