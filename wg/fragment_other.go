//go:build !linux && !darwin && !windows

package wg

import "errors"

// setDontFragment is not known of this system. Without it no path is known to
// take more than fits everywhere.
func (s *socket) setDontFragment(on bool) error {
	if on {
		return errTooLarge
	}
	return nil
}

var errTooLarge = errors.New("this system may fragment datagrams")

func tooLarge(err error) bool { return errors.Is(err, errTooLarge) }
