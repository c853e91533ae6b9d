from __future__ import annotations

import asyncio
from typing import Any

import pytest

from aibos_realtime.client.tokens import TokenSource, is_token
from aibos_realtime.errors import AuthenticationError, ConnectionError, ConnectTimeout
from aibos_realtime.testing.clock import ManualClock


def source(token: Any) -> TokenSource:
    return TokenSource(token, clock=ManualClock(), timeout=10.0)


async def test_a_text_is_the_token() -> None:
    one = source("abc")
    assert (await one.get(), one.is_callable) == ("abc", False)
    one.replace("def")
    assert await one.get() == "def"


async def test_nothing_is_no_token() -> None:
    assert await source(None).get() is None


async def test_functions_of_both_kinds_are_asked_each_time() -> None:
    tokens = iter("abcd")

    async def ask() -> str:
        return next(tokens)

    plain, awaited = source(lambda: next(tokens)), source(ask)
    assert [await plain.get(), await awaited.get(), await plain.get()] == ["a", "b", "c"]
    plain.replace("x")
    assert plain.is_callable and await plain.get() == "d"


@pytest.mark.parametrize("given", ["", "a b", 5, b"abc"])
async def test_a_function_that_returns_no_token(given: Any) -> None:
    with pytest.raises(AuthenticationError):
        await source(lambda: given).get()


async def test_a_function_that_fails_may_be_asked_again_and_its_words_stay_with_it() -> None:
    def fail() -> str:
        raise ValueError("secret-of-the-endpoint")

    with pytest.raises(ConnectionError) as caught:
        await source(fail).get()
    assert caught.value.retryable
    assert "secret" not in str(caught.value)
    assert isinstance(caught.value.__cause__, ValueError)


async def test_an_error_of_ours_passes_as_it_is() -> None:
    error = AuthenticationError("logged out")

    def refuse() -> str:
        raise error

    with pytest.raises(AuthenticationError) as caught:
        await source(refuse).get()
    assert caught.value is error


async def test_a_function_that_hangs_is_left() -> None:
    clock = ManualClock()

    async def hang() -> str:
        await asyncio.Event().wait()
        return ""

    task = asyncio.create_task(TokenSource(hang, clock=clock, timeout=10.0).get())
    await clock.advance(10.0)
    with pytest.raises(ConnectTimeout, match="10 seconds"):
        await task


def test_tokens_fit_a_header() -> None:
    assert [text for text in ("abc.def-_~+/=", "", "a b", "a\n", "\x7f", "ä") if is_token(text)] == ["abc.def-_~+/="]
