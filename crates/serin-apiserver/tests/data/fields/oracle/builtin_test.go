package oracle

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var builtinPath = flag.String("builtin", "", "where the shapes of built-in kinds go")

// builtinDocuments are the groups that the kinds below are in.
var builtinDocuments = []string{
	"api__v1", "apis__apiextensions.k8s.io__v1", "apis__apps__v1", "apis__autoscaling__v1", "apis__autoscaling__v2",
	"apis__coordination.k8s.io__v1", "apis__discovery.k8s.io__v1", "apis__events.k8s.io__v1",
}

// builtinKinds are the definitions whose shapes are kept, with all that they refer to.
var builtinKinds = []string{
	"io.k8s.api.apps.v1.Deployment",
	"io.k8s.api.autoscaling.v1.Scale",
	"io.k8s.api.autoscaling.v2.HorizontalPodAutoscaler",
	"io.k8s.api.coordination.v1.Lease",
	"io.k8s.api.core.v1.ConfigMap",
	"io.k8s.api.core.v1.Event",
	"io.k8s.api.core.v1.Namespace",
	"io.k8s.api.core.v1.Pod",
	"io.k8s.api.core.v1.Secret",
	"io.k8s.api.core.v1.Service",
	"io.k8s.api.core.v1.ServiceAccount",
	"io.k8s.api.discovery.v1.EndpointSlice",
	"io.k8s.api.events.v1.Event",
	"io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
}

// mergeKeywords are what merging reads of a schema, beside what prune treats by itself.
var mergeKeywords = []string{
	"type", "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-map-type", "x-kubernetes-patch-strategy",
	"x-kubernetes-patch-merge-key", "x-kubernetes-preserve-unknown-fields",
}

func loadDefinitions(t *testing.T) map[string]map[string]any {
	definitions := map[string]map[string]any{}
	for _, name := range builtinDocuments {
		var document struct {
			Components struct {
				Schemas map[string]map[string]any `json:"schemas"`
			} `json:"components"`
		}
		read(t, filepath.Join(*openapiPath, name+"_openapi.json"), &document)
		maps.Copy(definitions, document.Components.Schemas)
	}
	return definitions
}

// TestBuiltin writes the definitions of the built-in kinds, without what merging does not read, one a line.
func TestBuiltin(t *testing.T) {
	if *builtinPath == "" {
		t.Skip("no -builtin")
	}
	definitions := loadDefinitions(t)
	keys := map[string]bool{}
	collectKeys(definitions, keys)
	kept := map[string]map[string]any{}
	todo := slices.Clone(builtinKinds)
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		// `metadata` is written where custom resources need it too.
		if _, seen := kept[name]; seen || strings.HasPrefix(name, meta+"ObjectMeta") {
			continue
		}
		definition, ok := definitions[name]
		if !ok {
			t.Fatalf("no definition of %s", name)
		}
		kept[name] = prune(definition, "", keys, func(name string) { todo = append(todo, name) })
	}
	var out bytes.Buffer
	for index, name := range slices.Sorted(maps.Keys(kept)) {
		text, err := json.Marshal(kept[name])
		if err != nil {
			t.Fatal(err)
		}
		separator := ","
		if index == 0 {
			separator = "{"
		}
		fmt.Fprintf(&out, "%s\n%q:%s", separator, name, text)
	}
	out.WriteString("\n}\n")
	if err := os.WriteFile(*builtinPath, out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// collectKeys finds the names of all fields that tell the items of a list apart.
func collectKeys(node any, keys map[string]bool) {
	switch node := node.(type) {
	case map[string]map[string]any:
		for _, child := range node {
			collectKeys(child, keys)
		}
	case map[string]any:
		if names, ok := node["x-kubernetes-list-map-keys"].([]any); ok {
			for _, name := range names {
				keys[name.(string)] = true
			}
		}
		for _, child := range node {
			collectKeys(child, keys)
		}
	case []any:
		for _, child := range node {
			collectKeys(child, keys)
		}
	}
}

func prune(schema map[string]any, field string, keys map[string]bool, refer func(string)) map[string]any {
	out := map[string]any{}
	ref, _ := schema["$ref"].(string)
	if all, ok := schema["allOf"].([]any); ok && len(all) == 1 {
		ref, _ = all[0].(map[string]any)["$ref"].(string)
	}
	if ref != "" {
		name := ref[strings.LastIndex(ref, "/")+1:]
		refer(name)
		out["$ref"] = "#/" + name
	}
	for _, keyword := range mergeKeywords {
		if value, ok := schema[keyword]; ok {
			out[keyword] = value
		}
	}
	if format, ok := schema["format"]; ok && schema["type"] == "string" {
		out["format"] = format
	}
	if value, ok := schema["default"]; ok && keys[field] {
		if _, isMap := value.(map[string]any); !isMap {
			out["default"] = value
		}
	}
	if properties, ok := schema["properties"].(map[string]any); ok {
		kept := map[string]any{}
		for name, property := range properties {
			kept[name] = prune(property.(map[string]any), name, keys, refer)
		}
		out["properties"] = kept
	}
	for _, keyword := range []string{"items", "additionalProperties"} {
		switch value := schema[keyword].(type) {
		case map[string]any:
			out[keyword] = prune(value, "", keys, refer)
		case bool:
			out[keyword] = value
		}
	}
	return out
}
