//go:build !linux

package listening

// Read is the table of now. It is false where it cannot be known, as here.
func Read() (Table, bool) { return nil, false }

// Others names the ports that can be reached over loopback; here none is known.
func (t Table) Others(int) []string { return nil }
