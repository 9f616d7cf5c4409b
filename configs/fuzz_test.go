package configs

import (
	"errors"
	"os"
	"regexp"
	"testing"
)

var fileLine = regexp.MustCompile(`^test\.yml:[1-9][0-9]*$`)

func fuzz(f *testing.F, load func(string) error, samples ...string) {
	for _, name := range samples {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(data))
	}
	for _, text := range []string{
		"", "a: &a [*a]", "a: &a {b: *a}", "? {a: b}\n: c", "<<: {state: x}", "state: !!binary eA==", "---\n---", "%YAML 9.9",
		"tunnels: &t {a: *t}", "tunnels: {a: {kind: http, upstream: 1, url: 'https://['}}", "state: |\n  a\n  b", "\xff\xfe", "a: *b",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		err := load(text)
		if err == nil {
			return
		}
		var problems *Error
		if !errors.As(err, &problems) {
			t.Fatalf("%v is not about the file", err)
		}
		for _, p := range problems.Problems {
			if !fileLine.MatchString(p.Place) || p.Message == "" {
				t.Errorf("%q at %q", p.Message, p.Place)
			}
		}
	})
}

func FuzzAgentConfig(f *testing.F) {
	fuzz(f, func(text string) error { _, err := agentText(text); return err }, "wgexpose.yml")
}

func FuzzEdgeConfig(f *testing.F) {
	fuzz(f, func(text string) error { _, err := edgeText(text); return err }, "edge.yml")
}
