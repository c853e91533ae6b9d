"""The page on security against the code: every default that it names, every configuration that it says is refused."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest

from aibos_realtime import ConfigurationError, RealtimeServer
from aibos_realtime.cli.exposures import EXPOSURES, find_exposures
from aibos_realtime.config import RealtimeConfig
from tests.test_reference import defaults, rows

PAGE = (Path(__file__).parents[1] / "docs" / "explanation" / "security.md").read_text()
KEY = "only for these tests, of 32 bytes or more"


def table(heading: str) -> list[list[str]]:
    """The rows of the first table below a line."""
    found = re.search(rf"^\| {re.escape(heading)}.*?(?=\n\n|\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found is not None
    return rows(found[0])


DEFAULTS = {cells[0].strip("`"): cells[1] for cells in table("option | default")}
REFUSED = [(cells[0].strip("`"), cells[1]) for cells in table("configuration | refused with")]


def test_every_default_is_as_the_page_says() -> None:
    found = dict(defaults(RealtimeConfig)) | {"tls": "none"}
    assert DEFAULTS == {option: found[option] for option in DEFAULTS}


def test_what_check_warns_of_has_its_row() -> None:
    groups = {option.partition(".")[0] for option in DEFAULTS}
    assert [exposure.option for exposure in EXPOSURES if exposure.option not in DEFAULTS and exposure.option not in groups] == []


def test_a_server_with_a_key_and_nothing_else_gives_up_only_tls() -> None:
    config = RealtimeConfig.parse("", {"authentication": {"jwt_secret": KEY}})
    assert [exposure.option for exposure in find_exposures(config)] == ["tls"]


@pytest.mark.parametrize(("configuration", "says"), REFUSED)
def test_what_is_refused_at_the_start(configuration: str, says: str) -> None:
    given: dict[str, Any] = ast.literal_eval(configuration.replace("KEY", repr(KEY)))
    with pytest.raises(ConfigurationError) as caught:
        RealtimeServer(**{"persistence": {"database": {"url": "memory://"}}, **given})
    assert str(caught.value).startswith(says)


def test_the_tables_are_read() -> None:
    assert len(DEFAULTS) > 15 and len(REFUSED) > 8
