"""The calls of the HTTP API: which server, who asks, and what becomes of every answer that is none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import jwt
import pytest

from aibos_realtime.admin.reports import RoomPage, RoomReport
from aibos_realtime.cli import api as module
from aibos_realtime.cli.api import Api, Credential, find_api, http_base, quoted
from aibos_realtime.cli.exits import ExitCode, Failure
from aibos_realtime.cli.folder import DemoFolder

from .stub_api import PROBLEM, Reply, StubApi, problem, room

TOKEN = Credential("token_a", "REALTIME_TOKEN")
KEY = "rk_only-for-the-tests-of-the-command-line"


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("ws://localhost:3001", "http://localhost:3001"),
        ("wss://a.example.com/ws", "https://a.example.com"),
        ("http://a.example.com/realtime/ws/", "http://a.example.com/realtime"),
        ("https://a.example.com:8443/realtime/", "https://a.example.com:8443/realtime"),
        ("https://a.example.com/api/v1", "https://a.example.com"),
        ("ws://[::1]:3001/ws?token=secret", "http://[::1]:3001"),
    ],
)
def test_the_url_of_the_websocket_leads_to_the_api(url: str, base: str) -> None:
    assert http_base(url, "--url") == base


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("localhost:3001", "--url: no scheme was given; allowed are ws, wss, http and https"),
        ("ftp://localhost", "--url: the scheme 'ftp' was given"),
        ("ws://ann:hunter2@localhost", "--url: a user or a password stands in the URL; allowed is --token or --api-key."),
    ],
)
def test_a_url_that_is_none_names_the_option(url: str, says: str) -> None:
    with pytest.raises(Failure) as failed:
        http_base(url, "--url")
    assert says in str(failed.value) and failed.value.code is ExitCode.USAGE and "hunter2" not in str(failed.value)


def test_a_name_is_one_part_of_a_path() -> None:
    assert quoted("a/b:c d?ä") == "a%2Fb%3Ac%20d%3F%C3%A4"


class TestWhoAsks:
    def asked_with(self, stub: StubApi, api: Api) -> dict[str, str]:
        stub.answers["GET /rooms"] = RoomPage(rooms=[], cursor=None)
        api.get("/rooms", RoomPage)
        return stub.asked[-1].fields

    def test_options_win_over_the_environment_and_there_a_key_over_a_token(self, stub: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.asked_with(stub, find_api(None, None, None))["authorization"] == "Bearer token_a"
        monkeypatch.setenv("REALTIME_API_KEY", KEY)
        by_key = self.asked_with(stub, find_api(None, None, None))
        assert by_key["x-api-key"] == KEY and "authorization" not in by_key
        by_token = self.asked_with(stub, find_api(stub.url, "token_b", None))
        assert by_token["authorization"] == "Bearer token_b" and "x-api-key" not in by_token
        assert self.asked_with(stub, find_api(None, None, "other_key"))["x-api-key"] == "other_key"

    def test_the_demo_gets_an_operators_token_of_its_own_and_nobody_else_does(self, stub: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
        folder = DemoFolder()
        secret = folder.make_secret()
        folder.write_url(stub.url.replace("http", "ws"))
        monkeypatch.delenv("REALTIME_TOKEN")
        for url in (None, stub.url):
            token = self.asked_with(stub, find_api(url, None, None))["authorization"].removeprefix("Bearer ")
            assert jwt.decode(token, secret, algorithms=["HS256"])["role"] == "operator"
        with pytest.raises(Failure, match="There is neither a token nor an API key: export REALTIME_TOKEN=.* --role operator") as failed:
            find_api("ws://b.example.com", None, None)
        assert failed.value.code is ExitCode.TOKEN

    def test_without_anything_it_says_what_to_do(self) -> None:
        with pytest.raises(Failure, match=r"or set REALTIME_API_KEY. To try it out: aibos-realtime serve --demo.$"):
            find_api(None, None, None)
        assert find_api(None, "token_a", None).base == "http://localhost:3001"

    def test_a_token_and_a_key_are_one_too_many(self) -> None:
        with pytest.raises(Failure, match="--token and --api-key say twice who asks") as failed:
            find_api(None, "token_a", KEY)
        assert failed.value.code is ExitCode.USAGE

    @pytest.mark.parametrize("text", ["two words", "line\nbreak", "ä", " "])
    def test_a_token_that_can_be_none_is_not_sent(self, text: str) -> None:
        with pytest.raises(Failure, match="^--token: a text without a token was given") as failed:
            find_api("http://127.0.0.1:9", text, None).get("/rooms", RoomPage)
        assert failed.value.code is ExitCode.USAGE


class TestAnswersThatAreNone:
    def failure(self, stub: StubApi, reply: Reply, credential: Credential = TOKEN) -> Failure:
        stub.answers["GET /rooms/a"] = reply
        with pytest.raises(Failure) as failed:
            Api(stub.url, credential).get("/rooms/a", RoomReport)
        return failed.value

    @pytest.mark.parametrize(
        ("reply", "code", "says"),
        [
            (problem(403, "permission_denied", "This is for operators."), ExitCode.PERMISSION, "This is for operators. Use a token with a role of"),
            (problem(404, "room_not_found", "There is no such room."), ExitCode.REFUSED, "There is no such room."),
            (
                problem(422, "validation_failed", "The data does not fit", errors=[{"path": "$.limit", "message": "Expected int"}]),
                ExitCode.REFUSED, "The data does not fit. $.limit: Expected int.",
            ),
            (problem(429, "rate_limited", "Too many requests: try again in 2 s."), ExitCode.REFUSED, "Too many requests: try again in 2 s."),
            (problem(500, "internal", "Something went wrong inside the server."), ExitCode.FAILED, "Something went wrong inside the server."),
            (problem(503, "unavailable", "Redis does not answer."), ExitCode.REFUSED, "Redis does not answer."),
            (problem(404, "not_found", "There is nothing on this path."), ExitCode.NO_SERVER, "There is no HTTP API at http://127.0.0.1:"),
            (Reply(404, b"<html>", "text/html"), ExitCode.NO_SERVER, "There is no HTTP API at http://127.0.0.1:"),
            (Reply(502, b"<html>", "text/html"), ExitCode.NO_SERVER, "answered 502: it, or what stands before it, is in trouble."),
            (Reply(418, b"[1]", PROBLEM), ExitCode.REFUSED, "answered 418."),
            (Reply(200, b"<html>"), ExitCode.NO_SERVER, "is no server of aibos-realtime, or one of another version"),
            (Reply(200, b"[" * 100_000), ExitCode.NO_SERVER, "is no server of aibos-realtime"),
            (Reply(200, b'{"id": "a"}'), ExitCode.NO_SERVER, "is no server of aibos-realtime"),
            (
                Reply(302, b"", "text/plain", (("Location", "https://evil.example.com/x?token=1"),)),
                ExitCode.NO_SERVER, "sends requests on to somewhere else (https://evil.example.com): give the URL of the server itself.",
            ),
        ],
        ids=lambda value: f"{value.status}-{value.body[:24]!r}" if isinstance(value, Reply) else "",
    )  # fmt: skip
    def test_each_is_a_sentence_and_a_code(self, stub: StubApi, reply: Reply, code: ExitCode, says: str) -> None:
        failure = self.failure(stub, reply)
        assert says in str(failure) and failure.code is code and "token_a" not in str(failure)

    def test_a_token_or_a_key_that_was_not_accepted(self, stub: StubApi) -> None:
        reply = problem(401, "authentication_failed", "The token is not valid.")
        failure = self.failure(stub, reply)
        assert failure.code is ExitCode.TOKEN
        assert str(failure).startswith("The token is not valid. Is it whole, and made with the secret of this server?")
        assert "token --user NAME --role operator" in str(failure)
        failure = self.failure(stub, reply, Credential(KEY, "--api-key", is_key=True))
        assert "Is --api-key whole, and does the server have it, or its hash, in http.api_keys" in str(failure) and KEY not in str(failure)

    def test_a_redirect_is_not_followed(self, stub: StubApi) -> None:
        with StubApi() as other:
            self.failure(stub, Reply(307, b"", "text/plain", (("Location", f"{other.url}/api/v1/rooms/a"),)))
            assert other.asked == []

    def test_an_answer_without_end(self, stub: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "MOST_BYTES", 1000)
        assert self.failure(stub, Reply(200, b" " * 1001)).code is ExitCode.REFUSED


@pytest.fixture
def silent() -> Iterator[socket.socket]:
    """A server that takes connections, and says what a test has it say."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


