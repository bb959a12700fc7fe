"""The files of cluster/deploy and prefect.yaml, checked as far as can be without a cluster."""

from __future__ import annotations

import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "cluster" / "deploy"
KUBERNETES = "1.33"


def documents(name):
    return [document for document in yaml.safe_load_all((DEPLOY / name).read_text()) if document]


def containers(document):
    """Every container in a manifest, however deep."""
    if isinstance(document, dict):
        return [c for key, value in document.items() for c in (value if key == "containers" else containers(value))]
    return [c for value in document for c in containers(value)] if isinstance(document, list) else []


def commands():
    """(file, words) of every command of quoin, prefect and ray in the files."""
    found = [("compose.yaml", service["command"]) for service in documents("compose.yaml")[0]["services"].values()
             if "command" in service]  # fmt: skip
    for name in ("k8s-prefect.yaml", "raycluster.yaml"):
        found += [(name, c["args"]) for document in documents(name) for c in containers(document) if "args" in c]
    found.append(("rayjob.yaml", shlex.split(documents("rayjob.yaml")[0]["spec"]["entrypoint"])))
    ray = documents("ray.yaml")[0]
    for line in [*ray["setup_commands"], *ray["head_start_ray_commands"], *ray["worker_start_ray_commands"]]:
        found.append(("ray.yaml", [word for word in shlex.split(line) if not re.match(r"[A-Z_]+=", word)]))
    return found


@pytest.fixture(scope="module")
def validate():
    """Checks a document against the schema of its kind in Kubernetes."""
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="is in the extra dev")
    return lambda document, strict=True: kubernetes_validate.validate(document, KUBERNETES, strict=strict)


@pytest.mark.parametrize("name", ["k8s-data.yaml", "k8s-postgres.yaml", "k8s-prefect.yaml"])
def test_manifests_are_what_kubernetes_takes(validate, name):
    for document in documents(name):
        validate(document)
        assert "quoin" in (document["metadata"].get("namespace"), document["metadata"]["name"])
    broken = documents(name)[-1] | {"metadata": 3}
    with pytest.raises(Exception, match="is not of type"):
        validate(broken)


def test_pods_of_the_ray_cluster_are_what_kubernetes_takes(validate):
    (cluster,) = documents("raycluster.yaml")
    assert cluster["apiVersion"] == "ray.io/v1"
    groups = [cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]]
    for group in groups:
        validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": group["template"]["spec"]})
        mounts = {mount["mountPath"] for c in group["template"]["spec"]["containers"] for mount in c["volumeMounts"]}
        assert "/data" in mounts, "the run folder is the same on all machines"
    pins = (ROOT / "constraints.txt").read_text()
    assert f"ray=={cluster['spec']['rayVersion']}\n" in pins
    (job,) = documents("rayjob.yaml")
    assert job["spec"]["clusterSelector"] == {"ray.io/cluster": cluster["metadata"]["name"]}
    spec = job["spec"]["submitterPodTemplate"]["spec"]
    validate({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": spec})


def test_the_job_of_a_kubernetes_pool_is_what_kubernetes_takes(validate):
    from prefect.utilities.templating import apply_values

    template = json.loads((DEPLOY / "kubernetes-pool.json").read_text())
    variables = template["variables"]["properties"]
    values = {name: spec["default"] for name, spec in variables.items() if "default" in spec}
    values |= {"image": "quoin", "name": "castle", "env": {"A": "1"}, "labels": {"a": "b"}, "command": "prefect x"}
    manifest = apply_values(template["job_configuration"]["job_manifest"], values)
    assert "{{" not in json.dumps(manifest)
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    container |= {"args": values["command"].split(), "env": [{"name": "A", "value": "1"}]}  # as the worker does
    validate(manifest, strict=False)  # Prefect wants parallelism in the pod too, where Kubernetes has no such field


def test_ray_up_accepts_its_file():
    from ray.autoscaler._private.util import prepare_config, validate_config

    (config,) = documents("ray.yaml")
    validate_config(prepare_config(config))
    with pytest.raises(Exception, match="Additional properties"):
        validate_config(prepare_config(config | {"head_startray_commands": []}))


def test_compose_has_no_open_port_and_no_password_of_its_own():
    (compose,) = documents("compose.yaml")
    for name, service in compose["services"].items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert set(service.get("depends_on", {})) <= set(compose["services"])
    assert "${POSTGRES_PASSWORD:?" in compose["services"]["postgres"]["environment"]["POSTGRES_PASSWORD"]
    build = compose["services"]["worker"]["build"]
    assert (DEPLOY / build["context"]).resolve() == ROOT
    assert (ROOT / build["dockerfile"]).exists()
    (cuda,) = documents("compose.cuda.yaml")
    assert set(cuda["services"]) <= set(compose["services"])


def test_the_container_has_what_the_installer_asks_for():
    text = (DEPLOY / "Containerfile").read_text()
    wanted = set(re.findall(r'"lib[\w.+-]+": "([\w.+-]+)"', (ROOT / ".ci" / "install").read_text()))
    assert wanted
    assert wanted <= set(text.split())
    for copied in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE):
        assert all((ROOT / name).exists() for name in copied.split())


@pytest.mark.slow  # each help is a process
def test_every_command_and_option_exists():
    """Of quoin, prefect and ray, as installed here: what --help lists."""
    helped: dict[tuple[str, ...], str] = {}
    for name, words in commands():
        tool = Path(words[0]).name
        options = [word for word in words if word.startswith("--")]
        plain = words[1 : words.index(options[0]) if options else None]
        plain = plain[:1] if tool in ("quoin", "ray") else plain
        if (key := (tool, *plain)) not in helped:
            module = {"quoin": ["quoin.flows.cli.app"], "prefect": ["prefect"], "ray": ["ray.scripts.scripts"]}[tool]
            command = [sys.executable, "-m", *module, *plain, "--help"]
            env = os.environ | {"PYTHONPATH": str(ROOT / "src"), "COLUMNS": "200"}
            done = subprocess.run(command, env=env, text=True, capture_output=True, timeout=200)
            assert done.returncode == 0, (name, words, done.stderr)
            helped[key] = done.stdout
        for option in options:
            assert option in helped[key], (name, words)
    assert len(helped) >= 5


def test_deployments_name_a_flow_that_is_there_and_a_pool_like_themselves():
    config = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    for deployment in config["deployments"]:
        module, _, name = deployment["entrypoint"].rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert set(deployment.get("parameters", {})) <= set(flow.parameters.properties)
        assert deployment["work_pool"]["name"] == deployment["name"]
    assert {d["name"] for d in config["deployments"]} == {"local", "kubernetes"}


def test_heartbeats_come_more_often_than_the_automation_waits():
    from quoin.flows.engine import PREFECT_DEFAULTS

    ((automation, _),) = documents("automation.yaml")
    seconds = PREFECT_DEFAULTS["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
    assert automation["trigger"]["within"] >= 4 * int(seconds)
    for deployment in yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]:
        assert deployment["work_pool"]["job_variables"]["env"]["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == seconds


def test_automations_are_what_the_server_takes():
    from prefect.events.schemas.automations import AutomationCore

    (automations,) = documents("automation.yaml")
    for automation in map(AutomationCore.model_validate, automations):
        assert automation.trigger.within.total_seconds() == 180
    begun = {f"prefect.flow-run.{state}" for state in ("Pending", "Running", "heartbeat")}
    assert set.union(*(set(automation["trigger"]["after"]) for automation in automations)) == begun
