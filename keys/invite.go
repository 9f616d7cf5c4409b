package keys

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// An Invite is the secret with which a node enters the overlay for the first
// time. Who holds it can enroll, once or as often as the edge allows.
type Invite struct {
	Key     Private      // one-time WireGuard key; the edge has its public key as a peer
	Node    uint32       // node id of the invite itself
	Expires time.Time    // UTC, whole seconds
	Overlay netip.Prefix // the overlay's /48
	Edges   []Edge       // at least one, each with at least one endpoint
}

// An InviteError says in words why a token is no invite that can be used. It
// never repeats the token.
type InviteError struct {
	Reason string // what is wrong and what to do, without a subject: "is cut off: …"
}

// Error reads: "the invite is cut off: …".
func (e *InviteError) Error() string { return "the invite " + e.Reason }

const (
	invitePrefix = "wgx1_"
	maxToken     = 4096 // characters of a token
	checksumSize = 4
	headerSize   = 2 // length of the fields in bytes, big endian
)

// Tags of the fields. A field is its tag (one byte), its length (uvarint) and
// that many bytes. A reader skips tags that it does not know, so a field that
// must not be skipped needs a new version in the prefix. Tags count from 1 in
// each of the three places.
const (
	tagKey     = 1 // 32 bytes
	tagNode    = 2 // uint32, big endian
	tagExpires = 3 // Unix time in seconds, uint64, big endian
	tagOverlay = 4 // the first 6 bytes of the /48
	tagEdge    = 5 // fields of an edge; repeated

	tagEdgeKey      = 1 // 32 bytes
	tagEdgeNode     = 2 // uint32, big endian
	tagEdgeEndpoint = 3 // fields of an endpoint; repeated

	tagEndpointKind = 1 // ASCII
	tagEndpointAddr = 2 // ASCII
)

// maxExpires is the end of year 9999, in Unix seconds: later times do not
// survive JSON (RFC 3339, section 5.6).
const maxExpires = 253402300799

// Expired says whether the invite is of no use any more.
func (i Invite) Expired(now time.Time) bool { return !now.Before(i.Expires) }

func (i Invite) check() error {
	if i.Key.IsZero() {
		return errors.New("it has no key")
	}
	if i.Node == 0 {
		return errors.New("it has no node id")
	}
	if s := i.Expires.Unix(); s <= 0 || s > maxExpires {
		return errors.New("it has no expiry, or one that makes no sense")
	}
	// RFC 4193, section 3.1: fd, 40 bits of global id.
	if p := i.Overlay; !p.IsValid() || p.Bits() != 48 || !p.Addr().Is6() || p.Addr().As16()[0] != 0xfd || p != p.Masked() {
		return errors.New("its overlay is not an fd00::/8 prefix of 48 bits")
	}
	if len(i.Edges) == 0 {
		return errors.New("it names no edge")
	}
	if len(i.Edges) > maxEdges {
		return fmt.Errorf("it names %d edges, of at most %d", len(i.Edges), maxEdges)
	}
	for _, e := range i.Edges {
		if err := e.check(); err != nil {
			return fmt.Errorf("edge %d: %w", e.Node, err)
		}
	}
	return nil
}

// Encode writes the invite as a token of printable ASCII without white space:
//
//	wgx1_ base64url( length of the fields | fields | checksum )
//
// where the checksum is the first 4 bytes of SHA-256 over the prefix and all
// bytes before it. It protects against damage on the way, not against forgers:
// the key in it is what the edge believes.
func (i Invite) Encode() (string, error) {
	if err := i.check(); err != nil {
		return "", fmt.Errorf("encode invite: %w", err)
	}
	key := i.Key.Expose()
	overlay := i.Overlay.Addr().As16()
	fields := appendField(nil, tagKey, key[:])
	fields = appendField(fields, tagNode, binary.BigEndian.AppendUint32(nil, i.Node))
	fields = appendField(fields, tagExpires, binary.BigEndian.AppendUint64(nil, uint64(i.Expires.Unix())))
	fields = appendField(fields, tagOverlay, overlay[:6])
	for _, e := range i.Edges {
		edgeKey := e.Key.Bytes()
		edge := appendField(nil, tagEdgeKey, edgeKey[:])
		edge = appendField(edge, tagEdgeNode, binary.BigEndian.AppendUint32(nil, e.Node))
		for _, p := range e.Endpoints {
			endpoint := appendField(nil, tagEndpointKind, []byte(p.Kind))
			endpoint = appendField(endpoint, tagEndpointAddr, []byte(p.Addr))
			edge = appendField(edge, tagEdgeEndpoint, endpoint)
		}
		fields = appendField(fields, tagEdge, edge)
	}
	if n := tokenLen(len(fields)); n > maxToken {
		return "", fmt.Errorf("encode invite: a token of %d characters, of at most %d; name fewer endpoints", n, maxToken)
	}
	return seal(fields), nil
}

