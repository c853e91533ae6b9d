"""Nodes over HTTP: how the servers stand, and what was done on them. For operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Query as Parameters
from pydantic import Field

from ..reports import ActReport, NodeReport, Report
from ..requests import ListActs
from .asking import By, Query

router = APIRouter()


class NodesReport(Report):
    nodes: list[NodeReport]


class ActsReport(Report):
    acts: list[ActReport]


class NodesQuery(Query):
    samples: Annotated[int, Field(ge=0, le=1000, description="Of each node, the newest: one a second.")] = 0
    since: Annotated[float, Field(ge=0, allow_inf_nan=False, description="Only samples after this Unix time.")] = 0.0


class ActsQuery(Query):
    user_id: Annotated[str, Field(max_length=128)] | None = None
    socket_id: Annotated[str, Field(max_length=128)] | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 100


@router.get("/nodes")
async def list_nodes(by: By, query: Annotated[NodesQuery, Parameters()]) -> NodesReport:
    """Every server that lives, by name, with its figures."""
    return NodesReport(nodes=await by.operations.nodes(by.caller, samples=query.samples, since=query.since))


@router.get("/acts")
async def list_acts(by: By, query: Annotated[ActsQuery, Parameters()]) -> ActsReport:
    """The audit log of all nodes, the newest first, as far as they keep it in memory."""
    request = ListActs(limit=query.limit, socket_id=query.socket_id, user_id=query.user_id)
    return ActsReport(acts=await by.operations.acts(by.caller, request))
