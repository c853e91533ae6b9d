"""The same bytes to many: whatever it sends with, every peer gets all of its bytes, once and in order."""

from __future__ import annotations

import asyncio
import errno
import gc
import mmap
import os
import platform
import socket
import ssl
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from hypothesis import given, settings
from hypothesis import strategies as st

from aibos_realtime.errors import ConfigurationError
from aibos_realtime.transport import batch
from aibos_realtime.transport.batch import Engine, Sender, release

needs_compiled = pytest.mark.skipif(batch.compiled is None, reason="needs a C compiler")
COMPILED = [pytest.param("send", marks=needs_compiled), pytest.param("io_uring", marks=needs_compiled)]
ENGINES = ["python", *COMPILED]
BATCH = 1024
"""How many sends the compiled part submits at once."""


def may_have_io_uring() -> bool:
    """By what the system says of itself: that it cannot be opened is then a failure, unless a container forbids it (seccomp)."""
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    major, minor = platform.release().split(".")[:2]
    if sys.platform != "linux" or (int(major), int(minor)) < (6, 1) or (switch.exists() and switch.read_text().strip() != "0"):
        return False
    return "\nSeccomp:\t0\n" in Path("/proc/self/status").read_text()


def opened(engine: str) -> Sender:
    if engine == "io_uring" and not may_have_io_uring():
        pytest.skip("io_uring needs Linux 6.1, and not to be switched off")
    sender = Sender(cast(Engine, engine))
    sender.open()
    assert sender.engine == engine
    return sender


class Stream:
    """A stream over one end of a socket pair. It keeps what it is given until `flush`, as a stream that sends once per loop turn does."""

    def __init__(self) -> None:
        self.socket, self.peer = socket.socketpair()
        self.socket.setblocking(False)
        self.peer.setblocking(False)
        self.kept = bytearray()
        self.writes: list[int] = []

    def write(self, data: bytes) -> None:
        self.writes.append(len(data))
        self.kept += data

    def get_extra_info(self, name: str) -> object:
        return self.socket if name == "socket" else None

    def get_write_buffer_size(self) -> int:
        return len(self.kept)

    def flush(self) -> None:
        try:
            del self.kept[: self.socket.send(self.kept)]
        except BlockingIOError:
            pass


class Member:
    """Somebody to write to, and what his peer has read."""

    def __init__(self, sender: Sender) -> None:
        self.stream = Stream()
        self.write = sender.writer(cast(asyncio.Transport, self.stream))
        self.seen = b""

    def read(self) -> bytes:
        """Everything that has reached the peer."""
        try:
            while data := self.stream.peer.recv(1 << 20):
                self.seen += data
        except BlockingIOError:
            pass
        return self.seen

    def read_all(self) -> bytes:
        """Everything that reaches the peer once the stream has sent what it keeps."""
        self.read()
        while self.stream.kept:
            self.stream.flush()
            self.read()
        return self.seen

    def stuff(self) -> int:
        """Fill the way to the peer; returns how many bytes it took."""
        taken = 0
        try:
            while True:
                taken += self.stream.socket.send(bytes(1 << 16))
        except BlockingIOError:
            return taken


Make = Callable[[Sender, int], list[Member]]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Member] = []

    def build(sender: Sender, count: int) -> list[Member]:
        members = [Member(sender) for _ in range(count)]
        made.extend(members)
        return members

    yield build
    for member in made:
        release(member.write)
        member.stream.socket.close()
        member.stream.peer.close()


