package agent

import (
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/wgexpose/wgexpose/control"
	"github.com/wgexpose/wgexpose/tunnel"
)

// A server that does not agree to HTTP/2 is not spoken to in HTTP/2.
func TestHTTPSUpstreamMustAgreeToHTTP2(t *testing.T) {
	certificate := httptest.NewTLSServer(nil)
	certificate.Close()
	for name, test := range map[string]struct {
		offers []string
		ok     bool
	}{
		"h2":       {[]string{"h2", "http/1.1"}, true},
		"http/1.1": {[]string{"http/1.1"}, false}, // answers with an alert
		"no ALPN":  {nil, false},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: certificate.TLS.Certificates, NextProtos: test.offers})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			served := make(chan struct{})
			go func() {
				defer close(served)
				c, err := l.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				io.Copy(io.Discard, c) // shakes hands, and waits for the end
			}()
			_, port, err := net.SplitHostPort(l.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			u, err := tunnel.ParseUpstream(tunnel.HTTP, "https://127.0.0.1:"+port)
			if err != nil {
				t.Fatal(err)
			}
			c, failure := dialUpstream(t.Context(), u, "h2", true)
			if c != nil {
				c.Close()
			}
			if (failure == nil) != test.ok {
				t.Errorf("%v", failure)
			}
			if failure != nil && (failure.Code != control.CodeUpstreamTLS || !strings.Contains(failure.Message, "--upstream-protocol")) {
				t.Errorf("%v", failure)
			}
			<-served
		})
	}
}
