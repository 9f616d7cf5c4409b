//go:build linux

package link

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openLink opens a link, or skips where this cannot be done.
func openLink(t *testing.T, cfg Config) *Link {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces take root")
	}
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skip("no TUN devices here: ", err)
	}
	l, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

// pair returns UDP sockets at both ends, connected to each other.
func pair(t *testing.T, l *Link) (a, b *net.UDPConn) {
	t.Helper()
	addr := &net.UDPAddr{IP: AddrB.AsSlice(), Port: 7}
	local := &net.UDPAddr{IP: AddrA.AsSlice(), Port: 7}
	err := errors.Join(
		l.A().Do(func() (err error) { a, err = net.DialUDP("udp4", local, addr); return err }),
		l.B().Do(func() (err error) { b, err = net.DialUDP("udp4", addr, local); return err }),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	for _, c := range []*net.UDPConn{a, b} {
		if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	return a, b
}

func TestPacketsTakeTheirTimeBothWays(t *testing.T) {
	// The ways differ, so that mixed up directions show in the statistics.
	l := openLink(t, Config{AtoB: Conditions{Delay: 30 * time.Millisecond}, BtoA: Conditions{Delay: 10 * time.Millisecond}})
	a, b := pair(t, l)
	buf := make([]byte, 2000)
	for i := range 5 {
		start := time.Now()
		if _, err := fmt.Fprintf(a, "ping %d", i); err != nil {
			t.Fatal(err)
		}
		n, err := b.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if one := time.Since(start); one < 30*time.Millisecond {
			t.Errorf("a to b took %v, less than its delay", one)
		}
		if _, err := b.Write(buf[:n]); err != nil {
			t.Fatal(err)
		}
		n, err = a.Read(buf)
		if err != nil || string(buf[:n]) != fmt.Sprintf("ping %d", i) {
			t.Fatalf("%q came back, %v", buf[:n], err)
		}
		if both := time.Since(start); both < 40*time.Millisecond {
			t.Errorf("there and back took %v, less than both delays", both)
		}
	}
	for _, d := range []Direction{AtoB, BtoA} {
		if s := l.Stats(d); s.Seen != 5 || s.Forwarded != 5 || s.Refused != 0 {
			t.Errorf("%v: %+v, want 5 packets", d, s)
		}
	}
}

// TestLostPacketsAreThoseOfTheSeed sends numbered packets through a real link
// and compares with what a shaper of the same seed does to them.
func TestLostPacketsAreThoseOfTheSeed(t *testing.T) {
	const n = 300
	c := Conditions{Loss: 0.2}
	l := openLink(t, Config{AtoB: c, Seed: 11})
	a, b := pair(t, l)
	want := make(map[uint32]bool)
	for _, id := range fates(t, pushed(c, 11, n, 64, 0)) {
		want[id] = true
	}
	buf := make([]byte, 2000)
	for i := range n {
		if _, err := a.Write(numbered(i, 64)); err != nil {
			t.Fatal(err)
		}
		if !want[uint32(i)] {
			continue
		}
		// One at a time, so that no socket buffer overflows.
		if _, err := b.Read(buf); err != nil {
			t.Fatalf("packet %d: %v", i, err)
		}
		if got := binary.BigEndian.Uint32(buf); got != uint32(i) {
			t.Fatalf("packet %d arrived, want %d", got, i)
		}
	}
	if s := l.Stats(AtoB); s.Lost != uint64(n-len(want)) || s.Lost == 0 {
		t.Errorf("%+v, want %d lost", s, n-len(want))
	}
}

func TestTCPGoesNoFasterThanTheRate(t *testing.T) {
	const size = 1 << 20
	c := Conditions{Rate: 40e6, Delay: time.Millisecond}
	l := openLink(t, Config{AtoB: c, BtoA: c, Congestion: "cubic"})
	var ln net.Listener
	if err := l.B().Do(func() (err error) { ln, err = net.Listen("tcp4", AddrB.String()+":0"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	sent := make(chan error, 1)
	go func() {
		sent <- func() error {
			conn, err := ln.Accept()
			if err != nil {
				return err
			}
			defer conn.Close()
			_, err = conn.Write(make([]byte, size))
			return err
		}()
	}()
	var conn *net.TCPConn
	err := l.A().Do(func() (err error) { conn, err = net.DialTCP("tcp4", nil, ln.Addr().(*net.TCPAddr)); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	start := time.Now()
	n, err := io.Copy(io.Discard, conn)
	took := time.Since(start)
	if err := errors.Join(err, <-sent); err != nil || n != size {
		t.Fatalf("%d bytes of %d, %v", n, size, err)
	}
	// What had left before the clock started is one window at most.
	if least := time.Duration((size - 64<<10) * 8 / c.Rate * 1e9); took < least {
		t.Errorf("%d bytes took %v; at %.0f Mbit/s they take %v", size, took, c.Rate/1e6, least)
	}
}

func TestSetAppliesToWhatIsSentLater(t *testing.T) {
	l := openLink(t, Config{})
	a, b := pair(t, l)
	buf := make([]byte, 100)
	exchange := func(text string) {
		t.Helper()
		if _, err := io.WriteString(a, text); err != nil {
			t.Fatal(err)
		}
		if n, err := b.Read(buf); err != nil || string(buf[:n]) != text {
			t.Fatalf("%q arrived, %v; want %q", buf[:n], err, text)
		}
	}
	exchange("up")
	if err := l.SetBoth(Conditions{Down: true}); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(a, "into the void"); err != nil {
		t.Fatal(err)
	}
	// The device's queue is in order, so once the link has seen the packet,
	// its fate is sealed.
	patience := time.Now().Add(30 * time.Second)
	for l.Stats(AtoB).Seen < 2 {
		if time.Now().After(patience) {
			t.Fatal("the link did not see the packet")
		}
		time.Sleep(time.Millisecond)
	}
	if err := l.SetBoth(Conditions{}); err != nil {
		t.Fatal(err)
	}
	exchange("up again")
	if err := l.Set(AtoB, Conditions{Loss: 2}); err == nil {
		t.Error("a loss of 200 % was taken")
	}
}

func TestNamespacesAreApartAndCommandsRunInThem(t *testing.T) {
	l := openLink(t, Config{Congestion: "cubic", MTU: 1400})
	for i, n := range []*Namespace{l.A(), l.B()} {
		cmd := exec.Command("cat", "/proc/net/dev", "/proc/sys/net/ipv4/tcp_congestion_control")
		var out strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := n.Start(cmd); err != nil {
			t.Fatal(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Fatalf("%v: %s", err, out.String())
		}
		text := out.String()
		if !strings.Contains(text, Device+":") || strings.Contains(text, "eth0:") || !strings.HasSuffix(text, "cubic\n") {
			t.Errorf("namespace %d has these devices and congestion control:\n%s", i, text)
		}
		err := n.Do(func() error {
			dev, err := net.InterfaceByName(Device)
			if err == nil && dev.MTU != 1400 {
				err = fmt.Errorf("MTU %d, want 1400", dev.MTU)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	if before, err := net.InterfaceByName(Device); err == nil {
		t.Errorf("the machine itself has %v", before)
	}
}

func TestClosedNamespaceRefuses(t *testing.T) {
	l := openLink(t, Config{})
	n := l.A()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
	if err := n.Do(func() error { return nil }); !errors.Is(err, ErrClosed) {
		t.Errorf("Do after Close: %v, want ErrClosed", err)
	}
}
