package certs

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestValidate(t *testing.T) {
	tests := []struct {
		name string
		cfg  Config
		want string // in the error; "" is none
	}{
		{"off", Config{Mode: Off}, ""},
		{"internal", Config{Mode: Internal, Domain: "Example.com.", Storage: "x"}, ""},
		{"acme without domain", Config{Mode: ACME, Storage: "x"}, ""},
		{"zero", Config{}, "acme, internal or off"},
		{"no storage", Config{Mode: Internal, Domain: "example.com"}, "directory"},
		{"internal without domain", Config{Mode: Internal, Storage: "x"}, "needs the edge's domain"},
		{"domain with port", Config{Mode: ACME, Storage: "x", Domain: "example.com:443"}, "example.com:443"},
		{"domain is an address", Config{Mode: Internal, Storage: "x", Domain: "192.0.2.1"}, "IP address"},
		{"ca", Config{Mode: ACME, Storage: "x", Issuers: []Issuer{{CA: "acme.example.com"}}}, "not a URL"},
		{"challenge", Config{Mode: ACME, Storage: "x", Challenges: []Challenge{"dns-01"}}, "dns-01"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := New(tt.cfg)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q in it", err, tt.want)
			}
		})
	}
}

func TestNewTouchesNothing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "certs")
	if _, err := New(Config{Mode: Internal, Domain: "example.com", Storage: dir}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("New made %s (%v)", dir, err)
	}
}

func TestManageBeforeRunWaits(t *testing.T) {
	m, err := New(Config{Mode: Internal, Domain: "example.com", Storage: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if err := m.Manage(ctx, "example.com"); !errors.Is(err, cause) {
		t.Errorf("Manage with an ended context: %v", err)
	}
	managed := make(chan error, 1)
	go func() { managed <- m.Manage(context.Background(), "example.com") }()
	select {
	case err := <-managed:
		t.Fatalf("Manage returned before Run: %v", err)
	default:
	}
	running, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- m.Run(running) }()
	if err := <-managed; err != nil {
		t.Error(err)
	}
	if err := m.Run(running); err == nil {
		t.Error("Run can be called twice")
	}
	stop()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := m.Manage(t.Context(), "example.com"); !errors.Is(err, ErrClosed) {
		t.Errorf("Manage after Run: %v, want ErrClosed", err)
	}
}

func TestRunThatCannotOpenTellsAll(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := New(Config{Mode: Internal, Domain: "example.com", Storage: filepath.Join(file, "certs")})
	if err != nil {
		t.Fatal(err)
	}
	managed := make(chan error, 1)
	go func() { managed <- m.Manage(context.Background(), "example.com") }()
	runErr := m.Run(t.Context())
	if runErr == nil || !strings.Contains(runErr.Error(), file) {
		t.Errorf("Run: %v, want an error that names %s", runErr, file)
	}
	select {
	case err := <-managed:
		if !errors.Is(err, runErr) {
			t.Errorf("Manage: %v, want Run's error", err)
		}
	case <-time.After(limit):
		t.Error("Manage waits for a Run that has failed")
	}
}

func TestOff(t *testing.T) {
	m, stop := start(t, Config{Mode: Off})
	if m.TLSConfig() != nil {
		t.Error("TLSConfig is not nil")
	}
	if err := m.Manage(t.Context(), "example.com"); err != nil {
		t.Error(err)
	}
	if m.Covers("example.com") {
		t.Error("Covers is true")
	}
	stop()
}

func TestHTTPChallengeLeavesTheRest(t *testing.T) {
	for _, mode := range []Mode{Off, Internal, ACME} {
		m, err := New(Config{Mode: mode, Domain: "example.com", Storage: t.TempDir()})
		if err != nil {
			t.Fatal(err)
		}
		h := m.HTTPChallenge(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
		for _, path := range []string{"/", "/.well-known/acme-challenge/token"} {
			w := httptest.NewRecorder()
			h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://example.com"+path, nil))
			if w.Code != http.StatusTeapot {
				t.Errorf("%s: %s got %d, want the next handler's answer", mode, path, w.Code)
			}
		}
	}
}
