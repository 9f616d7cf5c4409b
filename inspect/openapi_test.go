package inspect

import (
	"slices"
	"strings"
	"testing"
)

// TestOpenAPI: the document lists what is served, and what is served is as
// the document says.
func TestOpenAPI(t *testing.T) {
	s := newSite(t, Config{Version: "1.2.3"})
	id := s.visit(t, "POST", "/echo", "--b\r\nContent-Disposition: form-data; name=n\r\n\r\nv\r\n--b--\r\n", "Content-Type", "multipart/form-data; boundary=b")
	_, body := s.get(t, "/api/v1/openapi.json")
	type schema map[string]any
	doc := fromJSON[struct {
		OpenAPI string
		Paths   map[string]map[string]struct {
			Summary   string
			Security  []any
			Responses map[string]struct {
				Content map[string]struct{ Schema schema }
			}
		}
		Components struct{ Schemas map[string]schema }
	}](t, body)
	if doc.OpenAPI != "3.1.0" {
		t.Error(doc.OpenAPI)
	}
	var check func(where string, sc schema, v any)
	check = func(where string, sc schema, v any) {
		if ref, ok := sc["$ref"].(string); ok {
			sc = doc.Components.Schemas[strings.TrimPrefix(ref, "#/components/schemas/")]
			if sc == nil {
				t.Errorf("%s: %s is not defined", where, ref)
				return
			}
		}
		switch v := v.(type) {
		case map[string]any:
			if sc["type"] != "object" {
				t.Errorf("%s: an object; the document says %v", where, sc["type"])
			}
			properties, closed := sc["properties"].(map[string]any)
			for name, field := range v {
				if p, ok := properties[name].(map[string]any); ok {
					check(where+"."+name, p, field)
				} else if closed {
					t.Errorf("%s.%s is not in the document", where, name)
				}
			}
			required, _ := sc["required"].([]any)
			for _, name := range required {
				if _, ok := v[name.(string)]; !ok {
					t.Errorf("%s has no %v", where, name)
				}
			}
		case []any:
			if sc["type"] != "array" {
				t.Errorf("%s: an array; the document says %v", where, sc["type"])
				return
			}
			for _, e := range v {
				check(where+"[]", sc["items"].(map[string]any), e)
			}
		case string:
			if sc["type"] != "string" {
				t.Errorf("%s: a string; the document says %v", where, sc["type"])
			}
		case float64:
			if sc["type"] != "number" && sc["type"] != "integer" {
				t.Errorf("%s: a number; the document says %v", where, sc["type"])
			}
		case bool:
			if sc["type"] != "boolean" {
				t.Errorf("%s: a boolean; the document says %v", where, sc["type"])
			}
		case nil:
			t.Errorf("%s is null", where)
		}
	}
	routes := (&server{s.Inspector, nil}).routes()
	count := 0
	for _, r := range routes {
		op, ok := doc.Paths[r.path][strings.ToLower(r.method)]
		if !ok || op.Summary == "" {
			t.Errorf("%s %s is not in the document", r.method, r.path)
		}
		if (len(op.Security) > 0) != r.token {
			t.Errorf("%s %s: security %v", r.method, r.path, op.Security)
		}
		if r.method != "GET" || r.path == "/api/v1/events" {
			continue
		}
		path := strings.NewReplacer("{id}", id, "{side}", "request", "{name}", "app").Replace(r.path)
		a, body := s.get(t, path)
		if a.StatusCode != 200 {
			t.Errorf("GET %s: %s %s", path, a.Status, body)
			continue
		}
		for media, content := range op.Responses["200"].Content {
			if got := a.Header.Get("Content-Type"); got != media {
				t.Errorf("GET %s is %s; the document says %s", path, got, media)
			}
			if media == "application/json" && r.answer != nil {
				check(path, content.Schema, fromJSON[any](t, body))
				count++
			}
		}
	}
	for path, methods := range doc.Paths {
		for method := range methods {
			if !slices.ContainsFunc(routes, func(r route) bool { return r.path == path && strings.EqualFold(r.method, method) }) {
				t.Errorf("%s %s is in the document and not served", method, path)
			}
		}
	}
	if count < 10 {
		t.Errorf("only %d answers were compared", count)
	}
}