class TestNoAnswer:
    def failure(self, url: str, *, url_from: str = "--url", timeout: float = 5.0) -> Failure:
        with pytest.raises(Failure) as failed:
            Api(url, TOKEN, url_from=url_from, timeout=timeout).get("/rooms", RoomPage)
        return failed.value

    def test_nobody_is_there(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as gone:
            url = f"ws://127.0.0.1:{gone.getsockname()[1]}"
        failure = self.failure(url)
        assert failure.code is ExitCode.NO_SERVER and str(failure).startswith("Nothing listens at 127.0.0.1:")
        assert str(self.failure(url, url_from="default")).endswith("To try one out: aibos-realtime serve --demo.")

    def test_silence(self, silent: socket.socket) -> None:
        failure = self.failure(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=0.1)
        assert failure.code is ExitCode.NO_ANSWER and "did not answer within 0.1 seconds: whether it did what it was asked is unknown." in str(
            failure
        )

    @pytest.mark.parametrize(
        ("answer", "says"),
        [
            (b"SSH-2.0-OpenSSH\r\n", "did not answer as a web server"),
            (b"", "closed the connection before it had answered"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n{", "closed the connection before it had answered"),
        ],
    )
    def test_no_web_server(self, silent: socket.socket, answer: bytes, says: str) -> None:
        def speak() -> None:
            connection, _ = silent.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        speaker = threading.Thread(target=speak)
        speaker.start()
        failure = self.failure(f"http://127.0.0.1:{silent.getsockname()[1]}")
        speaker.join()
        assert failure.code is ExitCode.NO_SERVER and says in str(failure)

    def test_plain_text_where_tls_was_meant(self, stub: StubApi) -> None:
        failure = self.failure(stub.url.replace("http", "https"))
        assert failure.code is ExitCode.NO_SERVER and "does it speak TLS (https, wss), or plain text (http, ws)?" in str(failure)

    def test_a_proxy_of_the_environment_is_not_for_this_machine(self, stub: StubApi, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        stub.answers["GET /rooms/a"] = room("a")
        assert Api(stub.url, TOKEN).get("/rooms/a", RoomReport).id == "a"
        assert self.failure("http://realtime.invalid").code is ExitCode.NO_SERVER
