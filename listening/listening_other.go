//go:build !linux

package listening

import "net/netip"

// Read is the table of now. It is false where it cannot be known, as here.
func Read() (Table, bool) { return nil, false }

// Serves reports whether a connection to addr would find somebody, and whether that is
// known, which it is not here.
func Serves(netip.AddrPort) (there, known bool) { return false, false }

// Others names the ports that can be reached over loopback; here none is known.
func (t Table) Others(int) []string { return nil }
