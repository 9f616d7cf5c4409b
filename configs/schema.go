package configs

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"strings"

	"github.com/wgexpose/wgexpose/certs"
	"github.com/wgexpose/wgexpose/tunnel"
)

// SchemaFile is the name of the schema beside a file, wgexpose.yml or edge.yml.
// It is written there rather than fetched, so that it is of the program's release.
func SchemaFile(file string) string {
	base := filepath.Base(file)
	return strings.TrimSuffix(base, filepath.Ext(base)) + ".schema.json"
}

// SchemaLine is the first line of a file that editors complete by the schema
// beside it.
func SchemaLine(file string) string {
	return "# yaml-language-server: $schema=" + SchemaFile(file) + "\n"
}

// schema is the part of JSON Schema (draft 2020-12) that is used here.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Type        any                `json:"type,omitempty"` // a name, or a list of them
	Enum        []string           `json:"enum,omitempty"`
	Default     string             `json:"default,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	Names       *schema            `json:"propertyNames,omitempty"`
	Pattern     string             `json:"pattern,omitempty"`
	Others      any                `json:"additionalProperties,omitempty"` // false, or the schema of all
	AnyOf       []*schema          `json:"anyOf,omitempty"`
	Items       *schema            `json:"items,omitempty"`
}

// words are the values of keys that have only a few. A variable's value may
// stand for any of them.
func words(key string) []string {
	switch key {
	case "log_level":
		return []string{"debug", "info", "warn", "error"}
	case "log_format":
		return []string{string(LogText), string(LogJSON)}
	case "tls":
		return []string{string(certs.ACME), string(certs.Internal), string(certs.Off)}
	case "http3":
		return []string{string(HTTP3Auto), string(HTTP3On), string(HTTP3Off)}
	case "certificates":
		return []string{string(certs.ACME), string(certs.Internal)}
	case dnsKey + ".provider":
		return certs.DNSProviders()
	case "kind":
		var kinds []string
		for _, kind := range []tunnel.Kind{"http", "tcp", "tls", "udp"} {
			if kind.Validate() == nil {
				kinds = append(kinds, string(kind))
			}
		}
		return kinds
	case "terminate_at":
		return []string{"upstream", tunnel.AtAgent, tunnel.AtEdge}
	case "proxy_protocol":
		return []string{"v1", "v2"}
	case "upstream_protocol":
		return []string{"http1", tunnel.HTTP2}
	}
	return nil
}

// AgentSchema is the JSON Schema of wgexpose.yml.
func AgentSchema() ([]byte, error) {
	s := processSchema("What a wgexpose agent shares", agentSettings())
	one := &schema{Type: "object", Properties: make(map[string]*schema), Required: []string{"kind", "upstream"}, Others: false}
	for _, key := range tunnelKeys() {
		one.Properties[key] = tunnelSchema(key)
	}
	s.Properties[tunnelsKey] = &schema{
		Description: "What is shared, by name.",
		Type:        []string{"object", "null"},
		Names:       &schema{Pattern: "^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$"},
		Others:      one,
	}
	return s.encode()
}

// EdgeSchema is the JSON Schema of edge.yml.
func EdgeSchema() ([]byte, error) {
	s := processSchema("How a wgexpose edge listens and names things", edgeSettings())
	for _, key := range edgeMaps() {
		s.Properties[key] = mapSchema(key)
	}
	return s.encode()
}

func processSchema(title string, settings []setting) *schema {
	s := &schema{
		Schema: "https://json-schema.org/draft/2020-12/schema", Title: title,
		Type: "object", Properties: make(map[string]*schema), Others: false,
	}
	for _, set := range settings {
		p := scalarSchema(set.key)
		p.Description = sentence(set.usage)
		if set.key != "state" { // differs by user
			p.Default = set.value
		}
		s.Properties[set.key] = p
	}
	return s
}

// sentence is a flag's help as a description. What depends on the machine is
// left out.
func sentence(usage string) string {
	text := strings.ReplaceAll(usage, "`", "")
	if i := strings.Index(text, " (default /"); i >= 0 {
		text = text[:i]
	}
	if i := strings.Index(text, " (default ~"); i >= 0 {
		text = text[:i]
	}
	return text
}

// scalarSchema takes what YAML makes of a plain value: 8089 is a number there.
func scalarSchema(key string) *schema {
	if list := words(key); list != nil {
		return &schema{AnyOf: []*schema{{Enum: list}, {Type: "string", Pattern: `\$\{`}}}
	}
	return &schema{Type: []string{"string", "number", "boolean"}}
}

func tunnelSchema(key string) *schema {
	s := scalarSchema(key)
	for _, list := range policyKeys() {
		if key == list {
			s = &schema{AnyOf: []*schema{{Type: "string"}, {Type: "array", Items: &schema{Type: "string"}}}}
		}
	}
	s.Description = tunnelHelp(key)
	return s
}

// tunnelHelp says what a key of a tunnel is.
func tunnelHelp(key string) string {
	return map[string]string{
		"kind":                   "what visitors speak",
		"upstream":               "the private target: a port of this machine, host:port, http://…, https://…, unix:/path or file:///folder",
		"url":                    "public address of a tunnel with a host name, such as https://app.example.com; without it the tunnel's name under the edge's domain",
		"port":                   "tcp: public port; without it the edge chooses one",
		"host_header":            "http: sent to the upstream in place of the visitor's Host",
		"upstream_protocol":      "http: what the upstream speaks; http2 for gRPC and its like",
		"compression":            "http: compress texts for visitors that ask for it, where the upstream has not",
		"hsts":                   "http: tell browsers to come over HTTPS alone for a year (Strict-Transport-Security), where the upstream says nothing of it",
		"terminate_at":           "who ends TLS: the edge (http: unless it says otherwise), this agent with a certificate of its own, or the upstream itself (tls: unless it says otherwise)",
		"proxy_protocol":         "tcp, tls: tell the upstream the visitor's address with a PROXY header",
		"upstream_tls_verify":    "http: check the certificate of an https:// upstream; without it true, and false for one on this machine",
		"listing":                "http: list a folder that has no index.html; true unless it says false",
		"spa":                    "http: /index.html of a folder for pages that are no file, for single-page apps",
		"inspect":                "http: show its requests on the inspector's page; true unless it says false",
		"warning_page":           "http: browsers are told before the first page that somebody shares it from a machine of their own",
		"basic_auth":             "http: USER:PASSWORD of those who may come in; the password as it is, or hashed with bcrypt",
		"cidr_allow":             "networks of visitors who may come in; without it all",
		"cidr_deny":              "networks of visitors who may not come in",
		"request_header_add":     "http: NAME: VALUE that is added to requests",
		"request_header_remove":  "http: names of headers that are taken out of requests",
		"response_header_add":    "http: NAME: VALUE that is added to answers",
		"response_header_remove": "http: names of headers that are taken out of answers",
	}[key]
}

func (s *schema) encode() ([]byte, error) {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	err := encoder.Encode(s)
	return out.Bytes(), err
}
