"""The command that a reader can copy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from aibos_realtime.cli.program import program


def make_executable(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    return path


def test_the_bare_name_where_the_path_leads_to_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = make_executable(folder / "bin" / "aibos-realtime")
    monkeypatch.setenv("PATH", str(script.parent))
    monkeypatch.setattr(sys, "argv", [str(script), "serve"])
    assert program() == "aibos-realtime"


def test_the_path_as_called_where_another_or_none_is_on_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_executable(folder / ".venv" / "bin" / "aibos-realtime")
    monkeypatch.setattr(sys, "argv", [".venv/bin/aibos-realtime"])
    monkeypatch.setenv("PATH", "/nowhere")
    assert program() == ".venv/bin/aibos-realtime"
    monkeypatch.setenv("PATH", str(make_executable(folder / "other" / "aibos-realtime").parent))
    assert program() == ".venv/bin/aibos-realtime"


def test_in_the_folder_itself_and_with_a_blank_in_the_path(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(sys, "argv", ["./aibos-realtime"])
    assert program() == "./aibos-realtime"
    monkeypatch.setattr(sys, "argv", [str(folder.parent / "my tools" / "aibos-realtime")])
    assert program() == f"'{folder.parent / 'my tools' / 'aibos-realtime'}'"


def test_as_a_module_the_python_of_the_environment_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    python = folder / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "argv", ["/somewhere/aibos_realtime/__main__.py"])
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", str(Path(sys.base_prefix) / "bin"))
    assert program() == ".venv/bin/python -m aibos_realtime"


def test_under_another_program_the_name_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for called in ("/usr/bin/pytest", "/usr/lib/pytest/__main__.py", ""):
        monkeypatch.setattr(sys, "argv", [called])
        assert program() == "aibos-realtime"
