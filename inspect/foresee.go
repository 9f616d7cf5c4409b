package inspect

import (
	"bytes"
	"strings"
	"sync/atomic"
	"time"
)

// foresight tells a queue which bytes of an answer will not be wanted, before the
// parser comes to say so: at a few milliseconds' delay all of 100 KiB has passed by
// then, copied. It looks at the heads of long answers in a rush alone, and only where
// it is certain; else all is copied as ever.
type foresight struct {
	rush *rush // nil: nothing is foreseen

	// head is where an answer begins, as far as the parser has come.
	head atomic.Int64

	// Guarded by queue.mu: where the answer that was foreseen ends, so that the next
	// begins there, and bytes that are not copied up to there.
	next, spared int64
}

// look returns how many bytes of p are copied before those that nobody wants. They
// begin at an offset among all answers. ok is false where that is not certain.
func (f *foresight) look(p []byte, offset int64, now time.Time) (n int, ok bool) {
	if f.rush == nil || len(p) <= rushLimit || (offset != f.head.Load() && offset != f.next) {
		return 0, false
	}
	limit := f.rush.limit(now)
	if !limit.rush {
		return 0, false
	}
	head, body, ok := longAnswer(p)
	if !ok {
		return 0, false
	}
	f.next = offset + int64(head) + body
	if n = head + limit.bytes; n >= len(p) || body <= int64(limit.bytes) {
		return 0, false
	}
	f.spared = f.next
	return n, true
}

// longAnswer is how long the head is that p begins with, and the body behind it. ok is
// false where the answer is anything but a plain one whose length it says.
func longAnswer(p []byte) (head int, body int64, ok bool) {
	if !bytes.HasPrefix(p, []byte("HTTP/1.")) {
		return 0, 0, false
	}
	head = headEnd(p[:rushLimit], 0)
	if head < 0 || bytes.HasPrefix(p[head:], []byte("HTTP/1.")) {
		// The latter is the next answer, if this is one to HEAD.
		return 0, 0, false
	}
	line, rest := cutLine(string(p[:head]))
	_, status, _, err := statusLine(line)
	if err != nil || status < 200 || status == 204 || status == 304 {
		return 0, 0, false
	}
	list, err := parseFields(rest)
	if err != nil {
		return 0, 0, false
	}
	contentType := list.find("Content-Type")
	if strings.HasPrefix(contentType, "application/grpc") || isType(contentType, "text/event-stream") {
		return 0, 0, false // all of it is looked at
	}
	how, body, err := list.bodyFraming(toVisitor)
	return head, body, err == nil && how == framedByLength && body < 1<<40
}
