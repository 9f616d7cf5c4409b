package agent

import (
	"encoding/binary"
	"sync/atomic"
	"testing"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// deafBind loses all data while it is deaf, as an edge does that has other keys
// than its agent after a handshake.
type deafBind struct {
	conn.Bind
	deaf *atomic.Bool
}

func (b deafBind) Open(port uint16) ([]conn.ReceiveFunc, uint16, error) {
	fns, port, err := b.Bind.Open(port)
	for i, receive := range fns {
		fns[i] = func(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
			n, err := receive(bufs, sizes, eps)
			for i := range n {
				if b.deaf.Load() && binary.LittleEndian.Uint32(bufs[i]) == device.MessageTransportType {
					sizes[i] = 0
				}
			}
			return n, err
		}
	}
	return fns, port, err
}

// A session that carries nothing is begun anew after the silence that any link
// is allowed, and not only when there is no more time to connect.
func TestSessionThatCarriesNothing(t *testing.T) {
	t.Parallel()
	e := newFakeEdge(t)
	dir, _ := joined(t, e)
	e.stop()
	var deaf atomic.Bool
	deaf.Store(true)
	e.wrap = func(b conn.Bind) conn.Bind { return deafBind{b, &deaf} }
	e.start()
	r := start(t, Config{Dir: dir, Version: "v1", Tunnels: []Tunnel{httpTunnel("app", "127.0.0.1:1")}})
	for n, reason := 0, ""; reason != silentFor(silence).Error(); {
		var ev Event
		ev, n = r.link(n, LinkDown)
		reason = ev.Reason
	}
	deaf.Store(false)
	r.link(0, LinkUp)
}
