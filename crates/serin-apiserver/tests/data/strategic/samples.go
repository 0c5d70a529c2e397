package main

import (
	apps "k8s.io/api/apps/v1"
	scale "k8s.io/api/autoscaling/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	events "k8s.io/api/events/v1"
)

const metadata = `"metadata": {"name": "a", "namespace": "n", "labels": {"app": "a", "tier": "b"}, "annotations": {"k": "v"},
	"finalizers": ["x.io/a", "x.io/b", "x.io/c", "x.io/d"],
	"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "1"}, {"apiVersion": "v1", "kind": "Pod", "name": "q", "uid": "2", "controller": true}]}`

const podSpec = `{"containers": [
	{"name": "main", "image": "i:1", "args": ["a", "b", "c"], "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}, {"name": "C"}],
	 "ports": [{"containerPort": 80, "name": "http"}, {"containerPort": 81, "protocol": "UDP"}, {"containerPort": 80, "protocol": "UDP"}],
	 "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}, "claims": [{"name": "gpu"}]},
	 "livenessProbe": {"httpGet": {"path": "/", "port": 80, "httpHeaders": [{"name": "H", "value": "v"}]}, "periodSeconds": 5},
	 "volumeMounts": [{"mountPath": "/a", "name": "v"}, {"mountPath": "/b", "name": "w", "readOnly": true}],
	 "securityContext": {"runAsUser": 1, "capabilities": {"add": ["X"], "drop": ["ALL"]}}},
	{"name": "side", "image": "j:1"}, {"name": "third", "command": ["c"]}],
	"initContainers": [{"name": "init", "restartPolicy": "Always"}],
	"volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1Gi"}}, {"name": "w", "configMap": {"name": "c", "items": [{"key": "k", "path": "p"}]}}, {"name": "s", "secret": {"secretName": "s"}}],
	"imagePullSecrets": [{"name": "p"}, {"name": "q"}], "hostAliases": [{"ip": "1.1.1.1", "hostnames": ["h"]}],
	"tolerations": [{"key": "a", "operator": "Exists"}, {"key": "b", "effect": "NoSchedule"}], "nodeSelector": {"a": "b"},
	"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": {"matchLabels": {"a": "b"}}}, {"maxSkew": 2, "topologyKey": "y", "whenUnsatisfiable": "ScheduleAnyway"}],
	"securityContext": {"fsGroup": 5, "supplementalGroups": [1, 2, 3], "sysctls": [{"name": "a", "value": "b"}]},
	"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "In", "values": ["v", "w"]}]}]}}},
	"serviceAccountName": "sa", "terminationGracePeriodSeconds": 30, "hostNetwork": true, "readinessGates": [{"conditionType": "c"}]}`

// Types whose fields are of interest, but nothing more.
var others = []any{&core.Secret{}, &core.Namespace{}, &core.Event{}, &events.Event{}, &coordination.Lease{}, &scale.Scale{}}

var samples = []struct {
	object any
	json   string
}{
	{&apps.Deployment{}, `{` + metadata + `, "spec": {"replicas": 2, "minReadySeconds": 3, "selector": {"matchLabels": {"app": "a"}, "matchExpressions": [{"key": "k", "operator": "Exists"}]},
		"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": 1}},
		"template": {"metadata": {"labels": {"app": "a"}, "finalizers": ["f.io/a", "f.io/b"]}, "spec": ` + podSpec + `}},
		"status": {"replicas": 1, "conditions": [{"type": "Available", "status": "True"}, {"type": "Progressing", "status": "False", "reason": "r"}]}}`},
	{&core.Pod{}, `{` + metadata + `, "spec": ` + podSpec + `, "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "::1"}], "conditions": [{"type": "Ready", "status": "True"}],
		"containerStatuses": [{"name": "main", "ready": true, "state": {"running": {}}}]}}`},
	{&core.Service{}, `{` + metadata + `, "spec": {"type": "ClusterIP", "selector": {"app": "a"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "https", "port": 443, "targetPort": 8443}, {"name": "u", "port": 80, "protocol": "UDP"}],
		"externalIPs": ["1.1.1.1", "2.2.2.2"], "ipFamilies": ["IPv4"], "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 5}}},
		"status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4", "ports": [{"port": 1, "protocol": "TCP"}]}]}, "conditions": [{"type": "a", "status": "True"}]}}`},
	{&core.ConfigMap{}, `{` + metadata + `, "data": {"a": "1", "b": "2", "c": "3"}, "binaryData": {"d": "AAA="}, "immutable": true}`},
	{&core.ServiceAccount{}, `{` + metadata + `, "secrets": [{"name": "s", "namespace": "n"}, {"name": "t"}, {"kind": "Secret"}, {"name": "u", "kind": "Secret"}], "imagePullSecrets": [{"name": "p"}, {"name": "q"}], "automountServiceAccountToken": true}`},
	{&autoscaling.HorizontalPodAutoscaler{}, `{` + metadata + `, "spec": {"scaleTargetRef": {"kind": "Deployment", "name": "a", "apiVersion": "apps/v1"}, "minReplicas": 1, "maxReplicas": 5,
		"metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}, {"type": "Pods", "pods": {"metric": {"name": "m"}, "target": {"type": "AverageValue", "averageValue": "5"}}}],
		"behavior": {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 5}], "selectPolicy": "Max"}}},
		"status": {"currentReplicas": 1, "desiredReplicas": 2, "conditions": [{"type": "AbleToScale", "status": "True"}, {"type": "ScalingActive", "status": "False"}]}}`},
	{&discovery.EndpointSlice{}, `{` + metadata + `, "addressType": "IPv4", "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true}, "targetRef": {"kind": "Pod", "name": "p"}}, {"addresses": ["10.0.0.2"], "zone": "z", "hints": {"forZones": [{"name": "z"}]}}],
		"ports": [{"name": "http", "port": 80, "protocol": "TCP"}, {"port": 81}]}`},
}
