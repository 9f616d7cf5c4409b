package wg

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/internal/logbuf"
	"github.com/wgexpose/wgexpose/keys"
)

func TestPackets(t *testing.T) {
	for name, addr := range map[string]netip.AddrPort{"v4": loopback4, "v6": loopback6} {
		for _, opts := range []UDPOptions{{}, {NoGSO: true}, {NoGSO: true, NoGRO: true}} {
			n := name
			if opts.NoGSO {
				n += " without GSO"
			}
			if opts.NoGRO {
				n += " without GRO"
			}
			t.Run(n, func(t *testing.T) {
				a, b := pair(t, UDPWith(addr, opts), UDPWith(addr, opts))
				deliver(t, a, b, 0, 1420)
				exchange(t, a, b, 10_000)
				s := peerOf(t, a, b)
				if s.RxBytes == 0 || s.TxBytes == 0 || s.Endpoint != b.bind.LocalAddr() || time.Since(s.LastHandshake) > patience {
					t.Errorf("status %+v", s)
				}
			})
		}
	}
}

// Both families answer on one port.
func TestWildcard(t *testing.T) {
	for _, addr := range []netip.AddrPort{{}, netip.MustParseAddrPort("0.0.0.0:0"), netip.MustParseAddrPort("[::]:0")} {
		t.Run(addr.String(), func(t *testing.T) {
			b := newNode(t, 9, UDP(addr))
			if b.Port() == 0 || b.Port() != b.bind.Port() {
				t.Fatalf("device on port %d, bind on %d", b.Port(), b.bind.Port())
			}
			for i, own := range []netip.AddrPort{loopback4, loopback6} {
				a := newNode(t, byte(i+1), UDP(own))
				introduce(t, a, b, netip.AddrPortFrom(own.Addr(), b.Port()))
				deliver(t, a, b, 1, 1420)
				deliver(t, b, a, 2, 1420)
			}
		})
	}
}

func TestSetPeerDisturbsNothing(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	deliver(t, a, b, 0, 100)
	deliver(t, b, a, 0, 100)
	before := peerOf(t, b, a)
	// b was not told where a is.
	if before.Endpoint != a.bind.LocalAddr() {
		t.Fatalf("endpoint %v, want %v", before.Endpoint, a.bind.LocalAddr())
	}

	extra := netip.MustParsePrefix("fd00:1::5/64")
	setPeer(t, b, Peer{Key: a.pub, AllowedIPs: host(a)})
	setPeer(t, b, Peer{Key: a.pub, AllowedIPs: append(host(a), extra, extra)})
	setPeer(t, b, Peer{Key: a.pub, AllowedIPs: host(a)})
	deliver(t, b, a, 1, 100)
	after := peerOf(t, b, a)
	if after.LastHandshake != before.LastHandshake || after.Endpoint != before.Endpoint {
		t.Errorf("before %+v, after %+v", before, after)
	}

	elsewhere := netip.MustParseAddrPort("[::ffff:127.0.0.9]:9")
	setPeer(t, b, Peer{Key: a.pub, Endpoint: elsewhere, AllowedIPs: host(a)})
	if got := peerOf(t, b, a).Endpoint; got != netip.MustParseAddrPort("127.0.0.9:9") {
		t.Errorf("endpoint %v, want the one that was asked for", got)
	}
	deliver(t, a, b, 2, 100) // and a roams it back
	if got := peerOf(t, b, a).Endpoint; got != before.Endpoint {
		t.Errorf("endpoint %v, want %v", got, before.Endpoint)
	}
}

func TestAllowedIPsTakeEffect(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	deliver(t, a, b, 0, 100)
	setPeer(t, b, Peer{Key: a.pub}) // a may send nothing any more
	a.tun.out <- packet(a, b, 1, 100)
	setPeer(t, b, Peer{Key: a.pub, AllowedIPs: host(a)})
	// Packets keep their order, so what arrives next tells of the one before,
	// unless that one is still on its way; then it is allowed.
	deliverAfterLoss(t, a, b, 1, 2)
}

// deliverAfterLoss sends packet seq until it arrives and accepts that packet
// lost comes before.
func deliverAfterLoss(t *testing.T, from, to *node, lost, seq uint32) {
	t.Helper()
	want := packet(from, to, seq, 100)
	from.tun.out <- want
	got := receive(t, to)
	if bytes.Equal(got, packet(from, to, lost, 100)) {
		got = receive(t, to)
	}
	if !bytes.Equal(got, want) {
		t.Fatal("another packet arrived")
	}
}

