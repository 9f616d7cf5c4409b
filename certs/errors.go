package certs

import (
	"errors"
	"fmt"
)

var (
	// ErrNotAllowed: the name is not in the tunnel table (Config.Allowed).
	ErrNotAllowed = errors.New("no tunnel has this host name, so that it gets no certificate")
	// ErrClosed: Run has returned.
	ErrClosed = errors.New("certificates: not running any more")
	// ErrNoRoot: there is no internal authority in that directory.
	ErrNoRoot = errors.New("no internal certificate authority yet: it is made when the edge first runs with --tls internal")
	// ErrPermissions: a private key's file can be read by others.
	ErrPermissions = errors.New("private key is readable by others")
)

// A FileError says that a certificate, key or root that the settings name cannot
// be used. The same start would fail again.
type FileError struct{ Err error }

func (e *FileError) Error() string { return e.Err.Error() }
func (e *FileError) Unwrap() error { return e.Err }

// An OutsideError says that the internal authority cannot vouch for a name.
type OutsideError struct{ Host, Domain string }

func (e *OutsideError) Error() string {
	return fmt.Sprintf("%s is not below %s, and the internal certificate authority can vouch for no other names: "+
		"use a name below %[2]s, or run the edge with --tls acme or an own certificate (--certs)", e.Host, e.Domain)
}
