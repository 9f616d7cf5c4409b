package control

import (
	"bufio"
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
)

// fuzz checks one wire type: garbage never panics, and what is accepted
// survives a way over the wire unchanged, so that both sides see the same.
func fuzz[T any, P interface {
	*T
	validator
}](f *testing.F, limit int, seeds ...string) {
	for _, s := range append(seeds, "", "{}", "null", "[]", `{"type":1}`, "{\"a\":\"\xff\"}", `{"error":{}}`) {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v T
		if decode(bytes.NewReader(data), limit, P(&v)) != nil {
			return
		}
		once, err := json.Marshal(&v)
		if err != nil {
			t.Fatalf("accepted %q, cannot encode it: %v", data, err)
		}
		var w T
		if err := unmarshal(once, P(&w)); err != nil {
			t.Fatalf("accepted %q, but not its own encoding %s: %v", data, once, err)
		}
		twice, err := json.Marshal(&w)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(once, twice) {
			t.Fatalf("%q changed on the way: %s, then %s", data, once, twice)
		}
	})
}

const seedKey = `"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWE="`

func FuzzEnrollRequest(f *testing.F) {
	fuzz[EnrollRequest](f, MaxEnroll, `{"key":`+seedKey+`,"name":"laptop","version":"v1","platform":"linux/amd64"}`)
}

func FuzzEnrollReply(f *testing.F) {
	fuzz[EnrollReply](f, MaxEnroll, `{"node":300,"name":"laptop","overlay":"fd12:3456:789a::/48","domain":"example.com","edges":[{"Key":`+seedKey+`,"Node":1}]}`)
}

func FuzzPublishRequest(f *testing.F) {
	fuzz[PublishRequest](f, MaxPublish, `{"session":"s","tunnels":[{"id":1,"name":"app","kind":"http","upstream":"http://127.0.0.1:80"}]}`)
}

func FuzzPublishReply(f *testing.F) {
	fuzz[PublishReply](f, MaxPublish, `{"tunnels":[{"id":1,"name":"app","public_url":"https://app.example.com"},{"id":2,"error":{"code":"name_taken","message":"m"}}]}`)
}

func FuzzServerEvent(f *testing.F) {
	fuzz[ServerEvent](f, MaxLine, `{"type":"hello","session":"s","domain":"example.com"}`, `{"type":"error","error":{"code":"internal","message":"m"}}`)
}

func FuzzAgentEvent(f *testing.F) {
	fuzz[AgentEvent](f, MaxLine, `{"type":"upstream","tunnel":7,"ok":true,"at":"2030-01-02T03:04:05Z"}`)
}

func FuzzError(f *testing.F) {
	fuzz[errorBody](f, MaxEnroll, `{"error":{"code":"invite_used","message":"m"}}`)
}

// FuzzReadLine: a stream of any bytes is cut into events or refused, and a
// reader never holds more than a line.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte("{\"type\":\"heartbeat\"}\n{\"type\":\"upstream\"}\n"))
	f.Add([]byte("\n\n"))
	f.Add([]byte("{\"type\":\"a\"}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReaderSize(bytes.NewReader(data), MaxLine)
		for n := 0; ; n++ {
			var e AgentEvent
			if err := readLine(in, &e); err != nil {
				return
			}
			if n > len(data) {
				t.Fatal("more events than bytes")
			}
			if e.Type == "" {
				t.Fatal("an event without a type")
			}
		}
	})
}

// FuzzClean: text of the other side cannot carry terminal control sequences.
func FuzzClean(f *testing.F) {
	f.Add("plain text")
	f.Add("red \x1b[31m and \u202e back")
	f.Add("caf\xc3")
	f.Fuzz(func(t *testing.T, s string) {
		got := clean(s, maxLabel)
		if len(got) > maxLabel {
			t.Fatalf("%d bytes", len(got))
		}
		if i := strings.IndexFunc(got, func(r rune) bool {
			return unicode.IsControl(r) || unicode.Is(unicode.Cf, r) || r == unicode.ReplacementChar
		}); i >= 0 {
			t.Fatalf("%q has a control character at %d", got, i)
		}
		if clean(got, maxLabel) != got {
			t.Fatalf("%q changes when cleaned again", got)
		}
	})
}
