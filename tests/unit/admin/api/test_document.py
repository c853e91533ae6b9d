"""The description of the API, and the page in the docs that says the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime.admin.api.app import create_routes
from aibos_realtime.admin.api.document import describe
from aibos_realtime.admin.api.problems import STATUSES, problem_of

DOCUMENT = describe(create_routes())
PAGE = (Path(__file__).parents[4] / "docs" / "reference" / "http-api.md").read_text()
OPERATIONS = {f"{method.upper()} {path}": operation for path, item in DOCUMENT["paths"].items() for method, operation in item.items()}


def schema(found: dict[str, Any]) -> dict[str, Any]:
    """What a reference leads to."""
    name = found["$ref"].rpartition("/")[2]
    shape: dict[str, Any] = DOCUMENT["components"]["schemas"][name]
    return shape


def rows(heading: str) -> list[list[str]]:
    text = PAGE.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if re.match(r"\| (`|\d)", line)]


def names(cell: str) -> set[str]:
    return set(re.findall(r"`([\w-]+)`", cell))


def test_every_operation_is_listed() -> None:
    assert [row[0].strip("`") for row in rows("Operations")] == list(OPERATIONS)


@pytest.mark.parametrize("row", rows("Operations"), ids=lambda row: row[0].strip("`"))
def test_what_an_operation_takes_and_answers(row: list[str]) -> None:
    operation = OPERATIONS[row[0].strip("`")]
    takes = {one["name"] for one in operation.get("parameters", []) if one["in"] != "path"}
    if "requestBody" in operation:
        takes |= set(schema(operation["requestBody"]["content"]["application/json"]["schema"])["properties"])
    values = {"newest", "outbox", "place"}
    assert names(row[1]) - values == takes
    if row[2] == "204":
        assert "204" in operation["responses"] and "content" not in operation["responses"]["204"]
    else:
        assert names(row[2]) == set(schema(operation["responses"]["200"]["content"]["application/json"]["schema"])["properties"])


def test_every_error_is_listed() -> None:
    listed = {(int(row[0]), code) for row in rows("Errors") for code in names(row[1])}
    told = {(found.status, found.code) for kind in STATUSES if (found := problem_of(kind()))}
    assert told - {(409, "room_not_found")} <= listed  # which is a room's own, of whatever kind
    assert {status for status, _ in listed} >= {
        int(status) for one in OPERATIONS.values() for status in one["responses"] if status >= "4" and status.isdigit()
    }


def test_every_operation_says_what_it_does_and_how_it_fails() -> None:
    problem = {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    for label, operation in OPERATIONS.items():
        assert operation["description"].endswith((".", "?")) and operation["summary"][0].isupper(), label
        if label != "GET /instances":
            assert {"401", "403", "422", "429", "500", "503", "default"} <= set(operation["responses"]), label
            assert all(found["content"] == problem for status, found in operation["responses"].items() if not status.startswith("2")), label
    assert len({operation["operationId"] for operation in OPERATIONS.values()}) == len(OPERATIONS)


def test_no_parameter_can_be_null() -> None:
    schemas = [parameter["schema"] for operation in OPERATIONS.values() for parameter in operation.get("parameters", [])]
    assert len(schemas) > 25 and all("type" in found and "null" not in repr(found) for found in schemas)


def test_every_reference_leads_somewhere_and_nothing_is_left_over() -> None:
    kept = set(DOCUMENT["components"]["schemas"])
    assert set(re.findall(r"#/components/schemas/(\w+)", repr(DOCUMENT))) == kept


def test_secrets_and_places_of_this_server_are_not_in_it() -> None:
    assert DOCUMENT["servers"] == [{"url": "v1"}]
    assert DOCUMENT["security"] == [{"token": []}, {"apiKey": []}] and set(DOCUMENT["components"]["securitySchemes"]) == {"token", "apiKey"}
