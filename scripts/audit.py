"""Looks for known vulnerabilities in the locked packages (pip-audit) and for secrets that were committed (detect-secrets): `make audit`.

    python scripts/audit.py [vulnerabilities] [secrets]

Exit: 0 nothing found, 1 something found. Where the service that knows of vulnerabilities cannot be asked (no network, a mirror without it), nothing
is proven, which is said, and is no failure; `tests/test_supply_chain.py` holds every version above those that are known to be bad all the same.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
LOCKS = ("requirements-dev.lock",)  # has all of requirements.lock, which a test compares

NOT_READ = re.compile(
    r"\.lock$|package-lock\.json$|\.(png|svg|ico|woff2?)$"  # hashes and pictures
    r"|^src/aibos_realtime/admin/(page/vendor/|api/docs/swagger-ui)"  # of others, as they gave it out
    r"|^spec/vectors/|^tests/unit/protocol/test_frames|^tests/fuzz/corpus/"  # frames in hexadecimal, and tokens signed with the keys below
)
HARMLESS = re.compile(
    r"(?i)pass(word)?|pw|secret|hidden|short|wrong|payload|hunter2.*|s(@|%40)cret(/|%2f)?|your_jwt_secret"  # words in the place of a password
    r"|.*\bonly[- ]for\b.*|.*\b(these|this)[- ]tests?\b.*|.*\b(faults rig|attacked server|of the model|of-the-soak)\b.*"
    r"|benchmark-secret-.*|another secret, just as long.*"
    r"|k7Qz-0pLr5Tn2Wx8"  # the beginning of the key of the unit tests
    r"|authentication\.jwt_secret|http\.api_keys|.*hunter2@.*"  # names of options; URLs with such a password
    r"|s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=|dGhlIHNhbXBsZSBub25jZQ=="  # RFC 6455, section 1.3
    r"|09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"  # the key in FastAPI's tutorial: refused at the start (auth/keys.py)
    r"|eyJhbGciOiJIUzI1NiJ9\.(e30|eyJzdWIiOiJhbm4ifQ)\.x?"  # tokens that say nothing
)
"""Values that are nobody's secret. Whole values only."""


class Secret(NamedTuple):
    """Something that looks like one. Its value is kept out of what is printed."""

    path: str
    line: int
    kind: str


def main(parts: list[str]) -> int:
    looks = {"vulnerabilities": audit_packages, "secrets": audit_files}
    if unknown := set(parts) - set(looks):
        print(f"audit: there is no part {', '.join(sorted(unknown))}; there are {', '.join(looks)}", file=sys.stderr)
        return 2
    return int(sum(looks[part]() for part in parts or looks) > 0)


# — known vulnerabilities —


def audit_packages() -> int:
    """How many vulnerabilities are known; prints them."""
    found = 0
    for lock in LOCKS:
        command = [sys.executable, "-m", "pip_audit", "-r", lock, "--no-deps", "--disable-pip", "--progress-spinner", "off", "-f", "json"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
        lines, count = read_audit(lock, done.stdout)
        print("\n".join(lines or [f"audit: {lock}: pip-audit did not run: {done.stderr.strip().splitlines()[-1:]}"]))
        found += count
    return found


def read_audit(name: str, output: str) -> tuple[list[str], int]:
    """What pip-audit's JSON says, in lines, and how many vulnerabilities that is. No lines: it says nothing."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        return [], 0
    bad = [(package, vulnerability) for package in packages for vulnerability in package.get("vulns", ())]
    asked = [package for package in packages if "skip_reason" not in package]
    lines = [
        f"audit: {name}: {package['name']} {package['version']} has {vulnerability['id']},"
        f" mended in {', '.join(vulnerability['fix_versions']) or 'no version yet'}"
        for package, vulnerability in bad
    ]
    lines.append(f"audit: {name}: {len(asked)} of {len(packages)} packages were looked up, {len(bad)} known vulnerabilities")
    if len(asked) < len(packages):
        lines.append("audit: NOT LOOKED UP are the others: the service that knows of vulnerabilities did not answer for them")
    return lines, len(bad)


# — secrets —


def audit_files() -> int:
    """How many secrets the committed files have; prints where, not what."""
    paths = [path for path in list_files() if not NOT_READ.search(path)]
    found = find_secrets(paths)
    for secret in found:
        print(f"audit: {secret.path}:{secret.line}: {secret.kind}")
    print(f"audit: {len(paths)} files, {len(found)} secrets" + (": if it is none, say so in HARMLESS (scripts/audit.py)" if found else ""))
    return len(found)


def list_files() -> list[str]:
    """The files that git has, and those that it would take, by their names from the root."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return sorted(name for name in names if name and (ROOT / name).is_file())


def find_secrets(paths: Iterable[str]) -> list[Secret]:
    """Read these files of the repository, or any by their absolute names."""
    names = list(paths)
    with ProcessPoolExecutor(max_workers=2) as pool:
        return [secret for found in pool.map(_scan, names[::2] + names[1::2], chunksize=max(1, len(names) // 8)) for secret in found]


def _scan(path: str) -> list[Secret]:
    return list(_found_in(path))


def _found_in(path: str) -> Iterator[Secret]:
    from detect_secrets.core.scan import scan_file
    from detect_secrets.settings import default_settings

    with default_settings():
        for secret in scan_file(str(ROOT / path)):
            if not HARMLESS.fullmatch(secret.secret_value or ""):
                yield Secret(path, secret.line_number, secret.type)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
