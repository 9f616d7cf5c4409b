package keys

import (
	"encoding/base64"
	"fmt"
)

// Size is the length of a key, in bytes (Curve25519, RFC 7748).
const Size = 32

// Public is a WireGuard public key. It is comparable, and the zero value is
// no key.
type Public struct{ b [Size]byte }

// PublicFrom makes a public key of its bytes.
func PublicFrom(b [Size]byte) Public { return Public{b} }

// ParsePublic reads a public key as `wg pubkey` prints it: 44 characters of
// base64.
func ParsePublic(s string) (Public, error) {
	b, err := parse(s)
	if err != nil {
		return Public{}, fmt.Errorf("public key %q: %w", abridge(s), err)
	}
	return Public{b}, nil
}

// Bytes are the key's 32 bytes.
func (k Public) Bytes() [Size]byte { return k.b }

// IsZero reports whether k is no key.
func (k Public) IsZero() bool { return k == Public{} }

// String is the key in base64, as `wg` shows it.
func (k Public) String() string { return base64.StdEncoding.EncodeToString(k.b[:]) }

// Short is the beginning of String, enough to tell keys apart in a log.
func (k Public) Short() string { return k.String()[:8] }

// MarshalText implements encoding.TextMarshaler; no key is empty text.
func (k Public) MarshalText() ([]byte, error) {
	if k.IsZero() {
		return []byte{}, nil
	}
	return []byte(k.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (k *Public) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*k = Public{}
		return nil
	}
	parsed, err := ParsePublic(string(text))
	if err != nil {
		return err
	}
	*k = parsed
	return nil
}

// parse decodes a key strictly: the one way to write each key.
func parse(s string) (b [Size]byte, err error) {
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil {
		return b, fmt.Errorf("not base64")
	}
	if len(raw) != Size {
		return b, fmt.Errorf("%d bytes, want %d", len(raw), Size)
	}
	copy(b[:], raw)
	return b, nil
}

// abridge keeps a wrong input from filling the screen.
func abridge(s string) string {
	if len(s) > 60 {
		return s[:60] + "…"
	}
	return s
}
