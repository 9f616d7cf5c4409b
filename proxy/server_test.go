package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
)

// What any visitor can cause is not worth more than a debug line; a panic is.
func TestServerLog(t *testing.T) {
	var log bytes.Buffer
	w := serverLog{slog.New(slog.NewTextHandler(&log, nil))}
	io.WriteString(w, "http: TLS handshake error from 192.0.2.1:5: EOF\n")
	if out := log.String(); out != "" {
		t.Errorf("%s", out)
	}
	io.WriteString(w, "http: panic serving 192.0.2.1:5: boom\n")
	if out := log.String(); !strings.Contains(out, "level=ERROR") || !strings.Contains(out, "boom") {
		t.Errorf("%s", out)
	}
}
