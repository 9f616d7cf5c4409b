package relay

import (
	"errors"
	"fmt"
	"syscall"
)

// asReset makes errors.Is(err, syscall.ECONNRESET) true for each error by
// which a system tells that the peer has reset the connection. After a reset a
// write gives EPIPE if a read was told first, and a half-close ENOTCONN;
// Windows has numbers of its own.
func asReset(err error) error {
	if errors.Is(err, syscall.ECONNRESET) {
		return err
	}
	for _, alias := range resetAliases {
		if errors.Is(err, alias) {
			return fmt.Errorf("%w (%w)", err, syscall.ECONNRESET)
		}
	}
	return err
}
