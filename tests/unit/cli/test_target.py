"""Which server, which token, and what an error of the client is turned into."""

from __future__ import annotations

import base64
import json

import pytest

from aibos_realtime import errors
from aibos_realtime.cli.exits import ExitCode, Failure
from aibos_realtime.cli.folder import DemoFolder
from aibos_realtime.cli.target import Target, expired_for, find_target, show_duration

from .conftest import SECRET, Command

DEMO_URL = "ws://127.0.0.1:3007"


def make_token(**claims: object) -> str:
    """A token as far as this side can read it."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.c2ln"


@pytest.fixture
def demo() -> DemoFolder:
    """A demo runs in this folder."""
    folder = DemoFolder()
    folder.make_secret()
    folder.write_url(DEMO_URL)
    return folder


def test_options_win_over_the_environment_and_that_over_the_demo(demo: DemoFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    found = find_target(None, None)
    assert found.url == DEMO_URL and callable(found.token) and str(found.token()).count(".") == 2
    monkeypatch.setenv("REALTIME_URL", "ws://a.example.com")
    monkeypatch.setenv("REALTIME_TOKEN", "token_a")
    assert find_target(None, None) == Target("ws://a.example.com", "token_a", "REALTIME_URL", "REALTIME_TOKEN")
    assert find_target("ws://b.example.com", "token_b") == Target("ws://b.example.com", "token_b", "--url", "--token")


def test_a_token_of_the_demo_goes_to_the_demo_alone(demo: DemoFolder) -> None:
    assert callable(find_target(DEMO_URL, None).token)
    with pytest.raises(Failure, match="There is no token for this server") as failed:
        find_target("ws://b.example.com", None)
    assert failed.value.code is ExitCode.TOKEN


def test_without_anything_it_says_what_to_do() -> None:
    with pytest.raises(Failure, match=r"There is no token, and no demo runs in this folder: export REALTIME_TOKEN=.* serve --demo") as failed:
        find_target(None, None)
    assert failed.value.code is ExitCode.TOKEN
    assert find_target(None, "token_a").url == "ws://localhost:3001"


@pytest.mark.parametrize(
    ("url", "token", "says"),
    [
        ("localhost:3001", "abc", "--url: no scheme was given; allowed are ws, wss"),
        ("ftp://localhost", "abc", "--url: the scheme 'ftp' was given"),
        ("ws://localhost:3001", "two words", "--token: a text without a token was given"),
    ],
)
def test_what_cannot_be_used_names_the_option(command: Command, url: str, token: str, says: str) -> None:
    for words in (["listen", "tenant_1"], ["publish", "tenant_1", "a", "1"]):
        ended = command(*words, "--url", url, "--token", token)
        assert ended.code == 2 and says in ended.err and token not in ended.err


@pytest.mark.parametrize(("seconds", "shown"), [(0.4, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172_800, "2 days")])
def test_a_duration_is_shown(seconds: float, shown: str) -> None:
    assert show_duration(seconds) == shown


def test_whether_a_token_has_expired_is_read_from_it() -> None:
    assert expired_for(make_token(exp=1000), 1060) == 60
    assert expired_for(make_token(exp=1000), 999) is None
    for useless in ("", "abc", "a.b.c", "a.!.c", make_token(), make_token(exp="soon"), make_token(exp=None), "a.W10.c"):
        assert expired_for(useless, 1000) is None


class TestExplaining:
    """Each error becomes one sentence that says what to do, and an exit code."""

    def explain(self, error: errors.RealtimeError, token: str = "abc", url_from: str = "--url") -> Failure:
        target = Target("ws://localhost:3001", token, url_from, "REALTIME_TOKEN")
        return target.explain(error, {"id": "user_1", "role": "user", "tenantId": "1"}, "tenant_2")

    def test_a_token_that_was_not_accepted(self) -> None:
        failure = self.explain(errors.AuthenticationError("localhost:3001 did not accept the token (401)."))
        assert failure.code is ExitCode.TOKEN
        assert str(failure).endswith("Make another one (aibos-realtime token --user NAME --tenant TENANT) and give it as REALTIME_TOKEN.")

    def test_a_token_that_expired(self) -> None:
        token = make_token(exp=1, sub=SECRET)
        failure = self.explain(errors.AuthenticationError("localhost:3001 did not accept the token (401)."), token)
        assert "(401). It expired " in str(failure) and "days ago: make another one" in str(failure)
        assert token not in str(failure) and SECRET not in str(failure)

    def test_a_token_of_the_demo(self) -> None:
        failure = Target("ws://localhost:3001", lambda: "abc", "demo", "demo").explain(errors.AuthenticationError())
        assert "It is of the demo in this folder" in str(failure)

    def test_a_permission_that_is_missing(self) -> None:
        failure = self.explain(errors.PermissionDenied(resource="tenant_2", action="write"))
        assert failure.code is ExitCode.PERMISSION
        assert str(failure).startswith("User user_1 (role user, tenant 1) may not publish to tenant_2: use a token of a user who may.")

    def test_no_server(self) -> None:
        nothing = errors.ConnectionError("Nothing listens at localhost:3001: start the server, or check the host and the port.")
        assert self.explain(nothing).code is ExitCode.NO_SERVER and str(self.explain(nothing)) == str(nothing)
        assert str(self.explain(nothing, url_from="default")).endswith("To try one out: aibos-realtime serve --demo.")

    def test_a_client_that_gave_up_says_why(self) -> None:
        given_up = errors.ConnectionError("The client has given up.")
        given_up.__cause__ = errors.AuthenticationError()
        assert self.explain(given_up).code is ExitCode.TOKEN
