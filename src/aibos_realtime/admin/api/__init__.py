"""The HTTP API, `/api/v1`, as a FastAPI app over `operations`."""

from .app import create_api

__all__ = ["create_api"]
