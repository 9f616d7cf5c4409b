package keys

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
)

// redacted stands for a private key wherever one is printed.
const redacted = "(private key)"

// Private is a WireGuard private key. Printing, logging or marshalling it
// gives a placeholder; the zero value is no key.
type Private struct{ b [Size]byte }

// New makes a random private key, clamped as RFC 7748 section 5 says, so that
// it reads the same in every tool.
func New() (Private, error) {
	var k Private
	if _, err := rand.Read(k.b[:]); err != nil {
		return Private{}, fmt.Errorf("make a key: %w", err)
	}
	k.b[0] &= 248
	k.b[31] = k.b[31]&127 | 64
	return k, nil
}

// ParsePrivate reads a private key as `wg genkey` prints it. The error does
// not quote it.
func ParsePrivate(s string) (Private, error) {
	b, err := parse(s)
	if err != nil {
		return Private{}, fmt.Errorf("private key: %w", err)
	}
	k := Private{b}
	if k.IsZero() {
		return Private{}, errors.New("private key: all zero")
	}
	return k, nil
}

// Expose returns the key's bytes: the one way out of the type.
func (k Private) Expose() [Size]byte { return k.b }

// Public is the public key that belongs to k, or no key when k is none.
func (k Private) Public() Public {
	if k.IsZero() {
		return Public{}
	}
	key, err := ecdh.X25519().NewPrivateKey(k.b[:])
	if err != nil {
		panic(err) // 32 bytes are always a key
	}
	return Public{[Size]byte(key.PublicKey().Bytes())}
}

// IsZero reports whether k is no key.
func (k Private) IsZero() bool { return k.Equal(Private{}) }

// Equal compares in constant time.
func (k Private) Equal(other Private) bool {
	return subtle.ConstantTimeCompare(k.b[:], other.b[:]) == 1
}

// text is the key as files keep it, as `wg genkey` prints it.
func (k Private) text() string { return base64.StdEncoding.EncodeToString(k.b[:]) + "\n" }

// String implements fmt.Stringer; it redacts.
func (k Private) String() string { return redacted }

// GoString implements fmt.GoStringer; it redacts.
func (k Private) GoString() string { return redacted }

// Format implements fmt.Formatter, because the verbs %x and %d would look
// inside; it redacts.
func (k Private) Format(f fmt.State, _ rune) { fmt.Fprint(f, redacted) }

// LogValue implements slog.LogValuer; it redacts.
func (k Private) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText implements encoding.TextMarshaler, and with it JSON and YAML;
// it refuses, because what a placeholder is read back as would be worse.
func (k Private) MarshalText() ([]byte, error) {
	return nil, errors.New("keys: a private key is not for marshalling")
}
