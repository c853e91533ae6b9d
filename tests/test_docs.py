"""Every example in README.md and docs/ runs.

A ```python block is run: the blocks of a page in order, in one namespace, in an empty folder, with JWT_SECRET set, `await` allowed outside
functions too.
The commands of a ```bash or ```console block are not run, but each must exist: the make target, the subcommand and its options, the file.
A block that cannot be tested says why: ```python no-run: needs the reader's own domain
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from itertools import dropwhile
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [page for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))] if page.exists()]
SHELL = ("bash", "console", "sh", "shell")
READERS_OWN = set("apt apt-get cd curl docker export git node npm openssl pip pipx redis-server sudo uv".split())


@dataclass(frozen=True)
class Block:
    page: Path
    line: int  # of the first line of code
    language: str
    marks: str
    code: str

    @property
    def where(self) -> str:
        return f"{self.page.name}:{self.line}"


def read_blocks(page: Path) -> list[Block]:
    text = page.read_text()
    blocks = []
    for found in re.finditer(r"^([ \t]*)(`{3,})(\w*)[ \t]*(.*)\n((?:.*\n)*?)[ \t]*\2[ \t]*$", text, re.MULTILINE):
        indent, _, language, marks, code = found.groups()
        lines = [line.removeprefix(indent) for line in code.splitlines(keepends=True)]
        blocks.append(Block(page, text.count("\n", 0, found.start(5)) + 1, language, marks.strip(), "".join(lines)))
    return blocks


def select(page: Path, *languages: str) -> list[Block]:
    blocks = [block for block in read_blocks(page) if block.language in languages]
    for block in blocks:
        if "no-run" in block.marks and not re.search(r"no-run: *\S{2,}", block.marks):
            pytest.fail(f"{block.where}: `no-run` needs a reason after a colon")
    return [block for block in blocks if "no-run" not in block.marks]


def run_blocks(blocks: list[Block], name: str) -> None:
    """Runs the blocks as one module on one event loop. The module is findable by name, which typed payloads need."""
    module = sys.modules[name] = ModuleType(name)
    try:
        with asyncio.Runner() as runner:
            for block in blocks:
                tree = ast.parse("\n" * (block.line - 1) + block.code, str(block.page))
                code = compile(tree, str(block.page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(code, module.__dict__))
                else:
                    exec(code, module.__dict__)
    finally:
        del sys.modules[name]


@cache
def help_of(*subcommand: str) -> str | None:
    environment = {**os.environ, "COLUMNS": "300", "TERM": "dumb", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "aibos_realtime", *subcommand, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=20)
    return done.stdout if done.returncode == 0 else None


def read_commands(block: Block) -> list[list[str]]:
    """The words of each command: in a console block only the lines after a prompt are commands, the others are output."""
    text = re.sub(r"\\\n\s*", "", block.code)
    lines = [line.strip() for line in text.splitlines()]
    if block.language == "console":
        lines = [line[2:] for line in lines if line.startswith(("$ ", "# "))]
    parts = (part for line in lines for part in re.split(r"\s(?:&&|\|\|?|;)\s", line))
    commands = [shlex.split(re.sub(r"\$\((.*?)\)", "SUBSTITUTED", part), comments=True) for part in parts]
    return [words for command in commands if (words := list(dropwhile(lambda word: re.fullmatch(r"\w+=.*", word), command)))]


def find_fault(words: list[str]) -> str | None:
    """Why this command would not work for a reader, or None."""
    program, *arguments = words
    plain = [word for word in arguments if not word.startswith("-") and "=" not in word and word != "&"]
    if program == "make":
        targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        return next((f"the Makefile has no target {word}" for word in plain if word not in targets), None)
    if program.endswith("aibos-realtime"):
        text = help_of(*plain[:2])  # two words for `queue stats`; after any other subcommand the second one changes nothing
        if text is None:
            return f"there is no subcommand {' '.join(plain[:1])}"
        options = [word.split("=")[0] for word in arguments if word.startswith("--")]
        return next((f"{' '.join(plain[:1])} has no option {option}" for option in options if option not in text), None)
    if re.fullmatch(r"(.*/)?python3?", program):
        script = arguments[0] if arguments else ""
        return f"there is no file {script}" if script.endswith(".py") and not (ROOT / script).exists() else None
    if "/" in program:
        return None if program.startswith(".venv/") or (ROOT / program).exists() else f"there is no file {program}"
    return None if program in READERS_OWN or shutil.which(program) else f"{program} is no program that a reader has"


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in page.read_text()], ids=page_name)
def test_python_examples_run(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JWT_SECRET", "only-for-the-examples-in-the-docs")
    run_blocks(select(page, "python"), "docs_" + re.sub(r"\W", "_", page_name(page)))


@pytest.mark.parametrize("page", [page for page in PAGES if re.search(f"```({'|'.join(SHELL)})", page.read_text())], ids=page_name)
def test_commands_exist(page: Path) -> None:
    faults = [f"{block.where}: {fault}" for block in select(page, *SHELL) for words in read_commands(block) if (fault := find_fault(words))]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", page.read_text())
    targets = [target for target in re.findall(r"\]\(([^)\s#]+)[^)]*\)", text) if not re.match(r"\w+:", target)]
    assert not [target for target in targets if not (page.parent / target).exists()]


def test_readme_shows_the_two_commands_and_an_example_that_runs() -> None:
    blocks = read_blocks(ROOT / "README.md")
    commands = [" ".join(words) for block in blocks if block.language in SHELL for words in read_commands(block)]
    assert {"make serve", "make test"} <= set(commands)
    assert select(ROOT / "README.md", "python")


class TestTheseChecks:
    """They can fail."""

    def write(self, folder: Path, text: str) -> Path:
        page = folder / "page.md"
        page.write_text(text)
        return page

    def test_a_failing_block_fails_at_its_line(self, tmp_path: Path) -> None:
        page = self.write(tmp_path, "# Page\n\n```python\nx = 1\n```\n\ntext\n\n1. item\n   ```python\n   await asyncio.sleep(0)\n   ```\n")
        with pytest.raises(NameError) as failure:
            run_blocks(select(page, "python"), "docs_page")
        assert failure.traceback[-1].lineno == 10 and str(failure.traceback[-1].path) == str(page)

    def test_blocks_share_names_and_one_loop(self, tmp_path: Path) -> None:
        first = "import asyncio\nasync def which(): return asyncio.get_running_loop()\nloop = await which()\n"
        page = self.write(tmp_path, f"```python\n{first}```\n```python\nassert await which() is loop\n```\n")
        run_blocks(select(page, "python"), "docs_page")

    def test_no_run_needs_a_reason(self, tmp_path: Path) -> None:
        assert select(self.write(tmp_path, "```python no-run: needs your domain\n1 / 0\n```\n"), "python") == []
        with pytest.raises(pytest.fail.Exception, match="needs a reason"):
            select(self.write(tmp_path, "```python no-run\n1 / 0\n```\n"), "python")

    def test_commands_are_read(self, tmp_path: Path) -> None:
        text = "```console\n$ make serve   # starts\nlistening\n$ A=1 make test && cd x\n```\n```bash\nexport T=$(a b)\ncurl \\\n  x\n```\n"
        commands = [words for block in read_blocks(self.write(tmp_path, text)) for words in read_commands(block)]
        assert commands == [["make", "serve"], ["make", "test"], ["cd", "x"], ["export", "T=SUBSTITUTED"], ["curl", "x"]]

    @pytest.mark.parametrize(
        "command",
        ["make sreve", "aibos-realtime sreve", "aibos-realtime serve --prot 1", "python examples/none.py", "./none", "no-such-program"],
    )
    def test_a_command_that_is_not_there_is_found(self, command: str) -> None:
        assert find_fault(command.split()) is not None

    def test_a_command_that_is_there_is_passed(self) -> None:
        assert find_fault(["make", "serve", "PYTHON=python3.12"]) is None
        assert find_fault(["aibos-realtime", "serve", "--demo", "--port", "0"]) is None
