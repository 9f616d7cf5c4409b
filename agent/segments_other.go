//go:build !linux

package agent

import "syscall"

// limitSegments does nothing: macOS and Windows notice a path that drops large
// packets in silence by themselves.
func limitSegments(_, _ string, _ syscall.RawConn) error { return nil }
