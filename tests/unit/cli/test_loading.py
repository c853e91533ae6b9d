"""`serve MODULE:SERVER`: what is found, and what is said where nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from aibos_realtime.cli.exits import ExitCode, Failure
from aibos_realtime.cli.loading import find_mounts, load_server

from .conftest import SECRET

SERVER = f"""
from aibos_realtime import RealtimeServer
server = RealtimeServer(port=3111, authentication={{"jwt_secret": "{SECRET}"}})
"""
APP = (
    SERVER
    + """
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware
app = FastAPI(lifespan=server.lifespan)
app.mount("/realtime", server.asgi())
outer = FastAPI()
outer.mount("/inner", app)
wrapped = CORSMiddleware(app, allow_origins=["https://app.example.com"])
bare = FastAPI()
alone = server.asgi()
twice = FastAPI()
twice.mount("/a", server.asgi())
twice.mount("/b", server.asgi())
number = 3
def make(): return server
class Holder:
    server = server
"""
)

Write = Callable[[str], str]


@pytest.fixture
def write(folder: Path, request: pytest.FixtureRequest) -> Write:
    """Write a module into the working directory; returned is its name, one that no other test has."""

    def write(text: str) -> str:
        name = f"ours_{abs(hash(request.node.nodeid))}"
        (folder / f"{name}.py").write_text(text)
        return name

    return write


def refusal(target: str) -> str:
    with pytest.raises(Failure) as failed:
        load_server(target)
    assert failed.value.code is ExitCode.USAGE
    return str(failed.value)


def test_a_server_in_the_working_directory(write: Write) -> None:
    server, path = load_server(f"{write(SERVER)}:server")
    assert (server.config.port, path) == (3111, "")


@pytest.mark.parametrize(
    ("name", "path"),
    [("app", "/realtime"), ("outer", "/inner/realtime"), ("wrapped", "/realtime"), ("alone", ""), ("Holder.server", ""), ("server", "")],
)
def test_a_server_is_found_where_it_is(write: Write, name: str, path: str) -> None:
    module = write(APP)
    server, found = load_server(f"{module}:{name}")
    assert found == path and server is load_server(f"{module}:server")[0]


def test_a_mounted_server_brings_its_app(write: Write) -> None:
    module = write(APP)
    server, _ = load_server(f"{module}:wrapped")
    assert [path for path, _ in find_mounts(server._app)] == ["/realtime"]


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("ours_nowhere:server", "There is no module 'ours_nowhere' in "),
        ("ours_nowhere.part:server", "There is no module 'ours_nowhere' in "),
        ("ours.py:server", "write MODULE:SERVER, for example ours:server"),
        ("./ours:server", "write MODULE:SERVER"),
        (":server", "write MODULE:SERVER"),
    ],
)
def test_what_is_no_module_is_a_sentence(target: str, says: str) -> None:
    assert says in refusal(target)


def test_the_servers_of_a_module_are_suggested(write: Write) -> None:
    module = write(SERVER)
    assert f"It holds: aibos-realtime serve {module}:server" in refusal(module)
    said = refusal(f"{module}:sever")
    assert f"{module} has no 'sever'" in said and f"serve {module}:server" in said


@pytest.mark.parametrize(
    ("name", "says"), [("number", "of type int"), ("make", "of type function"), ("bare", "of type FastAPI"), ("twice", "2 servers")]
)
def test_what_is_no_server_is_a_sentence(write: Write, name: str, says: str) -> None:
    assert says in refusal(f"{write(APP)}:{name}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("def f():\n    return 1 / 0\nf()\n", "ZeroDivisionError"),
        ("import ours_missing\n", "No module named 'ours_missing'"),
        ("def (:\n", "SyntaxError"),
    ],
)
def test_a_failure_of_the_modules_own_shows_its_trace_and_none_of_ours(
    write: Write, capsys: pytest.CaptureFixture[str], text: str, error: str
) -> None:
    module = write(text)
    assert refusal(f"{module}:server") == f"{module} could not be imported: its own error stands above."
    trace = capsys.readouterr().err
    assert error in trace and f"{module}.py" in trace
    assert "loading.py" not in trace and "importlib" not in trace


def test_a_wrong_option_in_the_module_is_one_sentence_with_its_place(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    module = write('from aibos_realtime import RealtimeServer\nserver = RealtimeServer(cors={"orign": []}, authentication={"jwt_secret": "abc"})\n')
    assert refusal(f"{module}:server") == f"cors.orign: there is no such option; did you mean 'origin'? ({module}.py, line 2)"
    assert capsys.readouterr().err == ""
