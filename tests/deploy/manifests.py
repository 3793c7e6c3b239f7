"""Checks the manifests of deploy/: manifests.py kubernetes|knative FILE... Prints what is wrong, and then exits with 1.

The schemas are those that kubernetes-validate brings along, so nothing is asked of any cluster or server.
"""

import re
import sys

import kubernetes_validate
import yaml
from kubernetes_validate.utils import all_versions

# Since 1.30 a preStop may sleep without a shell.
OLDEST = "1.30"
# What a revision of Knative adds to the fields of a pod, and which fields of a pod it takes at all without feature flags.
REVISION_ONLY = {"containerConcurrency", "timeoutSeconds", "responseStartTimeoutSeconds", "idleTimeoutSeconds"}
POD_FIELDS_OF_A_REVISION = {"containers", "volumes", "imagePullSecrets", "serviceAccountName", "enableServiceLinks",
                            "automountServiceAccountToken"}
# The clients that were measured needed 581 MiB, and a limit is not to be met just so.
LEAST_MEMORY = 1024
AUTOSCALING = {"class", "metric", "target", "target-utilization-percentage", "min-scale", "max-scale", "initial-scale",
               "scale-down-delay", "stable-window", "window", "panic-window-percentage", "panic-threshold-percentage"}


def against_schemas(document):
    """What the oldest and the newest version of Kubernetes have against a document."""
    for version in (OLDEST, all_versions()[-1]):
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'.'.join(map(str, error.path))}: {error.message}"
        except kubernetes_validate.SchemaNotFoundError as error:
            yield error.message


def seconds(text):
    """A time as percore's flags have it."""
    value, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(value) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def flag(container, name):
    """The value of a flag of percore's, whether it stands in one word or in two."""
    words = " ".join(container["args"]).replace("=", " ").split()
    return words[words.index(name) + 1] if name in words else None


def mebibytes(text):
    """A size as Kubernetes writes it."""
    value, unit = re.fullmatch(r"(\d+)(Mi|Gi)", text).groups()
    return int(value) * {"Mi": 1, "Gi": 1024}[unit]


def memory(container):
    """What is wrong with a container's memory: half of the limit is for clients, of whom each may take some MiB."""
    limit = mebibytes(container["resources"]["limits"]["memory"])
    return [f"a memory limit of {limit} MiB, which some clients exhaust"] if limit < LEAST_MEMORY else []


