package certs

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// front stands before an authority, counts what is ordered there, and can have it
// fail. Pebble makes its addresses from the Host header, so that they lead here.
type front struct {
	issuer Issuer

	mu     sync.Mutex // guards all below
	fail   func(w http.ResponseWriter) bool
	orders map[string]int // accepted, by name
}

func newFront(t *testing.T, directory string) *front {
	t.Helper()
	to, err := url.Parse(strings.TrimSuffix(directory, "/dir"))
	if err != nil {
		t.Fatal(err)
	}
	f := &front{orders: make(map[string]int)}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(to)
			r.Out.Host = r.In.Host
		},
		Transport: insecureTransport(t),
		ModifyResponse: func(res *http.Response) error {
			if strings.HasPrefix(res.Request.URL.Path, "/finalize-order/") {
				// Pebble stops for good when an order is asked for in the moment in
				// which it is completed (letsencrypt/pebble#554): ask later.
				res.Header.Set("Retry-After", "1")
			}
			return nil
		},
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		names := orderedNames(t, r)
		f.mu.Lock()
		fail := f.fail
		f.mu.Unlock()
		if fail != nil && r.Method == http.MethodPost && fail(w) {
			return
		}
		status := &statusWriter{ResponseWriter: w}
		proxy.ServeHTTP(status, r)
		if status.code == http.StatusCreated { // and not a nonce that was refused
			f.count(names)
		}
	}))
	srv.EnableHTTP2 = true
	srv.StartTLS()
	t.Cleanup(srv.Close)
	root := filepath.Join(t.TempDir(), "front.crt")
	if err := os.WriteFile(root, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	f.issuer = Issuer{CA: srv.URL + "/dir", Root: root}
	return f
}

func insecureTransport(t *testing.T) *http.Transport {
	tr := http.DefaultTransport.(*http.Transport).Clone()
	tr.TLSClientConfig.InsecureSkipVerify = true
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// failWith has all requests that are signed fail.
func (f *front) failWith(fail func(w http.ResponseWriter) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fail = fail
}

// limited is what an authority answers to one who orders too much.
func limited(w http.ResponseWriter) bool {
	w.Header().Set("Content-Type", "application/problem+json")
	w.Header().Set("Retry-After", "3600")
	w.WriteHeader(http.StatusTooManyRequests)
	io.WriteString(w, `{"type":"urn:ietf:params:acme:error:rateLimited","status":429,"detail":"too many certificates already issued"}`)
	return true
}

// statusWriter keeps the status.
type statusWriter struct {
	http.ResponseWriter
	code int
}

func (w *statusWriter) WriteHeader(code int) {
	w.code = code
	w.ResponseWriter.WriteHeader(code)
}

// orderedNames reads the names of a new order (RFC 8555 section 7.4) from the
// request, and puts its body back.
func orderedNames(t *testing.T, r *http.Request) (names []string) {
	if r.Method != http.MethodPost {
		return nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
		return nil
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var jws struct{ Payload string }
	var order struct {
		Identifiers []struct{ Value string }
	}
	if json.Unmarshal(body, &jws) != nil {
		return nil
	}
	payload, err := base64.RawURLEncoding.DecodeString(jws.Payload)
	if err != nil || json.Unmarshal(payload, &order) != nil {
		return nil
	}
	for _, i := range order.Identifiers {
		names = append(names, i.Value)
	}
	return names
}

func (f *front) count(names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range names {
		f.orders[name]++
	}
}

// ordered returns how often each name was ordered.
func (f *front) ordered() map[string]int {
	f.mu.Lock()
	defer f.mu.Unlock()
	got := make(map[string]int, len(f.orders))
	for name, n := range f.orders {
		got[name] = n
	}
	return got
}
