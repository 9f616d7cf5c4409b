package inspect

import (
	"sync"
	"time"
)

const (
	// rushTime is how soon the ring must be turned over for a rush: nobody has
	// found an exchange in a list and opened it by then.
	rushTime = 2 * time.Second
	// rushLimit is how many bytes of each body are kept in one.
	rushLimit = 16 << 10
	// rushWhy tells whoever looks at such a body.
	rushWhy = "so much came at once that nothing would have been kept for 2 seconds"
)

// rush tells when so much comes that the ring would be turned over within
// rushTime. To keep all of each body is then work for nobody: the copies go through
// all of the ring's memory, and what the processors had in their caches is lost. So
// only the beginning of bodies is kept until it is over. Whether a rush
// goes on depends on what comes, and not on how much of it is kept.
type rush struct {
	full int64 // bytes that turn the ring over
	most int   // bytes that are kept of a body otherwise

	mu    sync.Mutex // guards what follows
	since time.Time
	came  int64 // bytes since then
	until time.Time
}

// note counts bytes that the ring takes, or would if bodies were not kept short.
func (r *rush) note(n int, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at.Sub(r.since) > rushTime {
		r.since, r.came = at, 0
	}
	r.came += int64(n)
	if r.came >= r.full {
		r.since, r.came = at, 0
		r.until = at.Add(rushTime)
	}
}

// on tells whether there is a rush.
func (r *rush) on(at time.Time) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return at.Before(r.until)
}

// limit is that of the bodies of an exchange that begins now.
func (r *rush) limit(at time.Time) bodyLimit {
	if r.on(at) && rushLimit < r.most {
		return bodyLimit{rushLimit, true}
	}
	return bodyLimit{bytes: r.most}
}

// bodyLimit is how many bytes of a body are kept.
type bodyLimit struct {
	bytes int
	rush  bool // it is that of a rush
}
