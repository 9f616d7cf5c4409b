package wg

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wgexpose/wgexpose/keys"
)

// This file alone knows the configuration protocol's text:
// https://www.wireguard.com/xplatform/#configuration-protocol

// peerChange is the step from one state of a peer to another.
type peerChange struct {
	old, new Peer // both normal
	add      bool // there was no such peer; old is zero
}

// any reports whether there is anything to change.
func (c peerChange) any() bool {
	return c.add || c.new.Endpoint.IsValid() || c.new.Keepalive != c.old.Keepalive ||
		!slices.Equal(c.new.AllowedIPs, c.old.AllowedIPs)
}

// text is what takes a device through the change. Prefixes that stay are not
// mentioned: "replace_allowed_ips" would leave packets without a route for a
// moment.
func (c peerChange) text() string {
	var b strings.Builder
	key := c.new.Key.Bytes()
	fmt.Fprintf(&b, "public_key=%x\n", key[:])
	if c.new.Endpoint.IsValid() {
		fmt.Fprintf(&b, "endpoint=%v\n", c.new.Endpoint)
	}
	for _, prefix := range c.old.AllowedIPs {
		if !slices.Contains(c.new.AllowedIPs, prefix) {
			fmt.Fprintf(&b, "allowed_ip=-%v\n", prefix)
		}
	}
	for _, prefix := range c.new.AllowedIPs {
		if !slices.Contains(c.old.AllowedIPs, prefix) {
			fmt.Fprintf(&b, "allowed_ip=%v\n", prefix)
		}
	}
	if c.new.Keepalive != c.old.Keepalive {
		fmt.Fprintf(&b, "persistent_keepalive_interval=%d\n", c.new.Keepalive/time.Second)
	}
	return b.String()
}

// status is what a device tells about itself.
type status struct {
	port  uint16
	peers []PeerStatus
}

func (d *Device) status() (status, error) {
	var text bytes.Buffer
	err := d.dev.IpcGetOperation(&text)
	if err != nil {
		return status{}, fmt.Errorf("read WireGuard status: %w", err)
	}
	return parseStatus(&text)
}

// parseStatus reads the answer to a "get" operation. Keys that it does not know
// are skipped, as the protocol asks. Errors name the key of the line and never
// its value, which may be a secret.
func parseStatus(r io.Reader) (status, error) {
	var s status
	var peer *PeerStatus
	var sec, nsec int64
	endPeer := func() {
		if peer != nil && (sec != 0 || nsec != 0) {
			peer.LastHandshake = time.Unix(sec, nsec)
		}
		sec, nsec = 0, 0
	}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := lines.Text()
		if line == "" {
			break
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return status{}, fmt.Errorf("WireGuard status, line %d: no '='", n)
		}
		var err error
		switch {
		case key == "public_key":
			endPeer()
			s.peers = append(s.peers, PeerStatus{})
			peer = &s.peers[len(s.peers)-1]
			peer.Key, err = parseHexKey(value)
		case key == "listen_port":
			var port uint64
			port, err = strconv.ParseUint(value, 10, 16)
			s.port = uint16(port)
		case key == "errno":
			if value != "0" {
				err = fmt.Errorf("errno %q", value)
			}
		case peer == nil: // of the device, like private_key and fwmark
		case key == "endpoint":
			value, peer.Stream = strings.CutPrefix(value, streamMark)
			peer.Endpoint, err = netip.ParseAddrPort(value)
		case key == "last_handshake_time_sec":
			sec, err = strconv.ParseInt(value, 10, 64)
		case key == "last_handshake_time_nsec":
			nsec, err = strconv.ParseInt(value, 10, 64)
		case key == "rx_bytes":
			peer.RxBytes, err = strconv.ParseUint(value, 10, 64)
		case key == "tx_bytes":
			peer.TxBytes, err = strconv.ParseUint(value, 10, 64)
		}
		if err != nil {
			return status{}, fmt.Errorf("WireGuard status, line %d: bad %s", n, key)
		}
	}
	if err := lines.Err(); err != nil {
		return status{}, fmt.Errorf("WireGuard status: %w", err)
	}
	endPeer()
	return s, nil
}

func parseHexKey(s string) (keys.Public, error) {
	var b [keys.Size]byte
	if len(s) != hex.EncodedLen(len(b)) {
		return keys.Public{}, hex.ErrLength
	}
	if _, err := hex.Decode(b[:], []byte(s)); err != nil {
		return keys.Public{}, err
	}
	return keys.PublicFrom(b), nil
}
