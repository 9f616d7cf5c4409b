package pathmtu

import "time"

const (
	// Base is the size that every path takes, in bytes of the packet inside
	// WireGuard: with 32 bytes of WireGuard, UDP and IPv6 around it is 1,280,
	// which every link that carries IPv6 takes (RFC 8200, section 5).
	Base = 1200
	// Max is the largest size that is tried: within WireGuard, UDP and IPv6 it
	// fits the 65,536 bytes of Linux's loopback.
	Max = 65452
	// Stream is the size where packets travel in a byte stream, which takes any.
	// With WireGuard's 32 bytes and the 2 of a frame it is what fits a TLS record
	// (16,384), by a multiple of unit above the default. Larger ones hold up what
	// comes behind them for longer, and were not faster.
	Stream = 16348

	// unit is what WireGuard pads to. Sizes of which the padding makes nothing
	// larger are the default, those above it by a multiple of unit, and below
	// it the multiples of unit (wireguard-go's calculatePaddingSize in
	// device/send.go, whose MTU is the default size).
	unit = 16

	// confirmEvery is how often the size in use is confirmed while large packets
	// are sent. It bounds how long a black hole goes unnoticed.
	confirmEvery = 500 * time.Millisecond
	// trusted is for how long a size that was confirmed is not doubted because of
	// losses, of which a congested path has many.
	trusted = 100 * time.Millisecond
	// A size has failed when so many probes of it were lost while small ones
	// sent right behind them were answered. What is in use has the benefit of
	// the doubt.
	failUsed  = 3
	failAbove = 2
	// emptyRounds is how many rounds without any answer end a test.
	emptyRounds = 3
	// vainTests is how many tests in a row without any answer end the asking:
	// until large packets are sent, or, of another end that has never answered
	// and may know no probes, until it sends one itself.
	vainTests = 6
	// raiseAfter is the pause before it is asked whether the path has grown (RFC
	// 8899, section 5.1.1, PMTU_RAISE_TIMER); after a black hole it is
	// sooner, and doubles from there.
	raiseAfter = 10 * time.Minute
	raiseSoon  = time.Minute

	firstWait = 500 * time.Millisecond // for an answer, while nothing is known of the path
	leastWait = 200 * time.Millisecond
	mostWait  = 2 * time.Second
	// leastGrace is for a large probe's answer that comes later than that of the
	// small one behind it.
	leastGrace = 20 * time.Millisecond
	// pauseAfterSilence is the first pause after a test that nobody answered.
	pauseAfterSilence = time.Second
)

// common are sizes that links have, without what WireGuard, UDP and IP take of
// them: loopback, jumbo frames with either IP, Ethernet with IPv4. Ethernet with
// IPv6 is the usual default.
func (s *search) common() [5]int { return [...]int{Max, 8924, 8908, 1436, s.def} }

// probe is one to be sent.
type probe struct {
	token uint64
	size  int
}

// search is the state of one path. It has no clock and sends nothing: each
// event brings the time along, and leaves in out what is to be sent, in size
// what packets may have, and in wake when tick is due.
//
//	           answered                        nothing left to try
//	asking ──────────────→ searching ────────────────────────────→ settled
//	   │                    ↑      ↑                                  │ ↑
//	   │ black hole         │      └──────── raise, large packets ────┤ │ confirmed
//	   └──→ size = Base ────┘                                         ↓ │
//	                 ↑                black hole                   confirming
//	                 └────────────────────────────────────────────────┘
type search struct {
	def  int           // the size while nothing is known
	draw func() uint64 // a token

	size int       // in use; 0: nothing is known
	out  []probe   // to be sent, in this order; the caller empties it
	wake time.Time // zero: never

	spoken    bool // the other end has answered
	silent    int  // tests in a row without any answer
	low, high int  // gets through, does not; between them nothing is known
	test      test
	rtt       time.Duration // smoothed; 0: not known
	confirmed time.Time     // when the size in use last was
	raise     time.Time     // when high is to be forgotten
	patience  time.Duration // until the next raise after a black hole
	doubt     bool          // data was lost: the base size holds until size is confirmed
	known     bool          // size is not asked for
}

// test finds out whether packets of one size get through.
type test struct {
	size  int // 0: there is none
	lost  int // rounds of which only the small probe was answered
	empty int // rounds without any answer
	large []uint64
	small uint64 // 0: none was sent
	sent  time.Time
	heard time.Time // when small was answered; zero: not yet
}

func newSearch(def int, draw func() uint64) *search { return &search{def: def, draw: draw} }

// start begins anew, as on a new path.
func (s *search) start(now time.Time) {
	*s = search{def: s.def, draw: s.draw, out: s.out, low: Base, high: Max + 1, patience: raiseSoon}
	s.begin(s.def, now)
}

// know ends the asking: size is known to be right.
func (s *search) know(size int) {
	*s = search{def: s.def, draw: s.draw, size: size, known: true}
}

// used is the size that packets have.
func (s *search) used() int {
	if s.size == 0 {
		return s.def
	}
	return s.size
}

// allowed is the size that packets may have at this moment; 0: nothing is known.
func (s *search) allowed() int {
	if s.doubt {
		return Base
	}
	return s.size
}

// settled reports whether there is nothing to do until large packets are sent.
func (s *search) settled() bool { return s.test.size == 0 && s.wake.IsZero() }

// watching reports whether it matters that large packets are sent.
func (s *search) watching() bool {
	return s.spoken && s.test.size == 0 && (s.wake.IsZero() || s.silent > 0)
}

func (s *search) begin(size int, now time.Time) {
	s.test = test{size: size}
	s.round(now)
}

