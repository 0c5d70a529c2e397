// Command json-patch writes what the libraries that Kubernetes patches with make of random patches, a JSON line each:
//
//	go run . cases 1 1200 > cases.jsonl    # JSON patches: seed, number
//	go run . merges 1 400 > merges.jsonl   # merge patches
//	go run . texts 1 600 > texts.jsonl     # what the JSON reader says of broken texts
package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	kjson "sigs.k8s.io/json"
)

type fields = map[string]any

// Case is a patch and what it makes of a document; without a result it fails.
type Case struct {
	Document any             `json:"document"`
	Patch    any             `json:"patch"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    string          `json:"error,omitempty"`
}

// Text is what the reader says of bytes; nothing if they are JSON.
type Text struct {
	Text  []int  `json:"text"`
	Error string `json:"error,omitempty"`
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: json-patch cases|merges|texts SEED COUNT")
		os.Exit(2)
	}
	g := generator{rand.New(rand.NewPCG(uint64(number(os.Args[2])), 0))}
	write := map[string]func() any{"cases": g.jsonCase, "merges": g.mergeCase, "texts": g.text}[os.Args[1]]
	for range number(os.Args[3]) {
		fmt.Println(print(write()))
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

func print(value any) string {
	text, err := json.Marshal(value)
	check(err)
	return string(text)
}

type generator struct{ *rand.Rand }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

func (g generator) one(in int) bool { return g.IntN(in) == 0 }

func (g generator) value(depth int) any {
	if depth == 0 || g.one(3) {
		return pick[any](g, nil, true, false, 0, 1, -7, 1.5, "", "x", "y", "null")
	}
	if g.one(2) {
		items := []any{}
		for range g.IntN(4) {
			items = append(items, g.value(depth-1))
		}
		return items
	}
	return g.object(depth)
}

func (g generator) object(depth int) fields {
	object := fields{}
	for range g.IntN(5) {
		object[g.key()] = g.value(depth - 1)
	}
	return object
}

func (g generator) key() string { return pick(g, "a", "b", "c", "d", "", "0", "a/b", "m~n", "~1") }

// Path names something in a document, or nearly.
func (g generator) path(document any) string {
	path := ""
	for at := document; ; {
		if g.one(12) {
			return path + pick(g, "", "/", "/none", "/none/deeper", "a", "/-", "/0/0", "/~", "/~2")
		}
		switch holder := at.(type) {
		case fields:
			if len(holder) == 0 || g.one(6) {
				return path + "/" + g.escaped(g.key())
			}
			key := pick(g, slices.Sorted(maps.Keys(holder))...)
			path, at = path+"/"+g.escaped(key), holder[key]
		case []any:
			if len(holder) == 0 || g.one(3) {
				place := []string{"-", "-1", "-0", "+0", "01", "00", "x", "", "1.0", "0x0", "9223372036854775808"}
				for _, n := range []int{len(holder) - 1, len(holder), len(holder) + 1} {
					place = append(place, strconv.Itoa(n), strconv.Itoa(-n), "0"+strconv.Itoa(n))
				}
				return path + "/" + pick(g, place...)
			}
			n := g.IntN(len(holder))
			path, at = path+"/"+pick(g, strconv.Itoa(n), strconv.Itoa(n), strconv.Itoa(n-len(holder))), holder[n]
		default:
			return path
		}
		if g.one(3) {
			return path
		}
	}
}

func (g generator) escaped(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

func (g generator) operation(document any, isLast bool) any {
	if g.one(80) {
		return nil
	}
	op := pick(g, "add", "remove", "replace", "move", "copy", "test", "test")
	path := g.path(document)
	operation := fields{"op": op, "path": path, "from": g.path(document)}
	if !g.one(10) {
		operation["value"] = g.value(2)
		if there, err := at(document, path); err == nil && op == "test" && !g.one(4) {
			operation["value"] = there
		}
		// A null that is added and then looked at is another null to the library than one that was there.
		if operation["value"] == nil && op != "test" && !isLast {
			delete(operation, "value")
		}
	}
	if op != "move" && op != "copy" && !g.one(9) {
		delete(operation, "from")
	}
	if g.one(40) {
		operation[pick(g, "op", "path", "from")] = pick[any](g, nil, 1, true, "", "jump", []any{}, fields{})
	}
	if g.one(40) {
		delete(operation, pick(g, "op", "path", "from"))
	}
	return operation
}

// At is what a path names, by way of a patch that copies it.
func at(document any, path string) (any, error) {
	copied, err := applied(document, []any{
		fields{"op": "add", "path": "/copied", "value": fields{}},
		fields{"op": "copy", "from": path, "path": "/copied"},
	})
	if err != nil {
		return nil, err
	}
	var result fields
	check(json.Unmarshal(copied, &result))
	return result["copied"], nil
}

func applied(document, patch any) (result []byte, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			err = fmt.Errorf("panic: %v", reason)
		}
	}()
	operations, err := jsonpatch.DecodePatch([]byte(print(patch)))
	check(err)
	return operations.Apply([]byte(print(document)))
}

func (g generator) jsonCase() any {
	document := g.object(4)
	var now any = document
	patch := []any{}
	for count := 1 + g.IntN(4); len(patch) < count; {
		operation := g.operation(now, len(patch) == count-1)
		next, err := applied(now, []any{operation})
		if err == nil {
			check(json.Unmarshal(next, &now))
		} else if !g.one(4) {
			// Most patches get further than their first mistake.
			continue
		}
		patch = append(patch, operation)
	}
	return outcome(document, patch, applied)
}

func (g generator) mergeCase() any {
	document, patch := g.object(4), any(g.object(4))
	if g.one(20) {
		patch = g.value(2)
	}
	return outcome(document, patch, func(document, patch any) ([]byte, error) {
		return jsonpatch.MergePatch([]byte(print(document)), []byte(print(patch)))
	})
}

func outcome(document, patch any, apply func(document, patch any) ([]byte, error)) Case {
	result, err := apply(document, patch)
	if err != nil {
		return Case{Document: document, Patch: patch, Error: err.Error()}
	}
	return Case{Document: document, Patch: patch, Result: result}
}

func (g generator) text() any {
	text := []byte(pick(g, print(g.value(3)), print(g.object(3)), ` {"a" : [1.5e-3, -0, 2E+1, "\u00e9\n\"", true, false, null] } `))
	for range 1 + g.IntN(2) {
		from := g.IntN(len(text) + 1)
		to := min(len(text), from+g.IntN(2))
		letters := "{}[]:,\"\\ tfnu0019-+.eE'x\n\x00\x07\x7f\x80\xa0\xad\xe9"
		at := g.IntN(len(letters))
		switch g.IntN(4) {
		case 0:
			text = text[:from]
		case 1:
			text = slices.Delete(text, from, to)
		default:
			text = slices.Replace(text, from, to, letters[at])
		}
	}
	said := Text{Text: []int{}}
	for _, letter := range text {
		said.Text = append(said.Text, int(letter))
	}
	var value any
	_, err := kjson.UnmarshalStrict(text, &value)
	if isSyntax, _ := kjson.SyntaxErrorOffset(err); isSyntax {
		said.Error = err.Error()
	}
	return said
}
