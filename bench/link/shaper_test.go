//go:build linux

package link

import (
	"encoding/binary"
	"slices"
	"testing"
	"time"
)

// arrival is a packet that came out of a shaper.
type arrival struct {
	id uint32
	at time.Duration
}

// numbered makes the n-th packet of a test, of size bytes.
func numbered(n, size int) []byte {
	p := make([]byte, size)
	binary.BigEndian.PutUint32(p, uint32(n))
	return p
}

// drain takes all packets out of s, at the very moment that each is due.
func drain(t *testing.T, s *shaper) []arrival {
	t.Helper()
	var out []arrival
	for {
		at, ok := s.next()
		if !ok {
			return out
		}
		if _, early := s.pop(at - 1); early {
			t.Fatalf("a packet came out before %v, when it is due", at)
		}
		p, ok := s.pop(at)
		if !ok {
			t.Fatalf("no packet at %v, when one is due", at)
		}
		out = append(out, arrival{binary.BigEndian.Uint32(p), at})
		s.recycle(p)
	}
}

// pushed sends n packets of size bytes, one each gap.
func pushed(c Conditions, seed uint64, n, size int, gap time.Duration) *shaper {
	s := newShaper(seed, AtoB)
	s.cond = c
	for i := range n {
		s.push(time.Duration(i)*gap, numbered(i, size))
	}
	return s
}

func TestDelayIsAddedToEachPacket(t *testing.T) {
	const delay, gap = 20 * time.Millisecond, 130 * time.Microsecond
	got := drain(t, pushed(Conditions{Delay: delay}, 1, 500, 100, gap))
	if len(got) != 500 {
		t.Fatalf("%d of 500 packets arrived", len(got))
	}
	for i, a := range got {
		if want := delay + time.Duration(i)*gap; a.id != uint32(i) || a.at != want {
			t.Fatalf("arrival %d is packet %d at %v, want packet %d at %v", i, a.id, a.at, i, want)
		}
	}
}

func TestRateSpacesPackets(t *testing.T) {
	// 1,000 bytes at 8 Mbit/s are a millisecond each.
	c := Conditions{Rate: 8e6, Queue: 1 << 20, Delay: 5 * time.Millisecond}
	s := pushed(c, 1, 100, 1000, 0) // all at once
	for i, a := range drain(t, s) {
		if want := time.Duration(i+1)*time.Millisecond + c.Delay; a.id != uint32(i) || a.at != want {
			t.Fatalf("arrival %d is packet %d at %v, want %d at %v", i, a.id, a.at, i, want)
		}
	}
	// An idle wire saves nothing up: the next two leave one after the other.
	s.push(time.Second, numbered(0, 1000))
	s.push(time.Second, numbered(1, 1000))
	got := drain(t, s)
	for i, a := range got {
		if want := time.Second + time.Duration(i+1)*time.Millisecond + c.Delay; a.at != want {
			t.Errorf("after a pause packet %d arrives at %v, want %v", i, a.at, want)
		}
	}
}

func TestQueueDropsWhatFindsNoRoom(t *testing.T) {
	// One packet on the wire and ten behind it fit; the clock stands still,
	// so the one on the wire counts as a whole.
	c := Conditions{Rate: 8e6, Queue: 10_000}
	s := pushed(c, 1, 50, 1000, 0)
	got := drain(t, s)
	if len(got) != 10 || s.stats.Overflowed != 40 || s.stats.DroppedBytes != 40_000 || s.stats.Forwarded != 10 {
		t.Fatalf("%d packets arrived, %+v; want 10, and 40 dropped", len(got), s.stats)
	}
	for i, a := range got {
		if a.id != uint32(i) {
			t.Fatalf("arrival %d is packet %d: the queue must drop at its tail", i, a.id)
		}
	}
	// Half of it has left after 5 ms, and makes room for as many.
	s = pushed(c, 1, 10, 1000, 0)
	for i := range 50 {
		s.push(5*time.Millisecond, numbered(10+i, 1000))
	}
	if s.stats.Forwarded != 15 {
		t.Errorf("%d packets were taken, want 10 and 5 more after 5 ms", s.stats.Forwarded)
	}
}

func TestOverloadIsCarriedAtTheRate(t *testing.T) {
	// Offered 100 Mbit/s for a second, with room for 10 ms.
	c := Conditions{Rate: 50e6, Queue: 62_500}
	s := pushed(c, 1, 12_500, 1000, 80*time.Microsecond)
	got := drain(t, s)
	carried := float64(len(got)) * 8000 / got[len(got)-1].at.Seconds()
	if carried < 0.999*c.Rate || carried > 1.001*c.Rate {
		t.Errorf("carried %.0f bit/s of %.0f", carried, c.Rate)
	}
}

// The generator is seeded, so these fractions are the same in every run; the
// bounds are five standard deviations of the binomial distribution.
func TestFractions(t *testing.T) {
	const n = 20_000
	within := func(what string, got uint64, p float64) {
		t.Helper()
		mean, deviation := n*p, n*p*(1-p)
		if d := float64(got) - mean; d*d > 25*deviation {
			t.Errorf("%s: %d of %d packets, want about %.0f", what, got, n, mean)
		}
	}
	for _, p := range []float64{0, 0.001, 0.01, 0.5, 1} {
		s := pushed(Conditions{Loss: p}, 7, n, 64, time.Microsecond)
		within("lost", s.stats.Lost, p)
		if got := len(drain(t, s)); uint64(got) != n-s.stats.Lost {
			t.Errorf("%d arrived and %d were lost of %d", got, s.stats.Lost, n)
		}
		s = pushed(Conditions{Duplicate: p}, 7, n, 64, time.Microsecond)
		within("duplicated", s.stats.Duplicated, p)
		if got := len(drain(t, s)); uint64(got) != n+s.stats.Duplicated {
			t.Errorf("%d arrived with %d copies of %d", got, s.stats.Duplicated, n)
		}
		s = pushed(Conditions{Reorder: p, HoldBack: time.Millisecond}, 7, n, 64, time.Microsecond)
		within("held back", s.stats.Held, p)
	}
}

