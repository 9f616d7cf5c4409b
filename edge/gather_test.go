package edge

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/wgexpose/wgexpose/proxy"
)

// counted is a connection that notes how long each Write was.
type counted struct {
	net.Conn
	mu     sync.Mutex
	writes []int
}

func (c *counted) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	c.mu.Unlock()
	return c.Conn.Write(p)
}

// TestRecordsTogether has an answer's pieces go to a visitor on a new connection,
// whose first TLS records are as small as packets: each piece leaves in one write,
// and is the same at the other end.
func TestRecordsTogether(t *testing.T) {
	cert := httptest.NewUnstartedServer(nil)
	cert.StartTLS()
	defer cert.Close()
	near, far := net.Pipe()
	under := &counted{Conn: near}
	server := tls.Server(&tap{Conn: under, passing: true}, cert.TLS.Clone())
	client := tls.Client(far, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	defer client.Close()

	pieces := [][]byte{
		bytes.Repeat([]byte("a"), 100), bytes.Repeat([]byte("b"), 32<<10), bytes.Repeat([]byte("c"), 5000),
		bytes.Repeat([]byte("d"), 200<<10), // more than is gathered
	}
	var want, got []byte
	var sending sync.WaitGroup
	var first int
	sending.Go(func() {
		defer server.Close()
		if err := server.Handshake(); err != nil {
			t.Error(err)
			return
		}
		under.mu.Lock()
		first = len(under.writes)
		under.mu.Unlock()
		c := proxy.Secured(server)
		for _, p := range pieces {
			if n, err := c.Write(p); n != len(p) || err != nil {
				t.Errorf("wrote %d of %d bytes: %v", n, len(p), err)
			}
		}
	})
	got, err := io.ReadAll(client)
	if err != nil {
		t.Error(err)
	}
	sending.Wait()
	for _, p := range pieces {
		want = append(want, p...)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%d bytes came that are not the %d sent", len(got), len(want))
	}
	// The last piece takes several; what comes behind it is the end.
	if writes := under.writes[first:]; len(writes) < 4 || writes[0] < 100 || writes[1] < 32<<10 || writes[2] < 5000 || len(writes) > 9 {
		t.Errorf("writes of %v bytes", writes)
	}
}
