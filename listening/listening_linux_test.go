package listening

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestRead(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	addr := l.Addr().(*net.TCPAddr).AddrPort()
	all, ok := Read()
	if !ok || !all.Has(addr) {
		t.Fatalf("%v is not among %v, %v", addr, all, ok)
	}
	programs := make(map[string]string)
	for _, s := range all {
		if s.Addr == addr {
			programs[s.inode] = ""
		}
	}
	own := findPrograms(programs)
	name, err := os.ReadFile("/proc/self/comm")
	if err != nil {
		t.Fatal(err)
	}
	for inode, program := range programs {
		if !own[inode] || program != strings.TrimSpace(string(name)) {
			t.Errorf("%v is of %q, own %v", addr, program, own[inode])
		}
	}
	for _, other := range all.Others(1 << 20) {
		if port, _, _ := strings.Cut(other, " "); port == netip.AddrPortFrom(addr.Addr(), addr.Port()).String()[len("127.0.0.1:"):] {
			t.Errorf("this process's own port is among the others: %s", other)
		}
	}
	l.Close()
	if all, _ := Read(); all.Has(addr) {
		t.Errorf("%v is there after its end", addr)
	}
}

// Both ways say the same of sockets that stay.
func TestWaysAgree(t *testing.T) {
	var own []netip.AddrPort
	for _, addr := range []string{"127.0.0.1:0", "127.0.0.2:0", "0.0.0.0:0", "[::]:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Logf("%s: %v", addr, err) // no IPv6 here
			continue
		}
		defer l.Close()
		own = append(own, l.Addr().(*net.TCPAddr).AddrPort())
	}
	files, ok := readFiles()
	if !ok {
		t.Fatal("/proc/net/tcp cannot be read")
	}
	var asked Table
	for _, family := range []uint8{unix.AF_INET, unix.AF_INET6} {
		part, err := ask(family)
		if err != nil {
			if os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1" {
				t.Fatalf("sock_diag is required (WGEXPOSE_REQUIRE_TOOLS=1) and not there: %v", err)
			}
			t.Skipf("there is no sock_diag here: %v", err)
		}
		asked = append(asked, part...)
	}
	for _, addr := range own {
		find := func(table Table) (found []Socket) {
			for _, s := range table {
				if s.Addr.Port() == addr.Port() && s.Addr.Addr() == addr.Addr().Unmap() {
					found = append(found, s)
				}
			}
			return found
		}
		if a, f := find(asked), find(files); len(a) != 1 || !slices.Equal(a, f) {
			t.Errorf("%v: asked %v, files %v", addr, a, f)
		}
	}
}

// A single socket is found as the table says, by whichever address leads there.
func TestServes(t *testing.T) {
	if _, err := lookup(netip.MustParseAddrPort("127.0.0.1:1")); err != nil {
		if os.Getenv("WGEXPOSE_REQUIRE_TOOLS") == "1" {
			t.Fatalf("sock_diag is required (WGEXPOSE_REQUIRE_TOOLS=1) and not there: %v", err)
		}
		t.Skipf("there is no sock_diag here: %v", err)
	}
	for _, tc := range []struct {
		network, listen string
		found           []string
		not             []string
	}{
		{"tcp4", "127.0.0.1:0", []string{"127.0.0.1"}, []string{"127.0.0.2", "::1"}},
		{"tcp4", "0.0.0.0:0", []string{"127.0.0.1", "127.0.0.2"}, []string{"::1"}},
		{"tcp", "[::]:0", []string{"127.0.0.1", "::1"}, nil},
		{"tcp6", "[::]:0", []string{"::1"}, []string{"127.0.0.1"}},
		{"tcp6", "[::1]:0", []string{"::1"}, []string{"127.0.0.1"}},
	} {
		l, err := net.Listen(tc.network, tc.listen)
		if err != nil {
			t.Logf("%s: %v", tc.listen, err) // no IPv6 here
			continue
		}
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).AddrPort().Port()
		check := func(addrs []string, want bool) {
			t.Helper()
			for _, a := range addrs {
				if there, err := lookup(netip.AddrPortFrom(netip.MustParseAddr(a), port)); err != nil || there != want {
					t.Errorf("%s %s, asked for %s: %t, %v", tc.network, tc.listen, a, there, err)
				}
			}
		}
		check(tc.found, true)
		check(tc.not, false)
		// A connection is not one who listens.
		c, err := net.Dial(tc.network, net.JoinHostPort(tc.found[0], strconv.Itoa(int(port))))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		l.Close()
		check(tc.found, false)
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{20, 0, 0, 0, 2, 0}, make([]byte, 14)...))
	f.Add(append([]byte{88, 0, 0, 0, 20, 0}, make([]byte, 82)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if there, err := answer(b); there && err != nil {
			t.Error("there, and an error")
		}
	})
}

func FuzzReplies(f *testing.F) {
	f.Add([]byte{}, false)
	f.Add(append([]byte{16, 0, 0, 0, 3, 0}, make([]byte, 10)...), true)
	f.Add(append([]byte{20, 0, 0, 0, 2, 0}, make([]byte, 14)...), true)
	f.Add(append([]byte{88, 0, 0, 0, 20, 0}, make([]byte, 82)...), false)
	f.Fuzz(func(t *testing.T, b []byte, v6 bool) {
		family := uint8(unix.AF_INET)
		if v6 {
			family = unix.AF_INET6
		}
		replies(b, family)
	})
}

func BenchmarkRead(b *testing.B) {
	b.Run("asked", func(b *testing.B) {
		for b.Loop() {
			Read()
		}
	})
	b.Run("one", func(b *testing.B) {
		for b.Loop() {
			Serves(netip.MustParseAddrPort("127.0.0.1:1"))
		}
	})
	b.Run("files", func(b *testing.B) {
		for b.Loop() {
			readFiles()
		}
	})
}
