"""What is public: the description and its page. No data, no other host, no way to another file."""

from __future__ import annotations

import gzip
import re

import pytest

from aibos_realtime.admin.api.pages import FOLDER
from aibos_realtime.admin.files import read_files
from tests.unit.admin.api.rig import Rig, check_problem


async def test_the_description_is_for_everybody(rig: Rig) -> None:
    answer = await rig.http.get("/api/openapi.json")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json" and answer.json()["openapi"].startswith("3.1")
    assert rig.base not in answer.text and "127.0.0.1" not in answer.text


async def test_the_page_and_its_files(rig: Rig) -> None:
    page = await rig.http.get("/api/docs")
    assert page.status_code == 200 and page.headers["content-type"].startswith("text/html")
    names = [name for name in re.findall(r'(?:src|href)="([^"]+)"', page.text) if name != "data:,"]
    assert len(names) == 5 and all(name.startswith("docs/") or name == "openapi.json" for name in names)
    for name in names:
        answer = await rig.http.get(f"/api/{name}")
        assert answer.status_code == 200 and int(answer.headers["content-length"]) > 0
    for answer in (page, await rig.http.get("/api/docs/docs.js")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy.replace("style-src 'self' 'unsafe-inline'", "") and "http" not in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
    assert "<script>" not in page.text and " style=" not in page.text and " on" not in re.sub(r">[^<]*<", "><", page.text).split("<body")[1]


async def test_a_file_is_sent_once_and_then_only_asked_for(rig: Rig) -> None:
    path = "/api/docs/swagger-ui-bundle.js"
    first = await rig.http.get(path)
    assert first.headers["content-encoding"] == "gzip" and int(first.headers["content-length"]) < 600_000 < len(first.content)
    again = await rig.http.get(path, headers={"If-None-Match": first.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert "content-encoding" not in (await rig.http.get(path, headers={"Accept-Encoding": "gzip;q=0"})).headers
    plain = await rig.http.get(path, headers={"Accept-Encoding": "identity"})
    assert plain.content == first.content and "content-encoding" not in plain.headers and plain.headers["etag"] != first.headers["etag"]
    head = await rig.http.head(path)
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", first.headers["content-length"])


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_nothing_is_written_there(rig: Rig, method: str) -> None:
    for path in ("/api/docs", "/api/openapi.json", "/api/docs/docs.js"):
        answer = await rig.http.request(method, path)
        check_problem(answer, 405, "bad_request")
        assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_what_others_made_keeps_its_licence() -> None:
    names = {path.name for path in FOLDER.iterdir()}
    assert {"swagger-ui-bundle.js.gz", "swagger-ui.css.gz", "swagger-ui.LICENSE.txt"} <= names
    assert "Apache License" in (FOLDER / "swagger-ui.LICENSE.txt").read_text()
    assert b"MIT" in gzip.decompress(read_files(FOLDER)["swagger-ui-bundle.js.LICENSE.txt"].small)
