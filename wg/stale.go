package wg

import (
	"errors"
	"time"

	"golang.zx2c4.com/wireguard/device"

	"github.com/wgexpose/wgexpose/keys"
)

// staleEvery is the time between two looks for peers whose packets wait in vain, while
// there are peers without a session.
const staleEvery = 5 * time.Second

// stale finds peers whose packets wait for a session that does not come.
// WireGuard keeps the last 128 batches for each peer without a session, and
// gives them up with the attempts at a handshake; but each packet that is added
// starts those anew (wireguard-go, device/send.go, SendStagedPackets), and TCP
// adds one a second for each connection to a peer that is away. So they would
// stay for as long as there are connections, each packet in 64 KiB of memory.
type stale map[keys.Public]uint64 // what was received from each peer without a session, at the last look

// look returns the peers that have had no session, and said nothing, since the
// look before.
func (s *stale) look(peers []PeerStatus, now time.Time) (found []keys.Public) {
	next := make(stale)
	for _, p := range peers {
		if now.Sub(p.LastHandshake) <= device.RejectAfterTime {
			continue // also a clock that was set back
		}
		if before, ok := (*s)[p.Key]; ok && before == p.RxBytes {
			found = append(found, p.Key)
		}
		next[p.Key] = p.RxBytes
	}
	*s = next
	return found
}

// rest is how long no look is needed: while all peers have sessions, none is without
// one sooner than the oldest of those ends.
func (s *stale) rest(peers []PeerStatus, now time.Time) time.Duration {
	if len(*s) > 0 {
		return staleEvery
	}
	rest := device.RejectAfterTime
	for _, p := range peers {
		rest = min(rest, device.RejectAfterTime-now.Sub(p.LastHandshake))
	}
	return max(rest, staleEvery)
}

// dropStale gives up the packets of the peers that s finds, and says when to look
// again. What waits is sent again by the connection that it belongs to.
func (d *Device) dropStale(s *stale) (rest time.Duration, err error) {
	peers, err := d.Peers()
	if err != nil {
		return 0, err
	}
	now := time.Now()
	for _, key := range s.look(peers, now) {
		peer, err := d.lookup(key)
		switch {
		case errors.Is(err, ErrUnknownPeer):
			continue // removed meanwhile
		case err != nil:
			return 0, err
		}
		peer.FlushStagedPackets()
	}
	return s.rest(peers, now), nil
}

// watchStale calls dropStale until the device is closed.
func (d *Device) watchStale() {
	defer close(d.watched)
	look := time.NewTimer(staleEvery)
	defer look.Stop()
	due := time.Now().Add(staleEvery)
	s := make(stale)
	for {
		select {
		case <-d.Done():
			return
		case <-d.added: // one without a session
			if time.Until(due) <= staleEvery {
				continue
			}
			due = time.Now().Add(staleEvery)
		case <-look.C:
			rest, err := d.dropStale(&s)
			if err != nil {
				return // the device is closing
			}
			due = time.Now().Add(rest)
		}
		look.Reset(time.Until(due))
	}
}
