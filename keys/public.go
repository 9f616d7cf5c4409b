package keys

import (
	"encoding/base64"
	"fmt"
)

// A Public is an X25519 public key. The zero Public is no key. Publics compare
// with == and serve as map keys.
type Public struct{ key [Size]byte }

// PublicFrom makes a key of its 32 bytes; all zero gives no key.
func PublicFrom(b [Size]byte) Public { return Public{b} }

// ParsePublic reads what `wg pubkey` writes: standard base64 of 32 bytes. The
// error does not repeat the input, which may be a private key by mistake.
func ParsePublic(s string) (Public, error) {
	b, err := decode(s)
	if err != nil {
		return Public{}, fmt.Errorf("public key %w", err)
	}
	return Public{b}, nil
}

// Bytes gives the key's 32 bytes.
func (k Public) Bytes() [Size]byte { return k.key }

// IsZero says whether k is no key.
func (k Public) IsZero() bool { return k == Public{} }

// String gives the key as `wg pubkey` does, 44 characters; "" for no key.
func (k Public) String() string {
	if k.IsZero() {
		return ""
	}
	return base64.StdEncoding.EncodeToString(k.key[:])
}

// Short gives the first 8 characters of String, enough to tell keys apart in a
// log.
func (k Public) Short() string {
	s := k.String()
	return s[:min(8, len(s))]
}

// MarshalText gives String.
func (k Public) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText takes what MarshalText gives; empty text is no key.
func (k *Public) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*k = Public{}
		return nil
	}
	p, err := ParsePublic(string(text))
	if err != nil {
		return err
	}
	*k = p
	return nil
}
