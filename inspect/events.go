package inspect

import (
	"encoding/json"
	"net/http"
	"time"
)

const (
	// eventsEvery is how often changes are sent at most: faster than an eye,
	// and slow enough for a browser at thousands of requests per second.
	eventsEvery = 100 * time.Millisecond
	// eventsAlive is how often a line is sent when there is nothing to say,
	// so that a page that has gone is noticed.
	eventsAlive = 15 * time.Second
	// eventsWrite is how long a page may take to accept an event.
	eventsWrite = 10 * time.Second
)

// events streams changes:
//
//	event: requests   data: [Summary, …]   these are new or changed
//	event: cleared    data: {}             all were forgotten
//	event: reload     data: {}             too much has changed: list again
func (s *server) events(w http.ResponseWriter, r *http.Request) {
	watcher := s.Watch()
	defer watcher.Close()
	out := http.NewResponseController(w)
	send := func(b []byte) bool {
		if err := out.SetWriteDeadline(time.Now().Add(eventsWrite)); err != nil {
			return false
		}
		_, err := w.Write(b)
		return err == nil && out.Flush() == nil
	}
	// The server's read deadline would end the stream.
	if err := out.SetReadDeadline(time.Time{}); err != nil {
		refuse(w, http.StatusInternalServerError, "internal", err.Error())
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	if !send([]byte(": connected\nretry: 1000\n\n")) {
		return
	}
	alive := time.NewTicker(eventsAlive)
	defer alive.Stop()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-r.Context().Done():
			return
		case <-alive.C:
			if !send([]byte(":\n\n")) {
				return
			}
		case _, open := <-watcher.Wake():
			if !open || !send(newsEvents(watcher.Take())) {
				return
			}
			pause.Reset(eventsEvery)
			select {
			case <-pause.C:
			case <-r.Context().Done():
				return
			}
		}
	}
}

func newsEvents(n News) []byte {
	var b []byte
	if n.Cleared {
		b = append(b, "event: cleared\ndata: {}\n\n"...)
	}
	if n.Missed {
		return append(b, "event: reload\ndata: {}\n\n"...)
	}
	if len(n.Exchanges) == 0 {
		return b
	}
	list, err := json.Marshal(n.Exchanges)
	if err != nil { // a Summary has nothing that JSON has not
		return append(b, "event: reload\ndata: {}\n\n"...)
	}
	b = append(b, "event: requests\ndata: "...)
	b = append(b, list...)
	return append(b, "\n\n"...)
}
