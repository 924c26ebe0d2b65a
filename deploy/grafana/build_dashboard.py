"""Writes `dashboards/orbweaver.json`, the Grafana dashboard of routing decisions.

    python deploy/grafana/build_dashboard.py

The panels are declared in `panels_*.py`; a test checks that the committed file is what this script writes, and another
asks a real Prometheus every expression while a real gateway is at work.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from panel import Panel
from panels_operations import FAILURES, HEALTH, SPEED
from panels_routing import DECISIONS, GLANCE, MONEY, QUALITY

OUTPUT = Path(__file__).parent / "dashboards" / "orbweaver.json"
DATASOURCE = {"type": "prometheus", "uid": "${datasource}"}
COLUMNS = 24

ROWS: tuple[tuple[str, tuple[Panel, ...]], ...] = (
    ("At a glance", GLANCE),
    ("Who answers, and why", DECISIONS),
    ("Predicted quality", QUALITY),
    ("Money", MONEY),
    ("Speed", SPEED),
    ("Failures and fallbacks", FAILURES),
    ("Health and limits", HEALTH),
)


def build() -> dict[str, Any]:
    """The whole dashboard as Grafana's JSON model."""
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS:
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, top, COLUMNS, 1)})
        top += 1
        left = height = 0
        for panel in row:
            if left + panel.width > COLUMNS:
                top, left, height = top + height, 0, 0
            panels.append(_panel(panel, _place(left, top, panel.width, panel.height)))
            left, height = left + panel.width, max(height, panel.height)
        top += height
    for number, built in enumerate(panels, start=1):
        built["id"] = number
    return {
        "uid": "orbweaver",
        "title": "Orbweaver: routing decisions",
        "description": "Who answers, why, how good it was predicted to be, and what it costs and saves.",
        "tags": ["orbweaver", "llm"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "15s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_datasource_variable(), _model_variable()]},
        "panels": panels,
    }


def render() -> str:
    """The dashboard's file, byte for byte."""
    return json.dumps(build(), indent=2, ensure_ascii=False) + "\n"


def _place(left: int, top: int, width: int, height: int) -> dict[str, int]:
    return {"x": left, "y": top, "w": width, "h": height}


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    targets = []
    for index, query in enumerate(panel.queries):
        target: dict[str, Any] = {
            "refId": chr(ord("A") + index),
            "datasource": DATASOURCE,
            "expr": query.expr,
            "legendFormat": query.legend,
        }
        if panel.kind in ("barchart", "piechart", "bargauge", "table"):
            target |= {
                "instant": True,
                "range": False,
                "format": "table" if panel.kind == "barchart" else "time_series",
            }
        if panel.kind == "heatmap":
            target["format"] = "heatmap"
        targets.append(target)
    custom: dict[str, Any] = {}
    if panel.kind == "timeseries":
        custom = {"lineWidth": 1, "fillOpacity": 30 if panel.stacked else 8, "showPoints": "never"}
        custom["stacking"] = {"mode": "normal" if panel.stacked else "none", "group": "A"}
    defaults: dict[str, Any] = {"unit": panel.unit, "custom": custom, "mappings": list(panel.mappings)}
    if panel.steps:
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": c, "value": v} for c, v in panel.steps]}
    if panel.bounds is not None:
        defaults["min"], defaults["max"] = panel.bounds
    built: dict[str, Any] = {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": _options(panel),
        "targets": targets,
    }
    if panel.kind == "barchart":
        built["transformations"] = [
            {"id": "merge", "options": {}},
            {"id": "organize", "options": {"excludeByName": {"Time": True}, "renameByName": _names(panel)}},
        ]
    return built


def _names(panel: Panel) -> dict[str, str]:
    return {f"Value #{chr(ord('A') + index)}": query.legend for index, query in enumerate(panel.queries)}


def _options(panel: Panel) -> dict[str, Any]:
    last = {"calcs": ["lastNotNull"], "fields": "", "values": False}
    match panel.kind:
        case "stat":
            mode = "background" if panel.steps else "none"
            return {"reduceOptions": last, "colorMode": mode, "graphMode": "area", "textMode": "value_and_name"}
        case "timeseries":
            legend = {
                "displayMode": "table",
                "placement": "bottom",
                "calcs": ["mean", "lastNotNull"],
                "showLegend": True,
            }
            return {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
        case "piechart":
            legend = {"displayMode": "table", "placement": "right", "values": ["percent"], "showLegend": True}
            return {"reduceOptions": last, "pieType": "donut", "legend": legend}
        case "bargauge":
            return {"reduceOptions": last, "orientation": "horizontal", "displayMode": "basic"}
        case "barchart":
            return {"orientation": "vertical", "xTickLabelRotation": 0, "legend": {"placement": "bottom"}}
        case "state-timeline":
            return {"showValue": "never", "mergeValues": True, "legend": {"showLegend": False}}
        case "heatmap":
            return {"calculate": False, "color": {"scheme": "Blues", "mode": "scheme"}, "yAxis": {"unit": panel.unit}}
    return {}


def _datasource_variable() -> dict[str, Any]:
    return {
        "name": "datasource",
        "label": "Prometheus",
        "type": "datasource",
        "query": "prometheus",
        "current": {"text": "Prometheus", "value": "orbweaver-prometheus"},
        "hide": 0,
    }


def _model_variable() -> dict[str, Any]:
    query = "label_values(orbweaver_requests_total, model)"
    return {
        "name": "model",
        "label": "Model",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "model"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "allValue": ".*",
        "multi": True,
        "current": {"text": "All", "value": "$__all"},
        "sort": 1,
    }


if __name__ == "__main__":
    OUTPUT.write_text(render(), encoding="utf-8")
