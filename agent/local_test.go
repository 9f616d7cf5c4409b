package agent

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// TestLocalReadSoon: the deadline of one line is not that of the next.
func TestLocalReadSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := net.Pipe()
		defer a.Close()
		defer b.Close()
		go func() {
			io.WriteString(b, "{\"type\":\"welcome\"}\n")
			time.Sleep(10 * localTimeout)
			io.WriteString(b, "{\"type\":\"bye\"}\n")
		}()
		c := newLocalConn(a)
		var m message
		if err := c.readSoon(&m); err != nil || m.Type != msgWelcome {
			t.Fatalf("first: %+v, %v", m, err)
		}
		if err := c.read(&m); err != nil || m.Type != msgBye {
			t.Errorf("second: %+v, %v", m, err)
		}
		if err := c.readSoon(&m); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("nothing came: %v", err)
		}
	})
}

func TestInbox(t *testing.T) {
	b := newInbox()
	for i := range 3 {
		b.put(message{Number: i})
	}
	b.close()
	b.put(message{Number: 9})
	for i := range 3 {
		if m, ok := b.next(t.Context()); !ok || m.Number != i {
			t.Errorf("got %+v, %v; want %d", m, ok, i)
		}
	}
	if m, ok := b.next(t.Context()); ok {
		t.Errorf("after the end: %+v", m)
	}
	synctest.Test(t, func(t *testing.T) {
		b := newInbox()
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan bool)
		go func() { _, ok := b.next(ctx); got <- ok }()
		synctest.Wait()
		b.put(message{})
		if !<-got {
			t.Error("a message did not wake the reader")
		}
		go func() { _, ok := b.next(ctx); got <- ok }()
		synctest.Wait()
		cancel()
		if <-got {
			t.Error("a message out of nothing")
		}
	})
}

// FuzzLocal: whatever is on the socket is a line of limited size or an error.
func FuzzLocal(f *testing.F) {
	f.Add([]byte(`{"version":2,"type":"run","pid":7,"tunnels":[{"kind":"http","name":"app","upstream":"http://127.0.0.1:1"}]}` + "\n"))
	f.Add([]byte(`{"type":"event","event":{"event":"tunnel","state":"up"},"number":1}` + "\n"))
	f.Add([]byte("\n"))
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		in := bufio.NewReader(bytes.NewReader(data))
		for n := 0; ; n++ {
			line, err := readLimited(in)
			if err != nil {
				return
			}
			if len(line) == 0 || len(line) >= maxLocalLine || n > len(data) {
				t.Fatalf("line %d of %d bytes", n, len(line))
			}
			var req request
			if json.Unmarshal(line, &req) == nil {
				for _, tun := range req.Tunnels {
					_ = tun.Validate()
				}
			}
			var m message
			if json.Unmarshal(line, &m) == nil {
				r := &runner{roster: roster{tunnels: []*own{{offer: offer{Number: 1}}}}}
				_ = r.handle(m)
			}
		}
	})
}

var _ net.Conn = (*localConn)(nil)
