package procfs

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"2156 (wgexpose) S 1 2156 2156 0 -1 4194560 3000 0 7 0 481 120 0 0 20 0 9 0 361 1 2": 6010 * time.Millisecond,
		// A program may call itself anything.
		"1 (a) 9 (b c) R 1 2 3 4 5 6 7 8 9 10 7 8 0 0 20": 150 * time.Millisecond,
	} {
		got, err := parseStat([]byte(text))
		if err != nil || got != want {
			t.Errorf("parseStat(%q) = %v, %v; want %v", text, got, err, want)
		}
	}
	for _, bad := range []string{"", "1 wgexpose S 1", "1 (x) S 1 2 3", "1 (x) R 1 2 3 4 5 6 7 8 9 10 x 8 0", "1 (x) R 1 2 3 4 5 6 7 8 9 10 7 -8 0"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("parseStat(%q) = %v, want an error", bad, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const text = "Name:\tedge\nVmPeak:\t  99999 kB\nVmHWM:\t    2048 kB\nVmRSS:\t    1536 kB\nRssAnon:\t 1 kB\n"
	got, err := parseStatus([]byte(text))
	if want := (Memory{RSS: 1536 << 10, Peak: 2048 << 10}); err != nil || got != want {
		t.Errorf("parseStatus = %+v, %v; want %+v", got, err, want)
	}
	// A kernel thread has no memory of its own.
	for _, bad := range []string{"Name:\tkthreadd\n", "VmHWM:\t1 kB\nVmRSS:\t1 MB\n", "VmHWM:\t1 kB\nVmRSS:\t-4 kB\n"} {
		if got, err := parseStatus([]byte(bad)); err == nil {
			t.Errorf("parseStatus(%q) = %+v, want an error", bad, got)
		}
	}
}

func TestParseMachine(t *testing.T) {
	const text = "cpu  100 20 30 90000 5000 1 2 4 50 6\ncpu0 1 2 3 4 5 6 7 8 9 10\nintr 1\n"
	got, err := parseMachine([]byte(text))
	if want := 1570 * time.Millisecond; err != nil || got != want {
		t.Errorf("parseMachine = %v, %v; want %v", got, err, want)
	}
	for _, bad := range []string{"", "cpu0 1 2 3 4 5 6 7 8\n", "cpu  1 2 3\n", "cpu  1 2 3 4 5 6 x 8\n"} {
		if got, err := parseMachine([]byte(bad)); err == nil {
			t.Errorf("parseMachine(%q) = %v, want an error", bad, got)
		}
	}
}

func TestParseLoad(t *testing.T) {
	got, err := parseLoad([]byte("6.64 4.41 3.10 3/412 9183\n"))
	if err != nil || got != 6.64 {
		t.Errorf("parseLoad = %v, %v; want 6.64", got, err)
	}
	if got, err := parseLoad([]byte("busy")); err == nil {
		t.Errorf("parseLoad of a word = %v, want an error", got)
	}
}

// TestThisProcess compares the readers with what the process knows of itself.
func TestThisProcess(t *testing.T) {
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	busyBefore, err := Busy()
	if err != nil {
		t.Fatal(err)
	}
	// Work until the counter has moved: it moves a tick for each 10 ms of
	// work, so this ends.
	hoard := make([]byte, 32<<20)
	for after := before; after < before+5*tick; {
		for i := range hoard {
			hoard[i]++
		}
		if after, err = CPU(os.Getpid()); err != nil {
			t.Fatal(err)
		}
	}
	busyAfter, err := Busy()
	if err != nil {
		t.Fatal(err)
	}
	if busyAfter <= busyBefore {
		t.Errorf("the machine was busy for %v before and %v after work", busyBefore, busyAfter)
	}
	m, err := ReadMemory(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if m.RSS < int64(len(hoard)) || m.Peak < m.RSS {
		t.Errorf("memory %+v with %d bytes written to", m, len(hoard))
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("1 (x) R 1 2 3 4 5 6 7 8 9 10 7 8 0 0 20"))
	f.Add([]byte("VmHWM:\t2 kB\nVmRSS:\t1 kB\n"))
	f.Add([]byte("cpu  1 2 3 4 5 6 7 8 9 10\n"))
	f.Add([]byte("0.00 0.00 0.00 1/2 3\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if cpu, err := parseStat(b); err == nil && cpu < 0 {
			t.Errorf("processor time %v", cpu)
		}
		if m, err := parseStatus(b); err == nil && (m.RSS < 0 || m.Peak < 0) {
			t.Errorf("memory %+v", m)
		}
		if busy, err := parseMachine(b); err == nil && busy < 0 {
			t.Errorf("busy for %v", busy)
		}
		_, _ = parseLoad(b)
	})
}
