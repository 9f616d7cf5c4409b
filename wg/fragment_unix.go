//go:build linux || darwin

package wg

import (
	"errors"

	"golang.org/x/sys/unix"
)

// tooLarge tells the error for a datagram that must not be fragmented and would
// have to be.
func tooLarge(err error) bool { return errors.Is(err, unix.EMSGSIZE) }
