//go:build linux

// Package lab is a small internet on one machine, for tests that break it: a
// host at home, behind a NAT router with a resolver, and a host in the cloud
// with public addresses.
//
//	home                     router                                cloud
//	192.168.77.10 ── lan0 ── 192.168.77.1, 198.18.0.1 ══ link0 ══ 198.18.0.2, 203.0.113.7
//	                         resolver 10.53.0.1
//
// Each is a network namespace. What is between router and cloud is emulated
// (bench/link), the rest is the kernel's, with its own NAT (nftables). All of it
// goes with the test process at the latest.
package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/wgexpose/wgexpose/bench/link"
	"github.com/wgexpose/wgexpose/e2e/process"
)

// Addresses of the cloud's host.
var (
	Cloud = link.AddrB
	// Spare is another one, such as the one that it moves to.
	Spare = netip.AddrFrom4([4]byte{203, 0, 113, 7})
)

// lanDevice is the name of home's network card, and of the router's other side.
const lanDevice = "lan0"

// Lab is the small internet. Its methods fail the test when they fail.
type Lab struct {
	t    testing.TB
	link *link.Link

	Home, Router, Host *Space

	DNS *DNS

	ip, nft string // programs
	moves   int
	zone    int    // of the NAT's memory
	rules   string // further ones, of the chain that forwards
}

// Space is one of the hosts.
type Space struct {
	*link.Namespace
	handle *os.File
}

// Open makes a lab, or skips the test where there are not the rights, or the
// kernel, for it: unlike a program, those cannot be installed, so that it skips
// with WGEXPOSE_REQUIRE_TOOLS=1, too.
func Open(t testing.TB) *Lab {
	t.Helper()
	l := &Lab{t: t, ip: process.Need(t, "ip"), nft: process.Need(t, "nft")}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root")
	}
	conditions := Good
	joined, err := link.Open(link.Config{AtoB: conditions, BtoA: conditions})
	if errors.Is(err, os.ErrPermission) || errors.Is(err, os.ErrNotExist) {
		t.Skipf("no network namespaces or TUN devices here: %v", err)
	}
	if err == nil {
		if lacking := l.try(joined.A()); lacking != nil {
			joined.Close()
			t.Skipf("this kernel cannot be a router: %v", lacking)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	l.link = joined
	t.Cleanup(func() {
		if err := joined.Close(); err != nil {
			t.Errorf("close the link: %v", err)
		}
	})
	home, err := link.NewNamespace()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { home.Close() })
	l.Home, l.Router, l.Host = l.space(home), l.space(joined.A()), l.space(joined.B())
	l.wire()
	l.DNS = startDNS(t, l.Router)
	return l
}