@pytest.mark.parametrize("engine", ENGINES)
class TestEveryEngine:
    @pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 200])
    def test_everybody_gets_the_bytes(self, engine: str, count: int, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, count)
        sender.send(members, b"first ")
        sender.send(dict.fromkeys(members), b"second")
        assert [member.read_all() for member in members] == [b"first second"] * count

    def test_more_than_one_batch(self, engine: str, make: Make) -> None:
        """A room larger than the ring: here many writers over two sockets, so that few descriptors do."""
        sender = opened(engine)
        members = make(sender, 2)
        crowd = [Calling(sender.writer(cast(asyncio.Transport, members[number % 2].stream))) for number in range(2 * BATCH + 7)]
        sender.send(crowd, b"x")
        assert sorted(len(member.read_all()) for member in members) == [BATCH + 3, BATCH + 4]

    def test_a_stream_that_has_something_queued_sends_it_first(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 6)
        members[2].write(b"queued ")
        sender.send(members, b"event ")
        members[2].write(b"after")
        assert [member.read_all() for member in members] == [b"event "] * 2 + [b"queued event after"] + [b"event "] * 3

    def test_what_the_network_does_not_take_is_kept_by_the_stream(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 6)
        stuffed = members[1].stuff()
        data = bytes(range(256)) * 400
        sender.send(members, data)
        sender.send(members, b"end")
        for member in members:
            assert member.read_all()[-len(data) - 3 :] == data + b"end"
        assert len(members[1].seen) == stuffed + len(data) + 3

    def test_half_of_an_event_is_taken(self, engine: str, make: Make) -> None:
        """The way to a peer has room for a part: the rest follows, and nothing stands between the two."""
        sender = opened(engine)
        members = make(sender, 5)
        data = bytes(range(256)) * 8192
        for number in range(3):
            sender.send(members, data + bytes([number]))
        for member in members:
            assert member.read_all() == data + b"\0" + data + b"\1" + data + b"\2"

    def test_a_peer_that_is_gone_costs_the_others_nothing(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 6)
        members[3].stream.peer.close()
        sender.send(members, b"event")
        others = [member for member in members if member is not members[3]]
        assert [member.read_all() for member in others] == [b"event"] * 5
        assert members[3].stream.kept == b"event"  # the stream meets the error, and ends the connection as it always does

    def test_a_member_twice_in_one_call_gets_it_twice_in_order(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        (member,) = make(sender, 1)
        data = bytes(range(256)) * 1000
        sender.send([member] * 5, data)
        assert member.read_all() == data * 5

    def test_a_write_that_fails_is_told_and_the_others_have_their_bytes(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 5)
        with pytest.raises(LookupError, match="broken"):
            sender.send([*members, Calling(broken)], b"event")
        assert [member.read_all() for member in members] == [b"event"] * 5
        sender.send(members, b".")
        assert [member.read_all() for member in members] == [b"event."] * 5

    def test_a_write_that_fails_tears_no_frame_of_others(self, engine: str, make: Make) -> None:
        """Half of an event was out to a member who is behind when the write of another failed: its rest was never sent, and what followed was read
        as the rest of it."""
        sender = opened(engine)
        members = make(sender, 12)
        data = bytes(range(256)) * 8192
        with pytest.raises(LookupError, match="broken"):
            sender.send([Calling(broken), *members[:10], Calling(broken), *members[10:]], data)
        sender.send(members, b"end")
        assert [member.read_all() == data + b"end" for member in members] == [True] * 12

    def test_a_write_may_send(self, engine: str, make: Make) -> None:
        """Closing a member who is too slow sends what waits for others."""
        sender = opened(engine)
        members = make(sender, 8)
        nested = Calling(lambda data: sender.send(members[:4], b"nested"))
        sender.send([nested, *members[4:]], b"event")
        assert [member.read_all() for member in members] == [b"nested"] * 4 + [b"event"] * 4

    def test_a_descriptor_that_is_somebody_elses_by_now_is_left_alone(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        lost, *others = make(sender, 6)
        release(lost.write)
        number = lost.stream.socket.fileno()
        ours, peer = socket.socketpair()
        with ours, peer:
            lost.stream.socket = socket.socket(fileno=lost.stream.socket.detach())
            os.dup2(ours.fileno(), number)
            sender.send([lost, *others], b"secret")
            peer.setblocking(False)
            with pytest.raises(BlockingIOError):
                peer.recv(10)
        assert [member.read_all() for member in others] == [b"secret"] * 5

    def test_after_close_it_works_in_python(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 5)
        sender.close()
        sender.close()
        assert sender.engine == "python"
        sender.send(members, b"event")
        assert [member.read_all() for member in members] == [b"event"] * 5

    def test_nothing_is_kept(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 20)
        members[0].stuff()
        data = b"event" * 10
        before = sys.getrefcount(data), sys.getrefcount(members[5].write), sys.getrefcount(members[0].write)
        for _ in range(50):
            sender.send(members, data)
        assert (sys.getrefcount(data), sys.getrefcount(members[5].write), sys.getrefcount(members[0].write)) == before


Act = tuple[str, int, int]
acts = st.lists(st.tuples(st.sampled_from(["send", "write", "read", "flush", "some"]), st.integers(0, 5), st.integers(1, 70_000)), max_size=40)


@pytest.mark.parametrize("engine", ENGINES)
@given(acts)
@settings(max_examples=60, deadline=None)
def test_any_order_of_acts_gives_each_peer_its_bytes_in_order(engine: str, acts: list[Act]) -> None:
    sender = opened(engine)
    members = [Member(sender) for _ in range(6)]
    expected = [b""] * 6
    for number, (act, who, size) in enumerate(acts):
        data = bytes([number]) * size
        if act in ("send", "some"):
            chosen = range(6) if act == "send" else range(who)
            sender.send([members[index] for index in chosen], data)
            for index in chosen:
                expected[index] += data
        elif act == "write":
            members[who].write(data)
            expected[who] += data
        elif act == "read":
            members[who].read()
        else:
            members[who].stream.flush()
    try:
        assert [member.read_all() for member in members] == expected
    finally:
        for member in members:
            member.stream.socket.close()
            member.stream.peer.close()


@pytest.mark.parametrize("engine", COMPILED)
class TestCompiled:
    def test_a_member_who_keeps_up_is_never_a_matter_of_the_stream(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 5)
        members[4].stuff()
        for _ in range(3):
            sender.send(members, b"event")
        assert [member.stream.writes for member in members] == [[], [], [], [], [5, 5, 5]]

    def test_a_stream_that_has_caught_up_is_passed_again(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        (member,) = make(sender, 1)
        member.write(b"1")
        sender.send([member], b"2")
        assert member.read_all() == b"12"
        sender.send([member], b"3")
        assert member.stream.writes == [1, 1]

    def test_another_thread_loses_nothing(self, engine: str, make: Make) -> None:
        """The ring is of the thread that opened it; a call from another is a mistake that must not cost an event."""
        sender = opened(engine)
        members = make(sender, 6)
        thread = threading.Thread(target=sender.send, args=(members, b"event"))
        thread.start()
        thread.join(10)
        assert [member.read_all() for member in members] == [b"event"] * 6

    def test_a_child_process_leaves_the_ring_to_its_parent(self, engine: str, make: Make) -> None:
        """A child has the descriptor of the ring and not its memory: to send, or to let go of it, ended the child, or cost it memory of its own."""
        sender = opened(engine)
        members = make(sender, 20)
        sender.send(members, b"parent ")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # other threads may be there
            child = os.fork()
        if child == 0:
            try:
                sender.send(members, b"child ")
                mapped = [mmap.mmap(-1, 1 << 20) for _ in range(20)]
                sender.close()
                os._exit(sum(len(part.read(1 << 20)) >> 20 for part in mapped) - 20)
            finally:
                os._exit(100)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        sender.send(members, b"parent")
        assert [member.read_all() for member in members] == [b"parent child parent"] * 20

    def test_two_threads_with_a_loop_each(self, engine: str, make: Make) -> None:
        """Each has a ring of its own, and full sockets among its members; the interpreter's lock is let go of while the kernel works."""
        crowds: list[list[Member]] = []

        def work(members: int) -> None:
            sender = opened(engine)
            crowd = make(sender, members)
            for number in range(300):
                sender.send(crowd, bytes([number % 256]) * 2000)
            crowds.append(crowd)

        threads = [threading.Thread(target=work, args=(count,)) for count in (20, 30)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        expected = b"".join(bytes([number % 256]) * 2000 for number in range(300))
        assert sorted(map(len, crowds)) == [20, 30] and all(member.read_all() == expected for crowd in crowds for member in crowd)

    def test_what_no_length_of_the_kernel_can_say(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        members = make(sender, 10)
        with pytest.raises(TypeError, match="less than 2 GiB"):
            sender.send(members, bytes(1 << 31))
        assert [member.read_all() for member in members] == [b""] * 10

    def test_what_nobody_takes_is_kept_once(self, engine: str, make: Make) -> None:
        """Of an event there was a copy for each of the members that were behind."""
        sender = opened(engine)
        members = make(sender, 10)
        given: list[bytes] = []
        for member in members:
            member.stuff()
            member.stream.write = given.append  # type: ignore[method-assign, assignment]
        data = bytes(1000)
        sender.send(members, data)
        assert {id(one) for one in given} == {id(data)} and len(given) == 10

    def test_a_cycle_through_the_stream_is_collected(self, engine: str, make: Make) -> None:
        sender = opened(engine)
        member = Member(sender)
        member.stream.__dict__["writer"] = member.write
        member.stream.socket.close()
        member.stream.peer.close()
        gone = weakref.ref(member.stream)
        del member
        gc.collect()
        assert gone() is None

    @pytest.mark.parametrize(("receivers", "data"), [([], "text"), ([], bytearray(b"x")), (None, b"x"), ([object()], b"x")])
    def test_wrong_use(self, engine: str, receivers: Any, data: Any) -> None:
        with pytest.raises((TypeError, AttributeError)):
            opened(engine).send(receivers, data)

    def test_a_writer_takes_bytes_and_nothing_else(self, engine: str, make: Make) -> None:
        (member,) = make(opened(engine), 1)
        write: Any = member.write
        with pytest.raises(TypeError, match="one argument"):
            write()
        with pytest.raises(TypeError, match="one argument"):
            write(b"x", b"y")

    def test_over_tls_the_stream_does_it_all(self, engine: str) -> None:
        class Secure(Stream):
            def get_extra_info(self, name: str) -> object:
                return self.socket if name == "socket" else ssl.create_default_context() if name == "sslcontext" else None

        stream = Secure()
        with stream.socket, stream.peer:
            assert opened(engine).writer(cast(asyncio.Transport, stream)) == stream.write


class TestChoosing:
    @needs_compiled
    def test_auto_takes_the_best_that_there_is(self) -> None:
        sender = Sender()
        assert sender.engine == "python"
        sender.open()
        assert sender.engine in ("io_uring", "send")

    @needs_compiled
    def test_without_io_uring(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert batch.compiled is not None
        compiled_sender = batch.compiled.Sender

        def refuse(engine: str) -> object:
            if engine == "io_uring":
                raise OSError(errno.EPERM, "Operation not permitted")
            return compiled_sender(engine)

        monkeypatch.setattr(batch.compiled, "Sender", refuse)
        sender = Sender("auto")
        sender.open()
        assert sender.engine == "send"
        with pytest.raises(
            ConfigurationError, match=r"sender: 'io_uring' was given, and the kernel refuses it \(Operation not permitted\); allowed here: auto"
        ):
            Sender("io_uring").open()

    def test_without_the_compiled_part(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(batch, "compiled", None)
        sender = Sender("auto")
        sender.open()
        assert sender.engine == "python"
        with pytest.raises(ConfigurationError, match="sender: 'send' was given, and the compiled part is not installed; allowed here: auto, python"):
            Sender("send").open()


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_over_real_streams_a_reset_ends_in_connection_lost(engine: str, tls: bool) -> None:
    """Events go on while peers reset their connections: each of the others gets all, and each loss is told."""
    authority = trustme.CA()
    ours, theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH), ssl.create_default_context()
    authority.issue_cert("127.0.0.1").configure_cert(ours)
    authority.configure_trust(theirs)
    sender = opened(engine)
    arrived: asyncio.Queue[Live] = asyncio.Queue()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Live(sender, arrived), "127.0.0.1", 0, ssl=ours if tls else None)
    port = server.sockets[0].getsockname()[1]
    async with asyncio.timeout(20):
        pairs = [await asyncio.open_connection("127.0.0.1", port, ssl=theirs if tls else None) for _ in range(8)]
        members = [await arrived.get() for _ in pairs]
        sender.send(members, b"1")
        for _, writer in pairs[:3]:
            writer.transport.abort()
        for number in range(2, 10):
            sender.send(members, b"%d" % number)
            await asyncio.sleep(0)
        for reader, _ in pairs[3:]:
            assert await reader.readexactly(9) == b"123456789"
        while sum(member.lost.done() for member in members) < 3:
            sender.send([member for member in members if member.lost.done()], b"late")
            await asyncio.sleep(0)
        for _, writer in pairs[3:]:
            writer.close()
        await asyncio.gather(*(member.lost for member in members))
    server.close()
    sender.close()


class Live(asyncio.Protocol):
    """A member over a stream of the loop's."""

    def __init__(self, sender: Sender, arrived: asyncio.Queue[Live]) -> None:
        self.sender = sender
        self.arrived = arrived
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.write = self.sender.writer(cast(asyncio.Transport, transport))
        self.arrived.put_nowait(self)

    def connection_lost(self, exc: Exception | None) -> None:
        release(self.write)
        self.lost.set_result(None)


class Calling:
    """A member whose `write` is a function."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self.write = write


def broken(data: bytes) -> None:
    raise LookupError("broken")
