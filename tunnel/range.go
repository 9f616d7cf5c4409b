package tunnel

import (
	"fmt"
	"strconv"
	"strings"
)

// PortRange is a range of ports, both ends included. The zero value is empty.
type PortRange struct{ First, Last uint16 }

// ParsePortRange reads "20000-29999", or one port.
func ParsePortRange(s string) (PortRange, error) {
	first, last, two := strings.Cut(s, "-")
	if !two {
		last = first
	}
	a, errA := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	b, errB := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if errA != nil || errB != nil || a == 0 || b < a {
		return PortRange{}, fmt.Errorf("port range %q: want FIRST-LAST with ports 1–65535, such as 20000-29999", s)
	}
	return PortRange{uint16(a), uint16(b)}, nil
}

// Contains reports whether port is in the range.
func (r PortRange) Contains(port uint16) bool {
	return port != 0 && r.First <= port && port <= r.Last
}

// Len is the number of ports.
func (r PortRange) Len() int {
	if r.First == 0 || r.Last < r.First {
		return 0
	}
	return int(r.Last) - int(r.First) + 1
}

// String is the form that ParsePortRange reads.
func (r PortRange) String() string {
	if r.Len() == 0 {
		return ""
	}
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return fmt.Sprintf("%d-%d", r.First, r.Last)
}

// MarshalText implements encoding.TextMarshaler.
func (r PortRange) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (r *PortRange) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*r = PortRange{}
		return nil
	}
	parsed, err := ParsePortRange(string(text))
	if err != nil {
		return err
	}
	*r = parsed
	return nil
}