// try makes what the lab is made of, once.
func (l *Lab) try(n *link.Namespace) error {
	for _, args := range [][]string{
		{l.ip, "link", "add", "try0", "type", "veth", "peer", "name", "try1"},
		{l.ip, "link", "del", "try0"},
		{l.nft, "add", "table", "ip", "try"},
		{l.nft, "add", "chain", "ip", "try", "out", "{ type nat hook postrouting priority 100; }"},
		{l.nft, "add", "rule", "ip", "try", "out", "masquerade"},
		{l.nft, "delete", "table", "ip", "try"},
	} {
		err := n.Do(func() error {
			out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, bytes.TrimSpace(out))
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Good is how the link is when nothing is wrong with it: 20 ms there and back,
// 50 Mbit/s.
var Good = link.Conditions{Delay: 10e6, Rate: 50e6}

func (l *Lab) space(n *link.Namespace) *Space {
	l.t.Helper()
	s := &Space{Namespace: n}
	err := n.Do(func() (err error) {
		s.handle, err = os.Open("/proc/thread-self/ns/net")
		return err
	})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { s.handle.Close() })
	return s
}

// wire joins home and router, and makes the router one.
func (l *Lab) wire() {
	l.t.Helper()
	for _, s := range [][2]string{
		{"net.ipv6.conf.default.disable_ipv6", "1"},
	} {
		if err := l.Home.Sysctl(s[0], s[1]); err != nil {
			l.t.Fatal(err)
		}
	}
	l.Run(l.Home, l.ip, "link", "add", lanDevice, "type", "veth", "peer", "name", lanDevice,
		"netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), l.Router.handle.Fd()))
	l.batch(l.Router, `
address add 192.168.77.1/24 dev lan0
address add 192.168.78.1/24 dev lan0
address add 10.53.0.1/32 dev lo
link set lan0 up
route add default dev link0
`)
	l.batch(l.Host, fmt.Sprintf("address add %v/32 dev lo\n", Spare))
	if err := l.Router.Sysctl("net.ipv4.ip_forward", "1"); err != nil {
		l.t.Fatal(err)
	}
	l.batch(l.Home, "link set lan0 up\n")
	l.Move()
	l.Filter("")
}

// Move gives home another address, on another network each time, as when a
// laptop changes from one to the next.
func (l *Lab) Move() {
	l.t.Helper()
	network := 77 + l.moves%2
	host := 10 + l.moves%200
	l.moves++
	l.batch(l.Home, fmt.Sprintf(`
address flush dev lan0
address add 192.168.%d.%d/24 dev lan0
route add default via 192.168.%d.1
`, network, host, network))
}

// Unplug takes home's network away: no address, no route.
func (l *Lab) Unplug() {
	l.t.Helper()
	l.batch(l.Home, "address flush dev lan0\n")
}

// ForgetNAT makes the router forget all mappings: what goes out gets another
// port from now on, and what comes to an old one is for nobody.
func (l *Lab) ForgetNAT() {
	l.t.Helper()
	l.zone++
	l.load()
}

// Filter puts rules (nft(8)) into the chain through which the router forwards,
// in place of those before.
func (l *Lab) Filter(rules string) {
	l.t.Helper()
	l.rules = rules
	l.load()
}

// NoUDP is a Filter that lets no UDP through.
const NoUDP = "meta l4proto udp drop\n"

// load gives the kernel the router's rules, all in one transaction. Connections
// are remembered by zone, so another zone remembers nothing.
func (l *Lab) load() {
	l.t.Helper()
	l.runWith(l.Router, fmt.Sprintf(`
flush ruleset
table ip router {
	chain memory {
		type filter hook prerouting priority raw
		ct zone set %d
	}
	chain outward {
		type nat hook postrouting priority srcnat
		oifname "%s" masquerade random
	}
	chain through {
		type filter hook forward priority filter
		%s
	}
}
`, l.zone+1, link.Device, l.rules), l.nft, "-f", "-")
}

// Wire changes the conditions between router and cloud, both ways.
func (l *Lab) Wire(c link.Conditions) {
	l.t.Helper()
	if err := l.link.SetBoth(c); err != nil {
		l.t.Fatal(err)
	}
}

func (l *Lab) batch(s *Space, lines string) {
	l.t.Helper()
	l.runWith(s, lines, l.ip, "-batch", "-")
}

// Run runs a program on a host to its end.
func (l *Lab) Run(s *Space, program string, args ...string) {
	l.t.Helper()
	l.runWith(s, "", program, args...)
}

func (l *Lab) runWith(s *Space, stdin, program string, args ...string) {
	l.t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := s.Start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	if err != nil {
		l.t.Fatalf("%s %s: %v\n%s\n%s", program, strings.Join(args, " "), err, stdin, out.String())
	}
}

// Enter runs f on a thread of its own in the space, several at once if need be:
// sockets that f opens are the space's, and stay so.
func (s *Space) Enter(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		if err := unix.Setns(int(s.handle.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter a network namespace: %w", err)
			return
		}
		done <- f()
	}()
	return <-done
}

// DialContext connects from the space to an address, without names.
func (s *Space) DialContext(ctx context.Context, network, addr string) (c net.Conn, err error) {
	err = s.Enter(func() error {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, addr)
		return err
	})
	return c, err
}

// Listen listens in the space.
func (s *Space) Listen(addr string) (ln net.Listener, err error) {
	err = s.Enter(func() error {
		ln, err = net.Listen("tcp", addr)
		return err
	})
	return ln, err
}
