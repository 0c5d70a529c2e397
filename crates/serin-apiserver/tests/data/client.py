"""The Python client against the server of KUBECONFIG: lists, watches and changes a custom resource, and refuses a bad one.

Prints what it sees, a line each; the test that runs it compares them.
"""

import threading

from kubernetes import client, config, dynamic, watch

config.load_kube_config()
finches = client.CustomObjectsApi()
WHERE = {"group": "test.serin.dev", "version": "v1", "namespace": "default", "plural": "finches"}


def finch(name, **spec):
    return {
        "apiVersion": "test.serin.dev/v1",
        "kind": "Finch",
        "metadata": {"name": name},
        "spec": {"model": {"version": "v1"}, **spec},
    }


def write():
    finches.create_namespaced_custom_object(**WHERE, body=finch("py"))
    finches.patch_namespaced_custom_object(**WHERE, name="py", body={"spec": {"replicas": 4}})
    finches.patch_namespaced_custom_object_status(**WHERE, name="py", body={"status": {"phase": "Sings"}})
    finches.patch_namespaced_custom_object_scale(**WHERE, name="py", body={"spec": {"replicas": 5}})
    finches.delete_namespaced_custom_object(**WHERE, name="py")


before = finches.list_namespaced_custom_object(**WHERE)
print("LISTED", [item["metadata"]["name"] for item in before["items"]])

threading.Timer(0.3, write).start()
stream = watch.Watch().stream(
    finches.list_namespaced_custom_object,
    **WHERE,
    resource_version=before["metadata"]["resourceVersion"],
    timeout_seconds=20,
)
for event in stream:
    seen = event["object"]
    print(event["type"], seen["metadata"]["name"], seen["spec"]["replicas"], seen.get("status", {}).get("phase"))
    if event["type"] == "DELETED":
        break

try:
    finches.create_namespaced_custom_object(**WHERE, body=finch("bad", replicas="many"))
except client.ApiException as refused:
    print("REFUSED", refused.status, "spec.replicas in body must be of type integer" in refused.body)
try:
    finches.patch_namespaced_custom_object(**WHERE, name="first", body=[{"op": "replace", "path": "/spec/replicas", "value": 3}])
except client.ApiException as refused:
    print("REFUSED", refused.status)

everything = dynamic.DynamicClient(client.ApiClient())
kind = everything.resources.get(api_version="test.serin.dev/v1", kind="Finch")
print("DYNAMIC", kind.get(name="first", namespace="default").spec.model.version)
secrets = client.CoreV1Api()
secrets.create_namespaced_secret("default", client.V1Secret(metadata=client.V1ObjectMeta(generate_name="py-"), string_data={"a": "b"}))
print("SECRET", [secret.data for secret in secrets.list_namespaced_secret("default").items])
