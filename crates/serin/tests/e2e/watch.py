"""Watches endpoints until one is deleted, then watches again from an event in the middle, as a client that lost its connection does.

Prints a line of JSON per event, and one with the resource version where a watch begins."""

import json

from kubernetes import client, config, watch

config.load_kube_config()
api = client.CustomObjectsApi()
kind = ("serin.dev", "v1alpha1", "default", "modelendpoints")


def say(line):
    print(json.dumps(line), flush=True)


def follow(start):
    say({"from": start})
    events = []
    stream = watch.Watch().stream(
        api.list_namespaced_custom_object, *kind, resource_version=start, timeout_seconds=600
    )
    for event in stream:
        endpoint = event["object"]
        status = endpoint.get("status", {})
        rollout = status.get("rollout", {})
        events.append(endpoint["metadata"]["resourceVersion"])
        say(
            {
                "type": event["type"],
                "name": endpoint["metadata"]["name"],
                "version": endpoint["metadata"]["resourceVersion"],
                "replicas": endpoint["spec"]["replicas"],
                "active": status.get("active", {}).get("version", ""),
                "candidate": status.get("candidate", {}).get("version", ""),
                "phase": rollout.get("phase", ""),
                "weight": rollout.get("weight", ""),
                "ready": status.get("ready", ""),
            }
        )
        if event["type"] == "DELETED":
            return events
    raise SystemExit("the watch ended before the endpoint was deleted")


start = api.list_namespaced_custom_object(*kind)["metadata"]["resourceVersion"]
events = follow(start)
follow(events[len(events) // 2])
