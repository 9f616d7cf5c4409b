//go:build linux

package link

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// readBatch is how many packets are read before those that are due are
// delivered again.
const readBatch = 64

// pump moves one direction's packets from one device to the other, on a thread
// of its own. It sleeps until the next packet arrives or is due, so how late it
// wakes adds to no later deadline.
type pump struct {
	in, out int // descriptors of TUN devices
	wake    int // an eventfd, written to end the pump

	mu     sync.Mutex // guards shaper
	shaper *shaper

	err error // why it ended by itself; read after run
}

// run moves packets until stop.
func (p *pump) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// The kernel may wake a thread up to 50 µs late to save wake-ups, and
	// the programs under test may keep all processors busy. Both are
	// settings of the thread; without the rights for them the link is less
	// exact, and works.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), -20)
	defer func() {
		_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) // the default again
		_ = unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 0)
	}()
	start := time.Now()
	buf := make([]byte, 1<<16)
	for {
		wait, err := p.step(start, buf)
		if err != nil {
			p.err = err
			return
		}
		ended, err := p.sleep(wait)
		if err != nil || ended {
			p.err = err
			return
		}
	}
}

// step delivers what is due, reads what there is, and tells how long nothing
// will be due; negative for ever.
func (p *pump) step(start time.Time, buf []byte) (time.Duration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.deliver(time.Since(start))
	for range readBatch {
		n, err := unix.Read(p.in, buf)
		if err == unix.EAGAIN {
			break
		}
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("link: read from its device: %w", err)
		}
		p.shaper.push(time.Since(start), buf[:n])
	}
	now := time.Since(start)
	p.deliver(now)
	due, ok := p.shaper.next()
	if !ok {
		return -1, nil
	}
	return max(0, due-now), nil
}

func (p *pump) deliver(now time.Duration) {
	for {
		pkt, ok := p.shaper.pop(now)
		if !ok {
			return
		}
		// A device that is down, or whose machine has no room, refuses;
		// that packet is lost, as on a wire.
		if _, err := unix.Write(p.out, pkt); err != nil {
			p.shaper.stats.Refused++
		}
		p.shaper.recycle(pkt)
	}
}

// sleep waits for packets, but no longer than wait unless that is negative. It
// reports whether the pump is to end.
func (p *pump) sleep(wait time.Duration) (ended bool, err error) {
	fds := []unix.PollFd{{Fd: int32(p.in), Events: unix.POLLIN}, {Fd: int32(p.wake), Events: unix.POLLIN}}
	var timeout *unix.Timespec
	if wait >= 0 {
		t := unix.NsecToTimespec(int64(wait))
		timeout = &t
	}
	if _, err := unix.Ppoll(fds, timeout, nil); err != nil && err != unix.EINTR {
		return true, fmt.Errorf("link: wait for packets: %w", err)
	}
	return fds[1].Revents != 0, nil
}

// stop makes run return.
func (p *pump) stop() error {
	_, err := unix.Write(p.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	return err
}
