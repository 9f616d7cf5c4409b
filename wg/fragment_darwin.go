package wg

import "golang.org/x/sys/unix"

// setDontFragment forbids or allows fragments.
func (s *socket) setDontFragment(on bool) error {
	level, option, value := unix.IPPROTO_IP, unix.IP_DONTFRAG, 0
	if s.v6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_DONTFRAG
	}
	if on {
		value = 1
	}
	var err error
	if cerr := s.raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), level, option, value)
	}); cerr != nil {
		return cerr
	}
	return err
}
