// Command strategic writes what Kubernetes' own library makes of random strategic merge patches, a JSON line each:
//
//	go run . cases 1 500 1300 > cases.jsonl   # seed, number, bytes of a line at most, 0 for any
//	go run . fields > fields.jsonl            # how every field of the types is merged
//
// The last lines of cases.jsonl are those of `cases 777 50000 0` that alone tell wrong orders of lists apart.
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	forked "k8s.io/apimachinery/third_party/forked/golang/json"
)

// Go visits the fields of a map in random order: so often every patch is tried, to see all its outcomes.
const tries = 48

type fields = map[string]any

// Outcome is what a patch makes of an object.
type Outcome struct {
	Result any    `json:"result,omitempty"`
	Error  string `json:"error,omitempty"`
	Panic  string `json:"panic,omitempty"`
}

// Case is a patch and what it makes of an object: the one outcome, or other ones as well.
type Case struct {
	Type     string `json:"type"`
	Original fields `json:"original"`
	Patch    fields `json:"patch"`
	Outcome
	Or []Outcome `json:"or,omitempty"`
	// Again says that merging the patch into the result changes nothing.
	Again bool `json:"again,omitempty"`
}

func main() {
	switch {
	case len(os.Args) == 5 && os.Args[1] == "cases":
		seed, count, largest := number(os.Args[2]), number(os.Args[3]), number(os.Args[4])
		writeCases(rand.New(rand.NewPCG(uint64(seed), 0)), count, largest)
	case len(os.Args) == 2 && os.Args[1] == "fields":
		writeFields()
	default:
		fmt.Fprintln(os.Stderr, "usage: strategic cases SEED COUNT LARGEST | fields")
		os.Exit(2)
	}
}

func number(text string) int {
	number, err := strconv.Atoi(text)
	check(err)
	return number
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

func writeCases(random *rand.Rand, count, largest int) {
	for written := 0; written < count; {
		sample := samples[random.IntN(len(samples))]
		g := generator{random, parse(sample.json)}
		original := g.original(sample.object)
		schema, err := strategicpatch.NewPatchMetaFromStruct(sample.object)
		check(err)
		// As the line says it: a float that is an integer comes back as one.
		patch := parse(print(g.patch(original, schema)))
		c := Case{Type: typeName(schema.T), Original: original, Patch: patch}
		seen := map[string]Outcome{}
		for range tries {
			outcome := merge(original, patch, sample.object)
			seen[print(outcome)] = outcome
		}
		for at, text := range slices.Sorted(maps.Keys(seen)) {
			if at == 0 {
				c.Outcome = seen[text]
			} else {
				c.Or = append(c.Or, seen[text])
			}
		}
		if result, ok := c.Result.(fields); ok && len(c.Or) == 0 {
			c.Again = print(merge(result, patch, sample.object)) == print(c.Outcome)
		}
		line := print(c)
		if largest == 0 || len(line) <= largest {
			fmt.Println(line)
			written++
		}
	}
}

func merge(original, patch fields, object any) (outcome Outcome) {
	defer func() {
		if cause := recover(); cause != nil {
			outcome = Outcome{Panic: fmt.Sprint(cause)}
		}
	}()
	merged, err := strategicpatch.StrategicMergeMapPatch(clone(original).(fields), clone(patch).(fields), object)
	if err != nil {
		return Outcome{Error: err.Error()}
	}
	return Outcome{Result: clone(merged)}
}

// clone copies a value; its lists have no room to grow, since Go's appends show through where they have.
func clone(value any) any {
	switch value := value.(type) {
	case strategicpatch.JSONMap:
		return clone(fields(value))
	case fields:
		copied := make(fields, len(value))
		for key, field := range value {
			copied[key] = clone(field)
		}
		return copied
	case []any:
		copied := make([]any, len(value))
		for at, item := range value {
			copied[at] = clone(item)
		}
		return copied
	}
	return value
}

func print(value any) string {
	text := &strings.Builder{}
	encoder := json.NewEncoder(text)
	encoder.SetEscapeHTML(false)
	check(encoder.Encode(value))
	return strings.TrimSpace(text.String())
}

func parse(text string) fields {
	value := fields{}
	check(utiljson.Unmarshal([]byte(text), &value))
	return value
}

func typeName(t reflect.Type) string {
	path, _ := strings.CutPrefix(t.PkgPath(), "k8s.io/")
	return "io.k8s." + strings.ReplaceAll(path, "/", ".") + "." + t.Name()
}

// writeFields writes by type and field: its kind with `*` for a pointer, its strategy, its key.
func writeFields() {
	types := map[string]map[string][3]string{}
	for _, object := range others {
		collect(reflect.TypeOf(object).Elem(), types)
	}
	for _, sample := range samples {
		collect(reflect.TypeOf(sample.object).Elem(), types)
	}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		fmt.Println(print([]any{name, types[name]}))
	}
}

