"""What operators are told, as values: camelCase on the wire, in the HTTP API, to the dashboard and to the command line alike."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Report(BaseModel):
    """Base of all reports. Times are Unix seconds, durations seconds, sizes bytes."""

    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", hide_input_in_errors=True)

    def to_wire(self) -> dict[str, Any]:
        """Plain values under their names on the wire."""
        return self.model_dump(by_alias=True)


class Sample(Report):
    """One second of a node. Counts are totals since its start."""

    time: float
    connections: int
    rooms: int
    messages_in: int
    events: int
    deliveries: int
    bytes_in: int
    bytes_out: int
    latency_p50: float | None
    """From publish to the last member's write, of the fan-outs within this second; None where there were none."""
    latency_p99: float | None
    loop_lag: float
    """The longest that the event loop was late within this second."""
    cpu: float
    """Share of a core."""
    memory: int
    """Resident."""


class NodeReport(Report):
    """A node now: figures, totals since its start, and its last minutes (`samples`, as many as were asked for)."""

    id: str
    name: str
    url: str | None = None
    version: str
    state: str
    """`ok`, `draining`, `unavailable`."""
    started_at: float
    now: float
    connections: int
    max_connections: int | None
    users: int
    rooms: int
    connections_total: int
    connections_failed: int
    """Ended otherwise than by a normal close or a planned move."""
    peak_connections: int
    close_codes: dict[str, int]
    handshakes_refused: dict[str, int]
    """By HTTP status."""
    messages_in: int
    messages_out: int
    bytes_in: int
    bytes_out: int
    events: int
    deliveries: int
    publishes_refused: int
    rate_limited: int
    slow_closes: int
    volatile_dropped: int
    recoveries: int
    recoveries_failed: int
    resyncs: int
    gaps_repaired: int
    gaps_lost: int
    subscriptions_repaired: int
    foreign_records: int
    handler_failures: int
    commits: int
    commit_failures: int
    latency_p50: float | None
    latency_p95: float | None
    latency_p99: float | None
    loop_lag: float
    outbox_bytes: int
    """Waiting to be sent, of all connections."""
    probe_lag: float | None
    """Of the node's own probe through the broker, the last one; None of a node alone."""
    store_waiting: int | None
    """Events that wait for the database; None where it takes them before they are acknowledged."""
    cpu: float
    memory: int
    samples: list[Sample] = []


class RoomReport(Report):
    """A room of all nodes together. `position`: of its last event, with `room`, not in lists."""

    id: str
    name: str
    type: str
    user_count: int
    connection_count: int
    max_users: int | None
    allow_guests: bool
    created_at: float
    position: dict[str, Any] | None = None


class RoomPage(Report):
    rooms: list[RoomReport]
    cursor: str | None


class MemberReport(Report):
    user_id: str
    role: str | None
    since: float | str


class PresenceReport(Report):
    room_id: str
    members: list[MemberReport]
    count: int


class EventReport(Report):
    """An event as members get it. `timestamp`: RFC 3339."""

    event: str
    room: str
    offset: int
    id: str
    data: Any
    user_id: str | None = None
    timestamp: str


class HistoryReport(Report):
    room_id: str
    epoch: str
    events: list[EventReport]
    more: bool


class ConnectionReport(Report):
    """A connection. `rooms`: up to 20 of its room ids; `room_count`: of all. `state`: `open`, `unauthenticated`, `closing`."""

    id: str
    node: str
    user_id: str | None
    role: str | None
    tenant_id: str | None
    address: str
    state: str
    codec: str
    connected_at: float
    heard_at: float
    """When it last sent anything, a pong included."""
    expires_at: float | None
    rooms: list[str]
    room_count: int
    outbox_bytes: int
    user_agent: str | None


class ConnectionPage(Report):
    """`total`: of all nodes, whatever was searched for. `matching`: those that fit, of which `connections` are the first in the order asked for."""

    connections: list[ConnectionReport]
    total: int
    matching: int


class ActReport(Report):
    """An entry of the audit log. See `audit.AuditEntry`."""

    time: float
    node: str
    act: str
    socket_id: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None
    address: str | None = None
    room_id: str | None = None
    code: int | None = None
    reason: str | None = None
    by: str | None = None
    count: int = 1
    """Of how many acts of its kind this is the last."""


class ConnectionLife(Report):
    """One connection: as it is (None once it has gone), and what is known of its life, oldest first."""

    connection: ConnectionReport | None
    acts: list[ActReport]


class ReceiptReport(Report):
    """What became of a publish. `epoch`, `offset`: None of a volatile event."""

    id: str
    room: str
    epoch: str | None
    offset: int | None
    duplicate: bool


class QueueReport(Report):
    """How a queue stands. `oldest_age`: seconds."""

    name: str
    depth: int
    in_flight: int
    delayed: int
    dead: int
    expired: int
    oldest_age: float | None


class DeadLetterReport(Report):
    """A message that was given up. `place`: for `before`, to read the next page. Times are RFC 3339."""

    id: str
    data: Any
    attempts: int
    reason: str
    enqueued_at: str
    buried_at: str
    key: str | None
    place: str
