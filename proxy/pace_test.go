package proxy

import (
	"errors"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// step is a pause of the visitor and what it sends then.
type step struct {
	after time.Duration
	bytes int
}

func repeat(n int, s step) []step {
	steps := make([]step, n)
	for i := range steps {
		steps[i] = s
	}
	return steps
}

// The clock of these tests is not the real one: see testing/synctest.
func TestPace(t *testing.T) {
	for name, test := range map[string]struct {
		length int64 // -1: unknown
		steps  []step
		slow   bool
	}{
		"at once":                          {10, []step{{0, 10}}, false},
		"within the wait":                  {10, []step{{59 * time.Second, 10}}, false},
		"silent":                           {10, []step{{61 * time.Second, 10}}, true},
		"silent in the middle":             {10, []step{{0, 5}, {61 * time.Second, 5}}, true},
		"a slow line":                      {1 << 20, repeat(256, step{50 * time.Second, 4 << 10}), false},
		"a byte now and then":              {1 << 20, repeat(100, step{50 * time.Second, 1}), true},
		"bytes that come steadily":         {1 << 20, repeat(10000, step{10 * time.Millisecond, 1}), false},
		"the least that is enough":         {64 << 10, repeat(64, step{14 * time.Second, 1 << 10}), false},
		"less than that":                   {64 << 10, repeat(64, step{20 * time.Second, 1 << 10}), true},
		"unknown: silent for minutes":      {-1, repeat(20, step{9 * time.Minute, 1}), false},
		"unknown: silent for too long":     {-1, []step{{0, 1}, {11 * time.Minute, 1}}, true},
		"unknown: nothing for a long time": {-1, []step{{11 * time.Minute, 1}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				pr, pw := io.Pipe()
				u := newUpload(&http.Request{Body: pr, ContentLength: test.length})
				u.pace(bodyWait, streamWait, func() { pr.CloseWithError(errors.New("interrupted")) })
				sent := make(chan struct{})
				go func() {
					defer close(sent)
					for _, s := range test.steps {
						time.Sleep(s.after)
						if _, err := pw.Write(make([]byte, s.bytes)); err != nil {
							return
						}
					}
					pw.Close()
				}()
				_, err := io.Copy(io.Discard, u)
				if errors.Is(err, errSlow) != test.slow || (err != nil) != test.slow || u.tooSlowEnded() != test.slow {
					t.Errorf("%v", err)
				}
				u.anyPace()
				pr.Close()
				<-sent
			})
		})
	}
}

// An upstream that does not read on is no fault of the visitor's, and once the
// answer has begun silence is none either.
func TestPaceCountsTheVisitorAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		pr, pw := io.Pipe()
		u := newUpload(&http.Request{Body: pr, ContentLength: 3})
		u.pace(bodyWait, streamWait, func() { t.Error("interrupted") })
		go func() {
			for range 2 {
				if _, err := pw.Write([]byte("a")); err != nil {
					t.Error(err)
				}
			}
			time.Sleep(24 * time.Hour)
			if _, err := pw.Write([]byte("a")); err != nil {
				t.Error(err)
			}
		}()
		b := make([]byte, 1)
		for range 2 {
			time.Sleep(time.Hour)
			if _, err := u.Read(b); err != nil {
				t.Error(err)
			}
		}
		u.anyPace()
		if n, err := u.Read(b); n != 1 || err != nil {
			t.Errorf("%d %v", n, err)
		}
	})
}
