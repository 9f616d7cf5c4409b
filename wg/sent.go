package wg

import (
	"encoding/binary"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
)

// sentBind is a bind that tells how many of the TUN device's packets it has
// sent, or given up: either way their buffers are free again.
type sentBind struct {
	conn.Bind
	sent func(packets int)
}

func (b sentBind) Send(bufs [][]byte, ep conn.Endpoint) error {
	err := b.Bind.Send(bufs, ep)
	n := 0
	for _, p := range bufs {
		if isData(p) {
			n++
		}
	}
	if n > 0 {
		b.sent(n)
	}
	return err
}

// isData tells a packet from the TUN device from WireGuard's own: handshakes
// have other types, and a keepalive has nothing inside.
func isData(p []byte) bool {
	return len(p) > device.MessageKeepaliveSize && binary.LittleEndian.Uint32(p) == device.MessageTransportType
}
