//go:build !linux

package rest

// releaseProgram does nothing: what pages of a program's file stay with a process is
// the system's business here.
func releaseProgram() error { return nil }
