package wg

import (
	"encoding/binary"
	"time"

	"golang.zx2c4.com/wireguard/tai64n"
)

// tai64nEpoch is the label of 1970-01-01 00:00:00 UTC in TAI64N as WireGuard
// counts (wireguard-go, tai64n/tai64n.go).
const tai64nEpoch = 0x400000000000000a

// Now is the time that the first message of a handshake carries if it is made
// now. A peer takes no message whose time is not later than that of all before
// from the same key (the WireGuard paper, section 5.1), and is silent about it.
func Now() time.Time {
	t := tai64n.Now()
	return time.Unix(int64(binary.BigEndian.Uint64(t[:8])-tai64nEpoch), int64(binary.BigEndian.Uint32(t[8:])))
}
