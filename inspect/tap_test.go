package inspect

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// pair returns both ends of one kernel connection.
func pair(t testing.TB) (dialled, accepted *net.TCPConn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{d, a} {
		t.Cleanup(func() { c.Close() })
		if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
	}
	return d.(*net.TCPConn), a.(*net.TCPConn)
}

// TestTrafficUnchanged: whatever passes, in whatever pieces, arrives as it
// was sent, also while the queue overflows and nothing of it is HTTP.
func TestTrafficUnchanged(t *testing.T) {
	inputs := map[string]func(r *rand.Rand) []byte{
		"noise": func(r *rand.Rand) []byte {
			b := make([]byte, 300_000)
			for i := range b {
				b[i] = byte(r.Uint32())
			}
			return b
		},
		"requests": func(*rand.Rand) []byte { return []byte(strings.Repeat(crlf(get), 5000)) },
		"a body": func(*rand.Rand) []byte {
			return []byte(crlf("POST / HTTP/1.1\nContent-Length: 4000000\n\n") + strings.Repeat("x", 4_000_000))
		},
		"nearly so": func(*rand.Rand) []byte { return []byte(strings.Repeat("GET / HTTP/1.1\r\nA: \x00\xff\r\n", 9000)) },
		"nothing":   func(*rand.Rand) []byte { return nil },
		"chunks": func(*rand.Rand) []byte {
			return []byte(crlf("POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n") + strings.Repeat("3\r\nabc\r\n", 50_000) + "0\r\n\r\n")
		},
	}
	for name, input := range inputs {
		for _, queue := range []int{1, 512 << 10} { // nothing fits; nearly all
			t.Run(fmt.Sprintf("%s, queue %d", name, queue), func(t *testing.T) {
				i := open(t, Config{QueueBytes: queue})
				near, far := pair(t)
				c := i.Tap(near, Meta{}, nil)
				r := rand.New(rand.NewPCG(7, 7))
				up, down := input(r), input(r)
				var wg sync.WaitGroup
				send := func(c net.Conn, b []byte, seed uint64) {
					r := rand.New(rand.NewPCG(seed, 0))
					for len(b) > 0 {
						n := min(len(b), 1+r.IntN(1<<r.IntN(18)))
						if _, err := c.Write(b[:n]); err != nil {
							t.Error(err)
							return
						}
						b = b[n:]
					}
					if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
						t.Error(err)
					}
				}
				receive := func(c net.Conn, want []byte) {
					got, err := io.ReadAll(c)
					if err != nil {
						t.Error(err)
					}
					if !bytes.Equal(got, want) {
						t.Errorf("%d bytes arrived of %d, or they differ", len(got), len(want))
					}
				}
				wg.Go(func() { send(c, up, 1) })
				wg.Go(func() { send(far, down, 2) })
				wg.Go(func() { receive(far, up) })
				receive(c, down)
				wg.Wait()
				if err := c.Close(); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestLongBodies: of a body that is longer than what is kept, only the
// beginning passes the queue, and what follows it is understood.
func TestLongBodies(t *testing.T) {
	const size = 64 << 20
	i := open(t, Config{QueueBytes: 1 << 20})
	server := upstreamOf(t, func(w http.ResponseWriter, r *http.Request) {
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			t.Error(err)
		}
		fmt.Fprint(w, n)
	})
	c := through(t, i, server, Meta{Tunnel: "app"})
	q, err := http.NewRequest("PUT", server.URL+"/large", io.LimitReader(zeros{}, size))
	if err != nil {
		t.Fatal(err)
	}
	q.ContentLength = size
	a, err := c.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(a.Body)
	a.Body.Close()
	if err != nil || string(b) != fmt.Sprint(size) {
		t.Fatalf("%s, %v", b, err)
	}
	fetch(t, c, "GET", server.URL+"/after", "")
	await(t, i, "both exchanges", func() bool { l := i.List(Filter{Status: "done"}); return len(l) == 2 })
	s := i.List(Filter{Path: "large"})[0]
	if s.RequestBytes != size || !s.Cut || s.Status != 200 || s.Kind != KindHTTP {
		t.Errorf("%+v", s)
	}
	if u := i.Usage(); u.Bytes > 1<<20 {
		t.Errorf("%d bytes are kept of it", u.Bytes)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// TestNotHeldUp: a connection goes on while no worker runs.
func TestNotHeldUp(t *testing.T) {
	i := open(t, Config{})
	near, far := pair(t)
	c := i.Tap(near, Meta{}, nil).(*halfTapped)
	s := c.session
	s.mu.Lock() // the worker that is told now has this session and cannot go on
	s.scheduled = true
	s.mu.Unlock()
	go func() {
		for range 2000 {
			if _, err := c.Write(make([]byte, 4096)); err != nil {
				t.Error(err)
				return
			}
		}
		c.CloseWrite()
	}()
	n, err := io.Copy(io.Discard, far)
	if err != nil || n != 2000*4096 {
		t.Errorf("%d bytes, %v", n, err)
	}
	s.mu.Lock()
	held := s.bytes
	s.mu.Unlock()
	if held > i.cfg.QueueBytes+2*chunkOverhead {
		t.Errorf("the queue holds %d bytes; its bound is %d", held, i.cfg.QueueBytes)
	}
	c.Close()
	s.wake(call{add: true}) // let go
}

// TestEnds: half-close, reset, waiting and the rest are passed through.
func TestEnds(t *testing.T) {
	tap := func(t *testing.T, c net.Conn) net.Conn { return open(t, Config{}).Tap(c, Meta{}, nil) }

	t.Run("half-close", func(t *testing.T) {
		near, far := pair(t)
		c := tap(t, near)
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("the peer read %v", err)
		}
		if _, err := far.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if n, err := c.Read(make([]byte, 9)); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
	t.Run("none where there is none", func(t *testing.T) {
		a, b := net.Pipe()
		defer b.Close()
		c := tap(t, a)
		if _, ok := c.(interface{ CloseWrite() error }); ok {
			t.Error("a pipe has no half-close")
		}
		c.Close()
	})
	t.Run("abort", func(t *testing.T) {
		near, far := pair(t)
		tap(t, near).(interface{ Abort() }).Abort()
		if _, err := far.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && runtime.GOOS != "windows" {
			t.Errorf("the peer read %v", err)
		}
	})
	t.Run("reset", func(t *testing.T) {
		near, far := pair(t)
		c := tap(t, near)
		if err := far.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		far.Close()
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) && runtime.GOOS != "windows" {
			t.Errorf("Read gave %v", err)
		}
	})
	t.Run("reset told to a write", func(t *testing.T) {
		if runtime.GOOS == "windows" {
			t.Skip("the kernel tells it to both")
		}
		near, far := pair(t)
		c := tap(t, near)
		if err := far.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		far.Close()
		for {
			if _, err := c.Write([]byte("x")); err != nil {
				break
			}
		}
		if err := c.(interface{ Broken() error }).Broken(); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Broken gave %v", err)
		}
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("Read gave %v", err)
		}
	})
	t.Run("read below", func(t *testing.T) {
		i := open(t, Config{})
		near, far := pair(t)
		c := i.Tap(near, Meta{}, nil)
		defer c.Close()
		fmt.Fprint(c, crlf(get))
		under, told := c.(interface {
			Through() (net.Conn, func([]byte, error))
		}).Through()
		fmt.Fprint(far, crlf(ok))
		b := make([]byte, len(crlf(ok)))
		if _, err := io.ReadFull(under, b); err != nil {
			t.Fatal(err)
		}
		told(b, nil)
		await(t, i, "what was read", func() bool { return len(i.List(Filter{Status: "done"})) == 1 })
		fmt.Fprint(c, crlf(get))
		told(nil, syscall.ECONNRESET)
		await(t, i, "a reset", func() bool {
			l := i.List(Filter{Status: "failed"})
			return len(l) == 1 && strings.Contains(l[0].Error, "reset")
		})
	})
	t.Run("what the connection brings itself", func(t *testing.T) {
		own := &ownConn{}
		c := tap(t, own)
		c.(interface{ Abort() }).Abort()
		_ = c.(interface{ Broken() error }).Broken()
		if own.calls != "abort broken " {
			t.Errorf("called: %s", own.calls)
		}
	})
	t.Run("TLS", func(t *testing.T) {
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "secret") }))
		defer server.Close()
		i := open(t, Config{})
		raw, err := tls.Dial("tcp", server.Listener.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		c := i.Tap(raw, Meta{}, nil)
		fmt.Fprint(c, crlf("GET / HTTP/1.1\nHost: h\nConnection: close\n\n"))
		if err := c.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		if _, err := io.ReadAll(c); err != nil {
			t.Error(err)
		}
		c.(interface{ Abort() }).Abort()
		await(t, i, "the exchange", func() bool {
			l := i.List(Filter{Status: "done"})
			return len(l) == 1 && l[0].ResponseBytes == 6
		})
	})
	t.Run("a time-out is no end", func(t *testing.T) {
		i := open(t, Config{})
		near, far := pair(t)
		c := i.Tap(near, Meta{}, nil)
		defer c.Close()
		fmt.Fprint(c, crlf(get))
		if err := c.SetReadDeadline(time.Now().Add(-time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Fatal("there was something to read")
		}
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(far, crlf(ok))
		if _, err := io.ReadFull(c, make([]byte, len(crlf(ok))-2)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		await(t, i, "a good end", func() bool { return len(i.List(Filter{Status: "done"})) == 1 })
	})
}

type ownConn struct {
	net.Conn
	calls string
}

func (c *ownConn) Abort()        { c.calls += "abort " }
func (c *ownConn) Broken() error { c.calls += "broken "; return nil }

// TestClose: after Close, connections go on and nothing is read along.
func TestClose(t *testing.T) {
	i := New(Config{})
	near, far := pair(t)
	c := i.Tap(near, Meta{}, nil)
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	if err := i.Close(); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, crlf(get))
	if _, err := io.ReadFull(far, make([]byte, len(crlf(get)))); err != nil {
		t.Error(err)
	}
	if n := len(i.List(Filter{})); n != 0 {
		t.Errorf("%d exchanges", n)
	}
	c.Close()
	if other := i.Tap(far, Meta{}, nil); other != net.Conn(far) {
		t.Error("a closed inspector taps")
	}
	if _, err := i.Replay(t.Context(), "x", Changes{}); !errors.Is(err, ErrUnknown) {
		t.Errorf("Replay: %v", err)
	}
	w := i.Watch()
	if _, open := <-w.Wake(); open {
		t.Error("the watcher is not told")
	}
	w.Close()
}

// TestIdle: connections that are idle have no goroutine.
func TestIdle(t *testing.T) {
	i := open(t, Config{})
	before := runtime.NumGoroutine()
	for range 100 {
		a, b := net.Pipe()
		c := i.Tap(a, Meta{}, nil)
		defer c.Close()
		defer b.Close()
		c.(*tapped).note(toUpstream, []byte(crlf(get)))
	}
	await(t, i, "all requests", func() bool { return len(i.List(Filter{})) == 100 })
	i.work.close() // returns when no worker is left
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines; there were %d", n, before)
	}
}
