// Package ports gives a test ports that stay its own, for servers that it stops
// and starts again:
//
//	b := ports.Reserve(t)
//	edge := start(b.Addr()) // and again, later
//
// A port that the kernel chose is not one: as soon as its socket is closed, any
// outbound connection of the machine may be given it. These come from outside of
// the range that the kernel takes them from, and are locked against other
// processes that run tests.
package ports

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

const (
	// size is how many ports a block has.
	size = 100

	// lowest is the first port of the first block. Below are ports that
	// people know by heart.
	lowest = 10000

	// The range that an edge gives its TCP tunnels unless it is told otherwise.
	edgeFirst, edgeLast = 20000, 29999

	// ephemeral is where the kernel's own range begins where it cannot be
	// asked: that of Linux; other systems begin at 49152 (RFC 6335, section 6).
	ephemeral = 32768
)

// Block is some ports of one test.
type Block struct {
	t    testing.TB
	next uint16
	end  uint16 // exclusive
}

// Reserve reserves a block of 100 ports until the test ends, and more when those
// do not do.
func Reserve(t testing.TB) *Block {
	t.Helper()
	dir := filepath.Join(os.TempDir(), fmt.Sprintf("wgexpose-test-ports-%d", os.Getuid()))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	var firsts []uint16
	for first := lowest; first+size <= kernelRange(); first += size {
		if first+size <= edgeFirst || first > edgeLast {
			firsts = append(firsts, uint16(first))
		}
	}
	rand.Shuffle(len(firsts), func(i, j int) { firsts[i], firsts[j] = firsts[j], firsts[i] })
	for _, first := range firsts {
		lock := flock.New(filepath.Join(dir, fmt.Sprint(first)))
		ok, err := lock.TryLock()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			continue
		}
		t.Cleanup(func() {
			if err := lock.Unlock(); err != nil {
				t.Error(err)
			}
		})
		return &Block{t: t, next: first, end: first + size}
	}
	t.Fatalf("all %d blocks of test ports are taken", len(firsts))
	return nil
}

// kernelRange is the first port that the kernel may choose by itself.
func kernelRange() int {
	text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return ephemeral
	}
	var first, last int
	if _, err := fmt.Sscan(string(text), &first, &last); err != nil {
		return ephemeral
	}
	return first
}

// Addr is a port of 127.0.0.1 that is free for TCP and UDP.
func (b *Block) Addr() netip.AddrPort {
	b.t.Helper()
	first, _ := b.Range(1)
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), first)
}

// Range is n ports in a row that are free on 127.0.0.1, from first to last.
func (b *Block) Range(n uint16) (first, last uint16) {
	b.t.Helper()
	if n > size {
		b.t.Fatalf("%d ports in a row, of blocks of %d", n, size)
	}
	for {
		for run := uint16(0); b.next < b.end; {
			if free(b.next) {
				run++
			} else {
				run = 0
			}
			b.next++
			if run == n {
				return b.next - n, b.next - 1
			}
		}
		more := Reserve(b.t) // what there was is too little, or somebody has a part of it
		b.next, b.end = more.next, more.end
	}
}

// free reports whether nobody has the port, such as a server on a developer's
// machine.
func free(port uint16) bool {
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return false
	}
	p, perr := net.ListenPacket("udp", addr)
	if perr == nil {
		perr = p.Close()
	}
	return errors.Join(l.Close(), perr) == nil
}
