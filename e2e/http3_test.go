package e2e

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/internal/browser"
)

// A browser loads a page, and what it asks for from there, over HTTP/3.
func TestBrowserOverHTTP3(t *testing.T) {
	t.Setenv("WGEXPOSE_HTTP3", "on") // for the edge
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "app", kind: "http", upstream: web.Addr()})
	answer, err := s.client(true).Get(s.public["app"])
	if err != nil {
		t.Fatal(err)
	}
	answer.Body.Close()
	if alt := answer.Header.Get("Alt-Svc"); !strings.HasPrefix(alt, "h3=") {
		t.Errorf("Alt-Svc: %q", alt)
	}
	// Browsers take no certificate of an authority of one's own for an alternative
	// service, so this one is told where HTTP/3 is, and which certificate is good.
	key := sha256.Sum256(answer.TLS.PeerCertificates[0].RawSubjectPublicKeyInfo)
	host, _, _ := strings.Cut(s.host("app"), ":")
	b := browser.Open(t, "--enable-quic", "--origin-to-force-quic-on="+s.host("app"),
		"--ignore-certificate-errors-spki-list="+base64.StdEncoding.EncodeToString(key[:]),
		fmt.Sprintf("--host-resolver-rules=MAP %s 127.0.0.1", host))
	const protocol = `performance.getEntriesByType('navigation')[0].nextHopProtocol`
	// On a busy machine its handshake may run out of time.
	for deadline := time.Now().Add(2 * time.Minute); ; {
		b.Navigate(s.public["app"] + "/")
		if b.Eval(protocol) == `"h3"` {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the page came over %s and reads %s", b.Eval(protocol), b.Eval("document.body.innerText"))
		}
	}
	b.Until(`document.body.innerText.includes('hello from the origin')`)
	got := b.Eval(`(async () => {
		const asked = [...Array(20).keys()].map((i) => fetch(i % 2 ? '/upload' : '/?' + i, { method: i % 2 ? 'POST' : 'GET', body: i % 2 ? 'x'.repeat(100000) : null }));
		const read = await Promise.all((await Promise.all(asked)).map((r) => r.text()));
		const over = performance.getEntriesByType('resource').map((e) => e.nextHopProtocol);
		return [read.length, [...new Set(over)].join()];
	})()`)
	if got != `[20,"h3"]` {
		t.Errorf("%s; want 20 answers, all over h3", got)
	}
}
