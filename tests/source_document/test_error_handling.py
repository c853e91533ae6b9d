"""The source document, "Error Handling"."""

from __future__ import annotations

import pytest

from aibos_realtime import AuthenticationError, ConnectionError, RealtimeClient, RealtimeError, RealtimeServer
from tests.contracts.peer import SECRET, make_server
from tests.source_document.conftest import Connect


async def send(realtime_client: RealtimeClient) -> str:
    """The snippet."""
    try:
        await realtime_client.send_message("test", {})
    except ConnectionError as error:
        # Handle connection errors
        return f"Connection failed: {error}"
    except AuthenticationError as error:
        # Handle authentication errors
        return f"Authentication failed: {error}"
    except RealtimeError as error:
        # Handle realtime errors
        return f"Realtime error: {error}"
    return "sent"


async def test_error_handling_sent(realtime_server: RealtimeServer, connect: Connect) -> None:
    realtime_server.event("test")(lambda socket, data: "ok")
    async with connect() as realtime_client:
        assert await send(realtime_client) == "sent"


async def test_error_handling_realtime_error(connect: Connect) -> None:
    async with connect() as realtime_client:
        assert (await send(realtime_client)).startswith("Realtime error: ")


async def test_error_handling_authentication_error(realtime_server: RealtimeServer) -> None:
    async with RealtimeClient(realtime_server.url) as realtime_client:
        assert (await send(realtime_client)).startswith("Authentication failed: ")


async def test_error_handling_connection_error(realtime_server: RealtimeServer, connect: Connect) -> None:
    never_connected = RealtimeClient(realtime_server.url)
    async with connect(reconnect=False) as realtime_client:
        await realtime_server.stop(drain=1)
        assert (await send(realtime_client)).startswith("Connection failed: ")
    assert (await send(realtime_client)).startswith("Connection failed: "), "closed"
    assert (await send(never_connected)).startswith("Connection failed: ")


async def test_a_bad_token_is_an_authentication_error_and_does_not_tell_itself(realtime_server: RealtimeServer) -> None:
    token = make_server(authentication={"jwt_secret": SECRET[::-1]}).auth.issue(user_id="user_123")
    realtime_client = RealtimeClient(realtime_server.url, token=token)
    with pytest.raises(AuthenticationError) as caught:
        await realtime_client.connect()
    await realtime_client.close()
    assert token not in str(caught.value) and token.split(".")[2] not in repr(caught.value.__cause__)


async def test_the_order_of_the_snippets_branches_matters_not() -> None:
    """Each of the three is told from the others by its class alone."""
    assert not issubclass(AuthenticationError, ConnectionError) and not issubclass(ConnectionError, AuthenticationError)
    assert issubclass(AuthenticationError, RealtimeError) and issubclass(ConnectionError, RealtimeError)
