"""The files of `deploy/` that no proxy reads, and what all of them say of the server: every variable, option and limit is there, and the times fit.

The proxies' files run in `tests/network/test_proxies.py`.
"""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from aibos_realtime import RealtimeServer
from aibos_realtime.config import VARIABLES, RealtimeConfig
from aibos_realtime.hub.connections import ConnectionOptions
from aibos_realtime.pipeline.throttle import LimitOptions
from aibos_realtime.transport.base import CLOSE_TIMEOUT
from tests.test_docs import ROOT, find_fault, read_blocks, read_commands, select

DEPLOY = ROOT / "deploy"
PAGES = [ROOT / "docs" / "how-to" / name for name in ("run-behind-a-proxy.md", "deploy.md")]
UNITS = [DEPLOY / "systemd" / name for name in ("aibos-realtime.service", "aibos-realtime@.service")]
KUBERNETES = ("1.25", kubernetes_validate.latest_version())
DRAIN = inspect.signature(RealtimeServer.run).parameters["drain"].default + CLOSE_TIMEOUT
"""Seconds from SIGTERM to the end, at most."""
SECRET = "only for this test, and 32 bytes at least"


def resources() -> list[dict[str, Any]]:
    return [one for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")) for one in yaml.safe_load_all(path.read_text())]


def resource(kind: str, name: str = "realtime") -> dict[str, Any]:
    return next(one for one in resources() if one["kind"] == kind and one["metadata"]["name"] == name)


def pod() -> dict[str, Any]:
    found: dict[str, Any] = resource("Deployment")["spec"]["template"]["spec"]
    return found


def node() -> dict[str, Any]:
    (found,) = pod()["containers"]
    assert isinstance(found, dict)
    return found


def settings_of(unit: Path) -> dict[str, list[str]]:
    """The values of each setting of a systemd unit, in order."""
    found: dict[str, list[str]] = {}
    for name, value in re.findall(r"^(\w+)=(.*)$", unit.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(value)
    return found


def read_pairs(text: str) -> dict[str, str]:
    return dict(re.findall(r"^([A-Z_]+)=(.*)$", text, re.MULTILINE))


# — the nodes' own files —


def test_a_node_starts_with_these_files() -> None:
    """Filled in, as a whole: environment, TOML file, and what is another on each node."""
    environment = read_pairs((DEPLOY / "environment").read_text()) | {"JWT_SECRET": SECRET, "INSTANCE_ID": "host-3001"}
    config, sources = RealtimeConfig.load(file=DEPLOY / "realtime.toml", environment=environment, env_file=None)
    assert config.scaling.enabled and config.trusted_proxies and sources["connections.max_connections"].startswith("file")
    RealtimeServer(**{name: getattr(config, name) for name in RealtimeConfig.model_fields})


def test_the_secret_is_for_the_user_to_fill_in() -> None:
    assert read_pairs((DEPLOY / "environment").read_text())["JWT_SECRET"] == resource("Secret")["stringData"]["JWT_SECRET"] == ""


def test_every_variable_exists() -> None:
    names = set(read_pairs((DEPLOY / "environment").read_text()))
    names |= resource("ConfigMap")["data"].keys() | resource("Secret")["stringData"].keys()
    names |= {one["name"] for one in node()["env"]} - set(re.findall(r"\$\((\w+)\)", str(node()["env"])))
    names |= {pair.partition("=")[0] for unit in UNITS for line in settings_of(unit)["Environment"] for pair in line.split()}
    assert names - VARIABLES.keys() == set()


def commands() -> Iterator[list[str]]:
    for container in (*pod()["initContainers"], node()):
        yield [*container["command"], *container["args"]]
    for unit in UNITS:
        yield from (line.split() for line in settings_of(unit)["ExecStart"])


def test_every_command_exists() -> None:
    assert [fault for words in commands() if (fault := find_fault(words))] == []
    assert [words for words in commands() if "--config" in words and words[words.index("--config") + 1] != "/etc/aibos-realtime/realtime.toml"] == []


# — systemd —


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_lets_a_node_drain_and_open_its_connections(unit: Path) -> None:
    settings = settings_of(unit)
    assert float(settings["TimeoutStopSec"][0]) > DRAIN
    config, _ = RealtimeConfig.load(file=DEPLOY / "realtime.toml", environment={}, env_file=None, authentication={"jwt_secret": SECRET})
    places = config.connections.max_connections
    assert places is not None and int(settings["LimitNOFILE"][0]) > 2 * places


def test_the_units_differ_in_the_instance_alone() -> None:
    plain, template = (unit.read_text()[unit.read_text().index("[Unit]") :] for unit in UNITS)
    template = template.replace("aibos-realtime on port %i", "aibos-realtime").replace("INSTANCE_ID=%H-%i", "INSTANCE_ID=%H")
    assert template.replace("%i", "3001") == plain


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not on this machine")
    copy = tmp_path / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", f"ExecStart={shutil.which('true')}", unit.read_text(), flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0 and unit.name not in done.stderr, done
    copy.write_text(copy.read_text() + "NoSuchSetting=yes\n")
    assert "NoSuchSetting" in subprocess.run(["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, timeout=30).stderr


# — Kubernetes —


@pytest.mark.parametrize("version", KUBERNETES)
def test_kubernetes_takes_the_resources(version: str) -> None:
    for one in resources():
        kubernetes_validate.validate(one, version, strict=True)
    one = resource("Deployment")
    one["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(one, version, strict=True)


def test_kubernetes_lets_a_node_drain() -> None:
    (sleep, seconds) = node()["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep" and pod()["terminationGracePeriodSeconds"] > float(seconds) + DRAIN
    assert float(seconds) > node()["readinessProbe"]["periodSeconds"]


def test_kubernetes_asks_for_readiness_and_for_life() -> None:
    assert node()["readinessProbe"]["httpGet"]["path"] == "/ready"
    assert node()["livenessProbe"]["httpGet"]["path"] == node()["startupProbe"]["httpGet"]["path"] == "/health"


def test_kubernetes_sets_no_variables_of_its_own() -> None:
    """A Service named `realtime` is announced as REALTIME_PORT, which is the server's."""
    assert resource("Service")["metadata"]["name"].upper() + "_PORT" in VARIABLES and pod()["enableServiceLinks"] is False


def test_what_the_pods_refer_to_is_there() -> None:
    assert resource("ConfigMap", "realtime-files")["data"]["realtime.toml"] == (DEPLOY / "realtime.toml").read_text()
    labels = resource("Deployment")["spec"]["template"]["metadata"]["labels"]
    selectors = [resource("Deployment")["spec"]["selector"]["matchLabels"], resource("Service")["spec"]["selector"]]
    assert [*selectors, resource("PodDisruptionBudget")["spec"]["selector"]["matchLabels"]] == [labels] * 3
    assert {port["name"] for port in node()["ports"]} == {port["targetPort"] for port in resource("Service")["spec"]["ports"]}
    assert len({container["image"] for container in (*pod()["initContainers"], node())}) == 1


# — the proxies' limits, against the server's —


@pytest.mark.parametrize(
    ("file", "limits"),
    [
        ("nginx/nginx.conf", r"proxy_(?:read|send)_timeout (\d+)s;"),
        ("haproxy/haproxy.cfg", r"timeout (?:tunnel|client|server) (\d+)s\b"),
        ("envoy/envoy.yaml", r"stream_idle_timeout: (\d+)s"),
    ],
)
def test_a_proxy_waits_longer_than_the_server(file: str, limits: str) -> None:
    """The server pings after an interval of silence, and gives up after the timeout: nobody else is to be faster."""
    found = [float(seconds) for seconds in re.findall(limits, (DEPLOY / file).read_text())]
    timeout = ConnectionOptions().heartbeat_timeout
    assert found and timeout is not None and min(found) > timeout


def test_a_proxy_takes_as_large_a_head_as_the_server() -> None:
    limits = LimitOptions()
    head = (limits.url_bytes + limits.headers_bytes) // 1024
    for file, line in [
        ("nginx/nginx.conf", f"large_client_header_buffers {head * 1024 // limits.header_bytes} {limits.header_bytes // 1024}k;"),
        ("caddy/Caddyfile", f"max_header_size {head}KiB"),
        ("envoy/envoy.yaml", f"max_request_headers_kb: {head}"),
    ]:
        assert line in (DEPLOY / file).read_text(), file
    (size,) = re.findall(r"tune.bufsize (\d+)", (DEPLOY / "haproxy/haproxy.cfg").read_text())
    assert head * 1024 < int(size) - 1024  # what it keeps for fields of its own


# — the pages —


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_snippet_is_of_a_file_that_is_tested(page: Path) -> None:
    """Such a block says which: ```nginx deploy/nginx/nginx.conf."""
    faults = []
    for block in read_blocks(page):
        if block.language in ("python", "bash", "console"):
            continue
        file = ROOT / block.marks
        lines = [line.strip() for line in block.code.splitlines() if line.strip()]
        there = [line.strip() for line in file.read_text().splitlines() if line.strip()] if block.marks and file.is_file() else []
        if not any(there[start : start + len(lines)] == lines for start in range(len(there) - len(lines) + 1)):
            faults.append(f"{block.where}: not in {block.marks or 'any file that is named'}")
    assert faults == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_a_page_exists(page: Path) -> None:
    """Also behind `sudo`, which `test_docs.py` does not look behind; and the files that it names."""
    commands = [words for block in select(page, "bash") for words in read_commands(block)]
    ours = [words[1:] for words in commands if words[0] == "sudo" and words[1].endswith("/aibos-realtime")]
    assert [fault for words in ours if (fault := find_fault(words))] == []
    assert [word for words in commands for word in words if word.startswith("deploy/") and not (ROOT / word).exists()] == []
