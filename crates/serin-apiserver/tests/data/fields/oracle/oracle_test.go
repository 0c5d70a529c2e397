// Package oracle plays sequences of writes against the field manager of kube-apiserver.
//
// It reads one sequence a line, as the module under test emits them, and writes one line of answers for each: the object
// after every write, or the error. Time is faked, so that the answers repeat.
package oracle

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/kube-openapi/pkg/validation/spec"
	"sigs.k8s.io/structured-merge-diff/v6/fieldpath"
	"sigs.k8s.io/yaml"
)

var (
	shapesPath   = flag.String("shapes", "../shapes.json", "schemas")
	openapiPath  = flag.String("openapi", "", "the folder of Kubernetes' OpenAPI v3 documents")
	requestsPath = flag.String("requests", "", "sequences, one a line")
	answersPath  = flag.String("answers", "", "where the answers go")
)

const (
	group = "example.com"
	kind  = "Thing"
	meta  = "io.k8s.apimachinery.pkg.apis.meta.v1."
)

// sequence is what happens to one object.
type sequence struct {
	HasStatus bool   `json:"has_status"`
	Steps     []step `json:"steps"`
}

// step is one write.
type step struct {
	Shape       int             `json:"shape"`
	Op          string          `json:"op"` // update, apply, force
	Manager     string          `json:"manager"`
	Version     string          `json:"version"`
	Subresource string          `json:"subresource"`
	Wait        int             `json:"wait"` // seconds before it
	Object      json.RawMessage `json:"object"`
}

// answer is what one write did.
type answer struct {
	Object json.RawMessage `json:"object,omitempty"`
	Error  string          `json:"error,omitempty"`
	Causes []string        `json:"causes,omitempty"`
}

// versions converts between v1 and v2, which differ in their name and in names of fields of spec. There was a v0, and the
// server fails at a v9.
type versions struct{ rename map[string]string }

// shape is what a schema is known as.
type shape struct {
	managedfields.TypeConverter
	versions
}

func (versions) Convert(in, out, context interface{}) error { return fmt.Errorf("not used") }

func (versions) ConvertFieldLabel(schema.GroupVersionKind, string, string) (string, string, error) {
	return "", "", fmt.Errorf("not used")
}

func (v versions) ConvertToVersion(in runtime.Object, target runtime.GroupVersioner) (runtime.Object, error) {
	from := in.GetObjectKind().GroupVersionKind()
	to, ok := target.KindForGroupVersionKinds([]schema.GroupVersionKind{from})
	if !ok {
		return nil, fmt.Errorf("%v is unstructured and is not suitable for converting to %q", from, target)
	}
	if to.Version == "v0" {
		return nil, runtime.NewNotRegisteredErrForKind("oracle", to)
	}
	if to.Version == "v9" || to.Group != group {
		return nil, fmt.Errorf("request to convert CR to an invalid group/version: %s", to.GroupVersion())
	}
	out := in.DeepCopyObject().(*unstructured.Unstructured)
	out.SetAPIVersion(to.GroupVersion().String())
	spec, ok := out.Object["spec"].(map[string]interface{})
	if !ok || from.Version == to.Version {
		return out, nil
	}
	for one, two := range v.rename {
		from, to := two, one
		if out.GroupVersionKind().Version == "v2" {
			from, to = one, two
		}
		if field, ok := spec[from]; ok {
			delete(spec, from)
			spec[to] = field
		}
	}
	return out, nil
}

func (versions) Default(runtime.Object) {}

func (versions) New(kind schema.GroupVersionKind) (runtime.Object, error) {
	return empty(kind.Version), nil
}

func empty(version string) *unstructured.Unstructured {
	object := &unstructured.Unstructured{}
	object.SetGroupVersionKind(schema.GroupVersionKind{Group: group, Version: version, Kind: kind})
	return object
}