func collect(t reflect.Type, types map[string]map[string][3]string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		collect(t.Elem(), types)
	case reflect.Struct:
		name := typeName(t)
		if _, found := types[name]; found || !strings.HasPrefix(t.PkgPath(), "k8s.io/") {
			return
		}
		types[name] = map[string][3]string{}
		collectFields(t, t, types)
	}
}

func collectFields(outer, t reflect.Type, types map[string]map[string][3]string) {
	for field := range t.Fields() {
		name, rest, _ := strings.Cut(field.Tag.Get("json"), ",")
		if name == "" && strings.Contains(rest, "inline") {
			collectFields(outer, field.Type, types)
		}
		if name == "" || name == "-" {
			continue
		}
		found, strategies, key, err := forked.LookupPatchMetadataForStruct(outer, name)
		check(err)
		kind := found.Kind().String()
		if found.Kind() == reflect.Pointer {
			kind = "*" + found.Elem().Kind().String()
		}
		types[typeName(outer)][name] = [3]string{kind, strings.Join(strategies, ","), key}
		collect(found, types)
	}
}

// generator makes objects and patches out of a rich sample.
type generator struct {
	*rand.Rand
	sample fields
}

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g generator, from []T) T { return from[g.IntN(len(from))] }

// original is a part of the sample, as Go writes it.
func (g generator) original(object any) fields {
	value := g.thin(clone(g.sample), pick(g, []int{5, 20, 45}))
	typed := reflect.New(reflect.TypeOf(object).Elem()).Interface()
	check(utiljson.Unmarshal([]byte(print(value)), typed))
	original, err := runtime.DefaultUnstructuredConverter.ToUnstructured(typed)
	check(err)
	return parse(print(original))
}

// thin leaves fields and items out, and repeats or moves items.
func (g generator) thin(value any, percent int) any {
	switch value := value.(type) {
	case fields:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			if g.chance(percent) {
				delete(value, key)
			} else {
				value[key] = g.thin(value[key], percent)
			}
		}
	case []any:
		var kept []any
		for _, item := range value {
			if !g.chance(percent) {
				kept = append(kept, g.thin(item, percent))
			}
		}
		if g.chance(10) {
			g.Shuffle(len(kept), func(i, j int) { kept[i], kept[j] = kept[j], kept[i] })
		}
		if len(kept) > 0 && g.chance(4) {
			kept = append(kept, clone(pick(g, kept)))
		}
		if texts(kept) && g.chance(4) {
			for range 25 {
				kept = append(kept, fmt.Sprint("t", g.IntN(60)))
			}
		}
		return append([]any{}, kept...)
	}
	return value
}

func texts(items []any) bool {
	for _, item := range items {
		if _, ok := item.(string); !ok {
			return false
		}
	}
	return len(items) > 0
}

// patch is one as kubectl makes it, one made of directives, or something in between.
func (g generator) patch(original fields, schema strategicpatch.PatchMetaFromStruct) fields {
	if g.chance(45) {
		modified := g.change(g.thin(clone(pick(g, []fields{original, g.sample})), 15)).(fields)
		patch := difference(original, modified, reflect.New(schema.T).Interface())
		if g.chance(50) {
			g.damage(patch)
		}
		return patch
	}
	return g.mapPatch(original, g.sample, schema, pick(g, []int{8, 20, 50}), 0)
}

