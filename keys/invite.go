package keys

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

const (
	invitePrefix = "wgx1_"
	inviteFamily = "wgx"
	maxInvite    = 4 << 10 // characters of a token
	checksumSize = 4
)

// Invite is what lets an agent join: a WireGuard key that the edge knows as a
// peer, and where the edge is. Encode makes the token that people pass on.
type Invite struct {
	Key     Private      // one-time key; the edge keeps only its public half
	Node    uint32       // the invite's own node id
	Expires time.Time    // UTC, in seconds
	Overlay netip.Prefix // the overlay's /48
	Edges   []Edge       // at least one
}

// Edge is an edge as an invite and the agent's state name it.
type Edge struct {
	Key       Public     `json:"key"`
	Node      uint32     `json:"node"`
	Endpoints []Endpoint `json:"endpoints"`
}

// EndpointKind is how packets get to an endpoint.
type EndpointKind string

const (
	EndpointUDP   EndpointKind = "udp"   // WireGuard's own transport
	EndpointHTTPS EndpointKind = "https" // WireGuard packets inside TLS
)

// Endpoint is where an edge can be reached: host:port, the host a name or an
// address.
type Endpoint struct {
	Kind EndpointKind `json:"kind"`
	Addr string       `json:"addr"`
}

// InviteError says in words why a token is no invite.
type InviteError struct{ Reason string }

func (e *InviteError) Error() string { return "this is no valid invite: " + e.Reason }

func damaged() error {
	return &InviteError{"it is damaged or cut off; copy the whole token again, from " + invitePrefix + " to its end"}
}

// Fields of the token: a type, a length of 16 bits, and that many bytes. A
// reader skips types that it does not know, so that later versions can add
// some without a new prefix.
const (
	fieldKey      = 1 // 32 bytes
	fieldNode     = 2 // 32 bits
	fieldExpires  = 3 // seconds since 1970, 64 bits
	fieldOverlay  = 4 // 6 bytes
	fieldEdge     = 5 // fields of its own, repeated
	fieldEndpoint = 6 // in an edge: kind byte and address, repeated
)

var endpointCodes = map[EndpointKind]byte{EndpointUDP: 1, EndpointHTTPS: 2}

// Expired reports whether the invite has run out at now.
func (i Invite) Expired(now time.Time) bool { return !now.Before(i.Expires) }

// Validate reports what an invite lacks.
func (i Invite) Validate() error {
	switch {
	case i.Key.IsZero():
		return errors.New("invite: no key")
	case i.Node == 0:
		return errors.New("invite: no node id")
	case i.Overlay.Bits() != 48 || !i.Overlay.Addr().Is6() || i.Overlay != i.Overlay.Masked():
		return fmt.Errorf("invite: overlay %v is not an IPv6 /48", i.Overlay)
	case len(i.Edges) == 0:
		return errors.New("invite: no edge")
	}
	for _, e := range i.Edges {
		if e.Key.IsZero() || e.Node == 0 || len(e.Endpoints) == 0 {
			return errors.New("invite: an edge without key, id or endpoint")
		}
		for _, p := range e.Endpoints {
			if endpointCodes[p.Kind] == 0 || p.Addr == "" {
				return fmt.Errorf("invite: endpoint %q of kind %q", p.Addr, p.Kind)
			}
		}
	}
	return nil
}

// Encode is the invite's token. It is secret until it was used.
func (i Invite) Encode() (string, error) {
	if err := i.Validate(); err != nil {
		return "", err
	}
	var body []byte
	key := i.Key.Expose()
	body = appendField(body, fieldKey, key[:])
	body = appendField(body, fieldNode, binary.BigEndian.AppendUint32(nil, i.Node))
	body = appendField(body, fieldExpires, binary.BigEndian.AppendUint64(nil, uint64(i.Expires.Unix())))
	overlay := i.Overlay.Addr().As16()
	body = appendField(body, fieldOverlay, overlay[:6])
	for _, e := range i.Edges {
		var edge []byte
		pub := e.Key.Bytes()
		edge = appendField(edge, fieldKey, pub[:])
		edge = appendField(edge, fieldNode, binary.BigEndian.AppendUint32(nil, e.Node))
		for _, p := range e.Endpoints {
			edge = appendField(edge, fieldEndpoint, append([]byte{endpointCodes[p.Kind]}, p.Addr...))
		}
		body = appendField(body, fieldEdge, edge)
	}
	sum := sha256.Sum256(body)
	token := invitePrefix + base64.RawURLEncoding.EncodeToString(append(body, sum[:checksumSize]...))
	if len(token) > maxInvite {
		return "", fmt.Errorf("invite: %d characters, more than %d", len(token), maxInvite)
	}
	return token, nil
}

