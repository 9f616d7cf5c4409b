package wg

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/wgexpose/wgexpose/keys"
)

var (
	// ErrClosed is returned by the calls of a device that has been closed.
	ErrClosed = errors.New("the WireGuard device is closed")
	// ErrUnknownPeer is returned for a key that no SetPeer has named.
	ErrUnknownPeer = errors.New("no such WireGuard peer")
)

// Config says what a Device is made of. All but Logger are required.
type Config struct {
	Key    keys.Private
	Tun    tun.Device   // closed with the device
	Bind   conn.Bind    // opened and closed by the device
	Logger *slog.Logger // nil discards
	// Sent, if not nil, is called with the number of Tun's packets that have
	// left, from several goroutines and for each batch: it lets Tun bound the
	// packets that are under way. Packets for which there is no peer or no
	// session are not told. It must not block.
	Sent func(packets int)
	// Probes, if not nil, are those of Tun's packets that find out how large
	// packets may be.
	Probes Probes
}

// Peer is what is configured about a peer.
type Peer struct {
	Key keys.Public
	// Endpoint is where the peer is; IPv4-mapped addresses are unmapped. Zero
	// keeps the endpoint that is known, which may be one that the peer has
	// roamed to, or leaves a new peer without, to be called by it. Otherwise
	// it replaces what is known, even if the peer has roamed since.
	Endpoint netip.AddrPort
	// AllowedIPs are the inner prefixes that the peer may send from, and
	// that are sent to it. A prefix belongs to one peer.
	AllowedIPs []netip.Prefix
	// Keepalive is the persistent keepalive interval, rounded up to whole
	// seconds, at most 65535 of them; 0 is off. Turning it on sends a first
	// packet at once, and so begins a handshake.
	Keepalive time.Duration
}

// PeerStatus is what is known about a peer.
type PeerStatus struct {
	Key           keys.Public
	Endpoint      netip.AddrPort // the last that an authenticated packet came from, or the configured one; zero: none
	Stream        bool           // Endpoint is the other end of a stream, and not a UDP address
	LastHandshake time.Time      // zero: never
	RxBytes       uint64         // of outer packets, without UDP and IP headers
	TxBytes       uint64
}

// Device is a WireGuard device that is up. Its methods may be called from any
// goroutine.
type Device struct {
	dev     *device.Device
	port    uint16
	added   chan struct{} // has a token when a peer was added
	watched chan struct{} // closed when watchStale has ended

	mu     sync.Mutex // serialises changes; guards what follows
	closed bool
	peers  map[keys.Public]Peer // as set, but for Endpoint, which roams
	owners map[netip.Prefix]keys.Public
}

