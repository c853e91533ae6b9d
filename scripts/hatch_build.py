"""Builds the compiled part (`native/`) into the wheel, or beside the sources of an editable install.

It is optional: without a C compiler, or with AIBOS_REALTIME_PURE=1 in the environment, the wheel is pure Python, and everything works.
"""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

MODULE = "aibos_realtime.transport.compiled"
SOURCES = ("native/fanout.c",)
HEADERS = ("native/ring.h",)
FLAGS = ("-O2", "-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-missing-field-initializers")


class CustomBuildHook(BuildHookInterface):
    """Hatchling's name for a hook in a file of the project."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Before the wheel is put together. `version`: `standard` or `editable`."""
        self._folder = Path(tempfile.mkdtemp(prefix="aibos-realtime-build-"))
        if os.environ.get("AIBOS_REALTIME_PURE"):
            return
        built = compile_module(Path(self.root), self._folder)
        if built is None:
            self.app.display_warning("the compiled part was not built (no C compiler, or no headers of Python?): this is pure Python")
            return
        target = Path(*MODULE.split(".")).with_name(built.name)
        if version == "editable":
            replace(built, Path(self.root, "src", target))
        else:
            build_data["force_include"][str(built)] = str(target)
            build_data["pure_python"] = False
            build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """After it was put together."""
        shutil.rmtree(self._folder, ignore_errors=True)


def compile_module(root: Path, folder: Path) -> Path | None:
    """The shared object, in this folder; None where it cannot be built."""
    from setuptools import Distribution, Extension
    from setuptools.errors import CCompilerError, ExecError, PlatformError

    name = MODULE.rpartition(".")[2]
    sources, headers = [str(root / source) for source in SOURCES], [str(root / header) for header in HEADERS]
    extension = Extension(name, sources, depends=headers, extra_compile_args=list(FLAGS))
    command = Distribution({"name": name, "ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(folder), str(folder / "objects")
    try:
        command.ensure_finalized()
        command.run()
    except (CCompilerError, ExecError, PlatformError, OSError):
        return None
    return folder / (name + str(sysconfig.get_config_var("EXT_SUFFIX")))


def replace(built: Path, target: Path) -> None:
    """Put a file in another's place at once: a process that has the old one loaded keeps it."""
    beside = target.with_suffix(".new")
    shutil.copyfile(built, beside)
    beside.replace(target)
