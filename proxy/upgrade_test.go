package proxy

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/coder/websocket"
)

func echoWebSocket(t *testing.T) string {
	return upstream(t, func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"echo"}})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, b, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, b); err != nil {
				return
			}
		}
	})
}

func TestWebSocket(t *testing.T) {
	addr := echoWebSocket(t)
	for name, start := range map[string]func(*testing.T, Config) front{"plain": serve, "tls": serveTLS} {
		t.Run(name, func(t *testing.T) {
			f := start(t, Config{Dial: dialTo(addr)})
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			// Clients open WebSockets over HTTP/1.1: this one has no HTTP/2.
			tr := f.Client().Transport.(*http.Transport).Clone()
			tr.Protocols = new(http.Protocols)
			tr.Protocols.SetHTTP1(true)
			tr.ForceAttemptHTTP2 = false
			if tr.TLSClientConfig != nil {
				tr.TLSClientConfig.NextProtos = nil
			}
			defer tr.CloseIdleConnections()
			c, _, err := websocket.Dial(ctx, f.URL, &websocket.DialOptions{
				HTTPClient: &http.Client{Transport: tr}, Subprotocols: []string{"echo"},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer c.CloseNow()
			c.SetReadLimit(1 << 20)
			if c.Subprotocol() != "echo" {
				t.Errorf("subprotocol %q", c.Subprotocol())
			}
			large := strings.Repeat("large ", 50_000)
			for i := range 500 {
				want := fmt.Sprint("message ", i)
				if i%100 == 99 {
					want = large
				}
				if err := c.Write(ctx, websocket.MessageText, []byte(want)); err != nil {
					t.Fatal(err)
				}
				if _, got, err := c.Read(ctx); err != nil || string(got) != want {
					t.Fatalf("message %d: %d bytes, %v", i, len(got), err)
				}
			}
			if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// upgradeTo serves any protocol after a 101.
func upgradeTo(t *testing.T, serve func(net.Conn, *bufio.Reader)) string {
	return rawUpstream(t, func(c net.Conn, r *bufio.Reader) {
		req, err := http.ReadRequest(r)
		if err != nil || req.Header.Get("Upgrade") == "" {
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
		serve(c, r)
	})
}

// What a visitor sends along with its request, before the upgrade is complete,
// is not lost.
func TestUpgradeKeepsEarlyBytes(t *testing.T) {
	addr := upgradeTo(t, func(c net.Conn, r *bufio.Reader) {
		line, err := r.ReadString('\n')
		if err == nil {
			io.WriteString(c, "got "+line)
		}
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	c, br := dialRaw(t, f)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nfirst message\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	if got, err := io.ReadAll(br); err != nil || string(got) != "got first message\n" {
		t.Errorf("%q %v", got, err)
	}
}

// Either side may end its half and still read the other's.
func TestUpgradeKeepsHalfClose(t *testing.T) {
	addr := upgradeTo(t, func(c net.Conn, r *bufio.Reader) {
		all, err := io.ReadAll(r) // answers only after the end
		if err == nil {
			fmt.Fprintf(c, "%d bytes", len(all))
		}
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	c, br := dialRaw(t, f)
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\nContent-Length: 0\r\n\r\n")
	res, err := http.ReadResponse(br, nil)
	if err != nil || res.StatusCode != 101 {
		t.Fatalf("%v %v", res, err)
	}
	io.WriteString(c, strings.Repeat("x", 100_000))
	c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(br); err != nil || string(got) != "100000 bytes" {
		t.Errorf("%q %v", got, err)
	}
}

// A request that is cancelled takes the upgraded connection with it.
func TestCancelEndsUpgraded(t *testing.T) {
	gone := make(chan struct{})
	addr := upgradeTo(t, func(c net.Conn, r *bufio.Reader) {
		io.WriteString(c, "hi\n")
		r.ReadByte()
		close(gone)
	})
	ctx, cancel := context.WithCancel(context.Background())
	p := New(Config{Dial: dialTo(addr)})
	defer p.Close()
	f := front{Server: newServer(t, func(w http.ResponseWriter, r *http.Request) {
		p.ServeHTTP(w, r.WithContext(ctx))
	})}
	c, br := dialRaw(t, f)
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n")
	if _, err := http.ReadResponse(br, nil); err != nil {
		t.Fatal(err)
	}
	if line, err := br.ReadString('\n'); line != "hi\n" {
		t.Fatalf("%q %v", line, err)
	}
	cancel()
	if _, err := br.ReadByte(); err == nil {
		t.Error("the visitor's side is still open")
	}
	receive(t, gone, "end at the upstream")
}

func TestRefusedUpgradePasses(t *testing.T) {
	addr := upstream(t, func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "no", http.StatusUpgradeRequired)
	})
	f := serve(t, Config{Dial: dialTo(addr)})
	r := request(t, "GET", f.URL, nil)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	if res, body := do(t, f, r); res.StatusCode != 426 || body != "no\n" {
		t.Errorf("%s %q", res.Status, body)
	}
}
