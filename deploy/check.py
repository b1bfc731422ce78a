#!/usr/bin/env python3
"""Checks deploy/ without a container engine: check.py MILLWRIGHT, with promtool on the path.

MILLWRIGHT is the built program, which knows its own configuration keys and command lines. First every rule is shown a mistake that it
must see; then the files as they are must pass.
"""

import copy
import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import yaml

DEPLOY = Path(__file__).resolve().parent
ROOT = DEPLOY.parent
# Passwords and the like have no business in an environment; the names of files that hold them do.
SECRET = re.compile(r"PASS(WORD)?|SECRET|TOKEN|CREDENTIAL|JAAS|API_?KEY", re.I)
SECRET_FILE = re.compile(r"_FILE$")
LOGIN = re.compile(r"://[^/\s:@]*:[^/\s@]+@")


def read(path):
    return yaml.safe_load((DEPLOY / path).read_text())


def run(command, environment=None, text=None):
    """Standard output, or None and the last words on standard error."""
    done = subprocess.run(command, capture_output=True, text=True, env=environment, input=text, cwd=DEPLOY)
    return (done.stdout, "") if done.returncode == 0 else (None, done.stderr.strip() or done.stdout.strip())


def environment_of(service):
    """As Compose would give it, with every variable of the file at its default."""
    given = service.get("environment", {})
    return {key: re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value)) for key, value in given.items()}


def is_one_shot(service):
    return str(service.get("restart", "no")).startswith(("no", "on-failure"))


def is_ours(service):
    return service["image"].startswith("millwright:")


def schema_problems(compose):
    schema = json.loads((DEPLOY / "schema/compose-spec.json").read_text())
    for error in jsonschema.Draft202012Validator(schema).iter_errors(compose):
        yield f"{'.'.join(map(str, error.absolute_path))}: {error.message}"


def image_problems(compose):
    version = re.search(r'^version = "(.+)"', (ROOT / "Cargo.toml").read_text(), re.M)[1]
    for name, service in compose["services"].items():
        image = service.get("image", "")
        if not re.fullmatch(r"[^:@]+:v?\d+\.\d+[^:@]*", image):
            yield f"{name}: image `{image}` is not pinned to a version"
        if image.startswith("millwright:") and image != f"millwright:{version}":
            yield f"{name}: image `{image}` is not of this release, {version}"


def service_problems(compose):
    services = compose["services"]
    for name, service in services.items():
        if not service.get("profiles"):
            yield f"{name}: no profile"
        if is_one_shot(service) == ("healthcheck" in service):
            yield f"{name}: wants a health check, or to be a one-shot, and not both"
        if service.get("cap_drop") != ["ALL"] or "no-new-privileges:true" not in service.get("security_opt", []):
            yield f"{name}: keeps privileges"
        if is_ours(service) and (not service.get("read_only") or service.get("user", "0")[0] == "0" or "tmpfs" not in service):
            yield f"{name}: wants a read-only root, a user other than root, and a tmpfs"
        for port in service.get("ports", []):
            if not str(port).startswith("127.0.0.1:"):
                yield f"{name}: port {port} is published beyond this machine"
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./") and not (DEPLOY / source).exists():
                yield f"{name}: there is no {source}"
        for other, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy" and "healthcheck" not in services[other]:
                yield f"{name}: waits for the health of {other}, which has no check"
            if how["condition"] == "service_completed_successfully" and not is_one_shot(services[other]):
                yield f"{name}: waits for the end of {other}, which does not end"
            # One that no profile of this service starts would keep it from starting.
            if how.get("required", True) and not set(service["profiles"]) <= set(services[other]["profiles"]):
                yield f"{name}: needs {other}, which not each of its profiles has"


def secret_problems(compose):
    for name, service in compose["services"].items():
        for key, value in environment_of(service).items():
            if SECRET.search(key) and not SECRET_FILE.search(key):
                yield f"{name}: {key} is a secret in the environment: mount a file"
            if LOGIN.search(value):
                yield f"{name}: {key} holds a password"
        for secret in service.get("secrets", []):
            if secret not in compose["secrets"]:
                yield f"{name}: there is no secret {secret}"
    for name, secret in compose["secrets"].items():
        if not str(secret.get("file", "")).startswith("./secrets/"):
            yield f"secret {name}: does not come from deploy/secrets"
    ignored, _ = run(["git", "check-ignore", "secrets/x"])
    if ignored is None and (ROOT / ".git").exists():
        yield "deploy/secrets can be committed"
    if LOGIN.search((DEPLOY / "millwright.toml").read_text()):
        yield "millwright.toml holds a password"


