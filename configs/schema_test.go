package configs

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestSchemas(t *testing.T) {
	isolate(t)
	for sample, test := range map[string]struct {
		make func() ([]byte, error)
		keys []string
	}{
		"wgexpose.yml": {AgentSchema, append(keysOf(agentSettings()), tunnelsKey)},
		"edge.yml":     {EdgeSchema, append(keysOf(edgeSettings()), edgeMaps()...)},
	} {
		got, err := test.make()
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(sample)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(text), SchemaLine(sample)) {
			t.Errorf("the first line of %s does not name its schema", sample)
		}
		var s struct {
			Properties map[string]struct{ Description string }
		}
		if err := json.Unmarshal(got, &s); err != nil {
			t.Fatal(err)
		}
		for _, key := range test.keys {
			if s.Properties[key].Description == "" {
				t.Errorf("%s says nothing of %s", sample, key)
			}
		}
		if len(s.Properties) != len(test.keys) {
			t.Errorf("%s has %d keys of %d", sample, len(s.Properties), len(test.keys))
		}
	}
	for _, key := range tunnelKeys() {
		if tunnelHelp(key) == "" {
			t.Errorf("the tunnel's key %s is not described", key)
		}
	}
}

// Every word that a schema offers is one that the program takes.
func TestSchemaWords(t *testing.T) {
	isolate(t)
	for _, s := range agentSettings() {
		for _, w := range words(s.key) {
			if _, err := agentText(s.key + ": " + w + "\n"); err != nil {
				t.Error(err)
			}
		}
	}
	for _, w := range words("tls") {
		if _, err := edgeText("domain: example.com\ntls: " + w + "\n"); err != nil {
			t.Error(err)
		}
	}
	for key, other := range map[string]string{"kind": "upstream: 1", "proxy_protocol": "kind: tcp, upstream: 1", "upstream_protocol": "kind: http, upstream: 1"} {
		for _, w := range words(key) {
			if _, err := agentText("tunnels:\n  a: {" + other + ", " + key + ": " + w + "}\n"); err != nil {
				t.Error(err)
			}
		}
	}
}
