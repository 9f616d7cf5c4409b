package wg

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wgexpose/wgexpose/keys"
)

const (
	hexA = "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"
	hexB = "ff02030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"
)

func hexKey(t testing.TB, s string) keys.Public {
	t.Helper()
	k, err := parseHexKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestParseStatus(t *testing.T) {
	text := strings.Join([]string{
		"private_key=" + hexB,
		"listen_port=51820",
		"fwmark=7",
		"public_key=" + hexA,
		"preshared_key=" + strings.Repeat("0", 64),
		"protocol_version=1",
		"endpoint=203.0.113.7:51820",
		"last_handshake_time_sec=1700000000",
		"last_handshake_time_nsec=5",
		"tx_bytes=10",
		"rx_bytes=18446744073709551615",
		"persistent_keepalive_interval=25",
		"allowed_ip=fd00::/80",
		"some_new_key=with=signs",
		"public_key=" + hexB,
		"endpoint=[fe80::1%2]:9",
		"last_handshake_time_sec=0",
		"last_handshake_time_nsec=0",
		"errno=0",
		"", "beyond the end",
	}, "\n")
	got, err := parseStatus(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	want := []PeerStatus{
		{Key: hexKey(t, hexA), Endpoint: netip.MustParseAddrPort("203.0.113.7:51820"), LastHandshake: time.Unix(1700000000, 5), RxBytes: 1<<64 - 1, TxBytes: 10},
		{Key: hexKey(t, hexB), Endpoint: netip.MustParseAddrPort("[fe80::1%2]:9")},
	}
	if got.port != 51820 || !slices.Equal(got.peers, want) {
		t.Errorf("got %+v", got)
	}
}

func TestParseStatusErrors(t *testing.T) {
	for text, want := range map[string]string{
		"listen_port":                               "line 1: no '='",
		"listen_port=70000":                         "line 1: bad listen_port",
		"public_key=00":                             "line 1: bad public_key",
		"public_key=" + hexA + "\nendpoint=x":       "line 2: bad endpoint",
		"public_key=" + hexA + "\nrx_bytes=-1":      "line 2: bad rx_bytes",
		"errno=-5":                                  "line 1: bad errno",
		"private_key=" + strings.Repeat("a", 1<<20): "token too long",
	} {
		if _, err := parseStatus(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	// A private key where a public one belongs is not repeated.
	if _, err := parseStatus(strings.NewReader("public_key=" + hexA + "zz")); err == nil || strings.Contains(err.Error(), "0102") {
		t.Errorf("error %v repeats the value", err)
	}
}

func TestPeerChange(t *testing.T) {
	prefix := func(s ...string) (all []netip.Prefix) {
		for _, s := range s {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	key := hexKey(t, hexA)
	endpoint := netip.MustParseAddrPort("[2001:db8::1]:5")
	for name, c := range map[string]struct {
		change peerChange
		want   string // without the key's line; "-" when there is nothing to do
	}{
		"add":          {peerChange{new: Peer{Key: key, Endpoint: endpoint, AllowedIPs: prefix("::/0"), Keepalive: 25 * time.Second}, add: true}, "endpoint=[2001:db8::1]:5\nallowed_ip=::/0\npersistent_keepalive_interval=25\n"},
		"add bare":     {peerChange{new: Peer{Key: key}, add: true}, ""},
		"same":         {peerChange{old: Peer{Key: key, AllowedIPs: prefix("::/0")}, new: Peer{Key: key, AllowedIPs: prefix("::/0")}}, "-"},
		"endpoint":     {peerChange{old: Peer{Key: key}, new: Peer{Key: key, Endpoint: endpoint}}, "endpoint=[2001:db8::1]:5\n"},
		"prefixes":     {peerChange{old: Peer{Key: key, AllowedIPs: prefix("10.0.0.0/8", "fd00::/80")}, new: Peer{Key: key, AllowedIPs: prefix("fd00::/80", "fd01::/80")}}, "allowed_ip=-10.0.0.0/8\nallowed_ip=fd01::/80\n"},
		"keepalive on": {peerChange{old: Peer{Key: key}, new: Peer{Key: key, Keepalive: time.Second}}, "persistent_keepalive_interval=1\n"},
		"and off":      {peerChange{old: Peer{Key: key, Keepalive: time.Second}, new: Peer{Key: key}}, "persistent_keepalive_interval=0\n"},
	} {
		t.Run(name, func(t *testing.T) {
			got := "-"
			if c.change.any() {
				got = strings.TrimPrefix(c.change.text(), "public_key="+hexA+"\n")
			}
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

func FuzzParseStatus(f *testing.F) {
	f.Add("listen_port=5\npublic_key=" + hexA + "\nendpoint=1.2.3.4:5\nrx_bytes=1\nlast_handshake_time_sec=9\n\n")
	f.Add("public_key=" + hexA + "\npublic_key=" + hexB + "\nx=y=z\nerrno=0")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseStatus(strings.NewReader(text))
		if err != nil && (s.port != 0 || s.peers != nil) {
			t.Errorf("an error and a status: %+v, %v", s, err)
		}
		if got := strings.Count(text, "public_key="); len(s.peers) > got {
			t.Errorf("%d peers of %d keys", len(s.peers), got)
		}
	})
}
