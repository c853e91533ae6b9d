"""What is used of others: every dependency has a reason and a lower bound, none is known to be vulnerable, and the audit sees what it looks for."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.test_house import ROOT, read_pins, show

MENDED = {
    "pyjwt": ("2.13", "CVE-2026-32597: `crit` was ignored; CVE-2026-48523: the list of algorithms was passed over"),
    "starlette": ("0.49.1", "CVE-2025-62727: a Range header took quadratic time"),
    "setuptools": ("78.1.1", "CVE-2025-47273: a path out of the folder for downloads"),
    "h11": ("0.16", "CVE-2025-43859: chunked bodies were read too kindly"),
    "redis": ("4.5.5", "CVE-2023-28858, CVE-2023-28859: after a cancelled command the next one got its answer"),
}
"""The first version without a vulnerability that we know of. Packages we declare may be no older, nor may what is locked."""


def requirements() -> list[tuple[Requirement, str]]:
    """Every requirement that stands in pyproject.toml, and what is said beside it."""
    text = (ROOT / "pyproject.toml").read_text()
    project = tomllib.loads(text)
    wanted = [*project["build-system"]["requires"], *project["project"]["dependencies"]]
    wanted += [line for group in project["project"]["optional-dependencies"].values() for line in group]
    comments = {line: text.splitlines()[number].partition("#")[2].strip() for line in wanted for number in [_line_of(text, line)]}
    return [(Requirement(line), comments[line]) for line in wanted if not line.startswith("aibos-realtime[")]


def _line_of(text: str, requirement: str) -> int:
    return next(number for number, line in enumerate(text.splitlines()) if f'"{requirement}"' in line)


def test_every_dependency_has_a_reason() -> None:
    show([f"{requirement}: why?" for requirement, reason in requirements() if not reason])


def test_every_dependency_has_a_lower_bound() -> None:
    unbound = [str(requirement) for requirement, _ in requirements() if not any(part.operator in (">=", "==") for part in requirement.specifier)]
    show([line for line in unbound if line != "types-pyyaml"])  # stubs: they follow what they describe


def test_nothing_known_to_be_vulnerable_is_allowed() -> None:
    faults = []
    for requirement, _ in requirements():
        mended, reason = MENDED.get(requirement.name, ("0", ""))
        lowest = max((Version(part.version) for part in requirement.specifier if part.operator in (">=", "==")), default=Version("0"))
        if lowest < Version(mended):
            faults.append(f"{requirement} allows what {mended} mended: {reason}")
    for lock in ("requirements.lock", "requirements-dev.lock"):
        for name, version in read_pins(lock).items():
            mended, reason = MENDED.get(name, ("0", ""))
            if Version(version) < Version(mended):
                faults.append(f"{lock} has {name} {version}, and {mended} mended: {reason}")
    show(faults)


def test_everything_locked_has_its_hashes() -> None:
    for lock in ("requirements.lock", "requirements-dev.lock"):
        text = re.sub(r"\\\n\s*", "", (ROOT / lock).read_text())
        show([line.split()[0] for line in text.splitlines() if re.match(r"[a-z]", line) and "--hash=sha256:" not in line])


@pytest.fixture(scope="module")
def audit() -> ModuleType:
    spec = importlib.util.spec_from_file_location("audit", ROOT / "scripts" / "audit.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["audit"] = module
    spec.loader.exec_module(module)
    return module


def test_a_known_vulnerability_is_found(audit: ModuleType) -> None:
    packages = [
        {"name": "good", "version": "1", "vulns": []},
        {"name": "bad", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}, {"id": "CVE-2", "fix_versions": []}]},
    ]
    lines, count = audit.read_audit("a.lock", json.dumps({"dependencies": packages}))
    assert count == 2
    assert lines[0] == "audit: a.lock: bad 2 has CVE-1, mended in 3"
    assert lines[1] == "audit: a.lock: bad 2 has CVE-2, mended in no version yet"
    assert lines[2:] == ["audit: a.lock: 2 of 2 packages were looked up, 2 known vulnerabilities"]


def test_what_could_not_be_looked_up_is_said(audit: ModuleType) -> None:
    lines, count = audit.read_audit("a.lock", json.dumps({"dependencies": [{"name": "x", "skip_reason": "not there"}]}))
    assert count == 0
    assert lines[0] == "audit: a.lock: 0 of 1 packages were looked up, 0 known vulnerabilities"
    assert "NOT LOOKED UP" in lines[1]
    assert audit.read_audit("a.lock", "no JSON") == ([], 0)


SECRETS = {
    "a password in a URL": 'DATABASE = "postgresql://owner:{}@db.internal/app"',
    "a password in a variable": 'password = "{}"',
    "a token": 'given = "' + "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9" + '.eyJzdWIiOiJ1c2VyXzEiLCJuIjoxMjM0NTY3ODkwfQ.{}"',
    "a private key": "-----BEGIN RSA PRIVATE " + "KEY-----\n{}",
}


@pytest.mark.parametrize("kind", SECRETS)
def test_a_secret_in_a_file_is_found(audit: ModuleType, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "settings.py"
    path.write_text("nothing = 1\n" + SECRETS[kind].format("Zk3vPq9xLw7RtY2m") + "\n")
    found = audit._scan(str(path))
    assert [(secret.path, secret.line) for secret in found][:1] == [(str(path), 2)]
    assert "Zk3vPq9xLw7RtY2m" not in repr(found)


def test_what_is_nobodys_secret_is_not_found(audit: ModuleType, tmp_path: Path) -> None:
    path = tmp_path / "settings.py"
    path.write_text('DATABASE = "postgresql://owner:PASSWORD@db.internal/app"\npassword = "hunter2"\n')
    assert audit._scan(str(path)) == []


def test_a_part_that_does_not_exist_is_refused(audit: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.main(["secret"]) == 2
    assert "there is no part secret; there are vulnerabilities, secrets" in capsys.readouterr().err
