package agent

import (
	"net/netip"
	"testing"

	"github.com/wgexpose/wgexpose/keys"
	"github.com/wgexpose/wgexpose/netstack"
	"github.com/wgexpose/wgexpose/wg"
)

// stackPair is two stacks that send each other everything, as if each other's
// prefix were the whole world. What comes to the second one goes to forward.
func stackPair(t testing.TB, forward func(*netstack.Request)) (a, b *netstack.Stack) {
	t.Helper()
	var all [2]*node
	var key [2]keys.Private
	for i := range all {
		k, err := keys.New()
		if err != nil {
			t.Fatal(err)
		}
		key[i] = k
		n, err := openNode(k, netip.MustParseAddr([]string{"fd00::1", "fd00::2"}[i]), Reach{}, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(n.close)
		all[i] = n
	}
	all[1].stack.ForwardTCP(forward)
	for i, n := range all {
		other := 1 - i
		if err := n.dev.SetPeer(wg.Peer{
			Key: key[other].Public(), Endpoint: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), all[other].dev.Port()),
			AllowedIPs: []netip.Prefix{netip.PrefixFrom(netip.IPv6Unspecified(), 0)},
		}); err != nil {
			t.Fatal(err)
		}
	}
	return all[0].stack, all[1].stack
}
