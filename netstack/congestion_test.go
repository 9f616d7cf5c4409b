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

// A connection within a LAN keeps what gVisor has.
func TestNearConnectionsUseReno(t *testing.T) {
	a, b := wired(t, nil)
	client, _ := connected(t, a, b)
	withControl(client, func(c *cubic) {
		if near := client.peer.isNear(); near != (c == nil) {
			t.Errorf("near is %t, and our congestion control %t", near, c != nil)
		}
	})
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
