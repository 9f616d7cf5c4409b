package listening

import (
	"net/netip"
	"strings"
	"testing"
)

const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F99 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4711 1 0000000000000000 100 0 0 10 0
   1: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4712 1 0000000000000000 100 0 0 10 0
   2: 0100007F:0050 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 4713 1 0000000000000000 100 0 0 10 0
`

const table6 = `  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000000000000000000001000000:1452 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4714 1 0000000000000000 100 0 0 10 0
   1: 00000000000000000000000000000000:0BB8 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4715 1 0000000000000000 100 0 0 10 0
   2: 0000000000000000FFFF00000100007F:1FA0 00000000000000000000000000000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4716 1 0000000000000000 100 0 0 10 0
`

func TestParse(t *testing.T) {
	all, err := parse(strings.NewReader(table))
	if err != nil {
		t.Fatal(err)
	}
	six, err := parse(strings.NewReader(table6))
	if err != nil {
		t.Fatal(err)
	}
	all = append(all, six...)
	for addr, want := range map[string]bool{
		"127.0.0.1:8089": true, "[::1]:8089": false, "127.0.0.2:8089": false,
		"127.0.0.1:22": true, "192.0.2.1:22": true, "[::1]:22": false,
		"127.0.0.1:80":   false, // a connection, not a listener
		"127.0.0.1:5202": false, "[::1]:5202": true,
		"127.0.0.1:3000": true, "[::1]:3000": true,
		"127.0.0.1:8096": true,
	} {
		if got := all.Has(netip.MustParseAddrPort(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
	if got := all.OnLoopback(5202); len(got) != 1 || got[0].String() != "[::1]:5202" {
		t.Errorf("on loopback: %v", got)
	}
	for _, bad := range []string{"0100007F", "01:0050", "0100007F:10000", "zz00007F:0050"} {
		if _, err := parse(strings.NewReader("\n0: " + bad + " x 0A 1 2 3 4 5 6 7\n")); err == nil {
			t.Errorf("%s is an address", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(table))
	f.Add([]byte(table6))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := parse(strings.NewReader(string(data)))
		if err != nil && all != nil {
			t.Error("a table and an error")
		}
		for _, s := range all {
			if !s.Addr.IsValid() {
				t.Errorf("%+v", s)
			}
		}
	})
}
