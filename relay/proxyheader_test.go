package relay

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/pires/go-proxyproto"
)

func TestWriteProxyHeader(t *testing.T) {
	for _, c := range []struct {
		visitor, local string
		v1             string
	}{
		{"203.0.113.7:51000", "198.51.100.1:22", "PROXY TCP4 203.0.113.7 198.51.100.1 51000 22\r\n"},
		{"[::ffff:203.0.113.7]:51000", "198.51.100.1:22", "PROXY TCP4 203.0.113.7 198.51.100.1 51000 22\r\n"},
		{"[2001:db8::7]:51000", "[2001:db8::1]:443", "PROXY TCP6 2001:db8::7 2001:db8::1 51000 443\r\n"},
		{"[fe80::7%eth0]:51000", "[fe80::1%eth0]:443", "PROXY TCP6 fe80::7 fe80::1 51000 443\r\n"},
		{"203.0.113.7:51000", "[2001:db8::1]:22", "PROXY TCP6 ::ffff:203.0.113.7 2001:db8::1 51000 22\r\n"},
		{"203.0.113.7:51000", "", "PROXY TCP4 203.0.113.7 0.0.0.0 51000 0\r\n"},
		{"[2001:db8::7]:51000", "", "PROXY TCP6 2001:db8::7 :: 51000 0\r\n"},
		{"", "198.51.100.1:22", "PROXY UNKNOWN\r\n"},
	} {
		t.Run(c.visitor+" to "+c.local, func(t *testing.T) {
			visitor, local := addrPort(c.visitor), addrPort(c.local)
			var v1 writes
			if err := WriteProxyHeader(&v1, 1, visitor, local); err != nil {
				t.Fatal(err)
			}
			if len(v1) != 1 || string(v1[0]) != c.v1 {
				t.Errorf("version 1 wrote %q, want %q at once", v1, c.v1)
			}
			var v2 writes
			if err := WriteProxyHeader(&v2, 2, visitor, local); err != nil {
				t.Fatal(err)
			}
			if len(v2) != 1 {
				t.Fatalf("version 2 took %d writes", len(v2))
			}
			h, err := proxyproto.Read(bufio.NewReader(bytes.NewReader(v2[0])))
			if err != nil {
				t.Fatal(err)
			}
			if c.visitor == "" {
				if h.Command != proxyproto.LOCAL {
					t.Errorf("command %v, want LOCAL", h.Command)
				}
				return
			}
			source, _, ok := h.TCPAddrs()
			if !ok || h.Command != proxyproto.PROXY {
				t.Fatalf("read back %+v", h)
			}
			want := plainAddr(visitor)
			if got := plainAddr(source.AddrPort()); got != want {
				t.Errorf("visitor %v, want %v", got, want)
			}
		})
	}
}

func TestWriteProxyHeaderErrors(t *testing.T) {
	visitor := netip.MustParseAddrPort("203.0.113.7:51000")
	if err := WriteProxyHeader(new(bytes.Buffer), 3, visitor, visitor); err == nil {
		t.Error("version 3 is accepted")
	}
	if err := WriteProxyHeader(brokenWriter{}, 2, visitor, visitor); !errors.Is(err, errBroken) {
		t.Errorf("error %v, want %v", err, errBroken)
	}
}

func addrPort(s string) netip.AddrPort {
	if s == "" {
		return netip.AddrPort{}
	}
	return netip.MustParseAddrPort(s)
}

// writes keeps each Write apart.
type writes [][]byte

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, bytes.Clone(p))
	return len(p), nil
}

var errBroken = fmt.Errorf("broken writer")

type brokenWriter struct{}

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }
