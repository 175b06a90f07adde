"""The manifest for KubeRay, as far as it can be held without a Kubernetes: as Ray reads it, and as upswell does."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from upswell import home

from .cluster import need_ray

need_ray()

import yaml  # type: ignore[import-untyped,unused-ignore]  # noqa: E402 - Ray brings it along
from ray.autoscaler._private.kuberay import (  # type: ignore[import-not-found,unused-ignore]  # noqa: E402
    autoscaling_config,
)

MANIFEST = Path(__file__).resolve().parents[2] / "examples" / "kuberay.yaml"
CLUSTER_FIELDS = set(
    "rayVersion enableInTreeAutoscaling autoscalerOptions authOptions headGroupSpec workerGroupSpecs".split()
)


@pytest.fixture
def parts() -> dict[str, Any]:
    found: dict[str, list[Any]] = defaultdict(list)
    for one in yaml.safe_load_all(MANIFEST.read_text()):
        found[one["kind"]].append(one)
    assert all(len(ones) == 1 for ones in found.values())
    return {kind: one for kind, (one,) in found.items()}


def test_ray_s_autoscaler_reads_it(parts: dict[str, Any]) -> None:
    cluster = parts["RayCluster"]
    assert set(cluster["spec"]) <= CLUSTER_FIELDS
    cluster["metadata"]["namespace"] = "default"
    read = autoscaling_config._derive_autoscaling_config_from_ray_cr(cluster)
    types = {
        name: (one["min_workers"], one["max_workers"], one["resources"])
        for name, one in read["available_node_types"].items()
    }
    head, plain, t4 = (types.pop(name) for name in ("headgroup", "plain", "t4"))
    assert not types and head[2]["CPU"] == 0, "no lease goes to the head"
    assert plain[:2] == (0, 8) and (plain[2]["CPU"], plain[2]["memory"]) == (8, 16 << 30)
    assert t4[:2] == (0, 2) and (t4[2]["CPU"], t4[2]["GPU"], t4[2]["accelerator_type:T4"]) == (8, 1, 1)


def test_the_server_is_told_where_it_is_and_how_far_the_cluster_grows(parts: dict[str, Any], tmp_path: Path) -> None:
    spec = parts["Deployment"]["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    tmp_path.chmod(0o700)
    (tmp_path / "config.toml").write_text(parts["ConfigMap"]["data"]["config.toml"])
    serving = home.configuration(str(tmp_path)).serve
    groups = parts["RayCluster"]["spec"]["workerGroupSpecs"]
    limits = [(one["maxReplicas"], one["template"]["spec"]["containers"][0]["resources"]["limits"]) for one in groups]
    assert serving.ray.grows_to_cpus == sum(count * int(limit["cpu"]) for count, limit in limits)
    assert serving.ray.grows_to_gpus == sum(count * int(limit.get("nvidia.com/gpu", 0)) for count, limit in limits)
    assert (serving.engine, serving.ray.host) == ("ray", parts["Service"]["metadata"]["name"])
    assert parts["Service"]["spec"]["clusterIP"] == "None"
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert Path(serving.certificate).parent == Path(serving.key).parent == Path(mounts["certificate"])
    assert serving.listen.endswith(f":{container['ports'][0]['containerPort']}")
    assert {one["name"] for one in spec["volumes"]} == set(mounts)
    assert f"{parts['RayCluster']['metadata']['name']}-head-svc:6379" in container["args"][0]
    variables = {one["name"]: one for one in container["env"]}
    token = variables["RAY_AUTH_TOKEN"]["valueFrom"]["secretKeyRef"]
    assert token == {"name": parts["RayCluster"]["spec"]["authOptions"]["secretName"], "key": "auth_token"}
    assert Path(variables["UPSWELL_HOME"]["value"]).parent == Path(mounts["data"])
    pods = [*groups, parts["RayCluster"]["spec"]["headGroupSpec"]]
    images = {one["template"]["spec"]["containers"][0]["image"] for one in pods}
    assert images == {container["image"]}, "Ray, Python and upswell are the same everywhere"
