"""Where `backends.foreign` was first: it is to be imported from there."""

from __future__ import annotations

from ..foreign import Foreign as Foreign
