"""What is said of the metrics outside the code: the table in the docs, the alerts and the dashboard in `deploy/`. Each metric they name exists."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import promql_parser
import pytest
import yaml

from aibos_realtime.admin.families import collect
from tests.test_docs import ROOT, read_blocks
from tests.unit.admin.metrics_rig import FULL, Sources, full_node, names_of

PAGE = ROOT / "docs" / "how-to" / "monitor.md"
ALERTS = ROOT / "deploy" / "prometheus" / "alerts.yml"
SCRAPE = ROOT / "deploy" / "prometheus" / "scrape.yml"
DASHBOARD = ROOT / "deploy" / "grafana" / "dashboard.json"
OF_OTHERS = {"up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_open_fds", "process_max_fds"}
"""Prometheus's own, and those of every process."""


@pytest.fixture
async def full() -> AsyncIterator[Sources]:
    async with full_node() as node:
        yield node


@pytest.fixture
def known(full: Sources) -> dict[str, set[str]]:
    """The labels of every sample that there is."""
    found: dict[str, set[str]] = {}
    for metric in collect(full, FULL):
        for sample in metric.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
        found.setdefault(f"{metric.name}_total" if metric.type == "counter" else metric.name, set())
    return found | {name: set() for name in OF_OTHERS}


LABELS = {"status", "code", "queue", "state", "le", "instance", "job", "node", "version", "python"}
"""Those that a query may name: the metrics' own, and what Prometheus adds."""


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    return found


def queries() -> Iterator[tuple[str, str]]:
    """(where, PromQL), with Grafana's variables filled in."""
    for rule in rules():
        yield f"alert {rule['alert']}", rule["expr"]
    for panel in panels():
        for target in panel.get("targets", ()):
            yield f"panel {panel['title']}", target["expr"].replace("$__rate_interval", "1m").replace("$job", "a").replace("$instance", "b")
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"]:
        if variable["type"] == "query":
            yield f"variable {variable['name']}", re.sub(r"label_values\((.*), \w+\)", r"\1", variable["query"]["query"]).replace("$job", "a")


def without_strings(query: str) -> str:
    return re.sub(r'"[^"]*"', '""', query)


def names_in(query: str) -> set[str]:
    """What a selector may begin with: a word before `{`, `[` or an operator that is no function, keyword or label."""
    plain = re.sub(r"(?:by|on|without|ignoring)\s*\([^)]*\)", " ", without_strings(query))
    plain = re.sub(r"\{[^}]*\}", " ", plain)
    return {word for word in re.findall(r"\b[a-z][a-z_0-9:]*\b(?!\s*\()", plain) if "_" in word or word == "up"}


def test_the_page_lists_every_metric_as_the_code_has_it(full: Sources) -> None:
    listed = re.findall(r"^\| `(aibos_realtime_\w+)` \| (\w+) \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    assert listed == list(names_of(full))


def test_every_metric_that_the_page_names_exists(known: dict[str, set[str]]) -> None:
    text = PAGE.read_text().split("### What is worth an alarm")[1].split("## In the process")[0]
    short = {name for cell in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", cell)}
    assert len(short) > 12 and {name for name in short if f"aibos_realtime_{name}" not in known} == set()


@pytest.mark.parametrize(("where", "query"), [pytest.param(*one, id=f"{number} {one[0]}") for number, one in enumerate(queries())])
def test_a_query_is_promql_of_metrics_that_exist(where: str, query: str, known: dict[str, set[str]]) -> None:
    promql_parser.parse(query)
    names = names_in(query)
    assert names and names - known.keys() == set()
    labels = set(re.findall(r"(\w+)\s*(?:=~|!=|=)\s*\"", query)) | {
        label.strip() for group in re.findall(r"by\s*\(([^)]*)\)", query) for label in group.split(",")
    }  # fmt: skip
    assert labels <= LABELS
    assert labels - {"instance", "job", "node"} <= set().union(*(known[name] for name in names))


def test_what_is_wrong_is_noticed(known: dict[str, set[str]]) -> None:
    """That the tests above can fail."""
    assert names_in('sum by (le) (rate(aibos_realtime_nothing_total{job="up"}[5m])) > 0.5') == {"aibos_realtime_nothing_total"}
    assert names_in("up == 0 and histogram_quantile(0.9, a_b)") == {"up", "a_b"} and "a_b" not in known
    with pytest.raises(Exception, match="unclosed"):
        promql_parser.parse("sum by (le) (rate(a[5m])")


def test_every_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(names) == len(set(names)) > 20
    for rule in rules():
        assert rule["labels"]["severity"] in ("warning", "critical"), rule["alert"]
        summary, description = rule["annotations"]["summary"], rule["annotations"]["description"]
        assert summary and description.endswith("."), rule["alert"]
        assert set(re.findall(r"\$labels\.(\w+)", summary + description)) <= LABELS, rule["alert"]
        if (lasts := rule.get("for")) is not None:
            assert re.fullmatch(r"\d+[smh]", lasts), rule["alert"]
        for page in re.findall(r"docs/[\w/-]+\.md", summary + description):
            assert (ROOT / page).is_file(), page


def test_an_alert_keeps_the_labels_that_it_names() -> None:
    """`max by (queue)` drops `instance`: an alert that says it then says nothing."""
    for rule in rules():
        kept = [{label.strip() for label in group.split(",")} for group in re.findall(r"by\s*\(([^)]*)\)", rule["expr"])]
        is_aggregated = bool(re.match(r"(sum|max)\b", rule["expr"])) or "histogram_quantile" in rule["expr"]
        named = set(re.findall(r"\$labels\.(\w+)", str(rule["annotations"])))
        if is_aggregated:
            assert named <= set().union(*kept), rule["alert"]


def test_the_dashboard_has_a_place_for_each_panel() -> None:
    ids = [panel["id"] for panel in panels()]
    taken: set[tuple[int, int]] = set()
    assert len(ids) == len(set(ids))
    for panel in panels():
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert at["x"] + at["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
        if panel["type"] != "row":
            assert panel["title"] and panel["targets"] and panel["datasource"]["uid"] == "${datasource}"


def test_the_page_shows_the_file_as_it_is() -> None:
    (block,) = [block for block in read_blocks(PAGE) if block.language == "yaml"]
    assert block.marks == SCRAPE.relative_to(ROOT).as_posix() and block.code in SCRAPE.read_text()


def test_prometheus_scrapes_with_a_key_in_a_file() -> None:
    (job,) = yaml.safe_load(SCRAPE.read_text())["scrape_configs"]
    assert job["job_name"] == "aibos-realtime" and job["authorization"]["credentials_file"] and "credentials" not in job["authorization"]
    assert all('job="aibos-realtime"' in rule["expr"] for rule in rules() if "process_" in rule["expr"] or rule["expr"].startswith("up"))