// seal makes a token of encoded fields.
func seal(fields []byte) string {
	body := binary.BigEndian.AppendUint16(nil, uint16(len(fields)))
	body = append(body, fields...)
	body = append(body, checksum(body)...)
	return invitePrefix + base64.RawURLEncoding.EncodeToString(body)
}

func checksum(body []byte) []byte {
	h := sha256.New()
	h.Write([]byte(invitePrefix))
	h.Write(body)
	return h.Sum(nil)[:checksumSize]
}

// tokenLen is the length of the token of n bytes of fields, in characters.
func tokenLen(n int) int {
	return len(invitePrefix) + base64.RawURLEncoding.EncodedLen(headerSize+n+checksumSize)
}

func appendField(b []byte, tag byte, value []byte) []byte {
	b = append(b, tag)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

const copyWhole = "copy the whole token that `wgexpose edge invite` printed"

// ParseInvite reads what [Invite.Encode] wrote, with or without white space
// around it. Every error is an [*InviteError]. Whether the invite has expired
// is for the caller to look at.
func ParseInvite(token string) (Invite, error) {
	fields, err := open(strings.TrimSpace(token))
	if err != nil {
		return Invite{}, err
	}
	invite, err := parseFields(fields)
	if err == nil {
		err = invite.check()
	}
	if err != nil {
		// The checksum fits, so this is how it was made.
		return Invite{}, &InviteError{"makes no sense: " + err.Error() + "; ask for a new one"}
	}
	return invite, nil
}

// open is the inverse of seal.
func open(token string) ([]byte, error) {
	if token == "" {
		return nil, &InviteError{"is empty: " + copyWhole}
	}
	if v, ok := version(token); ok && v != "1" {
		return nil, &InviteError{"was made by a newer version of wgexpose (format " + v + "): update wgexpose on this machine, then join again"}
	}
	encoded, ok := strings.CutPrefix(token, invitePrefix)
	if !ok {
		if strings.HasPrefix(invitePrefix, token) {
			return nil, &InviteError{"is cut off after its first characters: " + copyWhole}
		}
		return nil, &InviteError{"does not start with " + invitePrefix + ", so it is no invite: " + copyWhole}
	}
	if len(token) > maxToken {
		return nil, &InviteError{fmt.Sprintf("has %d characters, of at most %d, so it is none: %s", len(token), maxToken, copyWhole)}
	}
	// Looked at first: base64 skips line breaks.
	if i := strings.IndexFunc(encoded, notBase64URL); i >= 0 {
		return nil, &InviteError{fmt.Sprintf("is damaged: character %d is none of those that a token has, perhaps a space or a line break; %s", len(invitePrefix)+i+1, copyWhole)}
	}
	// The header tells a token that was cut off from one that was damaged.
	const quantum = 4 // characters that hold the header
	if len(encoded) < quantum {
		return nil, &InviteError{"is cut off after its first characters: " + copyWhole}
	}
	header, err := base64.RawURLEncoding.DecodeString(encoded[:quantum])
	if err != nil {
		return nil, &InviteError{"is damaged: " + copyWhole}
	}
	size := int(binary.BigEndian.Uint16(header))
	if want := tokenLen(size); len(token) < want {
		return nil, &InviteError{fmt.Sprintf("is cut off or damaged: it has %d characters of %d; %s", len(token), want, copyWhole)}
	} else if len(token) > want {
		return nil, &InviteError{fmt.Sprintf("is damaged, or something was added to it: it has %d characters instead of %d; %s", len(token), want, copyWhole)}
	}
	body, err := base64.RawURLEncoding.Strict().DecodeString(encoded)
	if err != nil {
		return nil, &InviteError{"is damaged (at its end): " + copyWhole}
	}
	end := headerSize + size
	if string(checksum(body[:end])) != string(body[end:]) {
		return nil, &InviteError{"is damaged (its checksum does not fit): " + copyWhole}
	}
	return body[headerSize:end], nil
}

func notBase64URL(r rune) bool {
	return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '_')
}

// version gives the number in a prefix like that of an invite.
func version(token string) (string, bool) {
	rest, ok := strings.CutPrefix(token, "wgx")
	if !ok {
		return "", false
	}
	v, _, ok := strings.Cut(rest, "_")
	if !ok || v == "" || len(v) > 4 || v[0] == '0' || strings.Trim(v, "0123456789") != "" {
		return "", false
	}
	return v, true
}
