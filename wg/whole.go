package wg

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"
)

// Probes tell packets that find out how large packets may be. A probe leaves in
// one datagram that nobody may fragment, or not at all; other packets may be
// fragmented, on paths that they do not fit, so that what is not known of a path
// costs speed and no connections.
//
// The methods are called while packets are being sent, and must not block.
type Probes interface {
	// Probe reports whether a packet of the TUN device is a probe, and which
	// node it is for.
	Probe(packet []byte) (to netip.Addr, ok bool)
	// Refused is told that the system does not send a probe to a node: packets
	// of size bytes, and larger ones, are too large for it.
	Refused(to netip.Addr, size int)
	// Suspect is told that the system has fragmented datagrams, with packets of
	// size bytes inside or a few more.
	Suspect(size int)
}

// maxWhole bounds the probes that are noted: those that WireGuard drops stay
// until their buffers are used again.
const maxWhole = 4096

// whole knows the probes between the TUN device and the socket by their
// buffers, as WireGuard encrypts a packet in the buffer that it was read into
// (RoutineReadFromTUN and RoutineEncryption in device/send.go): the datagram
// begins where the buffer does. One that is lost on the way is forgotten when
// its buffer is used again.
type whole struct {
	probes Probes

	count atomic.Int32 // of noted
	mu    sync.Mutex   // guards noted
	noted map[uintptr]wholePacket
}

// wholePacket is a packet that must leave in one piece.
type wholePacket struct {
	to   netip.Addr
	size int
}

// wholeTun is a TUN device whose probes are noted.
type wholeTun struct {
	tun.Device
	whole *whole
}

func (t wholeTun) Read(bufs [][]byte, sizes []int, offset int) (int, error) {
	n, err := t.Device.Read(bufs, sizes, offset)
	for i := range n {
		t.whole.read(bufs[i], bufs[i][offset:offset+sizes[i]])
	}
	return n, err
}

// read notes a packet, if it is a probe, and its buffer.
func (w *whole) read(buf, packet []byte) {
	to, ok := w.probes.Probe(packet)
	if !ok && w.count.Load() == 0 {
		return
	}
	key := bufferOf(buf)
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case !ok:
		delete(w.noted, key)
	case w.noted == nil || len(w.noted) >= maxWhole:
		w.noted = make(map[uintptr]wholePacket)
		fallthrough
	default:
		w.noted[key] = wholePacket{to, len(packet)}
	}
	w.count.Store(int32(len(w.noted)))
}

// bufferOf tells a buffer by where it is, without holding on to it.
func bufferOf(b []byte) uintptr { return uintptr(unsafe.Pointer(unsafe.SliceData(b))) }

// take tells a probe by its datagram, once.
func (w *whole) take(datagram []byte) (wholePacket, bool) {
	key := bufferOf(datagram)
	w.mu.Lock()
	defer w.mu.Unlock()
	p, ok := w.noted[key]
	if ok {
		delete(w.noted, key)
		w.count.Store(int32(len(w.noted)))
	}
	// Something else may be in the buffer meanwhile, such as a handshake.
	return p, ok && len(datagram) >= p.size+wireguardOverhead
}

// wireguardOverhead is what WireGuard adds to a packet, without padding.
const wireguardOverhead = device.MessageTransportSize

// suspect is told that datagrams of n bytes were too large. w may be nil.
func (w *whole) suspect(n int) {
	if w != nil {
		w.probes.Suspect(n - wireguardOverhead - device.PaddingMultiple + 1)
	}
}

// send sends all of bufs that can be sent, in order, and returns the first
// error; that a probe is too large is none.
func (w *whole) send(s *socket, bufs [][]byte, ep *Endpoint) error {
	var first error
	note := func(err error) {
		if first == nil {
			first = err
		}
	}
	rest := 0 // the first that is not sent
	flush := func(end int) {
		if rest < end {
			s.fragments.RLock()
			note(s.send(bufs[rest:end], ep))
			s.fragments.RUnlock()
		}
		rest = end
	}
	if w.count.Load() > 0 {
		for i, b := range bufs {
			if len(b) < wireguardOverhead || binary.LittleEndian.Uint32(b) != device.MessageTransportType {
				continue
			}
			p, ok := w.take(b)
			if !ok {
				continue
			}
			flush(i)
			rest = i + 1
			if err := s.sendWhole(bufs[i:i+1], ep); tooLarge(err) {
				w.probes.Refused(p.to, p.size)
			} else {
				note(err)
			}
		}
	}
	flush(len(bufs))
	return first
}

// sendWhole sends datagrams that must not be fragmented.
func (s *socket) sendWhole(bufs [][]byte, ep *Endpoint) error {
	s.fragments.Lock()
	defer s.fragments.Unlock()
	if err := s.setDontFragment(true); err != nil {
		return err
	}
	err := s.send(bufs, ep)
	return errors.Join(err, s.setDontFragment(false))
}
