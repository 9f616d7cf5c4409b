//go:build linux

package link

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// ring is how many packets the kernel keeps until the link reads them. It
// drops beyond it, and to drop is the emulated queue's business, so this is
// more than a stalled reader misses in 50 ms at a gigabit.
const ring = 8192

// openTUN makes a TUN device in the calling thread's namespace, with an address
// and the route to prefix, and returns its descriptor, non-blocking. Each read
// and write is one IP packet.
func openTUN(name string, prefix netip.Prefix, mtu int) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	if err := setUpTUN(fd, name, prefix, mtu); err != nil {
		unix.Close(fd)
		return 0, err
	}
	return fd, nil
}

func setUpTUN(fd int, name string, prefix netip.Prefix, mtu int) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("make the TUN device %s: %w", name, err)
	}
	mask := netip.PrefixFrom(netip.AddrFrom4([4]byte{255, 255, 255, 255}), prefix.Bits()).Masked().Addr()
	return configure(func(socket int) error {
		for _, step := range []struct {
			what string
			req  uint
			set  func(*unix.Ifreq) error
		}{
			{"MTU", unix.SIOCSIFMTU, func(r *unix.Ifreq) error { r.SetUint32(uint32(mtu)); return nil }},
			{"queue length", unix.SIOCSIFTXQLEN, func(r *unix.Ifreq) error { r.SetUint32(ring); return nil }},
			{"address", unix.SIOCSIFADDR, func(r *unix.Ifreq) error { return r.SetInet4Addr(prefix.Addr().AsSlice()) }},
			{"netmask", unix.SIOCSIFNETMASK, func(r *unix.Ifreq) error { return r.SetInet4Addr(mask.AsSlice()) }},
		} {
			ifr, err := unix.NewIfreq(name)
			if err != nil {
				return err
			}
			if err := step.set(ifr); err != nil {
				return err
			}
			if err := unix.IoctlIfreq(socket, step.req, ifr); err != nil {
				return fmt.Errorf("set the %s of %s: %w", step.what, name, err)
			}
		}
		return setFlags(name, unix.IFF_UP)
	})
}

// configure runs f with a socket through which devices of the calling thread's
// namespace are configured (netdevice(7)).
func configure(f func(socket int) error) error {
	socket, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open a socket to configure devices: %w", err)
	}
	defer unix.Close(socket)
	return f(socket)
}

// setFlags switches flags of a device on.
func setFlags(name string, flags uint16) error {
	return configure(func(socket int) error {
		ifr, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		if err := unix.IoctlIfreq(socket, unix.SIOCGIFFLAGS, ifr); err != nil {
			return fmt.Errorf("read the flags of %s: %w", name, err)
		}
		ifr.SetUint16(ifr.Uint16() | flags)
		if err := unix.IoctlIfreq(socket, unix.SIOCSIFFLAGS, ifr); err != nil {
			return fmt.Errorf("set the flags of %s: %w", name, err)
		}
		return nil
	})
}
