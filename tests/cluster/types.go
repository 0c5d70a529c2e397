package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"strconv"
	"strings"

	apps "k8s.io/api/apps/v1"
	authentication "k8s.io/api/authentication/v1"
	authorization "k8s.io/api/authorization/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscaling "k8s.io/api/autoscaling/v2"
	coordination "k8s.io/api/coordination/v1"
	core "k8s.io/api/core/v1"
	discovery "k8s.io/api/discovery/v1"
	events "k8s.io/api/events/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	extensionsserver "k8s.io/apiextensions-apiserver/pkg/apiserver"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	openapinamer "k8s.io/apiserver/pkg/endpoints/openapi"
	"k8s.io/apiserver/pkg/server"
	"k8s.io/component-base/version"
	"k8s.io/kube-openapi/pkg/builder3"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	_ "k8s.io/kubernetes/pkg/controlplane"
	openapi "k8s.io/kubernetes/pkg/generated/openapi"
)

// The kinds that Serin's embedded API has, and what its requests carry beside them.
var kinds = []any{
	apiextensions.CustomResourceDefinition{},
	apps.Deployment{},
	authentication.SelfSubjectReview{},
	authorization.SelfSubjectAccessReview{},
	authorization.SelfSubjectRulesReview{},
	autoscaling.HorizontalPodAutoscaler{},
	autoscalingv1.Scale{},
	coordination.Lease{},
	core.ConfigMap{},
	core.Event{},
	core.Namespace{},
	core.Pod{},
	core.Secret{},
	core.Service{},
	core.ServiceAccount{},
	discovery.EndpointSlice{},
	events.Event{},
	meta.DeleteOptions{},
	meta.ListMeta{},
	meta.ObjectMeta{},
	meta.Status{},
}

// field is what Go's tags say of one field, beyond its schema.
type field struct {
	// Number and wire type in protobuf.
	Number int    `json:"number,omitempty"`
	Wire   string `json:"wire,omitempty"`
	// Whether nil and the zero value are told apart.
	Pointer bool `json:"pointer,omitempty"`
	// Left out of JSON where it is "empty", or "zero"; written always otherwise.
	Omit string `json:"omit,omitempty"`
	// The type whose fields stand here in JSON, while in protobuf they are a message of their own.
	Inline string `json:"inline,omitempty"`
}

// types prints what Kubernetes knows of the types of the kinds above: their OpenAPI schemas, and of each field its place in
// protobuf and when JSON leaves it out.
func types() error {
	namer := openapinamer.NewDefinitionNamer(legacyscheme.Scheme, extensionsserver.Scheme)
	config := server.DefaultOpenAPIV3Config(openapi.GetOpenAPIDefinitions, namer)
	var names []string
	for _, kind := range kinds {
		names = append(names, util.GetCanonicalTypeName(kind))
	}
	schemas, err := builder3.BuildOpenAPIDefinitionsForResources(config, names...)
	if err != nil {
		return err
	}
	fields := map[string]map[string]field{}
	for _, kind := range kinds {
		collect(reflect.TypeOf(kind), schemas, fields)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetEscapeHTML(false)
	out.SetIndent("", " ")
	return out.Encode(map[string]any{"kubernetes": version.Get().GitVersion, "schemas": schemas, "fields": fields})
}

func nameOf(t reflect.Type) string {
	value := reflect.New(t).Interface()
	if namer, is := value.(util.OpenAPIModelNamer); is {
		return namer.OpenAPIModelName()
	}
	return util.ToRESTFriendlyName(util.GetCanonicalTypeName(value))
}

func collect(t reflect.Type, schemas map[string]*spec.Schema, fields map[string]map[string]field) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	name := ""
	if t.Kind() == reflect.Struct {
		name = nameOf(t)
	}
	if name == "" || fields[name] != nil {
		return
	}
	// Types that write their own JSON have no fields in it: quantities, times, raw JSON.
	if _, custom := reflect.New(t).Interface().(json.Marshaler); custom && t != reflect.TypeOf(apiextensions.JSONSchemaProps{}) {
		return
	}
	all := map[string]field{}
	fields[name] = all
	for i := range t.NumField() {
		f := t.Field(i)
		tag := strings.Split(f.Tag.Get("json"), ",")
		if tag[0] == "-" || !f.IsExported() {
			continue
		}
		is := field{Pointer: f.Type.Kind() == reflect.Pointer}
		for _, option := range tag[1:] {
			switch option {
			case "omitempty":
				is.Omit = "empty"
			case "omitzero":
				is.Omit = "zero"
			}
		}
		if proto := strings.Split(f.Tag.Get("protobuf"), ","); len(proto) > 1 {
			is.Wire = proto[0]
			is.Number, _ = strconv.Atoi(proto[1])
		}
		json := tag[0]
		if json == "" && f.Anonymous || f.Tag.Get("json") == ",inline" {
			is.Inline = nameOf(f.Type)
			json = "," + f.Name
			if f.Type == reflect.TypeOf(meta.TypeMeta{}) {
				json, is.Inline = "", ""
			}
		}
		if json != "" {
			all[json] = is
		}
		collect(f.Type, schemas, fields)
	}
}

func typesMain() int {
	if err := types(); err != nil {
		fmt.Fprintln(os.Stderr, "cluster types:", err)
		return 1
	}
	return 0
}