def configuration_problems(compose, program, file=DEPLOY / "millwright.toml"):
    """Our own keys and command lines, by the program itself."""
    keys = set(json.loads(run([program, "--output", "json", "config", "explain"])[0]))
    names = {"MILLWRIGHT_CONFIG"} | {"MILLWRIGHT_" + key.replace(".", "__").upper() for key in keys}
    for name, service in compose["services"].items():
        if not is_ours(service):
            continue
        environment = environment_of(service)
        for key in environment:
            if key not in names:
                yield f"{name}: {key} is no key of the configuration"
        mounts = [volume.split(":")[:2] for volume in service["volumes"]]
        if ["./millwright.toml", environment.get("MILLWRIGHT_CONFIG")] not in mounts:
            yield f"{name}: MILLWRIGHT_CONFIG does not lead to deploy/millwright.toml"
        done, words = run([program, "config", "check", str(file)], environment)
        if done is None:
            yield f"{name}: {words}"
        # --help ends a command line whose words before it are understood.
        done, words = run([program, *service["command"], "--help"], environment)
        if done is None:
            yield f"{name}: {words}"


def variable_problems(compose_text, given_text):
    """What the file takes from outside has a default, and cdc.env gives nothing that it does not take."""
    taken = set(re.findall(r"(?<!\$)\$\{(\w+)", compose_text))
    for name in sorted(taken - set(re.findall(r"\$\{(\w+):-", compose_text))):
        yield f"compose.yaml: ${name} has no default"
    for name in re.findall(r"^(\w+)=", given_text, re.M):
        if name not in taken:
            yield f"cdc.env: compose.yaml takes no {name}"


def port_problems(compose, prometheus):
    """The services share one loopback: their own ports differ, and are asked by health checks and by Prometheus."""
    scraped = {
        target: static["labels"]["service"]
        for job in prometheus["scrape_configs"]
        if job["job_name"] == "millwright"
        for static in job["static_configs"]
        for target in static["targets"]
    }
    taken = {}
    for name, service in compose["services"].items():
        if not is_ours(service) or is_one_shot(service):
            continue
        command = service["command"]
        port = command[command.index("--ops-port") + 1]
        if port in taken:
            yield f"{name}: port {port} is that of {taken[port]}"
        taken[port] = name
        if service["healthcheck"]["test"] != ["CMD", "/millwright", "health", f"http://127.0.0.1:{port}"]:
            yield f"{name}: its health check does not ask port {port}"
        if scraped.pop(f"127.0.0.1:{port}", None) != command[0]:
            yield f"{name}: Prometheus does not ask port {port} as {command[0]}"
    for target in scraped:
        yield f"Prometheus asks {target}, which is no service's"


def connector_problems(compose):
    """What the one-shot sends is the connector's configuration, and the worker has each variable that it names."""
    connector = json.loads((DEPLOY / "debezium/outbox-connector.json").read_text())
    [script] = compose["services"]["connector"]["command"]
    script = script.replace("$$", "$").replace("/etc/outbox-connector.json", "debezium/outbox-connector.json")
    sent, words = run(["sh", "-ec", script.split("| curl")[0]])
    if sent is None or json.loads(sent) != connector["config"]:
        yield f"connector: sends {sent or words}"
    if not script.rstrip().endswith(f"/connectors/{connector['name']}/config"):
        yield "connector: is put under another name than its own"
    given = re.findall(r"^(MILLWRIGHT_AI_\w+)=", (DEPLOY / "secrets.sh").read_text(), re.M)
    for name in re.findall(r"\$\{env:(\w+)\}", json.dumps(connector)):
        if name not in given:
            yield f"connector: secrets.sh gives no {name}"


def figure_problems(texts):
    """Every figure that a rule or a panel names is one that the program tells."""
    sources = "".join(path.read_text() for path in (ROOT / "crates").rglob("src/**/*.rs"))
    for name, text in texts.items():
        for figure in sorted(set(re.findall(r"\bmillwright_\w+", text)) - {"millwright_debezium", "millwright_relay"}):
            if f'"{re.sub("_(bucket|sum|count)$", "", figure)}"' not in sources:
                yield f"{name}: there is no figure {figure}"


def dashboard_problems(dashboard, datasource):
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    for panel in panels:
        if panel["datasource"]["uid"] != datasource["datasources"][0]["uid"]:
            yield f"dashboard: {panel['title']} asks an unknown data source"
        if not all(target["expr"] for target in panel["targets"]):
            yield f"dashboard: {panel['title']} asks nothing"
    if len({panel["id"] for panel in panels}) != len(panels):
        yield "dashboard: two panels have one id"


