package wg

import (
	"errors"

	"golang.org/x/sys/windows"
)

// Options of ws2ipdef.h.
const (
	ipDontFragment = 14 // IP_DONTFRAGMENT
	ipv6DontFrag   = 14 // IPV6_DONTFRAG
)

// setDontFragment forbids or allows fragments.
func (s *socket) setDontFragment(on bool) error {
	level, option, value := windows.IPPROTO_IP, ipDontFragment, 0
	if s.v6 {
		level, option = windows.IPPROTO_IPV6, ipv6DontFrag
	}
	if on {
		value = 1
	}
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		err = windows.SetsockoptInt(windows.Handle(fd), level, option, value)
	}); cerr != nil {
		return cerr
	}
	return err
}

// tooLarge tells the error for a datagram that must not be fragmented and would
// have to be.
func tooLarge(err error) bool { return errors.Is(err, windows.WSAEMSGSIZE) }
