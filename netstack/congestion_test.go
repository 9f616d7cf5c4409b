package netstack

import (
	"bytes"
	"crypto/rand"
	"io"
	"reflect"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"gvisor.dev/gvisor/pkg/tcpip/faketime"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
)

// gVisor's fields are what we know them to be. If this fails after an update, see what
// has become of them in transport/tcp/snd.go: until then, connections have gVisor's CUBIC.
func TestSeat(t *testing.T) {
	if s := findSeat(); !s.ok {
		t.Fatal("gVisor's endpoints have no place for a congestion control of ours")
	}
}

// A connection over a path that is no LAN has our congestion control, at both ends, and
// what it carries arrives as it was sent, also over a path that loses packets.
func TestOwnCongestionControl(t *testing.T) {
	var n atomic.Int64
	a, b := wired(t, func(bufs [][]byte) [][]byte {
		time.Sleep(near) // the path: a round trip is twice as long
		kept := bufs[:0]
		for _, p := range bufs {
			if len(p) > 1000 && n.Add(1)%300 == 0 {
				continue
			}
			kept = append(kept, p)
		}
		return kept
	})
	client, server := connected(t, a, b)
	sent := make([]byte, 2<<20)
	rand.Read(sent)
	var wrote sync.WaitGroup
	wrote.Go(func() {
		if _, err := client.Write(sent); err != nil {
			t.Error("write:", err)
		}
		if err := client.CloseWrite(); err != nil {
			t.Error("close:", err)
		}
	})
	got, err := io.ReadAll(server)
	wrote.Wait()
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d of %d bytes arrived, or others: %v", len(got), len(sent), err)
	}
	withControl(client, func(c *cubic) {
		if c == nil || c.recover == 0 {
			t.Error("losses have not reached our congestion control")
		}
	})
	withControl(server, func(c *cubic) {
		if c == nil || c.sender.SndCwnd != tcp.InitialCwnd {
			t.Errorf("the end that sent nothing has %+v", c)
		}
	})
}

// A path that becomes longer is that for connections that exist and for new ones, at both
// ends; it is short again at once.
func TestConnectionsFollowTheirPath(t *testing.T) {
	const ms = time.Millisecond
	clock := faketime.NewManualClock()
	var (
		oneWay atomic.Int64
		passes sync.Mutex
	)
	a, b := wiredWith(t, Config{TimeWait: ms, clock: clock}, func(bufs [][]byte) [][]byte {
		passes.Lock()
		defer passes.Unlock()
		clock.Advance(time.Duration(oneWay.Load())) // time passes only while something travels
		return bufs
	})
	talk := func(client, server *Conn) {
		t.Helper()
		mustWrite(t, client, "question")
		mustRead(t, server, "question")
		mustWrite(t, server, "answer")
		mustRead(t, client, "answer")
	}
	are := func(client, server *Conn, near bool) bool {
		want := 0
		for _, c := range []*Conn{client, server} {
			withControl(c, func(cc *cubic) {
				if cc != nil && cc.near == near {
					want++
				}
			})
		}
		return want == 2
	}
	oneWay.Store(int64(ms))
	client, server := connected(t, a, b)
	for range 100 {
		talk(client, server)
	}
	if !are(client, server, true) {
		t.Error("connections in the LAN are not near")
	}
	oneWay.Store(int64(near))
	for began := clock.NowMonotonic(); clock.NowMonotonic().Sub(began) < longerAfter-time.Second; {
		talk(client, server)
	}
	if !are(client, server, true) {
		t.Error("connections are not near as soon as a few seconds are slow")
	}
	for began := clock.NowMonotonic(); clock.NowMonotonic().Sub(began) < 2*time.Second; {
		talk(client, server)
	}
	if !are(client, server, false) {
		t.Error("connections outside of the LAN are near")
	}
	laterClient, laterServer := connected(t, a, b)
	for range 10 {
		talk(laterClient, laterServer)
	}
	if !are(laterClient, laterServer, false) {
		t.Error("connections that began outside of the LAN are near")
	}
	oneWay.Store(int64(ms))
	for tries := 0; !are(client, server, true) || !are(laterClient, laterServer, true); tries++ {
		if tries == 1000 {
			t.Fatal("connections that are back in the LAN are not near")
		}
		talk(client, server)
		talk(laterClient, laterServer)
	}
}

// withControl calls f with c's congestion control, which is nil if it is not ours, while
// nothing else uses it.
func withControl(c *Conn, f func(*cubic)) {
	ep := c.ep.(*tcp.Endpoint)
	ep.LockUser()
	defer ep.UnlockUser()
	field := reflect.ValueOf(ep).Elem().FieldByName("snd").Elem().FieldByName("cc")
	cc := reflect.NewAt(field.Type(), unsafe.Pointer(field.UnsafeAddr())).Elem()
	ours, _ := cc.Interface().(*cubic)
	f(ours)
}
