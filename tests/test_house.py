"""What the house asks of every file and no linter checks. An exception goes into the list beside its rule, with the reason."""

from __future__ import annotations

import ast
import re
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import aibos_realtime

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "aibos_realtime"
MODULES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))

PUBLIC = """
    RealtimeServer RealtimeClient RealtimeConfig RoomManager EventBroadcaster ConnectionPool ConnectionMonitor
    WebSocketAuth WebSocketAuthorization where LoadBalancer ScalingManager Cluster Instance Broadcast Event EventHandler Position Socket User
    Message MessagePersistence MessageQueue outbox
    RealtimeError ConfigurationError ProtocolError MessageTooLarge UnknownEvent UnrecoverablePosition ValidationError
    AuthenticationError TokenExpired TokenRevoked PermissionDenied RateLimitExceeded
    ConnectionError ConnectionClosed ConnectTimeout ConnectionLimitExceeded RequestTimeout Overloaded IdempotencyConflict
    RoomError RoomNotFound RoomFull RoomLimitExceeded GuestsNotAllowed NotInRoom RoomRequired
    QueueError QueueFull BackendError BrokerUnavailable StoreUnavailable NoInstanceAvailable
""".split()

PURE = ("protocol", "auth", "hub", "pipeline")  # these packages, and the modules beside them: one test file for each module
WITHOUT_OWN_TEST: dict[str, str] = {}  # "hub/rooms.py": where it is tested instead

MAX_FILE, MAX_FUNCTION = 400, 60  # lines; a function's docstring does not count
LARGE: dict[str, str] = {}  # "hub/rooms.py" or "hub/rooms.py:join": why

SLEEPS = {  # "unit/hub/test_rooms.py": why no event can be waited for
    "attacks/victim.py": "a handler that holds the loop is what it is for",
    "contracts/test_queue.py": "what is due in a real Redis or PostgreSQL is due by the server's own time, and nothing tells of it",
    "faults/proxy.py": "to delay bytes is what it is for",
}

HOSTS = re.compile(  # names without a dot, addresses of this machine, names reserved for examples, and where specifications (and the name of SVG) are
    r"[\w-]*|0\.0\.0\.0|127(\.\d+){3}|10(\.\d+){3}|\[::1?\]|[\w.-]*\.(example|test|invalid|local|internal)|([\w-]+\.)*example\.(com|org|net)"
    r"|([\w-]+\.)*aibos\.com|(www\.)?rfc-editor\.org|datatracker\.ietf\.org|www\.w3\.org"
)
CACHE = re.compile(r"(^|/)[._][^/]*cache")
VENDORED = re.compile(r"(^|/)node_modules/|^src/aibos_realtime/admin/(page/vendor/|api/docs/swagger-ui)")  # of others, as they gave it out


def name_of(path: Path, base: Path = PACKAGE) -> str:
    return path.relative_to(base).as_posix()


def show(faults: list[str]) -> None:
    """Fails with the whole list, one fault a line."""
    if faults:
        pytest.fail("\n".join(faults), pytrace=False)


@cache
def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def find_text_files() -> list[Path]:
    folders = ("src", "tests", "docs", "examples", "spec", "scripts", "clients", "benchmarks", "deploy", ".ci")
    files = [path for path in ROOT.iterdir() if path.suffix in (".md", ".toml", ".lock") or path.name in ("LICENSE", "Makefile")]
    for folder in folders:
        files += [path for path in (ROOT / folder).rglob("*") if path.is_file() and not CACHE.search(name_of(path, ROOT / folder))]
    files = [path for path in files if not VENDORED.search(name_of(path, ROOT))]
    return [path for path in files if b"\0" not in path.read_bytes()[:4096]]


def test_public_names_are_pinned() -> None:
    assert sorted(aibos_realtime.__all__) == sorted(PUBLIC)
    assert [name for name in aibos_realtime.__all__ if not hasattr(aibos_realtime, name)] == []


def test_every_module_says_what_it_is() -> None:
    show([name_of(path) for path in MODULES if not ast.get_docstring(parse(path))])


def test_every_pure_module_has_its_test_file() -> None:
    pure = [path for path in MODULES if path.parent == PACKAGE or name_of(path).split("/")[0] in PURE]
    named = {name_of(path): ROOT / "tests" / "unit" / path.relative_to(PACKAGE).parent / f"test_{path.stem}.py" for path in pure}
    show([name for name, test in named.items() if "__" not in name and not test.exists() and name not in WITHOUT_OWN_TEST])


def test_files_and_functions_stay_small() -> None:
    large = {name_of(path): lines for path in MODULES if (lines := len(path.read_text().splitlines())) > MAX_FILE}
    for path in MODULES:
        for node in ast.walk(parse(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                first = node.body[1].lineno if ast.get_docstring(node) and len(node.body) > 1 else node.lineno
                if (lines := (node.end_lineno or first) - first + 1) > MAX_FUNCTION:
                    large[f"{name_of(path)}:{node.name}"] = lines
    show([f"{name}: {lines} lines" for name, lines in large.items() if name not in LARGE])


SLEEPING = ("sleep", "asyncio.sleep", "time.sleep", "anyio.sleep", "SYSTEM_CLOCK.sleep")


def test_no_test_waits_by_sleeping() -> None:
    """`sleep(0)` gives the loop one turn and is fine. To hang for ever: `await asyncio.Event().wait()`."""
    found = []
    for path in TESTS:
        for node in ast.walk(parse(path)):
            if not isinstance(node, ast.Call) or ast.unparse(node.func) not in SLEEPING:
                continue
            if [ast.unparse(argument) for argument in node.args] != ["0"] and name_of(path, ROOT / "tests") not in SLEEPS:
                found.append(f"{name_of(path, ROOT)}:{node.lineno}")
    show(found)


def test_no_address_of_a_person_a_machine_or_a_host_of_others() -> None:
    found = []
    for path in find_text_files():
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            people = [email for email in re.findall(r"[\w.+-]+@([\w-]+\.[\w.]+)", line) if not HOSTS.fullmatch(email)]
            hosts = re.findall(r"\b(?:https?|wss?|rediss?|postgresql)://(?:[^/\s@{}]*@)?(\[[^\]\s]*\]|[\w.-]+)", line)
            if people or [host for host in hosts if not HOSTS.fullmatch(host.rstrip("."))] or re.search(r"(?<![\w.])/(?:root|work)/", line):
                found.append(f"{name_of(path, ROOT)}:{number}: {line.strip()[:100]}")
    show(found)


def read_pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([\w.]+)", (ROOT / lock).read_text(), re.MULTILINE))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-dev.lock"])
def test_the_lock_holds_what_the_project_asks_for(lock: str) -> None:
    """If this fails, run `make lock`."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = project["build-system"]["requires"] + project["project"]["dependencies"]
    wanted += project["project"]["optional-dependencies"]["dev"] if "dev" in lock else []
    pins = read_pins(lock)
    requirements = [Requirement(line) for line in wanted]
    missing = [str(r) for r in requirements if not r.specifier.contains(pins.get(re.sub(r"[-_.]+", "-", r.name).lower(), "0"))]
    show(missing)


def test_the_locks_agree() -> None:
    assert read_pins("requirements.lock").items() <= read_pins("requirements-dev.lock").items()
