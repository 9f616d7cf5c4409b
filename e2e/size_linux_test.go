package e2e

import (
	"debug/elf"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
)

// TestStartFillsNoTables: a table that a package makes as the program starts is
// resident in every agent, whether it is used or not. go-runewidth before v0.0.28
// makes one of 2 MB, and the libraries of the screen would be content with that
// (ADR 52).
func TestStartFillsNoTables(t *testing.T) {
	t.Parallel()
	const bound, page = 1 << 20, 4 << 10
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	s := startSystem(t, share{name: "app", kind: "http", upstream: web.URL})
	program, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	tables := program.Section(".noptrbss") // variables without pointers that begin as zero
	if tables == nil || program.Type != elf.ET_EXEC {
		t.Fatalf("the program is laid out otherwise than this test expects: %v, %v", program.Type, program.Sections)
	}
	for name, pid := range map[string]int{"edge": s.edge.PID(), "agent": s.agent.PID()} {
		memory, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, tables.Size)
		_, err = memory.ReadAt(b, int64(tables.Addr))
		if memory.Close(); err != nil {
			t.Fatal(err)
		}
		written := 0
		for at := 0; at < len(b); at += page {
			for _, c := range b[at:min(at+page, len(b))] {
				if c != 0 {
					written += page
					break
				}
			}
		}
		t.Logf("%s: %d KiB of %d are written to", name, written>>10, tables.Size>>10)
		if written > bound {
			t.Errorf("%s has written to %d KiB of its tables after its start, more than %d: which package fills one in init? (go-runewidth is to be v0.0.28 or later)", name, written>>10, bound>>10)
		}
	}
}
