//go:build linux

package link

import (
	"errors"
	"fmt"
	"time"
)

// Conditions are those of one direction. The zero value is a perfect wire.
type Conditions struct {
	// Delay is how long a packet travels after it has left.
	Delay time.Duration
	// Rate is in bits per second of IP packets. Zero: no limit, and no queue.
	Rate float64
	// Queue is how many bytes may wait for the wire; a packet that finds no
	// room is dropped. Zero means DefaultQueue.
	Queue int
	// Loss is the fraction of packets lost on the wire, each by itself.
	Loss float64
	// Duplicate is the fraction of packets that arrive twice in a row.
	Duplicate float64
	// Reorder is the fraction of packets held back by HoldBack, so that those
	// sent meanwhile overtake them.
	Reorder  float64
	HoldBack time.Duration
	// MTU is the size in bytes above which packets vanish without a word, a
	// black hole for path MTU discovery. Zero: none. What the devices know of
	// is Config.MTU.
	MTU int
	// Down loses everything.
	Down bool
}

// DefaultQueue is 256 KiB, 10 ms at 200 Mbit/s.
const DefaultQueue = 256 << 10

// Validate reports what is wrong with the conditions.
func (c Conditions) Validate() error {
	for name, fraction := range map[string]float64{"loss": c.Loss, "duplicate": c.Duplicate, "reorder": c.Reorder} {
		if !(fraction >= 0 && fraction <= 1) {
			return fmt.Errorf("link: %s %v is no fraction between 0 and 1", name, fraction)
		}
	}
	switch {
	case c.Delay < 0 || c.HoldBack < 0:
		return errors.New("link: a delay is negative")
	case !(c.Rate >= 0):
		return fmt.Errorf("link: rate %v is negative", c.Rate)
	case c.Queue < 0 || c.MTU < 0:
		return errors.New("link: a size is negative")
	case c.Reorder > 0 && c.HoldBack == 0:
		return errors.New("link: packets can only be reordered when some are held back: set HoldBack")
	}
	return nil
}

func (c Conditions) queue() int {
	if c.Queue == 0 {
		return DefaultQueue
	}
	return c.Queue
}

// Stats counts what became of one direction's packets. Each packet that the
// link saw is in exactly one of Forwarded, TooBig, Overflowed and Lost; those
// in flight are counted as Forwarded.
type Stats struct {
	Seen, SeenBytes uint64
	Forwarded       uint64
	TooBig          uint64 // larger than Conditions.MTU
	Overflowed      uint64 // found the queue full
	DroppedBytes    uint64 // of TooBig and Overflowed, which took no time on the wire
	Lost            uint64 // by Loss, or because the link was down
	Duplicated      uint64 // copies made
	Held            uint64 // by Reorder
	Refused         uint64 // arrived, and the device took no more packets
}