func TestSetPeerRefuses(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	key := newKey(t).Public()
	for name, c := range map[string]struct {
		peer Peer
		want string
	}{
		"no key":        {Peer{}, "it has no key"},
		"own key":       {Peer{Key: a.pub}, "this device's own key"},
		"taken prefix":  {Peer{Key: key, AllowedIPs: host(b)}, "fd00::2/128 belongs to peer " + b.pub.Short()},
		"no port":       {Peer{Key: key, Endpoint: loopback4}, "127.0.0.1:0 is not an endpoint"},
		"unspecified":   {Peer{Key: key, Endpoint: netip.MustParseAddrPort("0.0.0.0:5")}, "0.0.0.0:5 is not an endpoint"},
		"zero prefix":   {Peer{Key: key, AllowedIPs: make([]netip.Prefix, 1)}, "is not a prefix"},
		"mapped prefix": {Peer{Key: key, AllowedIPs: []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")}}, "is not a prefix"},
		"keepalive":     {Peer{Key: key, Keepalive: 70000 * time.Second}, "keepalive 19h26m40s is not between"},
	} {
		t.Run(name, func(t *testing.T) {
			err := a.SetPeer(c.peer)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	peers, err := a.Peers()
	if err != nil || len(peers) != 1 || peers[0].Key != b.pub {
		t.Errorf("peers %+v, %v; want the first alone", peers, err)
	}
}

func TestRemovePeer(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	c := newNode(t, 3, UDP(loopback4))
	introduce(t, c, b, b.bind.LocalAddr())
	deliver(t, a, b, 0, 100)
	deliver(t, c, b, 0, 100)

	if err := b.RemovePeer(a.pub); err != nil {
		t.Fatal(err)
	}
	if _, ok, err := b.Peer(a.pub); ok || err != nil {
		t.Errorf("peer is still there: %v, %v", ok, err)
	}
	received := peerOf(t, a, b).RxBytes
	a.tun.out <- packet(a, b, 1, 100)
	if err := a.Restart(b.pub); err != nil {
		t.Fatal(err)
	}
	b.tun.out <- packet(b, a, 2, 100)
	// c's packets go through b's queues behind a's.
	for seq := range uint32(20) {
		deliver(t, c, b, seq, 100)
		deliver(t, b, c, seq, 100)
	}
	if got := peerOf(t, a, b).RxBytes; got != received {
		t.Errorf("a was sent %d bytes after it was removed", got-received)
	}
	// Its prefixes are free, and removing it again is no error.
	if err := b.RemovePeer(a.pub); err != nil {
		t.Error(err)
	}
	setPeer(t, b, Peer{Key: newKey(t).Public(), AllowedIPs: host(a)})
}

func TestHandshakeAndRestart(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	if err := a.Handshake(b.pub); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the handshake is done", func() bool { return !peerOf(t, a, b).LastHandshake.IsZero() })
	deliver(t, a, b, 0, 100)
	first := peerOf(t, a, b).LastHandshake

	// Within 5 s, a second Handshake does nothing, and Restart does.
	if err := a.Handshake(b.pub); err != nil {
		t.Fatal(err)
	}
	for seq := range uint32(10) {
		deliver(t, a, b, seq, 100)
		deliver(t, b, a, seq, 100)
	}
	if got := peerOf(t, a, b).LastHandshake; got != first {
		t.Error("Handshake began another within 5 s")
	}
	eventually(t, "b takes another message so soon", func() bool { return time.Since(first) > 30*time.Millisecond })
	if err := a.Restart(b.pub); err != nil {
		t.Fatal(err)
	}
	deliver(t, a, b, 2, 100)
	if got := peerOf(t, a, b).LastHandshake; !got.After(first) {
		t.Errorf("last handshake at %v, first at %v", got, first)
	}

	stranger := newKey(t).Public()
	if err := a.Handshake(stranger); !errors.Is(err, ErrUnknownPeer) {
		t.Errorf("error %v, want %v", err, ErrUnknownPeer)
	}
	setPeer(t, a, Peer{Key: stranger})
	if err := a.Handshake(stranger); err == nil || errors.Is(err, ErrUnknownPeer) {
		t.Errorf("a peer without an endpoint: error %v", err)
	}
}

// The other side has lost everything; Restart is back at once.
func TestRestartAfterThePeersRestart(t *testing.T) {
	a := newNode(t, 1, UDP(loopback4))
	b := newNode(t, 2, UDP(loopback4))
	introduce(t, a, b, b.bind.LocalAddr())
	deliver(t, a, b, 0, 100)
	again := UDP(b.bind.LocalAddr())
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	b2 := openNode(t, 2, again, again, b.key)
	setPeer(t, b2, Peer{Key: a.pub, AllowedIPs: host(a)})
	if err := a.Restart(b.pub); err != nil {
		t.Fatal(err)
	}
	deliver(t, a, b2, 1, 100)
	deliver(t, b2, a, 2, 100)
}

func TestKeepaliveBeginsAHandshake(t *testing.T) {
	a, b := newNode(t, 1, UDP(loopback4)), newNode(t, 2, UDP(loopback4))
	setPeer(t, b, Peer{Key: a.pub, AllowedIPs: host(a)})
	setPeer(t, a, Peer{Key: b.pub, AllowedIPs: host(b), Endpoint: b.bind.LocalAddr(), Keepalive: 24500 * time.Millisecond})
	eventually(t, "b knows a", func() bool { return !peerOf(t, b, a).LastHandshake.IsZero() })
	var text bytes.Buffer
	if err := a.dev.IpcGetOperation(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "persistent_keepalive_interval=25\n") {
		t.Error("the interval is not rounded up to 25 s")
	}
}

func TestOpenErrors(t *testing.T) {
	first := newNode(t, 1, UDP(loopback4))
	tun := newFakeTun()
	var logged bytes.Buffer
	_, err := Open(Config{Key: newKey(t), Tun: tun, Bind: UDP(first.bind.LocalAddr()), Logger: slog.New(slog.NewTextHandler(&logged, nil))})
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), first.bind.LocalAddr().String()) {
		t.Errorf("error %v, want one that says that %v is in use", err, first.bind.LocalAddr())
	}
	if logged.Len() > 0 {
		t.Errorf("logged, too: %s", &logged)
	}
	<-tun.closed
	if _, err := Open(Config{Tun: newFakeTun(), Bind: UDP(loopback4)}); err == nil {
		t.Error("no error without a key")
	}
}

func TestClose(t *testing.T) {
	a, b := pair(t, UDP(loopback4), UDP(loopback4))
	deliver(t, a, b, 0, 100)
	select {
	case <-a.Done():
		t.Error("done before Close")
	default:
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := a.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	<-a.Done()
	<-a.tun.closed
	if a.bind.Port() != 0 {
		t.Error("the bind is open")
	}
	for _, err := range []error{a.SetPeer(Peer{Key: b.pub}), a.RemovePeer(b.pub), a.Handshake(b.pub), a.Restart(b.pub)} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("error %v, want %v", err, ErrClosed)
		}
	}
}

func TestDoneWhenTheTunEnds(t *testing.T) {
	a := newNode(t, 1, UDP(loopback4))
	if err := a.tun.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-a.Done():
	case <-time.After(patience):
		t.Fatal("the device is still there")
	}
}

func textLogger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestLogsHoldNoKeys(t *testing.T) {
	var logged logbuf.Buffer
	log := textLogger(&logged)
	key, peer := newKey(t), newKey(t).Public()
	d, err := Open(Config{Key: key, Tun: newFakeTun(), Bind: UDP(loopback4), Logger: log})
	if err != nil {
		t.Fatal(err)
	}
	if err := d.SetPeer(Peer{Key: peer, Endpoint: netip.AddrPortFrom(loopback4.Addr(), d.Port()), AllowedIPs: []netip.Prefix{netip.MustParsePrefix("::/0")}}); err != nil {
		t.Fatal(err)
	}
	if err := d.Handshake(peer); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Peers(); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	text := logged.String()
	if !strings.Contains(text, "Sending handshake initiation") {
		t.Fatalf("nothing about the handshake in %q", text)
	}
	private := key.Expose()
	public := peer.Bytes()
	for _, secret := range []string{hex.EncodeToString(private[:]), keysText(private), hex.EncodeToString(public[:]), peer.String()} {
		if strings.Contains(text, secret) {
			t.Error("a key is in the log")
		}
	}
}

func keysText(b [keys.Size]byte) string { return keys.PublicFrom(b).String() }

func TestErrorsAreLoggedAFewAtATime(t *testing.T) {
	var logged bytes.Buffer
	b := newBridge(slog.New(slog.NewTextHandler(&logged, nil)))
	for i := range 1000 {
		b.errorf("no room for packet %d", i)
	}
	if n := strings.Count(logged.String(), "\n"); n != 5 {
		t.Errorf("%d lines were logged, want the first 5", n)
	}
	if n := b.dropped.Load(); n != 995 {
		t.Errorf("%d counted as suppressed, want 995", n)
	}
}