func TestDuplicatesArriveInARow(t *testing.T) {
	got := drain(t, pushed(Conditions{Duplicate: 1, Delay: time.Millisecond}, 1, 100, 64, 0))
	for i, a := range got {
		if a.id != uint32(i/2) || a.at != time.Millisecond {
			t.Fatalf("arrival %d is packet %d at %v", i, a.id, a.at)
		}
	}
}

func TestReorderHoldsBackAndLosesNothing(t *testing.T) {
	const gap = 100 * time.Microsecond
	c := Conditions{Reorder: 0.1, HoldBack: 10 * gap, Delay: 50 * gap}
	s := pushed(c, 3, 10_000, 64, gap)
	got := drain(t, s)
	if len(got) != 10_000 {
		t.Fatalf("%d of 10,000 arrived", len(got))
	}
	var held uint64
	last := -1
	seen := make(map[uint32]bool)
	for _, a := range got {
		if seen[a.id] {
			t.Fatalf("packet %d arrived twice", a.id)
		}
		seen[a.id] = true
		sent := time.Duration(a.id) * gap
		switch a.at - sent {
		case c.Delay:
			if int(a.id) < last {
				t.Fatalf("packet %d was not held back and came after %d", a.id, last)
			}
			last = int(a.id)
		case c.Delay + c.HoldBack:
			held++
		default:
			t.Fatalf("packet %d took %v", a.id, a.at-sent)
		}
	}
	if held != s.stats.Held || held == 0 {
		t.Errorf("%d packets came late, and %d were held back", held, s.stats.Held)
	}
}

func TestTooBigAndDown(t *testing.T) {
	s := newShaper(1, AtoB)
	s.cond = Conditions{MTU: 1300}
	s.push(0, numbered(0, 1300))
	s.push(0, numbered(1, 1301))
	s.cond = Conditions{Down: true}
	s.push(0, numbered(2, 64))
	s.cond = Conditions{}
	s.push(0, numbered(3, 64))
	var ids []uint32
	for _, a := range drain(t, s) {
		ids = append(ids, a.id)
	}
	if !slices.Equal(ids, []uint32{0, 3}) {
		t.Errorf("packets %v arrived, want 0 and 3", ids)
	}
	want := Stats{Seen: 4, SeenBytes: 1300 + 1301 + 64 + 64, Forwarded: 2, TooBig: 1, DroppedBytes: 1301, Lost: 1}
	if s.stats != want {
		t.Errorf("stats %+v, want %+v", s.stats, want)
	}
}

// fates lists which packets arrive.
func fates(t *testing.T, s *shaper) []uint32 {
	var ids []uint32
	for _, a := range drain(t, s) {
		ids = append(ids, a.id)
	}
	slices.Sort(ids)
	return ids
}

func TestSeedDecidesAlone(t *testing.T) {
	base := fates(t, pushed(Conditions{Loss: 0.1}, 42, 5000, 64, time.Millisecond))
	if again := fates(t, pushed(Conditions{Loss: 0.1}, 42, 5000, 64, 0)); !slices.Equal(base, again) {
		t.Error("other timing, other losses")
	}
	c := Conditions{Loss: 0.1, Reorder: 0.5, HoldBack: time.Second, Delay: time.Hour}
	if again := fates(t, pushed(c, 42, 5000, 64, time.Millisecond)); !slices.Equal(base, again) {
		t.Error("reordering shifted the losses")
	}
	if other := fates(t, pushed(Conditions{Loss: 0.1}, 43, 5000, 64, time.Millisecond)); slices.Equal(base, other) {
		t.Error("another seed lost the same packets")
	}
	back := newShaper(42, BtoA)
	back.cond = Conditions{Loss: 0.1}
	for i := range 5000 {
		back.push(0, numbered(i, 64))
	}
	if other := fates(t, back); slices.Equal(base, other) {
		t.Error("both directions lost the same packets")
	}
}

func TestRecycledBuffersDoNotMix(t *testing.T) {
	s := newShaper(1, AtoB)
	s.push(0, numbered(1, 100))
	p, _ := s.pop(0)
	s.recycle(p)
	s.push(0, numbered(2, 8))
	s.push(0, numbered(3, 2000))
	for _, want := range []struct {
		id   uint32
		size int
	}{{2, 8}, {3, 2000}} {
		p, ok := s.pop(0)
		if !ok || len(p) != want.size || binary.BigEndian.Uint32(p) != want.id {
			t.Errorf("packet %x of %d bytes, want %d of %d", p[:4], len(p), want.id, want.size)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, bad := range []Conditions{
		{Loss: -0.1}, {Loss: 1.1}, {Duplicate: 2}, {Reorder: -1, HoldBack: 1}, {Reorder: 0.1}, {Delay: -1}, {Rate: -1}, {Queue: -1}, {MTU: -1},
	} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
	if err := (Conditions{Loss: 1, Reorder: 1, HoldBack: 1, Rate: 1}).Validate(); err != nil {
		t.Error(err)
	}
}
