package keys

import (
	"crypto/ecdh"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Size is the length of every key, in bytes (RFC 7748, section 5).
const Size = 32

// redacted stands for a private key wherever something prints it.
const redacted = "[private key]"

// A Private is an X25519 private key, as WireGuard uses them. The zero Private
// is no key. It can be copied; compare with [Private.Equal].
type Private struct {
	_ [0]func() // not comparable: == would compare addresses, and not in constant time

	// fmt calls no methods on the unexported fields of what it prints, but goes
	// into them; for a verb that does not fit, through one pointer too. Through
	// two it never goes: it prints an address.
	key **[Size]byte
}

// New draws a key from the system's random source.
func New() (Private, error) {
	var b [Size]byte
	if _, err := rand.Read(b[:]); err != nil {
		return Private{}, fmt.Errorf("draw a key: %w", err)
	}
	return fromBytes(b), nil
}

// fromBytes clamps, so that equal scalars are equal keys (RFC 7748, section 5,
// decodeScalar25519; `wg genkey` does the same).
func fromBytes(b [Size]byte) Private {
	b[0] &= 248
	b[31] = b[31]&127 | 64
	p := &b
	return Private{key: &p}
}

// ParsePrivate reads what `wg genkey` writes: standard base64 of 32 bytes. The
// error does not repeat the input.
func ParsePrivate(s string) (Private, error) {
	b, err := decode(s)
	if err != nil {
		return Private{}, fmt.Errorf("private key %w", err)
	}
	return fromBytes(b), nil
}

// Public is the public half, as `wg pubkey` computes it; that of no key is
// zero.
func (k Private) Public() Public {
	if k.key == nil {
		return Public{}
	}
	// It fails for a wrong length only, and key has the right one.
	p, err := ecdh.X25519().NewPrivateKey((*k.key)[:])
	if err != nil {
		panic("keys: " + err.Error())
	}
	return Public{[Size]byte(p.PublicKey().Bytes())}
}

// Expose gives the key itself, 32 bytes, clamped. It is the only way out of a
// Private: let the result go nowhere but into WireGuard, a key file or an
// invite.
func (k Private) Expose() [Size]byte {
	if k.key == nil {
		return [Size]byte{}
	}
	return **k.key
}

// IsZero says whether k is no key.
func (k Private) IsZero() bool { return k.key == nil }

// Equal compares in constant time. No key equals no key only.
func (k Private) Equal(other Private) bool {
	a, b := k.Expose(), other.Expose() // a clamped key is never all zero
	return subtle.ConstantTimeCompare(a[:], b[:]) == 1
}

// String does not give the key.
func (k Private) String() string { return redacted }

// GoString does not give the key.
func (k Private) GoString() string { return redacted }

// Format does not give the key, whatever the verb.
func (k Private) Format(f fmt.State, _ rune) { io.WriteString(f, redacted) }

// LogValue does not give the key.
func (k Private) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText does not give the key. There is no UnmarshalText: a Private does
// not travel inside other formats.
func (k Private) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// decode reads a key's 44 characters. Its errors never repeat them, because a
// private key may stand where a public one was asked for.
func decode(s string) ([Size]byte, error) {
	var b [Size]byte
	if s == "" {
		return b, errors.New("is empty; a key is 44 characters of base64")
	}
	if len(s) != base64.StdEncoding.EncodedLen(Size) {
		return b, fmt.Errorf("has %d characters; a key is 44 characters of base64", len(s))
	}
	// Strict refuses loose bits at the end, so that each key has one spelling.
	// The length leaves no room for the line breaks that base64 would skip.
	raw, err := base64.StdEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) != Size {
		return b, errors.New("is no valid base64; a key is 44 characters of it")
	}
	b = [Size]byte(raw)
	if b == ([Size]byte{}) {
		return b, errors.New("is all zero, which WireGuard takes for no key")
	}
	return b, nil
}