func load(t *testing.T) []shape {
	var document struct {
		Components struct {
			Schemas map[string]*spec.Schema `json:"schemas"`
		} `json:"components"`
	}
	text, err := json.Marshal(map[string]any{"components": map[string]any{"schemas": loadDefinitions(t)}})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &document); err != nil {
		t.Fatal(err)
	}
	var shapes []struct {
		Schema     *spec.Schema      `json:"schema"`
		V2         *spec.Schema      `json:"v2"`
		Rename     map[string]string `json:"rename"`
		Definition string            `json:"definition"`
	}
	read(t, *shapesPath, &shapes)
	var converters []shape
	for _, described := range shapes {
		if described.Definition != "" {
			described.Schema = document.Components.Schemas[described.Definition]
		}
		if described.Schema == nil {
			converters = append(converters, shape{managedfields.NewDeducedTypeConverter(), versions{}})
			continue
		}
		models := map[string]*spec.Schema{}
		for name, model := range document.Components.Schemas {
			if described.Definition != "" || strings.HasPrefix(name, meta) {
				models[name] = model
			}
		}
		if described.Definition == "" {
			addObject(described.Schema)
			addEmbedded(described.Schema)
		}
		schemas := map[string]*spec.Schema{"v1": described.Schema, "v2": described.Schema}
		if described.V2 != nil {
			addObject(described.V2)
			schemas["v2"] = described.V2
		}
		for version, schema := range schemas {
			model := *schema
			model.Extensions = spec.Extensions{}
			for name, value := range schema.Extensions {
				model.Extensions[name] = value
			}
			model.AddExtension("x-kubernetes-group-version-kind", []interface{}{
				map[string]interface{}{"group": group, "version": version, "kind": kind},
			})
			models["com.example."+version+"."+kind] = &model
		}
		converter, err := managedfields.NewTypeConverter(models, false)
		if err != nil {
			t.Fatal(err)
		}
		converters = append(converters, shape{converter, versions{described.Rename}})
	}
	return converters
}

func addObject(s *spec.Schema) {
	s.SetProperty("apiVersion", spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"string"}}})
	s.SetProperty("kind", spec.Schema{SchemaProps: spec.SchemaProps{Type: []string{"string"}}})
	s.SetProperty("metadata", *spec.RefSchema("#/components/schemas/" + meta + "ObjectMeta"))
}

func addEmbedded(s *spec.Schema) {
	if s == nil {
		return
	}
	for name := range s.Properties {
		property := s.Properties[name]
		addEmbedded(&property)
		s.Properties[name] = property
	}
	if s.Items != nil {
		addEmbedded(s.Items.Schema)
	}
	if s.AdditionalProperties != nil {
		addEmbedded(s.AdditionalProperties.Schema)
	}
	if is, ok := s.Extensions.GetBool("x-kubernetes-embedded-resource"); ok && is {
		addObject(s)
	}
}