def locked_down(pod, container):
    """What a container that needs nothing must not have."""
    context = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
    wanted = {"runAsNonRoot": True, "readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False,
              "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}
    return [f"securityContext.{name} is {context.get(name)}" for name, value in wanted.items()
            if context.get(name) != value]


def kubernetes(documents):
    """The files of deploy/kubernetes: valid, and fitting each other."""
    wrong = [f"{document['kind']}: {what}" for document in documents for what in against_schemas(document)]
    if wrong:
        yield from wrong
        return
    kinds = {document["kind"]: document for document in documents}
    if len(kinds) != len(documents):
        yield "two documents are of one kind"
    template = kinds["Deployment"]["spec"]["template"]
    pod = template["spec"]
    [container] = pod["containers"]
    yield from locked_down(pod, container)
    yield from memory(container)

    grace, pause = pod["terminationGracePeriodSeconds"], container["lifecycle"]["preStop"]["sleep"]["seconds"]
    drain = seconds(flag(container, "--drain-timeout"))
    if grace <= pause + drain:
        yield f"a grace period of {grace} s for {pause} s of preStop and a drain of {drain} s"

    labels = template["metadata"]["labels"].items()
    for kind, selector in [("Deployment", kinds["Deployment"]["spec"]["selector"]["matchLabels"]),
                           ("Service", kinds["Service"]["spec"]["selector"]),
                           ("PodDisruptionBudget", kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"]),
                           ("NetworkPolicy", kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"])]:
        if not selector.items() <= labels:
            yield f"{kind} selects other pods: {selector}"

    ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
    listens = {"websocket": flag(container, "--listen"), "admin": flag(container, "--admin")}
    if {name: addr.rsplit(":", 1)[1] for name, addr in listens.items()} != ports:
        yield f"ports {ports} for {listens}"
    for probe, path in [("readinessProbe", "/readyz"), ("livenessProbe", "/healthz")]:
        if container[probe]["httpGet"] != {"path": path, "port": "admin"}:
            yield f"{probe}: {container[probe]['httpGet']}"
    if [port["targetPort"] for port in kinds["Service"]["spec"]["ports"]] != ["websocket"]:
        yield "the Service leads elsewhere than to the WebSocket port"
    if template["metadata"]["annotations"]["prometheus.io/port"] != ports["admin"]:
        yield "what is scraped is not the admin port"

    for rule in kinds["NetworkPolicy"]["spec"]["ingress"]:
        if "from" not in rule and [port["port"] for port in rule.get("ports", [])] != ["websocket"]:
            yield f"everybody reaches {rule.get('ports', 'all ports')}"

    scaler = kinds["HorizontalPodAutoscaler"]["spec"]
    target = scaler["scaleTargetRef"]
    if (target["kind"], target["name"]) != ("Deployment", kinds["Deployment"]["metadata"]["name"]):
        yield f"the autoscaler scales {target}"
    if "replicas" in kinds["Deployment"]["spec"]:
        yield "the Deployment says how many, so applying it would undo what the autoscaler did"
    if scaler["minReplicas"] <= kinds["PodDisruptionBudget"]["spec"]["maxUnavailable"]:
        yield "the budget allows that no pod is left"


def knative(documents):
    """A Service of Knative, whose schema is in no package: its pod by that of a Pod, the rest by what is known of it."""
    [service] = documents
    if (service["apiVersion"], service["kind"]) != ("serving.knative.dev/v1", "Service"):
        yield f"{service['apiVersion']} {service['kind']}"
    if service.keys() - {"apiVersion", "kind", "metadata", "spec"} or service["spec"].keys() != {"template"}:
        yield f"fields of the service: {[*service, *service['spec']]}"
    template = service["spec"]["template"]
    revision = template["spec"]
    pod = {name: value for name, value in revision.items() if name not in REVISION_ONLY}
    if pod.keys() - POD_FIELDS_OF_A_REVISION:
        yield f"fields of the pod: {list(pod)}"
    metadata = {"name": "revision", **template["metadata"]}
    named = {**pod, "containers": [{"name": "user-container", **container} for container in pod["containers"]]}
    wrong = [*against_schemas({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": named})]
    wrong += [f"{name}: {revision[name]!r}" for name in REVISION_ONLY.intersection(revision)
              if not isinstance(revision[name], int) or revision[name] < 0]
    if wrong:
        yield from wrong
        return
    if revision["responseStartTimeoutSeconds"] > revision["timeoutSeconds"]:
        yield "responseStartTimeoutSeconds is longer than timeoutSeconds"

    [container] = pod["containers"]
    yield from locked_down({}, container)
    yield from memory(container)
    [port] = container["ports"]
    if port["name"] not in {"http1", "h2c"}:
        yield f"Knative knows no port named {port['name']}"
    if flag(container, "--listen") is not None or any(e["name"] == "PORT" for e in container.get("env", [])):
        yield "percore would not listen where Knative's PORT says"
    if seconds(flag(container, "--drain-timeout")) >= revision["timeoutSeconds"]:
        yield "the drain is longer than timeoutSeconds, which is the pod's grace period"

    prefix = "autoscaling.knative.dev/"
    annotations = template["metadata"]["annotations"]
    unknown = [name for name in annotations if name.startswith(prefix) and name[len(prefix):] not in AUTOSCALING]
    if unknown:
        yield f"unknown annotations {unknown}"
    if annotations[prefix + "metric"] != "concurrency":
        yield "scales by something else than connections"
    if not 0 < int(annotations[prefix + "target"]) <= revision["containerConcurrency"]:
        yield "the target is more than a pod takes"
    if int(annotations[prefix + "min-scale"]) > int(annotations[prefix + "max-scale"]):
        yield "min-scale is more than max-scale"


def main(what, *paths):
    """Reads the files, and says what is wrong with them."""
    documents = []
    for path in paths:
        with open(path, encoding="utf-8") as text:
            documents += yaml.safe_load_all(text)
    wrong = list({"kubernetes": kubernetes, "knative": knative}[what](documents))
    print(*wrong, sep="\n")
    return 1 if wrong else 0


sys.exit(main(*sys.argv[1:]))
