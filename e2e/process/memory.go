package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// sampleEvery is how often Watch looks.
const sampleEvery = 20 * time.Millisecond

// RSS returns the memory of the process that is in RAM, in bytes, from
// /proc/<pid>/status. It is an error elsewhere than on Linux.
func (p *Process) RSS() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			return kb << 10, err
		}
	}
	return 0, fmt.Errorf("%s: no VmRSS in its status", p)
}

// Memory is what Watch saw, in bytes.
type Memory struct {
	Start, Peak, End int64
	Samples          int
}

func (m Memory) String() string {
	mib := func(n int64) float64 { return float64(n) / (1 << 20) }
	return fmt.Sprintf("%.1f MiB at the start, %.1f at the peak, %.1f at the end (%d samples)",
		mib(m.Start), mib(m.Peak), mib(m.End), m.Samples)
}

// Watch samples RSS until stop is called, which returns what it saw.
func (p *Process) Watch() (stop func() (Memory, error)) {
	var m Memory
	var err error
	sample := func() {
		rss, e := p.RSS()
		if e != nil {
			err = e
			return
		}
		if m.Samples == 0 {
			m.Start = rss
		}
		m.Peak = max(m.Peak, rss)
		m.End = rss
		m.Samples++
	}
	sample()
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(sampleEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				sample()
			case <-done:
				sample()
				return
			}
		}
	})
	return func() (Memory, error) {
		close(done)
		wg.Wait()
		return m, err
	}
}

// Holds reports whether marker stands anywhere in the process's memory, from
// /proc/<pid>/mem. It is an error elsewhere than on Linux.
func (p *Process) Holds(marker string) (bool, error) {
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", p.PID()))
	if err != nil {
		return false, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", p.PID()))
	if err != nil {
		return false, err
	}
	defer mem.Close()
	buf := make([]byte, 1<<20)
	for line := range strings.Lines(string(maps)) {
		var from, to uint64
		var perms string
		if _, err := fmt.Sscanf(line, "%x-%x %s", &from, &to, &perms); err != nil {
			return false, err
		}
		if !strings.HasPrefix(perms, "rw") { // what is only read is the program itself
			continue
		}
		for at := from; at < to; at += uint64(len(buf) - len(marker)) {
			n, err := mem.ReadAt(buf[:min(uint64(len(buf)), to-at)], int64(at))
			if bytes.Contains(buf[:n], []byte(marker)) {
				return true, nil
			}
			if err != nil {
				break // given back meanwhile
			}
		}
	}
	return false, nil
}