def main():
    program = str(Path(sys.argv[1]).resolve())
    compose, prometheus = read("compose.yaml"), read("prometheus/prometheus.yml")
    dashboard = json.loads((DEPLOY / "grafana/dashboards/millwright.json").read_text())
    datasource = read("grafana/provisioning/datasources/prometheus.yaml")
    text, cdc = ((DEPLOY / path).read_text() for path in ["compose.yaml", "cdc.env"])
    texts = {path: (DEPLOY / path).read_text() for path in ["prometheus/rules.yml", "grafana/dashboards/millwright.json"]}

    def broken(path, value=None):
        """The services with another value at a place, or without it."""
        wrong = copy.deepcopy(compose)
        *folders, last = path.split("/")
        place = wrong["services"]
        for folder in folders:
            place = place[folder]
        place.pop(last, None)
        if value is not None:
            place[last] = value
        return wrong

    wrong_figure = {"rules": "rate(millwright_reading_total[1m])"}
    mistakes = {
        "an unknown word": schema_problems(broken("portal/helthcheck", {})),
        "a floating image": image_problems(broken("redis/image", "redis:latest")),
        "an image without a tag": image_problems(broken("redis/image", "redis")),
        "another release": image_problems(broken("portal/image", "millwright:0.0.9")),
        "a service without a check": service_problems(broken("mail/healthcheck")),
        "a writable root": service_problems(broken("detect/read_only", False)),
        "root": service_problems(broken("detect/user", "0:0")),
        "a port for everybody": service_problems(broken("gate/ports", ["8080:18080"])),
        "a missing file": service_problems(broken("gate/volumes", ["./gate/none.cfg:/x"])),
        "a needed service of another profile": service_problems(broken("postgres-ai/profiles", ["core"])),
        "a password in a key": secret_problems(broken("grafana/environment/GF_SECURITY_ADMIN_PASSWORD", "admin")),
        "a password in an address": secret_problems(broken("detect/environment/MILLWRIGHT_POSTGRES__AI", "postgresql://u:p@h/d")),
        "a misspelt key": configuration_problems(broken("detect/environment/MILLWRIGHT_RELAY__KINDS", "debezium"), program),
        "a wrong value": configuration_problems(broken("detect/environment/MILLWRIGHT_RELAY__KIND", "kafka"), program),
        "a misspelt flag": configuration_problems(broken("detect/command", ["detect", "--opsport", "9102"]), program),
        "a file that is no configuration": configuration_problems(compose, program, DEPLOY / "prometheus/rules.yml"),
        "a variable without a default": variable_problems("image: ${IMAGE}", ""),
        "a variable that nothing takes": variable_problems(text, "MILLWRIGHT_RELAY=debezium"),
        "a port taken twice": port_problems(broken("detect/command", ["detect", "--ops-port", "9101"]), prometheus),
        "another connector": connector_problems(broken("connector/command", ["cat /etc/outbox-connector.json | curl x"])),
        "an unknown figure": figure_problems(wrong_figure),
    }
    unseen = [mistake for mistake, problems in mistakes.items() if not list(problems)]
    if unseen:
        sys.exit(f"check.py does not see {', '.join(unseen)}")

    problems = [
        *schema_problems(compose),
        *image_problems(compose),
        *service_problems(compose),
        *secret_problems(compose),
        *configuration_problems(compose, program),
        *variable_problems(text, cdc),
        *port_problems(compose, prometheus),
        *connector_problems(compose),
        *figure_problems(texts),
        *dashboard_problems(dashboard, datasource),
    ]
    # The configuration names the rules where the container has them.
    local = (DEPLOY / "prometheus/prometheus.yml").read_text().replace("/etc/prometheus/", f"{DEPLOY}/prometheus/")
    for words, given in [
        (["check", "config", "/dev/stdin"], local),
        (["check", "rules", "prometheus/rules.yml"], None),
        (["test", "rules", "prometheus/rules.test.yml"], None),
    ]:
        done, said = run(["promtool", *words], text=given)
        if done is None:
            problems.append(f"promtool {' '.join(words)}: {said}")
    if problems:
        sys.exit("deploy:\n  " + "\n  ".join(problems))
    print(f"deploy: {len(compose['services'])} services are as they should be; {len(mistakes)} planted mistakes were seen")


main()
