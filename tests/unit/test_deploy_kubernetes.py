"""Every Kubernetes manifest, offline and strictly: known fields, references that meet, secrets by reference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from gateway.settings import load_settings

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
NOT_MANIFESTS = {"kustomization.yaml", "orbweaver.yaml", "adapter-rules.yaml"}
CLUSTER = "1.37"


def documents() -> list[tuple[str, dict[str, Any]]]:
    files = [path for path in sorted(FOLDER.rglob("*.yaml")) if path.name not in NOT_MANIFESTS]
    return [
        (f"{path.parent.name}/{path.stem}/{found['kind']}", found)
        for path in files
        for found in yaml.safe_load_all(path.read_text())
    ]


def of_kind(kind: str) -> list[dict[str, Any]]:
    return [found for _, found in documents() if found["kind"] == kind]


@pytest.mark.parametrize(("where", "manifest"), documents(), ids=[where for where, _ in documents()])
def test_manifest_has_known_fields_only(where: str, manifest: dict[str, Any]) -> None:
    if manifest["kind"] == "ServiceMonitor":
        assert set(manifest["spec"]) == {"selector", "endpoints"}
        return
    kubernetes_validate.validate(manifest, CLUSTER, strict=True)


def test_an_unknown_field_would_be_found() -> None:
    wrong = {**of_kind("PodDisruptionBudget")[0], "spec": {"minAvailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, CLUSTER, strict=True)


def test_every_kustomization_names_files_that_are_there_and_misses_none() -> None:
    for path in FOLDER.rglob("kustomization.yaml"):
        named = set(yaml.safe_load(path.read_text())["resources"])
        assert all((path.parent / name).exists() for name in named)
        here = {file.name for file in path.parent.glob("*.yaml")} - NOT_MANIFESTS
        assert here <= named


def test_selectors_meet_the_pods_they_are_meant_for() -> None:
    pods = [found["spec"]["template"]["metadata"]["labels"] for found in of_kind("Deployment")]
    selectors = [found["spec"]["selector"] for found in of_kind("Service")]
    selectors += [found["spec"]["selector"]["matchLabels"] for found in of_kind("PodDisruptionBudget")]
    selectors += [found["spec"]["podSelector"]["matchLabels"] for found in of_kind("NetworkPolicy")]
    for selector in selectors:
        assert any(selector.items() <= labels.items() for labels in pods), selector
    names = {found["metadata"]["name"] for found in of_kind("Deployment")}
    assert {found["spec"]["scaleTargetRef"]["name"] for found in of_kind("HorizontalPodAutoscaler")} <= names


def test_pods_are_unprivileged_probed_and_hold_no_secret_in_clear() -> None:
    for deployment in of_kind("Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        for container in pod["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"startupProbe", "livenessProbe", "readinessProbe", "resources"} <= set(container)
            assert ":" in container["image"]
            assert not container["image"].endswith(":latest")
            assert all("value" not in variable for variable in container.get("env", []))


def test_the_gateways_config_in_the_cluster_is_accepted() -> None:
    settings = load_settings(FOLDER / "base" / "orbweaver.yaml")
    assert settings.server.client_keys == "required"
    grace = next(item for item in of_kind("Deployment") if item["metadata"]["name"] == "orbweaver-gateway")
    assert grace["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > settings.server.drain_s
