"""Every snippet of the source document, in its order, with the test that is its Python form."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent

SNIPPETS = {
    "Installation": "test_quick_start.py:test_installation",
    "Quick Start": "test_quick_start.py:test_quick_start",
    "WebSocket Server: Server Configuration": "test_websocket_server.py:test_server_configuration",
    "WebSocket Server: Event Handlers": "test_websocket_server.py:test_event_handlers",
    "WebSocket Client: Client Configuration": "test_websocket_client.py:test_client_configuration",
    "WebSocket Client: Event Handling": "test_websocket_client.py:test_event_handling",
    "Room Management: Room Operations": "test_room_management.py:test_room_operations",
    "Room Management: Room Events": "test_room_management.py:test_room_events",
    "Event Broadcasting: Broadcast Events": "test_event_broadcasting.py:test_broadcast_events",
    "Event Broadcasting: Event Filtering": "test_event_broadcasting.py:test_event_filtering",
    "Message Queuing: Message Queue": "test_queue.py:test_message_queue",
    "Message Queuing: Message Persistence": "test_persistence.py:test_message_persistence",
    "Connection Management: Connection Pool": "test_connection_management.py:test_connection_pool",
    "Connection Management: Connection Monitoring": "test_connection_management.py:test_connection_monitoring",
    "Authentication: WebSocket Authentication": "test_authentication.py:test_websocket_authentication",
    "Authentication: Authorization": "test_authentication.py:test_authorization",
    "Scaling: Horizontal Scaling": "test_scaling.py:test_horizontal_scaling",
    "Scaling: Load Balancing": "test_scaling.py:test_load_balancing",
    "Configuration: Environment Variables": "test_configuration.py:test_environment_variables",
    "Configuration: Realtime Configuration": "test_configuration.py:test_realtime_configuration",
    "Testing": "test_testing_commands.py:test_testing",
    "Error Handling": "test_error_handling.py:test_error_handling_realtime_error",
}


def find_tests(module: str) -> set[str]:
    tree = ast.parse((FOLDER / module).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


@pytest.mark.parametrize(("snippet", "test"), SNIPPETS.items(), ids=lambda value: value)
def test_the_snippet_has_its_test(snippet: str, test: str) -> None:
    module, _, name = test.partition(":")
    assert name in find_tests(module), f"{snippet}: there is no test {name} in {module}"


def test_every_module_is_in_the_table() -> None:
    modules = {path.name for path in FOLDER.glob("test_*.py")} - {Path(__file__).name}
    assert modules == {test.partition(":")[0] for test in SNIPPETS.values()}
