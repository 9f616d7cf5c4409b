package listening

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
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