// difference is the patch that kubectl makes; an empty one where the library fails or panics.
func difference(original, modified fields, object any) (patch fields) {
	defer func() {
		if recover() != nil {
			patch = fields{}
		}
	}()
	made, err := strategicpatch.CreateTwoWayMergeMapPatch(clone(original).(fields), modified, object)
	if err != nil {
		return fields{}
	}
	return parse(print(made))
}

// change gives other values to some fields and other keys to some items.
func (g generator) change(value any) any {
	switch value := value.(type) {
	case fields:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			value[key] = g.change(value[key])
		}
		return value
	case []any:
		for at := range value {
			value[at] = g.change(value[at])
		}
		return value
	}
	if g.chance(8) {
		return g.scalar(value)
	}
	return value
}

// scalar is another value, mostly of the same type.
func (g generator) scalar(like any) any {
	if g.chance(5) {
		return g.junk()
	}
	switch like := like.(type) {
	case string:
		return pick(g, []string{"new", "", "x y", "main", "é\"\u00a0", like + "2"})
	case int64:
		return like + int64(g.IntN(3))
	case bool:
		return !like
	}
	return g.junk()
}

func (g generator) junk() any {
	return pick(g, []any{nil, "junk", int64(7), true, 1.5, 1e21, 2.5e-7, 1e6, 123456789.5, []any{}, []any{"a", int64(1)}, []any{nil}, []any{[]any{}},
		[]any{fields{"name": "main"}}, []any{fields{}}, fields{}, fields{"a": nil}, fields{"name": nil, "b": "c"},
		fields{"$patch": "delete"}, fields{"$patch": "replace", "a": nil}, fields{"$patch": int64(3), "b": nil}, fields{"a": fields{"$patch": "x"}}})
}

func (g generator) mapPatch(original, sample fields, schema strategicpatch.LookupPatchMeta, percent, depth int) fields {
	patch := fields{}
	keys := map[string]bool{}
	for key := range original {
		keys[key] = true
	}
	for key := range sample {
		keys[key] = true
	}
	names := slices.Sorted(maps.Keys(keys))
	for _, key := range names {
		if g.chance(percent) {
			old := original[key]
			if old == nil {
				old = sample[key]
			}
			patch[key] = g.fieldPatch(old, sample[key], key, schema, percent, depth)
		}
	}
	rare := 6
	if depth == 0 {
		rare = 2
	}
	if g.chance(rare) {
		patch["$patch"] = pick(g, []any{"replace", "replace", "delete", "merge", "odd", nil, int64(1), 1.5, true, fields{"a": int64(1), "b": nil}, []any{"x", nil, 2.5}})
	}
	if g.chance(2 * rare) {
		retained := []any{}
		for _, key := range append(slices.Sorted(maps.Keys(patch)), names...) {
			if g.chance(80) {
				retained = append(retained, key)
			}
		}
		patch["$retainKeys"] = retained
		if g.chance(5) {
			patch["$retainKeys"] = pick(g, []any{nil, "a", []any{fields{}}, []any{nil, []any{}}})
		}
	}
	for _, key := range names {
		if list, ok := original[key].([]any); ok && g.chance(30) {
			g.parallel(patch, key, list, schema)
		} else if g.chance(1) {
			patch[pick(g, []string{"$setElementOrder/", "$deleteFromPrimitiveList/"})+pick(g, []string{key, strings.ToUpper(key)})] = []any{}
		}
	}
	if g.chance(2) {
		patch[pick(g, []string{"unknown", "$setElementOrder", "$setElementOrder/unknown", "$setElementOrder/a\t\u00a0\"", "$setElementOrderX/a", "$deleteFromPrimitiveList",
			"$deleteFromPrimitiveList/", "$deleteFromPrimitiveList/unknown", "$deleteFromPrimitiveListX/a", "$other"})] = pick(g, []any{g.junk(), []any{}})
	}
	return patch
}

