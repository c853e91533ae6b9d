"""Fuzzing by coverage: `python -m tests.fuzz [TARGET …]`.

python -m tests.fuzz                              all targets one after the other, 600 s each; TARGET … some of them
python -m tests.fuzz client --seconds 60 --seed 7
python -m tests.fuzz --replay FILE …              inputs that were found, by name TARGET-…, or in a folder of that name
python -m tests.fuzz --keep FOLDER                inputs for more coverage are kept there, and read again by the next run

It ends with 1 if anything was found. Without atheris (it has wheels for CPython on Linux) hypothesis makes the inputs, and nothing guides it.
"""

from __future__ import annotations

import argparse
import importlib.util
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from tests.arguments import count

from .seeds import DICTIONARY, seeds
from .targets import TARGETS

ENDED = re.compile(r"#(\d+).*?cov: (\d+) ft: (\d+)")


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=count, default=600, help="for each target")
    parser.add_argument("--seed", type=int, default=1, help="of the search")
    parser.add_argument("--keep", type=Path, help="folder for inputs that reach something new")
    parser.add_argument("--replay", nargs="+", type=Path, metavar="FILE", help="run these inputs, and nothing else")
    given = parser.parse_args(arguments)
    if given.replay:
        return replay(given.replay)
    if unknown := set(given.targets) - TARGETS.keys():
        parser.error(f"there is no target {min(unknown)}; there are: {', '.join(TARGETS)}")
    if importlib.util.find_spec("atheris") is None:
        print("atheris is not installed: inputs come from the corpus and from hypothesis, and no coverage guides them.", flush=True)
        run = search_blindly
    else:
        run = search
    findings = Path(tempfile.mkdtemp(prefix="fuzz-"))
    return max([run(name, given.seconds, given.seed, findings, given.keep) for name in given.targets or TARGETS])


def search(name: str, seconds: int, seed: int, findings: Path, keep: Path | None) -> int:
    """Under atheris. Prints what was found, and how much was run."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, given, words = Path(folder, "kept"), Path(folder, "given"), Path(folder, "words")
        given.mkdir()
        for number, data in enumerate(seeds(name)):
            (given / str(number)).write_bytes(data)
        if keep is not None:
            corpus = keep / name
        corpus.mkdir(parents=True, exist_ok=True)
        words.write_text("\n".join(f'"{"".join(f"{chr(92)}x{byte:02x}" for byte in word)}"' for word in DICTIONARY) + "\n")
        options = [f"-max_total_time={seconds}", f"-seed={seed}", f"-dict={words}", "-max_len=4096", "-timeout=20", "-rss_limit_mb=2048"]
        options += [f"-artifact_prefix={findings}/{name}-", str(corpus), str(given)]
        began = time.monotonic()
        command = [sys.executable, "-m", "tests.fuzz.engine", name, str(findings), *options]
        process = subprocess.run(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, errors="replace", check=False)
    progress = [found for line in process.stderr.splitlines() if (found := ENDED.match(line))]
    runs, edges, features = progress[-1].groups() if progress else ("0", "0", "0")
    print(f"{name}: {int(runs):,} runs in {time.monotonic() - began:.0f} s, {edges} edges, {features} features", flush=True)
    return report(name, findings, process.stderr if process.returncode or "FOUND" in process.stderr else "", process.returncode)


def report(name: str, findings: Path, told: str, code: int = 0) -> int:
    """Say what was found; 1 if anything was."""
    found = sorted(findings.glob(f"{name}-*"))
    for line in re.findall(r"^FOUND .*\n.*", told, re.MULTILINE):
        print(line)
    if code and not found:
        print(told[-3000:])
    for path in found:
        print(f"  python -m tests.fuzz --replay {path}")
    return 1 if found or code else 0


def search_blindly(name: str, seconds: int, seed: int, findings: Path, keep: Path | None) -> int:
    """What hypothesis finds in the same time, from the same beginnings."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    count, until = 0, time.monotonic() + seconds

    @seeded(seed)
    @settings(max_examples=10**9, deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.binary(max_size=2000) | st.builds(bytes.__add__, st.sampled_from(list(seeds(name)) or [b""]), st.binary(max_size=50)))
    def one_input(data: bytes) -> None:
        nonlocal count
        if time.monotonic() > until:
            raise TimeoutError
        count += 1
        try:
            TARGETS[name](data)
        except Exception:
            (findings / f"{name}-{count}").write_bytes(data)

    try:
        one_input()
    except TimeoutError:
        pass
    print(f"{name}: {count:,} runs in {seconds} s, without guidance", flush=True)
    return report(name, findings, "")


def replay(paths: Sequence[Path]) -> int:
    """Run inputs again; the first that fails raises what it found."""
    for path in paths:
        name = path.parent.name if path.parent.name in TARGETS else path.name.partition("-")[0]
        print(f"{name}: {path}", flush=True)
        TARGETS[name](path.read_bytes())
    print("nothing was found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
