"""Where the client's token comes from: a text, or a callable that is asked before every attempt. It never gets into an error or a log."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import isawaitable

from ..clock import Clock
from ..errors import AuthenticationError, ConfigurationError, ConnectionError, ConnectTimeout, RealtimeError
from .deadline import deadline

Token = str | Callable[[], str | None] | Callable[[], Awaitable[str | None]]


class TokenSource:
    """The token of one client. `timeout`: seconds that a callable may take."""

    def __init__(self, token: Token | None, *, clock: Clock, timeout: float) -> None:
        if isinstance(token, str):
            if not is_token(token):
                raise ConfigurationError(
                    "client.token: a text without a token was given; allowed is one of printable ASCII characters, without spaces"
                )
        elif token is not None and not callable(token):
            raise ConfigurationError(f"client.token: {type(token).__name__} was given; allowed is a text, or a function that returns one")
        self._token = token
        self._clock = clock
        self._timeout = timeout

    @property
    def is_callable(self) -> bool:
        """Whether a new token can be had."""
        return callable(self._token)

    def replace(self, token: str) -> None:
        """Use this token from now on, unless a callable gives them."""
        if not callable(self._token):
            self._token = token

    async def get(self) -> str | None:
        """The token for the next attempt, None to connect without one.

        A callable that fails is a `ConnectionError` (to be tried again) with its exception as the cause; a `RealtimeError` of its own
        passes
        as it is. Too slow: `ConnectTimeout`. No usable text: `AuthenticationError`.
        """
        if self._token is None or isinstance(self._token, str):
            return self._token
        try:
            async with deadline(self._clock, self._timeout):
                given = self._token()
                token = await given if isawaitable(given) else given
        except RealtimeError:
            raise
        except TimeoutError:
            raise ConnectTimeout(f"The token function took longer than {self._timeout:g} seconds.") from None
        except Exception as error:
            raise ConnectionError(f"The token function failed with {type(error).__name__}.") from error
        if token is not None and not (isinstance(token, str) and is_token(token)):
            raise AuthenticationError("The token function returned no usable token.")
        return token


def is_token(text: str) -> bool:
    """Whether a text can stand in a header as a token (RFC 9110, section 11.2: no spaces, no control characters)."""
    return bool(text) and all("!" <= character <= "~" for character in text)
