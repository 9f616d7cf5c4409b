package netstack

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.zx2c4.com/wireguard/tun"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	addrA = netip.MustParseAddr("fd00:1::1")
	addrB = netip.MustParseAddr("fd00:2::1")
)

// wired opens two stacks whose devices are joined: what one sends, the other
// receives, through the same calls that wireguard-go makes. edit, if not nil,
// sees each batch on its way and may change it.
func wired(t testing.TB, edit func(bufs [][]byte) [][]byte) (a, b *Stack) {
	t.Helper()
	return wiredWith(t, Config{TimeWait: time.Millisecond}, edit)
}

// wiredWith is wired with stacks of cfg, but for their addresses.
func wiredWith(t testing.TB, cfg Config, edit func(bufs [][]byte) [][]byte) (a, b *Stack) {
	t.Helper()
	open := func(addr netip.Addr) *Stack {
		cfg := cfg
		cfg.Addr = addr
		s, err := Open(cfg)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	a, b = open(addrA), open(addrB)
	var wg sync.WaitGroup
	wg.Go(func() { carry(t, a, b.Device(), edit) })
	wg.Go(func() { carry(t, b, a.Device(), edit) })
	t.Cleanup(func() {
		a.Close()
		b.Close()
		wg.Wait()
	})
	return a, b
}

func carry(t testing.TB, from *Stack, to tun.Device, edit func([][]byte) [][]byte) {
	const offset = 16
	dev := from.Device()
	bufs, sizes := make([][]byte, batch), make([]int, batch)
	for i := range bufs {
		bufs[i] = make([]byte, 65535+offset)
	}
	for {
		n, err := dev.Read(bufs, sizes, offset)
		if err != nil {
			if !errors.Is(err, os.ErrClosed) {
				t.Error("read:", err)
			}
			return
		}
		out := make([][]byte, n)
		for i := range out {
			out[i] = bufs[i][:offset+sizes[i]]
		}
		if edit != nil {
			out = edit(out)
		}
		if _, err := to.Write(out, offset); err != nil && !errors.Is(err, os.ErrClosed) {
			t.Error("write:", err)
		}
		from.Sent(n)
	}
}

// connected makes a connection from a to a listener on b.
func connected(t testing.TB, a, b *Stack) (client, server *Conn) {
	t.Helper()
	l, err := b.ListenTCP(0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client = dial(t, a, netip.AddrPort{}, l.Addr().(*net.TCPAddr).AddrPort())
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Abort(); c.(*Conn).Abort() })
	return client, c.(*Conn)
}

func dial(t testing.TB, s *Stack, from, to netip.AddrPort) *Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	c, err := s.DialTCP(ctx, from, to)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func mustWrite(t testing.TB, w io.Writer, p string) {
	t.Helper()
	if _, err := io.WriteString(w, p); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, r io.Reader, want string) {
	t.Helper()
	p := make([]byte, len(want))
	if _, err := io.ReadFull(r, p); err != nil {
		t.Fatal(err)
	}
	if string(p) != want {
		t.Fatalf("read %q, want %q", p, want)
	}
}
