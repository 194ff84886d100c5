"""Checks the deployment files in docker/: they parse, and they name only metrics that exist."""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent
DOCKER = ROOT / "docker"
SUFFIXES = ("_bucket", "_sum", "_count")


def main():
    faults = list(compose()) + list(metrics()) + list(dockerfile())
    for fault in faults:
        print(f"docker: {fault}", file=sys.stderr)
    return 1 if faults else 0


def load(name):
    return yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))


def compose():
    """Every service is locked down, and every file that is mounted or used exists."""
    document = load("compose.yaml")
    for name, service in document["services"].items():
        if service.get("read_only") is not True:
            yield f"{name}: the root file system is not read-only"
        if service.get("cap_drop") != ["ALL"]:
            yield f"{name}: capabilities are not dropped"
        if "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: may gain privileges"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./secrets/"):
                continue  # made by docker/dev-secrets.sh
            if source.startswith("."):
                if not (DOCKER / source).exists():
                    yield f"{name}: {source} does not exist"
            elif source not in document["volumes"]:
                yield f"{name}: volume {source} is not declared"
        for secret in service.get("secrets", []):
            if secret not in document["secrets"]:
                yield f"{name}: secret {secret} is not declared"
        for network in service.get("networks", []):
            if network not in document["networks"]:
                yield f"{name}: network {network} is not declared"
    ports = {port for job in load("prometheus.yml")["scrape_configs"]
             for config in job["static_configs"] for port in config["targets"]}
    if ports != {"assent:9464"}:
        yield f"prometheus scrapes {ports}"


def metrics():
    """Alerts and dashboard name metrics of src/telemetry/metric.rs."""
    source = (ROOT / "src/telemetry/metric.rs").read_text(encoding="utf-8")
    known = set(re.findall(r'"(assent_[a-z_]+)"', source))
    used = {}
    for group in load("alerts.yml")["groups"]:
        for rule in group["rules"]:
            used[f"alert {rule['alert']}"] = rule["expr"]
            if not rule["annotations"]["summary"]:
                yield f"alert {rule['alert']} says nothing"
    dashboard = json.loads((DOCKER / "grafana-dashboard.json").read_text(encoding="utf-8"))
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            used[f"panel {panel['title']} {target['refId']}"] = target["expr"]
    for place, expression in used.items():
        for name in re.findall(r"\bassent_[a-z_]+", expression):
            base = next((name.removesuffix(s) for s in SUFFIXES if name.endswith(s)), name)
            if name not in known and base not in known:
                yield f"{place}: no metric {name}"


def dockerfile():
    """Each RUN is a script of this folder."""
    for line in (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines():
        if line.startswith("RUN "):
            script = re.search(r"docker/[a-z-]+\.sh", line)
            if not script or not (ROOT / script.group()).is_file():
                yield f"not a script of docker/: {line}"


sys.exit(main())
