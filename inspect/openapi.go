package inspect

import (
	"cmp"
	"net/http"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// object is a JSON object under construction.
type object = map[string]any

// openapi serves the OpenAPI 3.1 document, made from the routes and the types
// of their bodies.
func (s *server) openapi(w http.ResponseWriter, _ *http.Request) {
	schemas := schemas{}
	paths := map[string]object{}
	for _, r := range s.routes() {
		if paths[r.path] == nil {
			paths[r.path] = object{}
		}
		paths[r.path][strings.ToLower(r.method)] = r.operation(schemas)
	}
	writeJSON(w, http.StatusOK, object{
		"openapi": "3.1.0",
		"info": object{
			"title": "wgexpose inspector", "version": cmp.Or(s.cfg.Version, "unknown"),
			"description": "HTTP that passed the agent. Calls under /api that are not under /api/v1 are those of ngrok's local API.",
		},
		"paths": paths,
		"components": object{
			"schemas":         schemas,
			"securitySchemes": object{"token": object{"type": "apiKey", "in": "header", "name": tokenHeader}},
		},
	})
}

var pathParams = regexp.MustCompile(`\{(\w+)\}`)

func (r *route) operation(known schemas) object {
	var params []object
	for _, m := range pathParams.FindAllStringSubmatch(r.path, -1) {
		schema := object{"type": "string"}
		if m[1] == "side" {
			schema["enum"] = []string{"request", "response"}
		}
		params = append(params, object{"name": m[1], "in": "path", "required": true, "schema": schema})
	}
	for _, q := range r.query {
		params = append(params, object{"name": q.name, "in": "query", "description": q.about, "schema": object{"type": "string"}})
	}
	good, status := object{"description": "Done"}, http.StatusNoContent
	if r.answer != nil || r.media != "" {
		status = http.StatusOK
		schema := object{}
		if r.answer != nil {
			schema = known.of(reflect.TypeOf(r.answer))
		}
		good["content"] = object{cmp.Or(r.media, "application/json"): object{"schema": schema}}
	}
	failed := object{"description": "Why not", "content": object{"application/json": object{"schema": known.of(reflect.TypeFor[apiError]())}}}
	op := object{
		"summary":   r.summary,
		"responses": object{strconv.Itoa(cmp.Or(r.status, status)): good, "default": failed},
	}
	if params != nil {
		op["parameters"] = params
	}
	if r.body != nil {
		op["requestBody"] = object{"content": object{"application/json": object{"schema": known.of(reflect.TypeOf(r.body))}}}
	}
	if r.token {
		op["security"] = []object{{"token": []string{}}}
	}
	return op
}

// schemas are JSON Schemas of Go types as encoding/json writes them.
type schemas map[string]object

func (s schemas) of(t reflect.Type) object {
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.String:
		return object{"type": "string"}
	case reflect.Bool:
		return object{"type": "boolean"}
	case reflect.Float64:
		return object{"type": "number"}
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return object{"type": "string", "contentEncoding": "base64"}
		}
		return object{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return object{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		if t == reflect.TypeFor[time.Time]() {
			return object{"type": "string", "format": "date-time"}
		}
		return s.ofStruct(t)
	}
	return object{"type": "integer"}
}

func (s schemas) ofStruct(t reflect.Type) object {
	name := strings.ToUpper(t.Name()[:min(1, len(t.Name()))]) + t.Name()[min(1, len(t.Name())):]
	if name == "" {
		return object{"type": "object"}
	}
	if _, known := s[name]; !known {
		schema := object{"type": "object"}
		s[name] = schema // before its fields, which may hold it again
		properties, required := object{}, []string{}
		s.fields(t, properties, &required)
		schema["properties"], schema["required"] = properties, required
	}
	return object{"$ref": "#/components/schemas/" + name}
}

func (s schemas) fields(t reflect.Type, properties object, required *[]string) {
	for f := range t.Fields() {
		tag, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			s.fields(f.Type, properties, required)
			continue
		}
		if tag == "" || tag == "-" {
			continue
		}
		properties[tag] = s.of(f.Type)
		if !strings.HasPrefix(options, "omit") {
			*required = append(*required, tag)
		}
	}
}
