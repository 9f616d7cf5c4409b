package proxy

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"testing"
	"time"
)

// handingListener hands out what it is sent.
type handingListener struct {
	net.Listener
	conns chan net.Conn
}

func (l handingListener) Accept() (net.Conn, error) {
	c, ok := <-l.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return c, nil
}

// TestBrokenHTTP2IsLetGo: of a visitor whose connection breaks amid a request the
// keys and buffers are gone at once, though net/http holds on to what it has.
func TestBrokenHTTP2IsLetGo(t *testing.T) {
	t.Parallel()
	own := httptest.NewTLSServer(nil)
	defer own.Close()
	l := handingListener{own.Listener, make(chan net.Conn)}
	begun, ended := make(chan struct{}), make(chan struct{})
	s := NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		<-r.Context().Done()
		close(ended)
	}), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()

	entrance, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer entrance.Close()
	dialled, err := net.Dial("tcp", entrance.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	theirs := dialled.(*net.TCPConn)
	ours, err := entrance.Accept()
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{})
	func() {
		secure := tls.Server(ours, &tls.Config{Certificates: own.TLS.Certificates, NextProtos: []string{"h2"}})
		client := tls.Client(theirs, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
		shaken := make(chan error, 1)
		go func() { shaken <- client.Handshake() }()
		if err := secure.Handshake(); err != nil {
			t.Fatal(err)
		}
		if err := <-shaken; err != nil {
			t.Fatal(err)
		}
		l.conns <- Secured(secure)
		transport := &http.Transport{ForceAttemptHTTP2: true, DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return client, nil }}
		request, err := http.NewRequest(http.MethodGet, "https://app.example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan error, 1)
		go func() {
			_, err := transport.RoundTrip(request)
			asked <- err
		}()
		<-begun
		theirs.SetLinger(0)
		theirs.Close()
		if err := <-asked; err == nil {
			t.Error("a request was answered that cannot have been")
		}
		<-ended
		runtime.AddCleanup(secure, func(gone chan struct{}) { close(gone) }, gone)
	}()
	for hang, held := time.After(patience), true; held; {
		runtime.GC()
		select {
		case <-gone:
			held = false
		case <-hang:
			t.Fatal("the TLS connection is still held")
		default:
		}
	}
	close(l.conns)
	<-served
	s.Close()
}
