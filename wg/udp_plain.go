//go:build !linux

package wg

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.zx2c4.com/wireguard/conn"
)

// batchSize is the most packets that one call receives.
const batchSize = 1

// socket is one UDP socket, read by one goroutine and written by many, one
// datagram with each call.
type socket struct {
	conn  *net.UDPConn
	raw   syscall.RawConn
	v6    bool
	cache endpointCache
	// fragments is held for reading while datagrams are sent that may be
	// fragmented, and for writing while one that may not.
	fragments sync.RWMutex
}

func (b *UDPBind) wrap(c *net.UDPConn, v6 bool) (*socket, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	// The system may allow less, and there is no way around that.
	_ = c.SetReadBuffer(wantBuffer)
	_ = c.SetWriteBuffer(wantBuffer)
	return &socket{conn: c, raw: raw, v6: v6, cache: endpointCache{via: b}}, nil
}

// configure has nothing to prepare before a socket is bound.
func configure(uintptr, string, bool) error { return nil }

// smallestBuffer is 0: not known.
func (s *socket) smallestBuffer() int { return 0 }

func (s *socket) port() uint16 { return s.conn.LocalAddr().(*net.UDPAddr).AddrPort().Port() }

func (s *socket) close() error { return s.conn.Close() }

// rxMemory is none: datagrams are received into the caller's packets.
type rxMemory struct{}

// retire has nothing to give back.
func (s *socket) retire() {}

func (s *socket) setMark(mark uint32) error {
	if mark != 0 {
		return errors.ErrUnsupported
	}
	return nil
}

// receive implements conn.ReceiveFunc.
func (s *socket) receive(bufs [][]byte, sizes []int, eps []conn.Endpoint) (int, error) {
	for {
		n, from, err := s.conn.ReadFromUDPAddrPort(bufs[0])
		if err != nil {
			return 0, err
		}
		ep, err := s.cache.lookup(endpointKey{dst: netip.AddrPortFrom(from.Addr().Unmap(), from.Port())})
		if err != nil {
			continue // its zone is gone, so it cannot be answered
		}
		sizes[0], eps[0] = n, ep
		return 1, nil
	}
}

// send sends all of bufs that can be sent, and returns the first error.
func (s *socket) send(bufs [][]byte, ep *Endpoint) error {
	var first error
	for _, b := range bufs {
		if _, err := s.conn.WriteToUDPAddrPort(b, ep.dst); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// wireEndpoint has nothing to prepare: WriteToUDPAddrPort takes netip.
type wireEndpoint struct{}

func (*wireEndpoint) init(endpointKey) {}
