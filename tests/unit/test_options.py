"""A mistake in an option becomes a sentence with its dotted path, what was given, what is allowed, and no secret."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import Field, SecretStr

from aibos_realtime.config import RealtimeConfig
from aibos_realtime.errors import ConfigurationError
from aibos_realtime.options import Count, Options, Seconds, shown


class Inner(Options):
    interval: Seconds = 30.0
    limit: Count | None = 5
    password: SecretStr | None = None


class Outer(Options):
    inner: Inner = Field(default_factory=Inner)
    maybe: Inner | None = None
    many: dict[str, Inner] = Field(default_factory=dict)
    url: str = "x"


def told(value: Any, path: str = "outer", model: type[Options] = Outer) -> str:
    with pytest.raises(ConfigurationError) as caught:
        model.parse(path, value)
    assert caught.value.__cause__ is None and (caught.value.__suppress_context__ or caught.value.__context__ is None)
    return str(caught.value)


def test_a_mapping_a_model_and_nothing() -> None:
    model = Outer.parse("outer", {"inner": {"interval": 3}, "maybe": Inner(limit=None)})
    assert (model.inner.interval, model.maybe) == (3.0, Inner(limit=None))
    assert Outer.parse("outer", model) is model and Outer.parse("outer", None) == Outer()


def test_durations_are_seconds_or_timedeltas() -> None:
    assert Inner.parse("x", {"interval": timedelta(minutes=1)}).interval == 60.0
    for wrong in (0, -1, timedelta(0), float("nan"), float("inf"), "soon"):
        assert told({"inner": {"interval": wrong}}).startswith("outer.inner.interval: ")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"innr": {}}, "outer.innr: there is no such option; did you mean 'inner'?"),
        ({"zzz": 1}, "outer.zzz: there is no such option; allowed: inner, maybe, many, url"),
        ({"inner": {"intervall": 3}}, "outer.inner.intervall: there is no such option; did you mean 'interval'?"),
        ({"maybe": {"limits": 3}}, "outer.maybe.limits: there is no such option; did you mean 'limit'?"),
        ({"inner": {"limit": 0}}, "outer.inner.limit: 0 was given; allowed is greater than or equal to 1"),
        ({"inner": {"limit": [1]}}, "outer.inner.limit: [1] was given; allowed is a valid integer"),
        ({"many": {"a": {"limits": 0}}}, "outer.many.a.limits: there is no such option; did you mean 'limit'?"),
        ({"many": {"a": 5.0}}, "outer.many.a: a float was given; allowed is a mapping"),
        ({"inner": 5.0}, "outer.inner: a float was given; allowed is a mapping of options (interval, limit, password)"),
        ({"url": 5}, "outer.url: 5 was given; allowed is a valid string"),
        ({"many": {"a": {"limit": 0}}}, "outer.many.a.limit: 0 was given; allowed is greater than or equal to 1"),
        ([], "outer: a list was given; allowed is a mapping of options (inner, maybe, many, url)"),
    ],
)
def test_the_sentence(value: Any, said: str) -> None:
    assert told(value) == said


def test_each_mistake_has_a_line_of_its_own() -> None:
    assert len(told({"innr": 1, "url": 5}).splitlines()) == 2


def test_at_the_top_there_is_no_path() -> None:
    assert told({"url": 5}, path="").startswith("url: 5 was given")


def test_models_are_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        Outer().url = "y"  # type: ignore[misc]


SECRET = "postgresql://owner:hunter2@db.internal/app"


SECRETS: list[Any] = [{"inner": {"password": 5}}, {"inner": {"password": [SECRET]}}, {"inner": SECRET}, {"maybe": SECRET}, SECRET]
SECRETS += [{"many": SECRET}, {"many": {"a": SECRET}}, {"inner": [SECRET]}, {"many": {"a": {"password": [SECRET]}}}]


@pytest.mark.parametrize("value", SECRETS)
def test_no_secret_is_echoed(value: Any) -> None:
    text = told(value)
    assert "hunter2" not in text and "outer" in text


@pytest.mark.parametrize("keywords", [{"authentication": "hunter2"}, {"persistence": {"database": SECRET}}, {"persistence": SECRET}])
def test_a_secret_in_the_place_of_a_group_is_not_echoed(keywords: dict[str, Any]) -> None:
    assert "hunter2" not in told(keywords, "", RealtimeConfig)


def test_a_long_value_is_cut() -> None:
    assert len(shown("x" * 500)) <= 60 and shown(SecretStr("hunter2")) == "a secret"


UNSHOWN = (10**5000, [10**5000], "k7Qz-0pLr5Tn2Wx8" * 2, "redis://u:pw@h", "postgresql://h/db?password=pw", {"k7Qz-0pLr5Tn2Wx8" * 2: 1})


@pytest.mark.parametrize("value", UNSHOWN, ids=["digits", "digits in a list", "key", "URL", "query", "name"])
def test_what_is_not_shown(value: object) -> None:
    """The URL of the database, put into REALTIME_PORT by mistake, was printed with its password. A number of 5,000 digits ended in a traceback."""
    assert shown(value) in ("a number that is not shown", "a text that is not shown", "a list that is not shown", "a mapping that is not shown")
    assert shown("eighty") == "'eighty'" and shown(["a", 5]) == "['a', 5]" and shown("https://app.example/x") == "'https://app.example/x'"


def test_the_name_of_an_option_may_be_a_secret_too() -> None:
    with pytest.raises(ConfigurationError) as caught:
        RealtimeConfig.parse("", {"queue": {"redis://u:hunter2@h": 1, "x": 2}})
    assert "hunter2" not in str(caught.value) and "queue.…: there is no such option" in str(caught.value) and "queue.x" in str(caught.value)
