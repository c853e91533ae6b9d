"""Publishing over HTTP: one event, or many with a result for each."""

from __future__ import annotations

from typing import Annotated, Any, Self

from fastapi import APIRouter, Header
from pydantic import Field, model_validator

from ...errors import RealtimeError, ValidationError
from ..reports import ReceiptReport, Report
from .asking import NAME, TEXT, By, Input, UserId, exactly_one
from .problems import Problem, problem_of

BATCH = 1000
BATCH_KEY_LENGTH = 120
"""Of the key of a batch: each item's is that, a dot, and its number."""

Key = Annotated[str, Field(min_length=1, max_length=128)]

router = APIRouter()


class EventInput(Input):
    """An event to publish: to a room, to a user's own stream, or to everybody. `filter`: conditions on users as `where` takes them
    (`{"role__in": ["admin"]}`), or the name of a filter that the server has. `exclude`: user ids. `idempotencyKey`: publishing under it again within
    five minutes publishes once. `volatile`: no position, dropped for who is behind. `persist`: false keeps the payload out of the store.
    """

    model_config = exactly_one({"room": "tenant_123", "event": "invoice.created", "data": {"amount": 5}}, room=TEXT, userId=TEXT, all={"const": True})

    event: Annotated[str, Field(pattern=NAME, examples=["invoice.created"])]
    data: Any = None
    room: Annotated[str, Field(pattern=NAME, examples=["tenant_123"])] | None = None
    user_id: UserId | None = None
    all: bool = False
    filter: Annotated[str, Field(max_length=128)] | dict[str, Any] | None = None
    exclude: Annotated[list[UserId], Field(max_length=BATCH)] = []
    idempotency_key: Key | None = None
    volatile: bool = False
    persist: bool = True

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.room is not None) + (self.user_id is not None) + self.all != 1:
            raise ValueError("exactly one of room, userId and all is needed")
        return self

    def members(self, key: str | None = None) -> dict[str, Any]:
        """The members of a `Broadcast`. `key`: where the event has none of its own."""
        named = {name: getattr(self, name) for name in ("event", "data", "room", "all", "filter", "exclude", "volatile", "persist")}
        return named | {"user": self.user_id, "idempotency_key": self.idempotency_key if self.idempotency_key is not None else key}


class BatchInput(Input):
    """Events, published in this order."""

    model_config = {"json_schema_extra": {"examples": [{"items": [{"room": "tenant_123", "event": "invoice.created", "data": {"amount": 5}}]}]}}

    items: Annotated[list[EventInput], Field(min_length=1, max_length=BATCH)]


class ItemReport(Report):
    """What became of one item: a receipt, or a problem. `status`: as a request of its own would have been answered."""

    status: int
    receipt: ReceiptReport | None = None
    problem: Problem | None = None


class BatchReport(Report):
    """`results`: one for each item, in the order of the items."""

    published: int
    failed: int
    results: list[ItemReport]


@router.post("/publish", responses={409: {}, 413: {}})
async def publish(
    by: By,
    event: EventInput,
    idempotency_key: Annotated[
        Key | None, Header(alias="Idempotency-Key", description="Publishing under it again within five minutes publishes once.")
    ] = None,
) -> ReceiptReport:
    """Publish an event. The answer comes once it has its position in the room's log."""
    if event.idempotency_key is not None and idempotency_key not in (None, event.idempotency_key):
        raise ValidationError("The header Idempotency-Key and the member idempotencyKey say two things: leave one of them away.")
    return await by.operations.publish(by.caller, event.members(idempotency_key))


@router.post("/batch", responses={413: {}})
async def publish_batch(
    by: By,
    batch: BatchInput,
    idempotency_key: Annotated[
        Annotated[str, Field(min_length=1, max_length=BATCH_KEY_LENGTH)] | None,
        Header(alias="Idempotency-Key", description="Each item without a key of its own gets this one, a dot, and its number."),
    ] = None,
) -> BatchReport:
    """Publish up to 1,000 events in order; one that is refused keeps none of the others back. A batch that does not fit publishes nothing."""
    keys = [None if idempotency_key is None else f"{idempotency_key}.{number}" for number in range(len(batch.items))]
    items = [item.members(key) for item, key in zip(batch.items, keys, strict=True)]
    results = [_result(one) for one in await by.operations.publish_many(by.caller, items)]
    failed = sum(result.problem is not None for result in results)
    return BatchReport(published=len(results) - failed, failed=failed, results=results)


def _result(one: ReceiptReport | RealtimeError) -> ItemReport:
    if isinstance(one, ReceiptReport):
        return ItemReport(status=200, receipt=one)
    found = problem_of(one)
    return ItemReport(status=found.status, problem=found)