func appendField(b []byte, kind byte, value []byte) []byte {
	b = append(b, kind)
	b = binary.BigEndian.AppendUint16(b, uint16(len(value)))
	return append(b, value...)
}

// ParseInvite reads a token; space around it does not matter. An error is an
// *InviteError. It does not look at the clock: see Expired.
func ParseInvite(token string) (Invite, error) {
	token = strings.TrimSpace(token)
	if len(token) > maxInvite {
		return Invite{}, &InviteError{"it is too long to be one"}
	}
	text, ok := strings.CutPrefix(token, invitePrefix)
	if !ok {
		version, _, found := strings.Cut(strings.TrimPrefix(token, inviteFamily), "_")
		if strings.HasPrefix(token, inviteFamily) && found && version != "" && strings.Trim(version, "0123456789") == "" {
			return Invite{}, &InviteError{"it was made by a newer wgexpose (version " + abridge(version) + "); update this one"}
		}
		return Invite{}, &InviteError{"a token begins with " + invitePrefix + " and is what `wgexpose edge invite` prints"}
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(raw) < checksumSize {
		return Invite{}, damaged()
	}
	body, sum := raw[:len(raw)-checksumSize], raw[len(raw)-checksumSize:]
	want := sha256.Sum256(body)
	if !bytes.Equal(sum, want[:checksumSize]) {
		return Invite{}, damaged()
	}
	i, err := parseBody(body)
	if err != nil {
		return Invite{}, damaged()
	}
	if err := i.Validate(); err != nil {
		return Invite{}, &InviteError{strings.TrimPrefix(err.Error(), "invite: ")}
	}
	return i, nil
}

var errField = errors.New("a field's length is wrong")

func parseBody(body []byte) (i Invite, err error) {
	err = eachField(body, func(kind byte, v []byte) error {
		switch kind {
		case fieldKey:
			if len(v) != Size {
				return errField
			}
			i.Key = Private{[Size]byte(v)}
		case fieldNode:
			if len(v) != 4 {
				return errField
			}
			i.Node = binary.BigEndian.Uint32(v)
		case fieldExpires:
			if len(v) != 8 {
				return errField
			}
			i.Expires = time.Unix(int64(binary.BigEndian.Uint64(v)), 0).UTC()
		case fieldOverlay:
			if len(v) != 6 {
				return errField
			}
			var a [16]byte
			copy(a[:], v)
			i.Overlay = netip.PrefixFrom(netip.AddrFrom16(a), 48)
		case fieldEdge:
			e, err := parseEdge(v)
			if err != nil {
				return err
			}
			i.Edges = append(i.Edges, e)
		}
		return nil
	})
	return i, err
}

func parseEdge(body []byte) (e Edge, err error) {
	err = eachField(body, func(kind byte, v []byte) error {
		switch kind {
		case fieldKey:
			if len(v) != Size {
				return errField
			}
			e.Key = Public{[Size]byte(v)}
		case fieldNode:
			if len(v) != 4 {
				return errField
			}
			e.Node = binary.BigEndian.Uint32(v)
		case fieldEndpoint:
			if len(v) < 2 {
				return errField
			}
			for kind, code := range endpointCodes {
				if code == v[0] { // an endpoint of a later kind is skipped
					e.Endpoints = append(e.Endpoints, Endpoint{Kind: kind, Addr: string(v[1:])})
				}
			}
		}
		return nil
	})
	return e, err
}

// eachField calls fn with each field of b.
func eachField(b []byte, fn func(kind byte, value []byte) error) error {
	for len(b) > 0 {
		if len(b) < 3 {
			return errField
		}
		n := int(binary.BigEndian.Uint16(b[1:]))
		if len(b) < 3+n {
			return errField
		}
		if err := fn(b[0], b[3:3+n]); err != nil {
			return err
		}
		b = b[3+n:]
	}
	return nil
}
