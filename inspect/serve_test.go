package inspect

import (
	"net"
	"testing"

	"github.com/wgexpose/wgexpose/internal/ports"
)

// TestListen: a taken port is passed over.
func TestListen(t *testing.T) {
	first, err := net.Listen("tcp", ports.Reserve(t).Addr().String()) // the ports that follow are reserved, too
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	second, err := Listen(t.Context(), first.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	a, b := first.Addr().(*net.TCPAddr).Port, second.Addr().(*net.TCPAddr).Port
	if b <= a || b > a+9 {
		t.Errorf("port %d after %d", b, a)
	}
	for _, bad := range []string{"nowhere", "127.0.0.1:http", "127.0.0.1:99999", "192.0.2.1:0"} {
		if l, err := Listen(t.Context(), bad); err == nil {
			l.Close()
			t.Errorf("%s was opened", bad)
		}
	}
}
