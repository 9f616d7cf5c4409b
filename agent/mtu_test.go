package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
)

// sizesTun notes the largest packet that comes out of WireGuard, and whether there
// was a probe, of which the stack behind it knows nothing.
type sizesTun struct {
	tun.Device
	largest, probes atomic.Int64
}

func (s *sizesTun) Write(bufs [][]byte, offset int) (int, error) {
	for _, b := range bufs {
		p := b[offset:]
		if p[6] == 58 && p[40] == 200 {
			s.probes.Add(1)
			continue
		}
		s.largest.Store(max(s.largest.Load(), int64(len(p))))
	}
	return s.Device.Write(bufs, offset)
}

// A WireGuard of somebody else's, which answers no probe, gets packets of the
// default size, and everything works.
func TestMTUWithAnotherWireGuard(t *testing.T) {
	key, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	other, err := keys.New()
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := netip.MustParseAddr("fd00::1"), netip.MustParseAddr("fd00::2")
	stack, err := netstack.Open(netstack.Config{Addr: theirs})
	if err != nil {
		t.Fatal(err)
	}
	defer stack.Close()
	tun := &sizesTun{Device: stack.Device()}
	dev := device.NewDevice(tun, conn.NewStdNetBind(), device.NewLogger(device.LogLevelSilent, ""))
	defer dev.Close()
	private, public := other.Expose(), key.Public().Bytes()
	if err := dev.IpcSet(fmt.Sprintf("private_key=%s\npublic_key=%s\nallowed_ip=::/0\n", hex.EncodeToString(private[:]), hex.EncodeToString(public[:]))); err != nil {
		t.Fatal(err)
	}
	if err := dev.Up(); err != nil {
		t.Fatal(err)
	}
	var port int
	status, err := dev.IpcGet()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(status) {
		if _, err := fmt.Sscanf(line, "listen_port=%d", &port); err == nil {
			break
		}
	}

	n, err := openNode(key, ours, Reach{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer n.close()
	if err := n.dev.SetPeer(edgePeer(other.Public(), netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port)), 0)); err != nil {
		t.Fatal(err)
	}
	var s sizing
	end, err := s.begin(n, theirs)
	if err != nil {
		t.Fatal(err)
	}
	defer end()
	l, err := stack.ListenTCP(80)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sums := make(chan [32]byte, 1)
	go func() {
		h := sha256.New()
		if c, err := l.Accept(); err == nil {
			io.Copy(h, c) // what is missing shows in the sum
			c.Close()
		}
		sums <- [32]byte(h.Sum(nil))
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := n.stack.DialTCP(ctx, netip.AddrPort{}, netip.AddrPortFrom(theirs, 80))
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 4<<20)
	for i := range data {
		data[i] = byte(i * 7 >> 3)
	}
	if _, err := c.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got := <-sums; got != sha256.Sum256(data) {
		t.Error("other bytes arrived than were sent")
	}
	if tun.probes.Load() == 0 {
		t.Error("no probe was sent: the test tests nothing")
	}
	if size := tun.largest.Load(); size > netstack.DefaultMTU || size < 1300 {
		t.Errorf("the largest packet has %d bytes, want up to %d", size, netstack.DefaultMTU)
	}
	if size := s.size(); size != netstack.DefaultMTU {
		t.Errorf("the size is said to be %d, want %d", size, netstack.DefaultMTU)
	}
	c.Close()
}
