"""What somebody asks of `operations`, checked before anything is done. Who he is and what he may is not looked at here.

Everything raises `ValidationError`, a sentence that names what was given by its name on the wire.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ..auth.tokens import is_name
from ..errors import ConfigurationError, ValidationError
from ..pipeline.broadcaster import Broadcast
from ..protocol import limits
from ..protocol.conditions import Where, where
from ..protocol.frames import is_close_code

S = TypeVar("S", bound=msgspec.Struct)

USER_LENGTH = 1024


def read_broadcast(item: Mapping[str, Any] | Broadcast) -> Broadcast:
    """An event to publish; a mapping as its `filter` is conditions, as `where` takes them."""
    try:
        broadcast = item if isinstance(item, Broadcast) else msgspec.convert(dict(item), Broadcast)
        if isinstance(broadcast.filter, dict) and not isinstance(broadcast.filter, Where):
            return msgspec.structs.replace(broadcast, filter=where(**broadcast.filter))
    except (msgspec.ValidationError, ConfigurationError, TypeError) as error:
        raise ValidationError(f"This is no event that can be published: {error}") from None
    return broadcast


def check_request(request: S) -> S:
    """The request, if nodes take it."""
    try:
        return msgspec.convert(msgspec.to_builtins(request), type(request))
    except msgspec.ValidationError as error:
        raise ValidationError(f"{error}.") from None


def check_prefix(option: str, text: str | None) -> None:
    if text and not limits.is_name(text):
        raise ValidationError(f"{option}: up to 128 of letters, digits and _ . : @ / - are allowed.")


def check_limit(limit: int, most: int) -> None:
    if not 1 <= limit <= most:
        raise ValidationError(f"limit: {limit} was given; allowed is 1–{most}.")


def check_user(user_id: str) -> None:
    if not 0 < len(user_id) <= USER_LENGTH or "\0" in user_id:
        raise ValidationError(f"userId: a text of 1 to {USER_LENGTH} characters is allowed.")


def check_role(role: str) -> None:
    if not is_name(role):
        raise ValidationError("role: a text of 1 to 128 printable characters is allowed.")


def check_close_code(code: int) -> None:
    if not is_close_code(code) or 1000 < code < 4000:
        raise ValidationError(f"code: {code} was given; allowed are 1000 and 4000–4999.")


def check_place(text: str | None) -> None:
    """The place of a dead letter is a number, or the id of an entry of a stream."""
    if text is None:
        return
    if re.fullmatch(r"[0-9]{1,20}(-[0-9]{1,20})?", text) is None or any(int(part) >= 2**63 for part in text.split("-")):
        raise ValidationError("before: the place of a dead letter is expected.")
