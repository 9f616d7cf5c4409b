//go:build unix

package keys

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"
)

// TestLoadFIFO: nobody writes to it, so a plain open would wait for ever.
func TestLoadFIFO(t *testing.T) {
	path := filepath.Join(t.TempDir(), "edge.key")
	if err := syscall.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a FIFO: %v", err)
	}
}
