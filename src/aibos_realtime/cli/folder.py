"""The demo's folder, `.aibos-realtime` in the working directory: its secret, and where it listens.

It is how `listen` and `publish` of the same folder find the demo and its tokens without being told.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from .exits import ExitCode, Failure

FOLDER = Path(".aibos-realtime")
MIN_SECRET = 32

DEMO_USER = "demo"
DEMO_TENANT = "demo"
DEMO_ROOM = "tenant_demo"
OPERATOR = "operator"
"""The role by which users operate a server, unless `http.operator_roles` says otherwise."""


class DemoFolder:
    """`path`: the folder. Nothing is written before `make_secret` and `write_url`. What cannot be read or written is a `Failure`."""

    def __init__(self, path: Path = FOLDER) -> None:
        self.path = path
        self._secret = path / "secret"
        self._url = path / "url"

    def make_secret(self) -> str:
        """The secret that is there, else a new random one, in a file that its owner alone can read (mode 0600)."""
        try:
            self.path.mkdir(mode=0o700, exist_ok=True)
            ignore = self.path / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            return self.secret() or self._write_secret()
        except OSError as error:
            raise self._failure("written", error) from None

    def secret(self) -> str | None:
        """The demo's secret, or None where there is no demo. Its file's mode is put right where others could read it."""
        try:
            descriptor = os.open(self._secret, os.O_RDONLY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._failure("read", error) from None
        with os.fdopen(descriptor) as file:
            found = os.fstat(descriptor)
            if found.st_uid != os.geteuid():
                raise Failure(f"{self._secret} belongs to another user: work in a folder of your own.", ExitCode.FAILED)
            if found.st_mode & 0o077:
                os.fchmod(descriptor, 0o600)
            text = file.read(1024).strip()
        return text if len(text) >= MIN_SECRET else None

    def write_url(self, url: str) -> None:
        """Note where the demo listens."""
        try:
            self._url.write_text(f"{url}\n")
        except OSError as error:
            raise self._failure("written", error) from None

    def remove_url(self, url: str) -> None:
        """Forget it, unless another demo has come in between."""
        if self.url() == url:
            self._url.unlink(missing_ok=True)

    def url(self) -> str | None:
        """Where the demo listens, or None where none runs."""
        try:
            return self._url.read_text().strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def issue(self, role: str = "user", expires_in: str = "1h") -> str | None:
        """A token for the demo's user, or None where there is no demo."""
        secret = self.secret()
        if secret is None:
            return None
        from ..auth.authentication import WebSocketAuth

        return WebSocketAuth(jwt_secret=secret).issue(user_id=DEMO_USER, role=role, tenant_id=DEMO_TENANT, expires_in=expires_in)

    def _write_secret(self) -> str:
        secret = secrets.token_urlsafe(32)
        self._secret.unlink(missing_ok=True)
        with os.fdopen(os.open(self._secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(f"{secret}\n")
        return secret

    def _failure(self, verb: str, error: OSError) -> Failure:
        return Failure(f"{self.path} cannot be {verb} ({error.strerror}): work in a folder that you can write to.", ExitCode.FAILED)
