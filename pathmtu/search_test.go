package pathmtu

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// wire is a path as a search sees it, with a clock that the test winds.
type wire struct {
	t       *testing.T
	s       *search
	now     time.Time
	rtt     time.Duration
	through int  // the largest size that gets through
	mute    bool // the other end answers nothing
	lose    func(size int) bool
	refuses int // sizes from here on are refused by the system; 0: none

	sent    []int // sizes of the probes, in order
	answers []answer
	tokens  uint64
}

type answer struct {
	at    time.Time
	token uint64
}

func newWire(t *testing.T, through int) *wire {
	w := &wire{t: t, now: time.Unix(0, 0), rtt: 40 * time.Millisecond, through: through}
	w.s = newSearch(1420, func() uint64 { w.tokens++; return w.tokens })
	w.s.start(w.now)
	w.flush()
	return w
}

// flush sends what is to be sent.
func (w *wire) flush() {
	for len(w.s.out) > 0 {
		p := w.s.out[0]
		w.s.out = slices.Delete(w.s.out, 0, 1)
		w.sent = append(w.sent, p.size)
		switch {
		case w.refuses != 0 && p.size >= w.refuses:
			w.s.refused(p.size, w.now)
		case p.size > w.through || w.mute || w.lose != nil && w.lose(p.size):
		default:
			w.answers = append(w.answers, answer{w.now.Add(w.rtt), p.token})
		}
	}
}

// pass lets time pass, at least to each event and at most d.
func (w *wire) pass(d time.Duration) {
	end := w.now.Add(d)
	for {
		next, which := end, -1
		if !w.s.wake.IsZero() && w.s.wake.Before(next) {
			next, which = w.s.wake, 0
		}
		if len(w.answers) > 0 && !w.answers[0].at.After(next) {
			next, which = w.answers[0].at, 1
		}
		w.now = next
		switch which {
		case -1:
			return
		case 0:
			w.s.tick(w.now)
		case 1:
			token := w.answers[0].token
			w.answers = w.answers[1:]
			w.s.answered(token, w.now)
		}
		w.flush()
	}
}

// busy lets time pass while large packets are sent all along.
func (w *wire) busy(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		if w.s.watching() {
			w.s.active(w.now)
			w.flush()
		}
		w.pass(10 * time.Millisecond)
	}
}

func (w *wire) want(size int) {
	w.t.Helper()
	if got := w.s.used(); got != size {
		w.t.Errorf("packets of %d bytes, want %d (the last probes are of %v)", got, size, w.sent[max(0, len(w.sent)-30):])
	}
}

// What is found is within some 1.6 % of what the path takes, and never
// more; what a link commonly takes is found exactly.
func TestSearchFindsTheSize(t *testing.T) {
	exact := map[int]int{Base: Base, 1420: 1420, 1436: 1436, 1440: 1436, 8908: 8908, 8920: 8908, 8940: 8924, Max: Max, 65535: Max}
	var sizes []int
	for size := range exact {
		sizes = append(sizes, size)
	}
	for size := Base; size < 1600; size += 7 {
		sizes = append(sizes, size)
	}
	for size := 1600; size < 65535; size += 797 {
		sizes = append(sizes, size)
	}
	for _, through := range sizes {
		for _, refuses := range []bool{false, true} {
			t.Run(fmt.Sprint(through, refuses), func(t *testing.T) {
				w := newWire(t, through)
				if refuses {
					w.refuses = through + 1
				}
				w.pass(time.Minute)
				got := w.s.used()
				if want, ok := exact[through]; ok && got != want {
					t.Errorf("found %d, want %d", got, want)
				}
				if got > through || got < through-max(2*unit, through/63) {
					t.Errorf("found %d on a path for %d, by %v", got, through, w.sent)
				}
				if w.s.fit(got) != got {
					t.Errorf("%d is a size that WireGuard makes larger", got)
				}
				if !w.s.settled() {
					t.Error("the search does not end")
				}
				if n := len(w.sent); n > 60 {
					t.Errorf("%d probes", n)
				}
			})
		}
	}
}

// Where nothing larger gets through, one round trip is enough to know that the
// default does.
func TestDefaultIsConfirmedFirst(t *testing.T) {
	w := newWire(t, 1420)
	if !slices.Equal(w.sent, []int{1420, Base}) {
		t.Errorf("asked for %v first", w.sent)
	}
	if w.s.size != 0 {
		t.Error("a size is in use before anything was heard")
	}
	w.pass(w.rtt)
	if w.s.size != 1420 {
		t.Errorf("after one round trip, %d is in use", w.s.size)
	}
}

// A path that shrinks without a word is noticed within a second and a half, and
// grows again when it may.
func TestBlackHole(t *testing.T) {
	for _, from := range []int{1420, 1436, 8908, Max} {
		w := newWire(t, from)
		w.busy(10 * time.Second)
		w.want(from)
		w.through = 1240
		began := w.now
		for w.s.used() > w.through {
			w.busy(10 * time.Millisecond)
			if w.now.Sub(began) > time.Minute {
				t.Fatalf("the black hole behind %d is not noticed", from)
			}
		}
		if took := w.now.Sub(began); took > 1500*time.Millisecond {
			t.Errorf("it took %v to notice the black hole behind %d", took, from)
		}
		w.busy(10 * time.Second)
		w.want(1232)
		w.through = from
		w.busy(90 * time.Second)
		w.want(from)
	}
}

