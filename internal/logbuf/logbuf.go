// Package logbuf keeps a log that many goroutines write, for a test to read:
//
//	var log logbuf.Buffer
//	edge := start(slog.New(slog.NewTextHandler(&log, nil)))
//	strings.Contains(log.String(), "made the internal certificate authority")
package logbuf

import (
	"bytes"
	"sync"
)

// A Buffer is a bytes.Buffer for any number of goroutines. The zero value is empty.
type Buffer struct {
	mu sync.Mutex // guards b
	b  bytes.Buffer
}

// Write adds p. It never fails.
func (l *Buffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// String is all that was written so far.
func (l *Buffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
