"""`/metrics`, in the text formats of Prometheus: of this node, or with `?nodes=all` of all nodes, each under its name. See `families`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct
from prometheus_client import ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric

from ..backends.bus import Bus
from ..errors import AuthenticationError, BackendError, PermissionDenied, RealtimeError, ValidationError
from ..transport.asgi import Receive, Scope, Send
from .access import Access
from .families import Sources, collect
from .requests import DescribeMetrics


class Family(Struct, frozen=True, array_like=True):
    """A metric on its way between nodes. `samples`: name, labels, value."""

    name: str
    kind: str
    meaning: str
    samples: list[tuple[str, dict[str, str], float]]


class NodeMetrics(Struct, frozen=True):
    """All of one node."""

    node: str
    families: list[Family]


class NodeExposition:
    """What a node says of itself, in this process and to the others."""

    def __init__(self, sources: Sources, *, name: str) -> None:
        self._sources = sources
        self._name = name
        self._process = ProcessCollector(registry=None)

    async def collect(self) -> list[Metric]:
        """Everything, as of now."""
        backlogs = await self._sources.backlogs.read()
        of_process = await asyncio.to_thread(lambda: list(self._process.collect()))  # it lists the open files, which may be many
        return [*collect(self._sources, backlogs), *of_process]

    async def describe(self) -> Any:
        """The same as plain values, for a node that asks with `DescribeMetrics`."""
        families = [
            Family(one.name, one.type, one.documentation, [(sample.name, dict(sample.labels), sample.value) for sample in one.samples])
            for one in await self.collect()
        ]
        return msgspec.to_builtins(NodeMetrics(self._name, families))


class MetricsApp:
    """The ASGI app: for operators and API keys."""

    def __init__(self, exposition: NodeExposition, access: Access, bus: Bus) -> None:
        self._exposition = exposition
        self._access = access
        self._bus = bus

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await _refuse(scope, send, 405, RealtimeError("GET is answered here.", code="bad_request"), ((b"allow", b"GET, HEAD"),))
            return
        try:
            caller = await self._access.identify(scope)
            if not caller.is_operator:
                raise PermissionDenied("This is for operators.", resource="/metrics", action="read")
            metrics = await (self._collect_all() if _is_of_all(scope) else self._exposition.collect())
        except AuthenticationError as error:
            await _refuse(scope, send, 401, error, ((b"www-authenticate", b"Bearer"),))
        except PermissionDenied as error:
            await _refuse(scope, send, 403, error)
        except ValidationError as error:
            await _refuse(scope, send, 422, error)
        except BackendError as error:
            await _refuse(scope, send, 503, error)
        else:
            accept = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"accept"), "")
            encode, content_type = choose_encoder(accept)
            await _answer(scope, send, 200, content_type, encode(Collection(metrics)))

    async def _collect_all(self) -> list[Metric]:
        return merge(await self._bus.ask(DescribeMetrics()))


def _is_of_all(scope: Scope) -> bool:
    """Whether the metrics of all nodes are wanted. Raises `ValidationError` for another word than `all`."""
    wanted = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("nodes")
    if wanted not in (None, ["all"]):
        raise ValidationError("nodes: `all` is allowed, or leave it away for this node alone.")
    return wanted is not None


class Collection:
    """Metrics for an encoder of prometheus-client."""

    def __init__(self, metrics: list[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return self._metrics


def merge(answers: Iterable[object]) -> list[Metric]:
    """The metrics of several nodes, by the order of the first, each sample with the label `node`. What is no answer is passed over."""
    found: dict[str, Metric] = {}
    for answer in answers:
        try:
            node = msgspec.convert(answer, NodeMetrics)
        except msgspec.ValidationError:
            continue
        for family in node.families:
            metric = found.get(family.name)
            if metric is None:
                metric = found[family.name] = Metric(family.name, family.meaning, family.kind)
            for name, labels, value in family.samples:
                metric.add_sample(name, {**labels, "node": node.node}, value)
    return list(found.values())


# — answers —


async def _refuse(scope: Scope, send: Send, status: int, error: RealtimeError, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    """A problem (RFC 9457), with the members that errors have everywhere."""
    body = {
        "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": error.message, "code": error.code,
        "message": error.message, "retryable": error.retryable,
    }  # fmt: skip
    await _answer(scope, send, status, "application/problem+json", msgspec.json.encode(body), headers)


async def _answer(scope: Scope, send: Send, status: int, content_type: str, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()) -> None:
    fields = [(b"content-type", content_type.encode()), (b"content-length", str(len(body)).encode()), (b"cache-control", b"no-store"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
