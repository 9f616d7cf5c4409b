package e2e

import (
	"crypto/tls"
	"io"
	"net"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/e2e/origin"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// Join and everything after it over HTTPS alone, as on a network without UDP;
// the edge's kill -9 changes nothing about that.
func TestTransportTLS(t *testing.T) {
	t.Setenv("WGEXPOSE_TRANSPORT", "tls")
	web := origin.StartWeb(t)
	echo := origin.StartTCP(t, origin.Echo)
	s := startSystem(t,
		share{name: "web", kind: "http", upstream: web.Addr()},
		share{name: "echo", kind: "tcp", upstream: echo.Addr()},
	)
	overTLS := func(e process.Event) bool { return e.Event == "link" && e.State == "up" && e.Transport == "tls" }
	s.agent.Await("the link is up over TLS", overTLS)
	awaitMTU(t, s.agentDir(), s.edgeDir(), "what suits streams", func(n int) bool { return n == 16348 })
	s.greet(t)
	s.outliveEdge(t)
}

// The HTTPS port takes streams from whoever asks, and nothing else than packets
// on them: a stranger gets no byte and is hung up on.
func TestStrangersStream(t *testing.T) {
	web := origin.StartWeb(t)
	s := startSystem(t, share{name: "web", kind: "http", upstream: web.Addr()})
	c, err := net.Dial("tcp", s.ready.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	stream := tls.Client(c, &tls.Config{NextProtos: []string{"wgexpose-wg"}, InsecureSkipVerify: true, ServerName: "anything.example"})
	defer stream.Close()
	if err := stream.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(stream); len(got) > 0 || err != nil && isTimeout(err) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	s.greet(t)
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}