func (g generator) fieldPatch(old, sample any, key string, schema strategicpatch.LookupPatchMeta, percent, depth int) any {
	if g.chance(4) {
		return nil
	}
	if g.chance(3) {
		return g.junk()
	}
	switch old := old.(type) {
	case fields:
		below, _, err := schema.LookupPatchMetadataForStruct(key)
		if err != nil {
			below = schema
		}
		sample, _ := sample.(fields)
		return g.mapPatch(old, sample, below, max(percent, 30), depth+1)
	case []any:
		below, meta, err := schema.LookupPatchMetadataForSlice(key)
		if err != nil {
			return clone(old)
		}
		more, _ := sample.([]any)
		return g.listPatch(append(slices.Clip(old), more...), meta.GetPatchMergeKey(), below, percent, depth)
	}
	return g.scalar(old)
}

func (g generator) listPatch(items []any, key string, schema strategicpatch.LookupPatchMeta, percent, depth int) []any {
	patch := []any{}
	for range g.IntN(4) {
		if len(items) == 0 {
			break
		}
		item, ok := clone(pick(g, items)).(fields)
		if !ok {
			patch = append(patch, g.scalar(pick(g, items)))
			continue
		}
		if g.chance(70) && schema != nil {
			change := g.mapPatch(item, item, schema, percent, depth+1)
			if value, found := item[key]; found && !g.chance(4) {
				change[key] = value
			}
			item = change
		}
		if _, found := item[key]; found && g.chance(20) {
			item[key] = g.scalar(item[key])
		}
		if g.chance(15) {
			item["$patch"] = pick(g, []any{"delete", "delete", "delete", "replace", "merge", "odd", int64(1)})
			if item["$patch"] == "delete" && g.chance(30) {
				patch = append(patch, item)
				item = fields{key: item[key], "again": true}
			}
		}
		patch = append(patch, item)
	}
	if g.chance(6) {
		patch = append(patch, fields{"$patch": "replace"})
	}
	if g.chance(4) {
		patch = append(patch, g.junk())
	}
	return patch
}

// parallel adds a list of a directive for a list of the object.
func (g generator) parallel(patch fields, key string, original []any, schema strategicpatch.LookupPatchMeta) {
	wanted, _ := patch[key].([]any)
	_, meta, err := schema.LookupPatchMetadataForSlice(key)
	mergeKey := meta.GetPatchMergeKey()
	if err == nil && g.chance(75) {
		order := []any{}
		for _, item := range append(slices.Clip(wanted), original...) {
			if item, ok := item.(fields); ok && mergeKey != "" {
				if value, found := item[mergeKey]; found && (item["$patch"] == nil || g.chance(20)) {
					order = append(order, fields{mergeKey: clone(value)})
				}
				continue
			}
			order = append(order, clone(item))
		}
		if g.chance(30) {
			g.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		}
		if g.chance(25) {
			order = order[:g.IntN(len(order)+1)]
		}
		patch["$setElementOrder/"+key] = order
		if g.chance(4) {
			patch["$setElementOrder/"+key] = g.junk()
		}
	}
	if texts(original) && g.chance(60) || g.chance(4) {
		deleted := []any{}
		for _, item := range original {
			if g.chance(40) {
				deleted = append(deleted, clone(item))
			}
		}
		patch["$deleteFromPrimitiveList/"+key] = deleted
		if g.chance(5) {
			patch["$deleteFromPrimitiveList/"+key] = g.junk()
		}
	}
}

// damage changes a few things at random places.
func (g generator) damage(value any) {
	switch value := value.(type) {
	case fields:
		for _, key := range slices.Sorted(maps.Keys(value)) {
			switch {
			case !g.chance(12):
				g.damage(value[key])
			case g.chance(25):
				delete(value, key)
			case g.chance(30):
				value[key] = g.junk()
			case g.chance(50):
				value[pick(g, []string{"$patch", "$retainKeys", "name"})] = pick(g, []any{"delete", "replace", "merge", []any{key}, []any{}, nil})
			default:
				if items, ok := value[key].([]any); ok {
					g.Shuffle(len(items), func(i, j int) { items[i], items[j] = items[j], items[i] })
				}
			}
		}
	case []any:
		for _, item := range value {
			g.damage(item)
		}
		if len(value) > 0 && g.chance(10) {
			value[g.IntN(len(value))] = g.junk()
		}
	}
}
