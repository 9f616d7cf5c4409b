//go:build linux

package link

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"golang.org/x/sys/unix"
)

// Addresses of the two ends, out of the block for benchmarks (RFC 2544).
var (
	AddrA = netip.AddrFrom4([4]byte{198, 18, 0, 1})
	AddrB = netip.AddrFrom4([4]byte{198, 18, 0, 2})
)

// Device is the name of the link's device in both namespaces.
const Device = "link0"

// DefaultMTU is Ethernet's.
const DefaultMTU = 1500

// Direction is one of the two ways through a link.
type Direction int

// The directions.
const (
	AtoB Direction = iota
	BtoA
)

func (d Direction) String() string {
	if d == AtoB {
		return "a to b"
	}
	return "b to a"
}

// Config says what link to open. The zero value is a perfect one.
type Config struct {
	AtoB, BtoA Conditions
	// MTU is that of the devices, in bytes; the kernels at both ends know
	// it. Zero means DefaultMTU.
	MTU int
	// Seed chooses which packets suffer. Equal seeds treat equal sequences of
	// packets equally.
	Seed uint64
	// Congestion is the TCP congestion control of both namespaces, such as
	// "cubic". Empty: the machine's.
	Congestion string
}

// Link is two namespaces and what joins them.
type Link struct {
	spaces [2]*Namespace
	fds    []int
	pumps  [2]*pump // by direction
	wg     sync.WaitGroup
	once   sync.Once
	closed error
}

// Open makes two namespaces and joins them. It needs root.
func Open(cfg Config) (*Link, error) {
	if cfg.MTU == 0 {
		cfg.MTU = DefaultMTU
	}
	if cfg.MTU < 68 || cfg.MTU > 65535 {
		return nil, fmt.Errorf("link: MTU %d is outside 68–65535", cfg.MTU)
	}
	for _, c := range []Conditions{cfg.AtoB, cfg.BtoA} {
		if err := c.Validate(); err != nil {
			return nil, err
		}
	}
	l := &Link{}
	if err := l.open(cfg); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

func (l *Link) open(cfg Config) error {
	var tuns [2]int
	for i, addr := range []netip.Addr{AddrA, AddrB} {
		n, err := NewNamespace()
		if err != nil {
			return err
		}
		l.spaces[i] = n
		if err := prepare(n, cfg.Congestion); err != nil {
			return err
		}
		err = n.Do(func() error {
			var err error
			tuns[i], err = openTUN(Device, netip.PrefixFrom(addr, 30), cfg.MTU)
			return err
		})
		if err != nil {
			return err
		}
		l.fds = append(l.fds, tuns[i])
	}
	for d, c := range []Conditions{cfg.AtoB, cfg.BtoA} {
		wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return fmt.Errorf("make an eventfd: %w", err)
		}
		l.fds = append(l.fds, wake)
		p := &pump{in: tuns[d], out: tuns[1-d], wake: wake, shaper: newShaper(cfg.Seed, Direction(d))}
		p.shaper.cond = c
		l.pumps[d] = p
		l.wg.Go(p.run)
	}
	return nil
}

// prepare makes measurements in a namespace repeatable.
func prepare(n *Namespace, congestion string) error {
	settings := [][2]string{
		// Otherwise a connection begins with what the last one to the same
		// address learned of the path, though it changes between two.
		{"net.ipv4.tcp_no_metrics_save", "1"},
		// No router solicitations between the packets under test.
		{"net.ipv6.conf.default.disable_ipv6", "1"},
	}
	for _, s := range settings {
		if err := n.Sysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	if congestion == "" {
		return nil
	}
	return n.SetCongestion(congestion)
}

// A is the namespace at AddrA.
func (l *Link) A() *Namespace { return l.spaces[0] }

// B is the namespace at AddrB.
func (l *Link) B() *Namespace { return l.spaces[1] }

// Set changes a direction's conditions. Packets under way keep theirs, so a
// shorter delay lets later packets overtake them, as after a change of route.
func (l *Link) Set(d Direction, c Conditions) error {
	if err := c.Validate(); err != nil {
		return err
	}
	p := l.pumps[d]
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shaper.cond = c
	return nil
}

// SetBoth changes the conditions of both directions.
func (l *Link) SetBoth(c Conditions) error {
	return errors.Join(l.Set(AtoB, c), l.Set(BtoA, c))
}

// Stats tells what became of a direction's packets since Open.
func (l *Link) Stats(d Direction) Stats {
	p := l.pumps[d]
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shaper.stats
}

// Close takes the link and its devices away, and the namespaces when no process
// runs in them any more; end those first. It returns what ended the link
// before, if anything did.
func (l *Link) Close() error {
	l.once.Do(func() { l.closed = l.close() })
	return l.closed
}

func (l *Link) close() error {
	var errs []error
	for _, p := range l.pumps {
		if p != nil {
			errs = append(errs, p.stop())
		}
	}
	l.wg.Wait()
	for _, p := range l.pumps {
		if p != nil {
			errs = append(errs, p.err)
		}
	}
	for _, fd := range l.fds {
		errs = append(errs, unix.Close(fd)) // a TUN device goes with its descriptor
	}
	for _, n := range l.spaces {
		if n != nil {
			errs = append(errs, n.Close())
		}
	}
	return errors.Join(errs...)
}
