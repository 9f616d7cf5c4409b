//go:build linux

package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/wgexpose/wgexpose/bench/origin"
	"github.com/wgexpose/wgexpose/bench/stats"
)

// Echo measures round trips of small messages, one connection for each target,
// all at the same time.
type Echo struct {
	Targets map[string]string `json:"targets"` // name → address
	Size    int               `json:"size"`    // of a message, in bytes
	// Think is the pause between an answer and the next question. A person
	// and a protocol that waits for a person have one; without it, the two
	// ends never sleep, which hides what waking them costs.
	Think time.Duration `json:"think"`
	For   time.Duration `json:"for"`
}

// EchoResult has the round trips by target.
type EchoResult struct {
	Targets map[string]stats.Latency `json:"targets"`
}

// echoWarmup is how many round trips come before those that count.
const echoWarmup = 20

func (r *runner) echo(ctx context.Context, e Echo) (Answer, error) {
	var mu sync.Mutex // guards what follows
	result := EchoResult{Targets: make(map[string]stats.Latency)}
	var errs []error
	used, err := r.begin()
	if err != nil {
		return Answer{}, err
	}
	var wg sync.WaitGroup
	for name, addr := range e.Targets {
		wg.Go(func() {
			samples, err := r.roundTrips(ctx, addr, e)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				errs = append(errs, fmt.Errorf("load: echo through %s: %w", name, err))
			}
			result.Targets[name] = stats.Summarize(samples)
		})
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return Answer{}, err
	}
	usage, err := used.end()
	return Answer{Echo: &result, Usage: usage}, err
}

func (r *runner) roundTrips(ctx context.Context, addr string, e Echo) ([]time.Duration, error) {
	conn, err := r.dial(ctx, addr)
	if err != nil {
		return nil, err
	}
	defer abort(conn)
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := conn.Write([]byte{origin.Echo}); err != nil {
		return nil, err
	}
	var samples []time.Duration
	question, answer := make([]byte, e.Size), make([]byte, e.Size)
	end := time.Now().Add(e.For)
	for i := 0; i <= echoWarmup || time.Now().Before(end); i++ {
		for k := range question {
			question[k] = byte(i + k)
		}
		start := time.Now()
		if err := ask(conn, question, answer); err != nil {
			return nil, err
		}
		if i >= echoWarmup {
			samples = append(samples, time.Since(start))
		}
		time.Sleep(e.Think)
	}
	return samples, nil
}

// stuck is after how long an answer is not expected any more.
const stuck = 20 * time.Second

// ask sends a question and checks that it comes back.
func ask(conn net.Conn, question, answer []byte) error {
	if err := conn.SetDeadline(time.Now().Add(stuck)); err != nil {
		return err
	}
	if _, err := conn.Write(question); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if !bytes.Equal(question, answer) {
		return errors.New("what came back is not what was sent")
	}
	return nil
}
