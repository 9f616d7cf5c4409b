package tunnel

import (
	"fmt"
	"strconv"
	"strings"
)

// A PortRange is the ports from First to Last, both included. The zero
// PortRange has none.
type PortRange struct{ First, Last uint16 }

// ParsePortRange reads "20000-29999" or a single port, "20000".
func ParsePortRange(s string) (PortRange, error) {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		last = first
	}
	a, aerr := parsePort(first)
	b, berr := parsePort(last)
	if aerr != nil || berr != nil {
		return PortRange{}, fmt.Errorf("%q is no range of ports; write FIRST-LAST, such as 20000-29999, with ports from 1 to 65535", clip(s))
	}
	if a > b {
		return PortRange{}, fmt.Errorf("the range of ports %s starts above its end; write %d-%d", s, b, a)
	}
	return PortRange{a, b}, nil
}

// String gives "20000-29999"; "" for the zero PortRange.
func (r PortRange) String() string {
	if r == (PortRange{}) {
		return ""
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// Contains says whether port is in r. Port 0 never is.
func (r PortRange) Contains(port uint16) bool {
	return port != 0 && r.First <= port && port <= r.Last
}

// Len is the number of ports in r.
func (r PortRange) Len() int {
	if r == (PortRange{}) || r.First > r.Last {
		return 0
	}
	return int(r.Last) - int(r.First) + 1
}

// parsePort reads a port from 1 to 65535 in plain digits.
func parsePort(s string) (uint16, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("the port %q is not a number from 1 to 65535", clip(s))
	}
	return uint16(n), nil
}

// clip keeps what an error message quotes short.
func clip(s string) string {
	const limit = 100
	if len(s) <= limit {
		return s
	}
	return s[:limit] + "…"
}