// Open makes a device and brings it up, listening. If it fails, the TUN device
// and the bind are closed.
func Open(cfg Config) (*Device, error) {
	if cfg.Key.IsZero() || cfg.Tun == nil || cfg.Bind == nil {
		return nil, errors.New("open WireGuard device: Key, Tun and Bind are required")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if b, ok := cfg.Bind.(interface{ setLogger(*slog.Logger) }); ok {
		b.setLogger(cfg.Logger)
	}
	in := newInbound()
	inner := tun.Device(inboundTun{cfg.Tun, in})
	if b, ok := cfg.Bind.(interface{ setWhole(*whole) }); ok && cfg.Probes != nil {
		w := &whole{probes: cfg.Probes}
		b.setWhole(w)
		inner = wholeTun{inner, w}
	}
	bind := conn.Bind(inboundBind{cfg.Bind, in})
	if cfg.Sent != nil {
		bind = sentBind{bind, cfg.Sent}
	}
	log := newBridge(cfg.Logger)
	// Up logs the error that it returns, and the TUN device's "up" event may
	// call it as well; the caller has the error.
	log.quiet.Store(true)
	d := &Device{
		dev:    device.NewDevice(inner, bind, log.logger()),
		peers:  make(map[keys.Public]Peer),
		owners: make(map[netip.Prefix]keys.Public),

		added:   make(chan struct{}, 1),
		watched: make(chan struct{}),
	}
	if err := d.up(cfg.Key); err != nil {
		d.dev.Close()
		return nil, fmt.Errorf("open WireGuard device: %w", err)
	}
	log.quiet.Store(false)
	go d.watchStale()
	return d, nil
}

func (d *Device) up(key keys.Private) error {
	// As bytes and not through IpcSet, so that the key is in no text.
	if err := d.dev.SetPrivateKey(device.NoisePrivateKey(key.Expose())); err != nil {
		return err
	}
	if err := d.dev.Up(); err != nil {
		return err
	}
	s, err := d.status()
	d.port = s.port
	return err
}

// SetPeer adds a peer or changes it to what p says. What p leaves as it is
// stays undisturbed: sessions, counters, routes; without a change nothing is
// done at all. An allowed prefix of another peer is an error, and then nothing
// is changed.
func (d *Device) SetPeer(p Peer) error {
	p, err := p.normal()
	if err != nil {
		return fmt.Errorf("set WireGuard peer %s: %w", p.Key.Short(), err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	for _, prefix := range p.AllowedIPs {
		if owner, taken := d.owners[prefix]; taken && owner != p.Key {
			return fmt.Errorf("set WireGuard peer %s: %v belongs to peer %s", p.Key.Short(), prefix, owner.Short())
		}
	}
	old, known := d.peers[p.Key]
	change := peerChange{new: p, old: old, add: !known}
	if !change.any() {
		return nil
	}
	if err := d.dev.IpcSet(change.text()); err != nil {
		// wireguard-go refuses only what normal refuses too, except that the
		// device may have closed itself.
		return fmt.Errorf("set WireGuard peer %s: %w", p.Key.Short(), err)
	}
	if d.dev.LookupPeer(noiseKey(p.Key)) == nil {
		return fmt.Errorf("set WireGuard peer %s: it is this device's own key", p.Key.Short())
	}
	for _, prefix := range old.AllowedIPs {
		delete(d.owners, prefix)
	}
	for _, prefix := range p.AllowedIPs {
		d.owners[prefix] = p.Key
	}
	p.Endpoint = netip.AddrPort{}
	d.peers[p.Key] = p
	if !known {
		select {
		case d.added <- struct{}{}:
		default:
		}
	}
	return nil
}

// normal returns p in the one form that compares equal, or says what is wrong
// with it.
func (p Peer) normal() (Peer, error) {
	if p.Key.IsZero() {
		return p, errors.New("it has no key")
	}
	if p.Endpoint != (netip.AddrPort{}) {
		if !p.Endpoint.IsValid() || p.Endpoint.Port() == 0 || p.Endpoint.Addr().IsUnspecified() {
			return p, fmt.Errorf("%v is not an endpoint; it takes an address and a port", p.Endpoint)
		}
		p.Endpoint = netip.AddrPortFrom(p.Endpoint.Addr().Unmap(), p.Endpoint.Port())
	}
	if p.Keepalive < 0 || p.Keepalive > 65535*time.Second {
		return p, fmt.Errorf("keepalive %v is not between 0 and 65535 s", p.Keepalive)
	}
	p.Keepalive = (p.Keepalive + time.Second - 1).Truncate(time.Second)
	p.AllowedIPs = slices.Clone(p.AllowedIPs)
	for i, prefix := range p.AllowedIPs {
		if !prefix.IsValid() || prefix.Addr().Is4In6() {
			return p, fmt.Errorf("%v is not a prefix that can be allowed", prefix)
		}
		p.AllowedIPs[i] = prefix.Masked()
	}
	slices.SortFunc(p.AllowedIPs, netip.Prefix.Compare)
	p.AllowedIPs = slices.Compact(p.AllowedIPs)
	return p, nil
}

// RemovePeer forgets a peer: its session ends, its packets are dropped, and
// nothing is sent to it any more, all before RemovePeer returns. A peer that is
// not there is no error.
func (d *Device) RemovePeer(key keys.Public) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	d.dev.RemovePeer(noiseKey(key))
	for _, prefix := range d.peers[key].AllowedIPs {
		delete(d.owners, prefix)
	}
	delete(d.peers, key)
	return nil
}

// Peers returns the state of all peers, in no order.
func (d *Device) Peers() ([]PeerStatus, error) {
	s, err := d.status()
	return s.peers, err
}

// Peer returns the state of one peer, and whether there is such a peer. It
// costs as much as Peers.
func (d *Device) Peer(key keys.Public) (PeerStatus, bool, error) {
	s, err := d.status()
	if err != nil {
		return PeerStatus{}, false, err
	}
	i := slices.IndexFunc(s.peers, func(p PeerStatus) bool { return p.Key == key })
	if i < 0 {
		return PeerStatus{}, false, nil
	}
	return s.peers[i], true, nil
}

// Handshake sends the first message of a handshake now, whether or not there
// is a session; the present one serves until the new one is ready, and nothing
// is lost. It returns when the message is sent, not when it is answered; see
// PeerStatus.LastHandshake.
//
// Limits (wireguard-go, device/send.go and device/noise-protocol.go): nothing
// is sent, without an error, within 5 s of the last message of a handshake that
// this device has sent to this peer; see [Device.Restart]. Unanswered messages
// are sent again after 5 s, for 90 s. The peer drops a second message within
// about 20 ms of the first.
func (d *Device) Handshake(key keys.Public) error {
	peer, err := d.lookup(key)
	if err != nil {
		return err
	}
	if err := peer.SendHandshakeInitiation(false); err != nil {
		return fmt.Errorf("handshake with WireGuard peer %s: %w", key.Short(), err)
	}
	return nil
}

// Restart is for a peer that seems to have lost the session: it gives the
// present keys up for sending and begins a handshake at once, also within the
// 5 s in which Handshake would not. Packets wait for the new session (at most
// 128 batches, then the oldest go); what the peer still sends with the old keys
// is accepted until it is there.
//
// Do not call it in a loop without pause: each call forgets the handshake that
// is under way (wireguard-go, device/peer.go, ExpireCurrentKeypairs), and an
// answer that comes later than the next call comes too late.
func (d *Device) Restart(key keys.Public) error {
	peer, err := d.lookup(key)
	if err != nil {
		return err
	}
	peer.ExpireCurrentKeypairs()
	if err := peer.SendHandshakeInitiation(false); err != nil {
		return fmt.Errorf("restart WireGuard peer %s: %w", key.Short(), err)
	}
	return nil
}

func (d *Device) lookup(key keys.Public) (*device.Peer, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	peer := d.dev.LookupPeer(noiseKey(key))
	if peer == nil {
		return nil, fmt.Errorf("WireGuard peer %s: %w", key.Short(), ErrUnknownPeer)
	}
	return peer, nil
}

// Rebind closes the bind's UDP sockets and opens new ones, on the port that the
// bind was made with, or on a new one if that is 0. Sessions stay. The source
// addresses that peers' packets came to are forgotten, so that the system
// chooses anew. After an error the device is without sockets, until Rebind
// succeeds.
func (d *Device) Rebind() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return ErrClosed
	}
	if err := d.dev.IpcSet("listen_port=0\n"); err != nil {
		return fmt.Errorf("open new sockets for WireGuard: %w", err)
	}
	return nil
}

// Port is the port that the bind reported when the device came up.
func (d *Device) Port() uint16 { return d.port }

// Done is closed when the device has closed, which it also does by itself when
// its TUN device ends.
func (d *Device) Done() <-chan struct{} { return d.dev.Wait() }

// Close takes the device down, and closes its bind and its TUN device. No packet
// moves any more when it returns.
func (d *Device) Close() error {
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.dev.Close()
	<-d.dev.Wait()
	<-d.watched
	return nil
}

func noiseKey(k keys.Public) device.NoisePublicKey { return device.NoisePublicKey(k.Bytes()) }
