package e2e

import (
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/e2e/process"
	"github.com/wgexpose/wgexpose/internal/pebble"
)

// An agent ends TLS with a certificate that it got by itself, from an ACME authority
// that came through the tunnel. The edge process never has in its memory what is
// said, nor the key on its disk; where the edge ends TLS, the same search finds it.
func TestEdgeSeesOnlyCiphertext(t *testing.T) {
	process.Need(t, "pebble")
	if runtime.GOOS != "linux" {
		t.Skip("the memory of a process is read from Linux's /proc")
	}
	if raced {
		t.Skip("the race detector's own memory is as large as the address space")
	}
	release := make(chan struct{})
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Answer", "answer-"+r.Header.Get("X-Question"))
		w.Header().Set("X-Seen-For", r.Header.Get("X-Forwarded-For"))
		io.WriteString(w, "begun")
		w.(http.Flusher).Flush()
		<-release // the request is under way while the memory is searched
	}))
	defer upstream.Close()
	defer close(release)

	s := newSystem(t)
	_, port, err := net.SplitHostPort(s.ready.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	tlsPort, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	ca := pebble.Start(t, pebble.Options{TLSPort: tlsPort})
	settings := fmt.Sprintf("certificates: acme\nacme_ca: %s\nacme_root: %s\nacme_email: me@example.com\n", ca.Directory, ca.Root)
	s.share(settings,
		share{name: "private", kind: "http", upstream: upstream.URL, more: "terminate_at: agent"},
		share{name: "open", kind: "http", upstream: upstream.URL},
	)
	for name, roots := range map[string]*x509.CertPool{"private": ca.Issuers(), "open": s.roots} {
		tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}, DialContext: (&edgeDialer{addr: s.ready.HTTPS}).DialContext}
		defer tr.CloseIdleConnections()
		question := rand.Text()
		req, err := http.NewRequestWithContext(t.Context(), "GET", s.public[name]+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Question", question)
		res, err := (&http.Client{Transport: tr}).Do(req)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		defer res.Body.Close()
		begun := make([]byte, len("begun"))
		if _, err := io.ReadFull(res.Body, begun); err != nil || res.Header.Get("X-Answer") != "answer-"+question || res.Header.Get("X-Seen-For") != "127.0.0.1" {
			t.Fatalf("%s: %q %v %v", name, begun, res.Header, err)
		}
		for what, marker := range map[string]string{"the question": question, "the answer": "answer-" + question} {
			held, err := s.edge.Holds(marker)
			if err != nil {
				t.Fatal(err)
			}
			if held != (name == "open") {
				t.Errorf("%s: the edge's memory holds %s: %v", name, what, held)
			}
			t.Logf("%s: the edge's memory holds %s: %v", name, what, held)
		}
	}
	// Keys stay where they were made.
	keys := func(dir, host string) (found []string) {
		err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
			if strings.HasSuffix(path, host+".key") {
				found = append(found, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	host := "private." + domain
	if at := keys(s.edgeDir(), host); len(at) > 0 {
		t.Errorf("the edge has %s", at)
	}
	if at := keys(s.agentDir(), host); len(at) != 1 {
		t.Errorf("the agent has %q, want one key for %s", at, host)
	}
}