// Each black hole that comes back lengthens the pause before the next attempt.
func TestBlackHoleThatComesBack(t *testing.T) {
	w := newWire(t, 1300)
	w.busy(time.Hour)
	w.want(1296)
	large := 0
	for _, size := range w.sent {
		if size == 1420 {
			large++
		}
	}
	// At the start three probes, and two of each later attempt: after a
	// minute, then every ten.
	if large < 3+2*4 || large > 3+2*8 {
		t.Errorf("a size that does not get through was asked for %d times in an hour", large)
	}
}

// The other end may know no probes: the default stays, and it is left alone
// soon.
func TestMutePeer(t *testing.T) {
	w := newWire(t, 65535)
	w.mute = true
	w.answers = nil
	w.busy(time.Hour)
	if w.s.size != 0 {
		t.Errorf("a size of %d is in use though nothing was heard", w.s.size)
	}
	w.want(1420)
	if n := len(w.sent); n > 2*3*vainTests {
		t.Errorf("%d probes to an end that answers none", n)
	}
	for _, size := range w.sent {
		if size > 1420 {
			t.Errorf("asked for %d though nothing was heard", size)
		}
	}
	// When it asks something itself, it does know them.
	w.mute = false
	w.s.asked(w.now)
	w.flush()
	w.pass(10 * time.Second)
	w.want(Max)
}

// A path that is down altogether says nothing about sizes.
func TestOutageChangesNothing(t *testing.T) {
	w := newWire(t, 8908)
	w.busy(10 * time.Second)
	w.want(8908)
	for _, d := range []time.Duration{time.Second, 10 * time.Second, 10 * time.Minute} {
		w.mute = true
		w.busy(d)
		w.want(8908)
		w.mute = false
		w.busy(time.Second)
		w.want(8908)
	}
	w.through = 1300
	w.busy(10 * time.Second)
	w.want(1296)
}

// An idle path is not asked anything.
func TestIdlePathIsLeftAlone(t *testing.T) {
	w := newWire(t, 1436)
	w.pass(time.Minute)
	w.want(1436)
	n := len(w.sent)
	w.pass(24 * time.Hour)
	if len(w.sent) != n {
		t.Errorf("%d probes on an idle path", len(w.sent)-n)
	}
}

// While large packets are sent, one probe goes along twice a second, and no
// more.
func TestConfirmingIsCheap(t *testing.T) {
	w := newWire(t, 1436)
	w.pass(time.Minute)
	n := len(w.sent)
	w.busy(10 * time.Second)
	if got := len(w.sent) - n; got < 15 || got > 20 {
		t.Errorf("%d probes in 10 s", got)
	}
}

// Loss makes nobody believe in a black hole, not even three packets in a hundred.
func TestLossIsNoBlackHole(t *testing.T) {
	w := newWire(t, 8908)
	w.pass(time.Minute)
	rng := rand.New(rand.NewPCG(1, 1))
	w.lose = func(int) bool { return rng.IntN(100) < 3 }
	for range 600 {
		w.busy(time.Second)
		w.want(8908)
	}
}

// An answer to the large probe that comes after that to the small one, or rounds
// later, still counts.
func TestLateAnswers(t *testing.T) {
	s := newSearch(1420, tokens())
	now := time.Unix(0, 0)
	s.start(now)
	first := s.out[0]
	for s.test.lost < 2 {
		small := s.out[len(s.out)-1]
		now = now.Add(40 * time.Millisecond)
		s.answered(small.token, now)
		now = s.wake
		s.tick(now)
	}
	s.answered(first.token, now.Add(time.Millisecond))
	if s.size != 1420 {
		t.Errorf("size %d after a late answer", s.size)
	}
}

func tokens() func() uint64 {
	var n uint64
	return func() uint64 { n++; return n }
}

// The system's refusal counts at once, also of what is in use.
func TestRefusal(t *testing.T) {
	w := newWire(t, 8908)
	w.pass(time.Minute)
	w.want(8908)
	w.refuses, w.through = 1405, 1404
	w.s.refused(w.s.used(), w.now)
	w.want(Base)
	w.flush()
	w.pass(10 * time.Second)
	if got := w.s.used(); got < 1360 || got > 1404 {
		t.Errorf("found %d after a refusal from 1,405 on", got)
	}
	w.s.refused(100, w.now) // not even the base gets out: that is no matter of size
	if got := w.s.used(); got < 1360 {
		t.Errorf("%d after a refusal of 100 bytes", got)
	}
}

// Answers that nobody waits for change nothing.
func TestStrangeAnswers(t *testing.T) {
	w := newWire(t, 1420)
	for token := range uint64(3) {
		w.s.answered(1000+token, w.now)
		w.s.answered(0, w.now)
	}
	if w.s.size != 0 || w.s.spoken {
		t.Error("an answer without a question counts")
	}
	w.pass(time.Minute)
	before := w.s.used()
	for token := range w.tokens + 2 {
		w.s.answered(token, w.now) // all that there were
	}
	w.want(before)
}
