//go:build linux

package lab

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

const resolverAddr = "10.53.0.1"

// DNS is the router's resolver. It knows the names that it was told.
type DNS struct {
	conf string // a resolv.conf

	mu    sync.Mutex // guards names
	names map[string]netip.Addr
}

func startDNS(t testing.TB, at *Space) *DNS {
	t.Helper()
	d := &DNS{names: make(map[string]netip.Addr), conf: filepath.Join(t.TempDir(), "resolv.conf")}
	if err := os.WriteFile(d.conf, []byte("nameserver "+resolverAddr+"\noptions timeout:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var c net.PacketConn
	err := at.Enter(func() (err error) {
		c, err = net.ListenPacket("udp4", resolverAddr+":53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { d.serve(t, c) })
	t.Cleanup(func() {
		c.Close()
		serving.Wait()
	})
	return d
}

// Set makes a name lead to an address from now on.
func (d *DNS) Set(name string, addr netip.Addr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.names[name+"."] = addr
}

// Use is a process.Config.Start for start that has the command ask this
// resolver, in a mount namespace of its own.
func (d *DNS) Use(start func(*exec.Cmd) error) func(*exec.Cmd) error {
	return func(cmd *exec.Cmd) error {
		unshare, err := exec.LookPath("unshare")
		if err != nil {
			return err
		}
		const script = `mount --bind "$1" /etc/resolv.conf && shift && exec "$@"`
		cmd.Args = append([]string{unshare, "--mount", "--propagation", "private", "sh", "-c", script, "sh", d.conf, cmd.Path}, cmd.Args[1:]...)
		cmd.Path = unshare
		return start(cmd)
	}
}

func (d *DNS) serve(t testing.TB, c net.PacketConn) {
	buf := make([]byte, 1500)
	for {
		n, from, err := c.ReadFrom(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			t.Errorf("resolver: %v", err)
			return
		}
		var m dnsmessage.Message
		if m.Unpack(buf[:n]) != nil || len(m.Questions) != 1 {
			continue
		}
		q := m.Questions[0]
		answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
		d.mu.Lock()
		addr, ok := d.names[q.Name.String()]
		d.mu.Unlock()
		switch {
		case !ok:
			answer.RCode = dnsmessage.RCodeNameError
		case q.Type == dnsmessage.TypeA:
			answer.Answers = []dnsmessage.Resource{{
				Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class},
				Body:   &dnsmessage.AResource{A: addr.As4()},
			}}
		}
		packed, err := answer.Pack()
		if err != nil {
			t.Errorf("resolver: %v", err)
			return
		}
		_, _ = c.WriteTo(packed, from) // whoever asked may have moved on
	}
}
