package harness_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/harness"
	"github.com/wgexpose/wgexpose/tunnel"
)

// firstLine answers every connection with the first line that it reads, through
// TLS where config is given.
func firstLine(t *testing.T, config *tls.Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				if config != nil {
					c = tls.Server(c, config)
				}
				b, err := io.ReadAll(c)
				fmt.Fprintf(c, "%s %v", b, err)
				c.(interface{ CloseWrite() error }).CloseWrite()
			}()
		}
	}()
	return l.Addr().String()
}

// tls tunnels over real parts: passed through with the upstream's certificate, and
// ended by the edge, with a PROXY header that names the visitor.
func TestTLSTunnels(t *testing.T) {
	t.Parallel()
	own := httptest.NewTLSServer(nil) // for its certificate
	own.Close()
	through := harness.TLS("through", firstLine(t, own.TLS))
	ended := harness.TLS("ended", firstLine(t, nil))
	ended.TerminateAt, ended.ProxyProtocol = tunnel.AtEdge, 1
	e := harness.Start(t, harness.Options{})
	run := e.AddAgent("laptop").Publish(through, ended)
	ask := func(name string, config *tls.Config) (answer, visitor string) {
		t.Helper()
		addr, ok := strings.CutPrefix(run.WaitUp(name), "tls://")
		if !ok {
			t.Fatalf("%s has the address %s", name, addr)
		}
		c, err := net.Dial("tcp", e.Ready.HTTPS.String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Minute))
		config.ServerName, _, _ = net.SplitHostPort(addr)
		s := tls.Client(c, config)
		if _, err := io.WriteString(s, "hello"); err != nil {
			t.Fatal(err)
		}
		if err := s.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s)
		if err != nil {
			t.Fatal(err)
		}
		return string(b), c.LocalAddr().String()
	}
	leaf := func(config *tls.Config) *tls.Config {
		config.InsecureSkipVerify = true
		config.VerifyConnection = func(s tls.ConnectionState) error {
			if !s.PeerCertificates[0].Equal(own.Certificate()) {
				return fmt.Errorf("the certificate is %s's, not the upstream's", s.PeerCertificates[0].Subject)
			}
			return nil
		}
		return config
	}
	if got, _ := ask("through", leaf(&tls.Config{})); got != "hello <nil>" {
		t.Errorf("through: %q", got)
	}
	got, visitor := ask("ended", e.TLSConfig())
	host, port, _ := net.SplitHostPort(visitor)
	if !strings.HasPrefix(got, "PROXY TCP4 "+host+" ") || !strings.Contains(got, " "+port+" ") || !strings.HasSuffix(got, "hello <nil>") {
		t.Errorf("ended: %q, for %s", got, visitor)
	}
}
