"""Queues over HTTP: how they stand, and what could not be handled. For operators."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from fastapi import Query as Parameters
from pydantic import Field

from ..reports import DeadLetterReport, QueueReport, Report
from .asking import By, Input, Query, QueueName
from .people import CountReport

router = APIRouter()


class QueuesReport(Report):
    queues: list[QueueReport]


class DeadLettersReport(Report):
    """The latest first. `place` of the last one leads to the next page."""

    dead_letters: list[DeadLetterReport]


class DeadLettersQuery(Query):
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    before: Annotated[str, Field(pattern=r"^[0-9]{1,20}(-[0-9]{1,20})?$", description="`place` of the last one on the page before.")] | None = None


class RequeueInput(Input):
    """`ids`: which dead letters; without: all."""

    ids: Annotated[list[Annotated[str, Field(min_length=1, max_length=128)]], Field(max_length=1000)] | None = None


class PurgeInput(Input):
    """`dead`: true for the dead letters, false for the messages that are not finished."""

    dead: bool


@router.get("/queues")
async def list_queues(by: By) -> QueuesReport:
    """The queues by name, and how they stand."""
    return QueuesReport(queues=await by.operations.queues(by.caller))


@router.get("/queues/{name}/dead", responses={404: {}})
async def list_dead_letters(by: By, name: QueueName, query: Annotated[DeadLettersQuery, Parameters()]) -> DeadLettersReport:
    """Messages that were given up, and why."""
    return DeadLettersReport(dead_letters=await by.operations.dead_letters(by.caller, name, limit=query.limit, before=query.before))


@router.post("/queues/{name}/requeue", responses={404: {}})
async def requeue(by: By, name: QueueName, body: RequeueInput) -> CountReport:
    """Send dead letters again; how many."""
    return CountReport(count=await by.operations.requeue(by.caller, name, body.ids))


@router.post("/queues/{name}/purge", responses={404: {}})
async def purge(by: By, name: QueueName, body: PurgeInput) -> CountReport:
    """Remove messages for good; how many. Handlers that are running go on."""
    return CountReport(count=await by.operations.purge(by.caller, name, dead=body.dead))