func read(t *testing.T, path string, into interface{}) {
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

func TestOracle(t *testing.T) {
	converters := load(t)
	in, err := os.Open(*requestsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	file, err := os.Create(*answersPath)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	defer out.Flush()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var s sequence
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		var answers []answer
		synctest.Test(t, func(t *testing.T) { answers = play(t, converters, s) })
		line, err := json.Marshal(answers)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
}

func play(t *testing.T, converters []shape, s sequence) []answer {
	var live *unstructured.Unstructured
	answers := []answer{}
	for _, step := range s.Steps {
		time.Sleep(time.Duration(step.Wait) * time.Second)
		result, got := write(t, converters[step.Shape], s.HasStatus, live, step)
		if result != nil {
			live = result
			if live.GetUID() == "" {
				live.SetUID("uid")
			}
			data, err := live.MarshalJSON()
			if err != nil {
				t.Fatal(err)
			}
			got.Object = data
			// What is stored is read again.
			live = decode(t, data)
		}
		answers = append(answers, got)
	}
	return answers
}

func decode(t *testing.T, data []byte) *unstructured.Unstructured {
	object, _, err := unstructured.UnstructuredJSONScheme.Decode(data, nil, nil)
	if err != nil {
		t.Fatalf("%v: %s", err, data)
	}
	return object.(*unstructured.Unstructured)
}

func write(t *testing.T, converter shape, hasStatus bool, live *unstructured.Unstructured, step step) (*unstructured.Unstructured, answer) {
	gvk := schema.GroupVersionKind{Group: group, Version: step.Version, Kind: kind}
	reset := map[fieldpath.APIVersion]*fieldpath.Set{}
	if hasStatus && step.Subresource == "" {
		reset[fieldpath.APIVersion(gvk.GroupVersion().String())] = fieldpath.NewSet(fieldpath.MakePathOrDie("status"))
	}
	if step.Subresource == "status" {
		for _, version := range []string{"v1", "v2"} {
			reset[fieldpath.APIVersion(group+"/"+version)] = fieldpath.NewSet(
				fieldpath.MakePathOrDie("metadata"), fieldpath.MakePathOrDie("spec"))
		}
	}
	manager, err := managedfields.NewDefaultCRDFieldManager(converter, converter.versions, converter.versions, converter.versions, gvk,
		gvk.GroupVersion(), step.Subresource, fieldpath.NewExcludeFilterSetMap(reset))
	if err != nil {
		t.Fatal(err)
	}
	current := empty(step.Version)
	if live != nil {
		converted, err := converter.ConvertToVersion(live, gvk.GroupVersion())
		if err != nil {
			t.Fatal(err)
		}
		current = converted.(*unstructured.Unstructured)
	}
	if step.Op == "update" {
		object := decode(t, step.Object)
		result, err := manager.Update(current, object.DeepCopy(), step.Manager)
		if err != nil {
			object.SetManagedFields(nil)
			return object, answer{Error: err.Error()}
		}
		return result.(*unstructured.Unstructured), answer{}
	}
	config := &unstructured.Unstructured{Object: map[string]interface{}{}}
	if err := yaml.Unmarshal(step.Object, &config.Object); err != nil {
		t.Fatal(err)
	}
	result, err := manager.Apply(current, config, step.Manager, step.Op == "force")
	if err != nil {
		got := answer{Error: err.Error()}
		if status, ok := err.(*errors.StatusError); ok {
			got.Error = fmt.Sprintf("%d %s", status.ErrStatus.Code, got.Error)
			if status.ErrStatus.Details != nil {
				for _, cause := range status.ErrStatus.Details.Causes {
					got.Causes = append(got.Causes, fmt.Sprintf("%s %s %s", cause.Type, cause.Message, cause.Field))
				}
			}
		}
		return nil, got
	}
	return result.(*unstructured.Unstructured), answer{}
}

// TestSets reads pairs of FieldsV1, one a line, and writes what the library makes of them, byte for byte.
func TestSets(t *testing.T) {
	if *requestsPath == "" {
		t.Skip("no requests")
	}
	in, err := os.Open(*requestsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	file, err := os.Create(*answersPath)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	defer out.Flush()
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 1<<26)
	for lines.Scan() {
		var pair [2]json.RawMessage
		if err := json.Unmarshal(lines.Bytes(), &pair); err != nil {
			t.Fatal(err)
		}
		var texts []string
		var a, b fieldpath.Set
		errA, errB := a.FromJSON(bytes.NewReader(pair[0])), b.FromJSON(bytes.NewReader(pair[1]))
		if errA != nil || errB != nil {
			texts = append(texts, fmt.Sprintf("%v %v", errA == nil, errB == nil))
		} else {
			for _, set := range []*fieldpath.Set{
				&a, &b, a.Union(&b), a.Intersection(&b), a.Difference(&b), a.RecursiveDifference(&b), a.Leaves(),
			} {
				text, err := set.ToJSON()
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, string(text))
			}
			texts = append(texts, a.String(), fmt.Sprint(a.Size(), a.Empty(), a.Equals(&b)))
		}
		line, err := json.Marshal(texts)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
}

// TestOwners reads the owners of objects and of their scales, one pair a line, and writes what each becomes.
func TestOwners(t *testing.T) {
	if *requestsPath == "" {
		t.Skip("no requests")
	}
	in, err := os.Open(*requestsPath)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	file, err := os.Create(*answersPath)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	out := bufio.NewWriter(file)
	defer out.Flush()
	paths := managedfields.ResourcePathMappings{
		group + "/v1": fieldpath.MakePathOrDie("spec", "size"),
		group + "/v2": fieldpath.MakePathOrDie("spec", "replicas"),
		group + "/v3": nil,
	}
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		var pair [2][]metav1.ManagedFieldsEntry
		if err := json.Unmarshal(lines.Bytes(), &pair); err != nil {
			t.Fatal(err)
		}
		answers := make([][]metav1.ManagedFieldsEntry, 3)
		object := pair[0]
		answers[0], _ = managedfields.NewScaleHandler(object, schema.GroupVersion{}, paths).ToSubresource()
		for index, version := range []string{"v1", "v3"} {
			handler := managedfields.NewScaleHandler(object, schema.GroupVersion{Group: group, Version: version}, paths)
			answers[index+1], _ = handler.ToParent(pair[1])
		}
		line, err := json.Marshal(answers)
		if err != nil {
			t.Fatal(err)
		}
		out.Write(append(line, '\n'))
	}
}