// round sends the probes of a test once more. A size that has gone well so far
// is not accompanied by a small probe.
func (s *search) round(now time.Time) {
	t := &s.test
	token := s.draw()
	t.large, t.small, t.sent, t.heard = append(t.large, token), 0, now, time.Time{}
	s.out = append(s.out, probe{token, t.size})
	if t.size != s.size || len(t.large) > 1 || s.doubt {
		t.small = s.draw()
		s.out = append(s.out, probe{t.small, Base})
	}
	wait := firstWait
	if s.rtt > 0 {
		wait = max(leastWait, 3*s.rtt)
	}
	s.wake = now.Add(min(wait<<t.empty, mostWait))
}

// answered notes that the other end has received a probe.
func (s *search) answered(token uint64, now time.Time) {
	t := &s.test
	if t.size == 0 || token == 0 {
		return
	}
	for i, large := range t.large {
		if large != token {
			continue
		}
		if i == len(t.large)-1 {
			s.sample(now.Sub(t.sent))
		}
		s.fits(now)
		return
	}
	if token == t.small && t.heard.IsZero() {
		s.sample(now.Sub(t.sent))
		s.spoken, s.silent = true, 0
		t.heard = now
		s.wake = now.Add(max(leastGrace, s.rtt/4))
	}
}

func (s *search) sample(rtt time.Duration) {
	if s.rtt == 0 {
		s.rtt = rtt
		return
	}
	s.rtt += (rtt - s.rtt) / 8
}

// tick is due at wake.
func (s *search) tick(now time.Time) {
	if s.wake.IsZero() || now.Before(s.wake) {
		return
	}
	t := &s.test
	if t.size == 0 { // after a pause
		s.begin(s.used(), now)
		return
	}
	most := failUsed
	if t.size > s.used() {
		most = failAbove
	}
	if t.small == 0 {
		s.round(now)
		return
	}
	if t.heard.IsZero() {
		t.empty++
	} else {
		t.lost++
	}
	switch {
	case t.lost >= most:
		s.fails(t.size, now)
	case t.empty >= emptyRounds:
		s.unanswered(now)
	default:
		s.round(now)
	}
}

// fits ends a test well.
func (s *search) fits(now time.Time) {
	s.spoken, s.silent = true, 0
	if s.test.size >= s.size {
		s.size, s.doubt = s.test.size, false
	}
	s.low = max(s.low, s.test.size)
	s.confirmed = now
	s.next(now)
}

// fails ends a test, or says without one that size is too large.
func (s *search) fails(size int, now time.Time) {
	s.high = min(s.high, size)
	if s.used() >= s.high {
		s.size, s.low, s.doubt = Base, Base, false
		s.raise = now.Add(s.patience)
		s.patience = min(2*s.patience, raiseAfter)
	}
	s.next(now)
}

// unanswered ends a test of which nothing was heard.
func (s *search) unanswered(now time.Time) {
	s.test, s.wake = test{}, time.Time{}
	if s.silent++; s.silent < vainTests {
		s.wake = now.Add(pauseAfterSilence << (s.silent - 1))
	}
}

// next tests another size, or settles.
func (s *search) next(now time.Time) {
	s.test, s.wake = test{}, time.Time{}
	if !s.raise.IsZero() && !now.Before(s.raise) {
		s.raise, s.high = time.Time{}, Max+1
	}
	size := s.candidate()
	if s.doubt {
		size = s.used()
	}
	if size != 0 {
		s.begin(size, now)
		return
	}
	if s.raise.IsZero() {
		s.raise = now.Add(raiseAfter)
	}
}

// candidate is the next size to try, between low and high, 0 if what is left
// between them is not worth it.
func (s *search) candidate() int {
	for _, size := range s.common() {
		if size = s.fit(size); s.low < size && size < s.high {
			return size
		}
	}
	if s.high-s.low <= max(unit, s.low/64) {
		return 0
	}
	if size := s.fit((s.low + s.high) / 2); size > s.low {
		return size
	}
	return 0
}

// fit is the largest size up to n that WireGuard's padding does not enlarge.
func (s *search) fit(n int) int {
	if n >= s.def {
		return s.def + (n-s.def)&^(unit-1)
	}
	return n &^ (unit - 1)
}

// refused says that the system does not send packets of size bytes.
func (s *search) refused(size int, now time.Time) {
	if size <= Base || s.known {
		return
	}
	if s.test.size >= size || s.used() >= size {
		s.fails(size, now)
		return
	}
	s.high = min(s.high, size)
}

// active says that a large packet is being sent.
func (s *search) active(now time.Time) {
	if !s.watching() {
		return
	}
	if due := s.confirmed.Add(confirmEvery); s.silent == 0 && now.Before(due) {
		s.wake = due
		return
	}
	s.begin(s.used(), now)
}

// suspect says that something has happened to the path.
func (s *search) suspect(now time.Time) {
	if s.test.size == 0 && s.spoken {
		s.begin(s.used(), now)
	}
}

// lost says that a connection has waited in vain for an acknowledgement. That
// may be a black hole: until the size in use is confirmed again, which takes a
// round trip, packets are small, so that what is sent again gets through. A
// second timeout would cost the connection its congestion window.
func (s *search) lost(now time.Time) {
	if !s.spoken || s.used() <= Base || now.Sub(s.confirmed) < trusted {
		return
	}
	s.doubt = true
	if s.test.size == 0 {
		s.begin(s.used(), now)
	}
}

// asked says that the other end has sent a probe: so it knows them, and packets
// go a way now on which there is something to ask.
func (s *search) asked(now time.Time) {
	if s.known {
		s.start(now)
		return
	}
	if s.settled() && !s.spoken {
		s.silent = 0
		s.begin(s.used(), now)
	}
}
