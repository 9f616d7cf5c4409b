package netstack

import (
	"io"
	"net/netip"
	"sync"
	"testing"
)

// BenchmarkStream moves bytes between two stacks with no encryption between
// them: what TCP, the queue, the cut and the join cost.
func BenchmarkStream(b *testing.B) {
	for _, streams := range []int{1, 8} {
		b.Run(map[int]string{1: "1", 8: "8"}[streams], func(b *testing.B) {
			x, y := wired(b, nil)
			chunk := make([]byte, 64<<10)
			b.SetBytes(int64(streams * len(chunk)))
			type pair struct{ client, server *Conn }
			var pairs []pair
			for range streams {
				client, server := connected(b, x, y)
				pairs = append(pairs, pair{client, server})
			}
			b.ResetTimer()
			var wg sync.WaitGroup
			for _, p := range pairs {
				wg.Go(func() {
					for range b.N {
						if _, err := p.client.Write(chunk); err != nil {
							b.Error(err)
							return
						}
					}
				})
				wg.Go(func() {
					if _, err := io.CopyN(io.Discard, p.server, int64(b.N*len(chunk))); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
		})
	}
}

// BenchmarkDial opens and closes connections one after the other.
func BenchmarkDial(b *testing.B) {
	x, y := wired(b, nil)
	y.ForwardTCP(func(r *Request) {
		c, err := r.Accept()
		if err != nil {
			return
		}
		io.Copy(io.Discard, c)
		c.Close()
	})
	for b.Loop() {
		dial(b, x, netip.AddrPort{}, netip.AddrPortFrom(addrB, 1)).Close()
	}
}
