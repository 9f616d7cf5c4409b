package netstack

import "time"

const (
	// A receive buffer is twice the window that it is for (gVisor's
	// wndFromSpace), because packets take more memory than their payload.
	windowLeast = 64 << 10
	windowFirst = 128 << 10
	windowMost  = 8 << 20

	// windowEnough is more than what a sender has under way that shares its path
	// with several others (peer.allot): what arrives is taken out of the buffer
	// in bursts. All windows on a path have that as long as they are windowsMost
	// together.
	windowEnough = 512 << 10
	windowsMost  = 16 << 20

	// growWithin is how quickly a window's bytes must be read for it to grow:
	// what is not read so fast would only wait in the buffer. It is also for
	// how long a connection counts as busy.
	growWithin = 400 * time.Millisecond
)

// window decides how large a connection's receive window is: twice its share of what
// its path may hold, and enough for large segments (peer.share). It grows towards that as bytes are read, so
// that a connection whose reader is slow holds little memory.
//
// gVisor's own moderation grows the window by what arrives in a round trip as
// it is, and that includes the wait in the receiver's socket. With senders
// that are faster than the receiver, which over one machine or a LAN is the
// rule, the window feeds on its own queue up to its maximum: megabytes waited
// in the socket, and every other packet of the tunnel behind them.
type window struct {
	size  int           // bytes
	bytes int           // read since
	since time.Duration // when the first of them was
	epoch time.Duration // when the peer was told that the connection is busy
}

// read takes in that n bytes, which came from p, were read now, and returns the
// size of the window from now on.
func (w *window) read(n int, now time.Duration, p *peer) int {
	if w.bytes == 0 {
		w.since = now
	}
	w.bytes += n
	if w.bytes < w.size {
		return w.size
	}
	w.bytes = 0
	if now-w.since >= growWithin {
		return w.size
	}
	share := p.share(&w.epoch, now)
	switch {
	case share > w.size:
		// By more than a slow start grows in the time.
		w.size = min(4*w.size, share)
	case share < w.size:
		// What was promised to the sender may be on its way, and the buffer
		// is twice that: it must not become less than half at once.
		w.size = max(share, w.size/2)
	}
	return w.size
}
