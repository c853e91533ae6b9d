"""The vectors of `spec/vectors/`, as the tests read them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[2] / "spec" / "vectors"

Vector = dict[str, Any]


def load(name: str, group: str) -> list[Vector]:
    """One list of a file. Names in it are unique."""
    vectors: list[Vector] = json.loads((FOLDER / name).read_text())[group]
    names = [vector.get("name", vector.get("code")) for vector in vectors]
    assert len(set(names)) == len(names) > 0
    return vectors


def name_of(vector: Vector) -> str:
    return str(vector["name"])


def json_bytes(vector: Vector) -> bytes | None:
    """The JSON form: as text, or in hexadecimal where it is none."""
    if "jsonHex" in vector:
        return bytes.fromhex(vector["jsonHex"])
    return vector["json"].encode() if "json" in vector else None


def msgpack_bytes(vector: Vector) -> bytes | None:
    return bytes.fromhex(vector["msgpack"]) if "msgpack" in vector else None
